"""Activations phi: value, slope, Lipschitz constant and dual, one class each.

To add one, write a subclass of `Activation` and name it in `ACTIVATIONS`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

PARALLEL = 1 - 2.0**-50
"""Cosine from which two directions are one; samples nearer than 1e-6 radians are refused."""


class Activation(ABC):
    """An elementwise phi with Lipschitz constant L: |phi(s) - phi(t)| <= L |s - t|."""

    name: str
    lipschitz: float

    @abstractmethod
    def value(self, preactivation: Tensor, out: Tensor) -> None:
        """Write phi(preactivation) into `out`, elementwise; same shape."""

    @abstractmethod
    def slope(self, preactivation: Tensor, out: Tensor) -> None:
        """Write phi'(preactivation) into `out`, elementwise; same shape."""

    @abstractmethod
    def dual(self, covariance: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """E[phi(u_i) phi(v_j)] of every pair, Gaussian of mean 0 with variances left_i, right_j and this covariance.

        Shapes: covariance (k, n), left (k,) and right (n,), both positive; result (k, n).
        """

    @abstractmethod
    def dual_slope(self, covariance: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """E[phi'(u_i) phi'(v_j)] of every pair, of the same shapes."""


class ReLU(Activation):
    """phi(t) = max(t, 0), with slope 1 at 0 (I{t >= 0}, as in Ling et al. 2023, section 2.1)."""

    name = "relu"
    lipschitz = 1.0

    def value(self, preactivation: Tensor, out: Tensor) -> None:
        import torch

        torch.clamp_min(preactivation, 0.0, out=out)

    def slope(self, preactivation: Tensor, out: Tensor) -> None:
        import torch

        torch.ge(preactivation, 0.0, out=out)

    def dual(self, covariance: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """sqrt(p_i q_j)/2 Q(c) with c = covariance/sqrt(p_i q_j), Q(c) = (sqrt(1 - c^2) + (pi - arccos c) c) / pi.

        Source: Cho and Saul 2009, eq. 3 with n = 1; Ling et al. 2023, Lemma 3.
        """
        scale = left.sqrt()[:, None] * right.sqrt()
        c = _cosines(covariance, scale)
        angle = c.arccos().neg_().add_(math.pi).mul_(c)
        return ((1 - c).mul_(1 + c)).sqrt_().add_(angle).mul_(scale).div_(2 * math.pi)

    def dual_slope(self, covariance: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """(pi - arccos c)/(2 pi). Source: Cho and Saul 2009, eq. 3 with n = 0."""
        c = _cosines(covariance, left.sqrt()[:, None] * right.sqrt())
        return c.arccos_().neg_().add_(math.pi).div_(2 * math.pi)


def _cosines(covariance: Tensor, scale: Tensor) -> Tensor:
    """covariance/scale, with what rounding leaves between 1 - 1e-15 and 1 put to 1, as on a diagonal; so with -1.

    arccos has no slope there: 1 - 1e-16 would make an error of 1e-8.
    """
    c = covariance / scale
    return c.where(c.abs() < PARALLEL, c.sign())


ACTIVATIONS: dict[str, Activation] = {activation.name: activation for activation in (ReLU(),)}
