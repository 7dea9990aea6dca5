"""The activations phi that come along: those that are smooth, one class each, and `ACTIVATIONS`, all of them by name.

To add one, write a subclass of `Activation` and name it in `ACTIVATIONS`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from deqcli.deq.activation import Activation
from deqcli.deq.piecewise import ELU, Identity, LeakyReLU, ReLU

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ACTIVATIONS", "Activation"]


class Sin(Activation):
    """phi = sin."""

    name = "sin"
    lipschitz = 1.0
    curvature = 1.0
    odd = True
    nondecreasing = False

    def value(self, preactivation: Tensor, out: Tensor) -> None:
        import torch

        torch.sin(preactivation, out=out)

    def slope(self, preactivation: Tensor, out: Tensor) -> None:
        import torch

        torch.cos(preactivation, out=out)

    def dual(self, covariance: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """e^(-(p + q)/2) sinh r, with e^(|r| - (p + q)/2) in front of the rest, which is at most 1 and cannot overflow.

        Source: E[e^(i u)] = e^(-p/2) of u + v and of u - v.
        """
        size = covariance.abs()
        largest = (size - _half_sums(left, right)).exp_()
        return largest.mul_(size.mul_(-2).expm1_()).mul_(covariance.sign()).mul_(-0.5)

    def dual_slope(self, covariance: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """e^(-(p + q)/2) cosh r, of the same source."""
        half = _half_sums(left, right)
        return (covariance - half).exp_().add_(half.add_(covariance).neg_().exp_()).mul_(0.5)


def _half_sums(left: Tensor, right: Tensor) -> Tensor:
    return (left[:, None] + right) / 2


class Erf(Activation):
    """phi = erf, with slope 2/sqrt(pi) e^(-t^2)."""

    name = "erf"
    lipschitz = 1.1283791670955128
    curvature = 0.9678828980765735
    odd = nondecreasing = True

    def value(self, preactivation: Tensor, out: Tensor) -> None:
        import torch

        torch.erf(preactivation, out=out)

    def slope(self, preactivation: Tensor, out: Tensor) -> None:
        import torch

        torch.mul(preactivation, preactivation, out=out)
        out.neg_().exp_().mul_(2 / math.sqrt(math.pi))

    def dual(self, covariance: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """(2/pi) arcsin(2 r/sqrt((1 + 2 p)(1 + 2 q))), by the arctan, which is exact near 1 too.

        Source: Williams 1997, eq. 11.
        """
        return (2 * covariance).atan2_(_remainder(covariance, left, right)).mul_(2 / math.pi)

    def dual_slope(self, covariance: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """(4/pi)/sqrt((1 + 2 p)(1 + 2 q) - 4 r^2), the derivative of the dual by r."""
        return _remainder(covariance, left, right).reciprocal_().mul_(4 / math.pi)


def _remainder(covariance: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """sqrt((1 + 2 p)(1 + 2 q) - 4 r^2) = sqrt(1 + 2 p + 2 q + 4 p q (1 - c)(1 + c)), without cancellation at c = 1."""
    from deqcli.deq.hermite import cosines

    scale = left.sqrt()[:, None] * right.sqrt()
    c = cosines(covariance, scale)
    determinant = (1 - c).mul_(c.add_(1)).mul_(scale.square_())
    return determinant.add_(_half_sums(left, right)).mul_(4).add_(1).sqrt_()


def _one(like: Tensor) -> Tensor:
    """The gradient that turns a backward into a slope, of the shape of a point and the size of a number."""
    return like.new_ones(()).expand_as(like)


class Tanh(Activation):
    """phi = tanh."""

    name = "tanh"
    lipschitz = 1.0
    curvature = 0.769800358919501
    odd = nondecreasing = True

    def value(self, preactivation: Tensor, out: Tensor) -> None:
        import torch

        torch.tanh(preactivation, out=out)

    def slope(self, preactivation: Tensor, out: Tensor) -> None:
        import torch

        self.value(preactivation, out)
        torch.ops.aten.tanh_backward.grad_input(_one(out), out, grad_input=out)


class Sigmoid(Activation):
    """phi(t) = 1/(1 + e^-t), with slope phi (1 - phi)."""

    name = "sigmoid"
    lipschitz = 0.25
    curvature = 0.09622504486493763
    at_zero = 0.5
    nondecreasing = True

    def value(self, preactivation: Tensor, out: Tensor) -> None:
        import torch

        torch.sigmoid(preactivation, out=out)

    def slope(self, preactivation: Tensor, out: Tensor) -> None:
        import torch

        self.value(preactivation, out)
        torch.ops.aten.sigmoid_backward.grad_input(_one(out), out, grad_input=out)


class Softplus(Activation):
    """phi(t) = log(1 + e^t), with the sigmoid for its slope."""

    name = "softplus"
    lipschitz = 1.0
    curvature = 0.25
    at_zero = math.log(2)
    nondecreasing = True
    threshold = 40
    """phi(t) - t is e^-40 = 4e-18 here, less than t rounds; 20, which is usual, would lose 2e-9."""

    def value(self, preactivation: Tensor, out: Tensor) -> None:
        import torch

        torch.ops.aten.softplus.out(preactivation, 1, self.threshold, out=out)

    def slope(self, preactivation: Tensor, out: Tensor) -> None:
        import torch

        torch.sigmoid(preactivation, out=out)


class GELU(Activation):
    """phi(t) = t Phi(t) with the normal distribution Phi(t) = erfc(-t/sqrt(2))/2. Source: Hendrycks and Gimpel 2016.

    Not torch's own gelu, which keeps no digits in the tail, and on a CPU writes to the wrong places of an `out` with
    strides (torch 2.13, float32 and bfloat16).
    """

    name = "gelu"
    lipschitz = 1.128904145185155
    curvature = 0.7978845608028654
    nondecreasing = False

    def value(self, preactivation: Tensor, out: Tensor) -> None:
        import torch

        torch.mul(preactivation, -math.sqrt(0.5), out=out)
        torch.erfc(out, out=out)
        out.mul_(preactivation).mul_(0.5)

    def slope(self, preactivation: Tensor, out: Tensor) -> None:
        import torch

        torch.ops.aten.gelu_backward.grad_input(_one(out), preactivation, grad_input=out)


class SiLU(Activation):
    """phi(t) = t/(1 + e^-t). Source: Elfwing, Uchibe and Doya 2018."""

    name = "silu"
    lipschitz = 1.099839320128867
    curvature = 0.5
    nondecreasing = False

    def value(self, preactivation: Tensor, out: Tensor) -> None:
        import torch

        torch.ops.aten.silu.out(preactivation, out=out)

    def slope(self, preactivation: Tensor, out: Tensor) -> None:
        import torch

        torch.ops.aten.silu_backward.grad_input(_one(out), preactivation, grad_input=out)


ACTIVATIONS: dict[str, Activation] = {
    activation.name: activation
    for activation in (
        ReLU(),
        LeakyReLU(),
        Tanh(),
        Sin(),
        Erf(),
        Softplus(),
        GELU(),
        SiLU(),
        Sigmoid(),
        ELU(),
        Identity(),
    )
}
