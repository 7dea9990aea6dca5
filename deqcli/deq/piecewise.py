"""Activations of two pieces that meet at 0: ReLU, leaky ReLU and ELU; and the identity."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from deqcli.deq.activation import Activation

if TYPE_CHECKING:
    from torch import Tensor


class ReLU(Activation):
    """phi(t) = max(t, 0), with slope 1 at 0 (I{t >= 0}, as in Ling et al. 2023, section 2.1)."""

    name = "relu"
    lipschitz = 1.0
    curvature = None
    nondecreasing = True
    homogeneous = True

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
        from deqcli.deq.hermite import cosines

        scale = left.sqrt()[:, None] * right.sqrt()
        return _arc_cosine(cosines(covariance, scale), scale)

    def dual_slope(self, covariance: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """(pi - arccos c)/(2 pi). Source: Cho and Saul 2009, eq. 3 with n = 0."""
        from deqcli.deq.hermite import cosines

        c = cosines(covariance, left.sqrt()[:, None] * right.sqrt())
        return c.arccos_().neg_().add_(math.pi).div_(2 * math.pi)

    def resolvent(self, v: Tensor, alpha: float, out: Tensor) -> None:
        self.value(v, out)


def _arc_cosine(c: Tensor, scale: Tensor) -> Tensor:
    angle = c.arccos().neg_().add_(math.pi).mul_(c)
    return ((1 - c).mul_(1 + c)).sqrt_().add_(angle).mul_(scale).div_(2 * math.pi)


class LeakyReLU(ReLU):
    """phi(t) = t for t >= 0 and b t below, b = 0.01; (1 - b) relu(t) + b t, with slope 1 at 0."""

    name = "leaky_relu"
    leak = 0.01

    def value(self, preactivation: Tensor, out: Tensor) -> None:
        _leaky(preactivation, self.leak, out)

    def slope(self, preactivation: Tensor, out: Tensor) -> None:
        super().slope(preactivation, out)
        out.clamp_min_(self.leak)

    def dual(self, covariance: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """(1 - b)^2 E[relu relu] + b covariance, since E[relu(u) v] is half of the covariance."""
        return super().dual(covariance, left, right).mul_((1 - self.leak) ** 2).add_(covariance, alpha=self.leak)

    def dual_slope(self, covariance: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """(1 - b)^2 E[relu' relu'] + b, since E[relu'(u)] is 1/2."""
        return super().dual_slope(covariance, left, right).mul_((1 - self.leak) ** 2).add_(self.leak)

    def resolvent(self, v: Tensor, alpha: float, out: Tensor) -> None:
        """z = v for v >= 0, and b v/(alpha + (1 - alpha) b) below."""
        _leaky(v, self.leak / (alpha + (1 - alpha) * self.leak), out)


def _leaky(t: Tensor, leak: float, out: Tensor) -> None:
    import torch

    torch.ops.aten.leaky_relu.out(t, leak, out=out)


class Identity(Activation):
    """phi(t) = t: the linear network."""

    name = "identity"
    lipschitz = 1.0
    curvature = 0.0
    odd = nondecreasing = homogeneous = True

    def value(self, preactivation: Tensor, out: Tensor) -> None:
        out.copy_(preactivation)

    def slope(self, preactivation: Tensor, out: Tensor) -> None:
        out.fill_(1.0)

    def dual(self, covariance: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """The covariance itself."""
        return covariance.clone()

    def dual_slope(self, covariance: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """1."""
        return covariance.new_ones(covariance.shape)

    def resolvent(self, v: Tensor, alpha: float, out: Tensor) -> None:
        self.value(v, out)


class ELU(Activation):
    """phi(t) = t for t >= 0 and e^t - 1 below; phi'' jumps, so that its expansion is too slow where |c| is near 1."""

    name = "elu"
    lipschitz = 1.0
    curvature = 1.0
    nondecreasing = True
    near, nodes = 0.9, 40

    def value(self, preactivation: Tensor, out: Tensor) -> None:
        import torch

        torch.ops.aten.elu.out(preactivation, out=out)

    def slope(self, preactivation: Tensor, out: Tensor) -> None:
        import torch

        torch.clamp_max(preactivation, 0.0, out=out)
        out.exp_()

    def dual(self, covariance: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """By expansion, and for |c| >= 0.9 the sum over the quadrants of the signs of u and v.

        Both positive, that of the ReLU; u > 0 > v, with h(v) = e^v - 1, sqrt(p/(2 pi)) E[h(v) 1{v < 0} | u = 0] +
        r E[e^v 1{v < 0 < u}], integrated by parts; both negative, the products of the h.
        """
        from deqcli.deq.hermite import expectation

        return expectation(self.name, self.value, covariance, left, right, self._dual_near_one, self.near)

    def dual_slope(self, covariance: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """Of the same quadrants: 1, e^u, e^v and e^(u + v)."""
        from deqcli.deq.hermite import expectation

        return expectation(self.name, self.slope, covariance, left, right, self._slope_near_one, self.near)

    def _dual_near_one(self, c: Tensor, p: Tensor, q: Tensor) -> Tensor:
        scale, both, of_u, of_v = p.sqrt() * q.sqrt(), *self._both_negative(c, p, q)
        total = _arc_cosine(c, scale) + both - of_u - of_v + (math.pi - c.arccos()) / (2 * math.pi)
        sine_squared = (1 - c) * (1 + c)
        for up, down, tilted in ((p, q, of_v), (q, p, of_u)):
            total += (up / (2 * math.pi)).sqrt() * (_half_mean(down * sine_squared) - 0.5)
            total += c * scale * (_half_mean(down) - tilted)
        return total

    def _slope_near_one(self, c: Tensor, p: Tensor, q: Tensor) -> Tensor:
        both, of_u, of_v = self._both_negative(c, p, q)
        return (math.pi - c.arccos()) / (2 * math.pi) + _half_mean(p) - of_u + _half_mean(q) - of_v + both

    def _both_negative(self, c: Tensor, p: Tensor, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """E[e^(u + v)], E[e^u] and E[e^v], each where u < 0 and v < 0.

        u = -sqrt(p) R cos(x), v = -sqrt(q) R cos(x - w), c = cos w: with R integrated out, the mean over angles x
        from w - pi/2 to pi/2 of G(b) = 1 - b sqrt(pi/2) erfcx(b/sqrt(2)), which neither cancels nor overflows.
        """
        import numpy as np
        import torch

        angle, total = c.arccos(), torch.zeros((3, *c.shape), dtype=c.dtype, device=c.device)
        half = (math.pi - angle) / 2
        for x, weight in zip(*np.polynomial.legendre.leggauss(self.nodes), strict=True):
            a, b = p.sqrt() * (half * x + angle / 2).cos(), q.sqrt() * (half * x - angle / 2).cos()
            tilt = torch.stack([a + b, a, b])
            total += weight * (1 - math.sqrt(math.pi / 2) * tilt * torch.special.erfcx(tilt / math.sqrt(2)))
        both, of_u, of_v = total * half / (2 * math.pi)
        return both, of_u, of_v


def _half_mean(variance: Tensor) -> Tensor:
    """E[e^v 1{v < 0}] = e^(q/2) Phi(-sqrt(q)) of a normal v of this variance q."""
    import torch

    mean: Tensor = torch.special.erfcx((variance / 2).sqrt())
    return mean / 2
