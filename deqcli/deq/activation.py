"""What an activation phi is: a class that has all of it, and what can be had from value and slope alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

ENTRIES_PER_BLOCK = 2**16
"""That are solved for at a time by `resolvent`, so that no point is copied."""

MOST_ITERATIONS, SINGLE = 100, 4
"""Of a resolvent; and bytes of the least precision that it is solved in."""


class Activation(ABC):
    """An elementwise phi, with all that training, theory and solvers ask of it."""

    name: str
    """The word in `model.activation`."""
    lipschitz: float
    """L = sup |phi'|: |phi(s) - phi(t)| <= L |s - t|. Rounded up."""
    curvature: float | None
    """sup |phi''|, rounded up; None where phi' jumps."""
    at_zero: float = 0.0
    """phi(0)."""
    odd: bool = False
    """phi(-t) = -phi(t)."""
    nondecreasing: bool
    """s <= t gives phi(s) <= phi(t)."""
    homogeneous: bool = False
    """phi(c t) = c phi(t) for every c > 0."""

    @abstractmethod
    def value(self, preactivation: Tensor, out: Tensor) -> None:
        """Write phi(preactivation) into `out`, elementwise; same shape, any precision, any device.

        Allocates nothing of this size, and is as exact as a change of the pre-activation by a few roundings.
        """

    @abstractmethod
    def slope(self, preactivation: Tensor, out: Tensor) -> None:
        """Write phi'(preactivation) into `out`, elementwise; at a kink one of the slopes beside it."""

    def dual(self, covariance: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """E[phi(u_i) phi(v_j)] of every pair, Gaussian of mean 0 with variances left_i, right_j and this covariance.

        By expansion, for a phi that is smooth; others have a closed form.
        Shapes: covariance (k, n), left (k,) and right (n,), both positive; result (k, n); all float64.
        Raises: NumericalFailure where the expansion does not reach 1e-10.
        """
        from deqcli.deq.hermite import expectation

        return expectation(self.name, self.value, covariance, left, right)

    def dual_slope(self, covariance: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """E[phi'(u_i) phi'(v_j)] of every pair, of the same shapes; raises as `dual` does."""
        from deqcli.deq.hermite import expectation

        return expectation(self.name, self.slope, covariance, left, right)

    def coefficients(self, variance: float, count: int) -> Tensor:
        """a_k = E[phi(sqrt(variance) x) h_k(x)] of a normal x, for k < count; h_k is He_k/sqrt(k!). Float64.

        E[phi(u) phi(v)] = sum_k a_k(p) a_k(q) c^k. Source: O'Donnell 2014, section 11.2; Truong 2023, section 2.
        Shapes: (count,). A phi that has kinks has them at 0, or the coefficients are not exact.
        """
        from deqcli.deq.hermite import coefficients

        return coefficients(self.value, variance, count)

    def resolvent(self, v: Tensor, alpha: float, out: Tensor) -> None:
        """Write z = phi(t) with alpha t + (1 - alpha) phi(t) = v into `out`, elementwise; 0 < alpha <= 1.

        The proximal step of monotone splitting, for a nondecreasing phi with L <= 1; phi(v) for alpha = 1.
        Newton's iteration, and bisection where it leaves what encloses t; to rounding. Shapes: (k, ...).
        Source: Winston and Kolter 2020, section 3.3.
        """
        import torch

        if alpha == 1:
            self.value(v, out)
            return
        rows = max(1, ENTRIES_PER_BLOCK * len(v) // max(1, v.numel()))
        for block, image in zip(torch.split(v, rows), torch.split(out, rows), strict=True):
            image.copy_(self._resolved(block.float() if block.element_size() < SINGLE else block, alpha))

    def _resolved(self, v: Tensor, alpha: float) -> Tensor:
        """phi(t). f(t) = alpha t + (1 - alpha) phi(t) has a slope between alpha and max(L, 1), and so t is enclosed."""
        import torch

        t = v - (1 - alpha) * self.at_zero
        near, far = t / max(self.lipschitz, 1.0), t / alpha
        low, high = torch.minimum(near, far), torch.maximum(near, far)
        image, slope, resolution = torch.empty_like(t), torch.empty_like(t), 2 * torch.finfo(t.dtype).eps
        for _ in range(MOST_ITERATIONS):
            self.value(t, image)
            excess = alpha * t + (1 - alpha) * image - v
            if not (excess.abs() > resolution * (alpha * t.abs() + (1 - alpha) * image.abs() + v.abs())).any():
                break
            self.slope(t, slope)
            low, high = torch.where(excess < 0, t, low), torch.where(excess > 0, t, high)
            step = t - excess / (alpha + (1 - alpha) * slope)
            t = torch.where((step < low) | (step > high), (low + high) / 2, step)
        return image
