"""The two fixed-point equations of a DEQ in one form, P = g(P) A + B, solved for the pre-activations P.

    equilibrium    g(P) = phi(P) = Z    A = W^T    B = U X
    unit adjoint   g(P) = D * P = V     A = W      B = a 1^T

Rows are samples here, (n, m), so that a subset of samples is contiguous. The n rows of one network are its items, which
share A; in a stack of c networks, (c, n, m), the items are the networks, each with an A of its own. Items do not depend
on each other: those that have converged can be left out of the product.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from deqcli.deq.activations import Activation

BLOCK = 2048
"""Columns of A converted at a time, where A is kept in a lower precision than the point."""

Lowered = Callable[[torch.dtype], Tensor]
"""A in a lower precision."""


def multiply_add(B: Tensor, Z: Tensor, A: Tensor, out: Tensor) -> None:
    """Write B + Z A into `out`: (n, k) by (k, m), or the same with a leading axis of networks."""
    if Z.dtype != A.dtype:
        for block in range(0, A.shape[1], BLOCK):
            columns = slice(block, block + BLOCK)
            out[:, columns] = B[:, columns] + Z @ A[:, columns].to(Z.dtype)
    elif Z.dim() == 3:
        torch.baddbmm(B, Z, A, out=out)
    else:
        torch.addmm(B, Z, A, out=out)


def subtract_product(C: Tensor, A: Tensor, B: Tensor) -> None:
    """C <- C - A B in place, with or without a leading axis of networks."""
    (C.baddbmm_ if C.dim() == 3 else C.addmm_)(A, B, alpha=-1)


@dataclass(frozen=True)
class Equation:
    """P = g(P) A + B with g = phi, or g(P) = D * P where `slope` D is given.

    Shapes: P, g(P) and slope (n, m) or (c, n, m); matrix A (m, m) or (c, m, m); offset B as P, or with one row.
    """

    matrix: Tensor
    offset: Tensor
    activation: Activation
    slope: Tensor | None = None
    lowered: Lowered | None = None

    @property
    def stacked(self) -> bool:
        """Whether items are networks and not samples."""
        return self.matrix.dim() == 3

    def at(self, items: Tensor, matrix: Tensor, offset: Tensor, slope: Tensor) -> Equation:
        """The equation of these items alone; the other arguments are buffers to gather into."""
        return Equation(
            self._matrix_of(items, matrix) if self.stacked else self.matrix,
            self._offset_of(items, offset),
            self.activation,
            self.slope if self.slope is None else taken(self.slope, items, slope),
            self.lowered,
        )

    def _matrix_of(self, items: Tensor, buffer: Tensor) -> Tensor:
        if self.matrix.stride(-1) == 1:
            return taken(self.matrix, items, buffer)
        return taken(self.matrix.mT, items, buffer).mT  # W^T, which stays W seen the other way

    def _offset_of(self, items: Tensor, buffer: Tensor) -> Tensor:
        if self.offset.shape[-2] != 1:
            return taken(self.offset, items, buffer)
        return self.offset[items] if self.stacked else self.offset

    def of(self, network: int) -> Equation:
        """The equation of one network; itself where there is but one."""
        if not self.stacked:
            return self
        slope = None if self.slope is None else self.slope[network]
        return Equation(self.matrix[network], self.offset[network], self.activation, slope)

    def preactivation(self, point: Tensor, out: Tensor) -> None:
        """Write g A + B for g = `point`."""
        multiply_add(self.offset, point, self.matrix, out)

    def correct(self, preactivation: Tensor, change: Tensor, product: Tensor, spare: Tensor) -> None:
        """Add (change of g) A to P; the product is taken, and written, in the precision of `change` and `product`."""
        assert self.lowered is not None
        torch.mm(change, self.lowered(change.dtype), out=product)
        preactivation.add_(product if product.is_cuda else spare.copy_(product))  # a CPU would convert into new memory

    def image(self, preactivation: Tensor, out: Tensor) -> None:
        """Write g(P)."""
        if self.slope is None:
            self.activation.value(preactivation, out=out)
        else:
            torch.mul(preactivation, self.slope, out=out)

    def resolvent(self, v: Tensor, alpha: float, out: Tensor) -> None:
        """Write z = g(t) with alpha t + (1 - alpha) g(t) = v into `out`, which is not `v`; g itself for alpha = 1.

        (I + alpha T)^-1 of the monotone T with g = (I + T)^-1, for alpha > 0, where 0 <= g' <= 1. With g(t) = D * t it
        is D * v/(alpha + (1 - alpha) D). Source: Winston and Kolter 2020.
        """
        if self.slope is None:
            self.activation.resolvent(v, alpha, out=out)
        else:
            torch.mul(self.slope, 1 - alpha, out=out).add_(alpha)
            torch.div(v, out, out=out).mul_(self.slope)

    def derivative(self, preactivation: Tensor, out: Tensor) -> None:
        """Write g'(P): phi'(P), or D."""
        if self.slope is None:
            self.activation.slope(preactivation, out=out)
        else:
            out.copy_(self.slope)


def taken(tensor: Tensor, items: Tensor, buffer: Tensor) -> Tensor:
    """The items of a tensor, gathered into the first rows of a buffer."""
    return torch.index_select(tensor, 0, items, out=buffer[: len(items)])
