"""Activations phi: value, slope, Lipschitz constant and dual, one class each.

To add one, write a subclass of `Activation` and name it in `ACTIVATIONS`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


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
    def dual(self, covariance: Tensor) -> Tensor:
        """E[phi(u) phi(v)] for every pair (i, j), with (u, v) ~ N(0, covariance restricted to i, j).

        Shapes: covariance (n, n), positive semi-definite with a positive diagonal; result (n, n).
        """


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

    def dual(self, covariance: Tensor) -> Tensor:
        """sqrt(q_i q_j)/2 Q(c) with c = q_ij / sqrt(q_i q_j), Q(c) = (sqrt(1 - c^2) + (pi - arccos c) c) / pi.

        Source: Cho and Saul 2009, eq. 3 with n = 1; Ling et al. 2023, Lemma 3.
        """
        deviation = covariance.diagonal().sqrt()
        scale = deviation[:, None] * deviation[None, :]  # (n, n)
        c = (covariance / scale).clamp(-1.0, 1.0)
        return scale / 2 * (((1 - c) * (1 + c)).sqrt() + (math.pi - c.arccos()) * c) / math.pi


ACTIVATIONS: dict[str, Activation] = {activation.name: activation for activation in (ReLU(),)}
