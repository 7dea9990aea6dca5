"""F at a point, counted and judged: what the solvers that do more than iterate have in common."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from deqcli.deq.equations import Equation
from deqcli.deq.solvers import Largest, Solution, Status, frobenius_norms, ratio_of_norms


class Evaluation:
    """Point z, pre-activation P = z A + B and image F(z) = g(P) of one network, and the products that they took.

    After `evaluate` the three belong together. The residual is the true one, ||F(z) - z||_F / ||F(z)||_F, NaN where a
    norm is not finite. Shapes: all (n, m), rows are samples.
    """

    def __init__(self, equation: Equation, point: Tensor, preactivation: Tensor, most: int) -> None:
        self.equation, self.point, self.preactivation, self.most = equation, point, preactivation, most
        self.image, self.difference = torch.empty_like(point), torch.empty_like(point)
        self.products, self.residual, self.size = 0, math.inf, 0.0
        self._largest = Largest()

    @property
    def left(self) -> int:
        """How many products may still be made."""
        return self.most - self.products

    def evaluate(self) -> None:
        """P, F(z), F(z) - z and the residual, for one product."""
        self.equation.preactivation(self.point, self.preactivation)
        self.products += 1
        self.judge()

    def judge(self) -> None:
        """F(z), F(z) - z and the residual, for the P that is there."""
        self.equation.image(self.preactivation, self.image)
        torch.sub(self.image, self.point, out=self.difference)
        self.size, distance = frobenius_norms(self.image, self.difference)
        self.residual = ratio_of_norms(distance, self._largest.see(self.size))

    def ended(self, tolerance: float) -> bool:
        """Whether the residual is small enough or is no number, or no product is left."""
        return self.residual <= tolerance or math.isnan(self.residual) or self.left <= 0

    def solution(self, tolerance: float) -> Solution:
        """How it ended, by the residual of the point that is there."""
        status = Status.CONVERGED if self.residual <= tolerance else Status.EXHAUSTED
        if math.isnan(self.residual):
            status = Status.DIVERGED
        return Solution(self.residual, self.products, status, norm=self._largest.unless(status))

    def can_be_squared(self, tolerance: float) -> bool:
        """Whether squares of residuals of this network stay within the floats down to a thousandth of the tolerance."""
        finfo = torch.finfo(self.point.dtype)
        least = math.sqrt(finfo.tiny * self.point.numel()) / (tolerance * 1e-3)
        return least < self.size < math.sqrt(finfo.max) and self.residual < math.sqrt(finfo.max) / self.size


def row_dots(left: Tensor, right: Tensor, spare: Tensor) -> Tensor:
    """sum_k left_jk right_jk of every row j: (n,), from two (n, m); `spare` is a buffer of that shape."""
    return torch.mul(left, right, out=spare).sum(-1)


def rounding_of(tensor: Tensor) -> float:
    """eps of its precision."""
    return float(torch.finfo(tensor.dtype).eps)
