"""The largest singular value of an operator, by Lanczos from a block, and an estimate of its error to stop by."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from deqcli.deq.precision import to_float64
from deqcli.deq.streams import stream

Products = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Takes rows X (k, q); gives Y = X M^T (k, p) and A = Y M (k, q), the products of M (p, q) and of M^T M with them."""

BLOCK = 6
"""Singular vectors kept from one call to the next: where the largest values lie close, one alone loses its way."""

STRIDE = 2
"""Lanczos steps between tests; a test waits for the device, a step does not."""

ROOM, CAPACITY, KEPT = 14, 48, 3
"""Rows of a basis before its first restart and, doubled each time, at most; and one in how many a restart keeps."""

NUDGE = 30.0
"""Roundings by which a new direction is nudged at random, so that one is found where nothing new is left in it."""

SAFETY = 4.0
"""What the estimated error is multiplied by: on trained and on random matrices it was up to 3 times too small."""


@dataclass(frozen=True)
class Top:
    """The largest singular value found, and its right vectors (the leading ones, in rows).

    `error` estimates how far the largest may lie above it, `residual` bounds the distance to the nearest singular
    value; both are relative.
    """

    value: float
    vectors: np.ndarray
    error: float
    residual: float


@dataclass(frozen=True)
class Tolerance:
    """What is asked of a `Top` before it is believed.

    A space that holds one mixture of two close singular vectors cannot tell that there are two: `error` is then too
    small by as much as `residual`. And one grown from a singular vector looks converged until it has been explored by
    as many products with vectors as `explored` says. A start with the leading vectors of nearby weights needs neither.
    """

    error: float
    residual: float = math.inf
    explored: int = 0

    def met(self, top: Top) -> bool:
        """Whether the errors of a value are within it."""
        return top.error <= self.error and top.residual <= self.residual


class Basis:
    """Orthonormal rows X with the products Y and A of an operator, in buffers that are filled row by row.

    Shapes: X, A (k, q), Y (k, p). Source: Golub and Kahan 1965; full orthogonalisation, twice in each step.
    """

    def __init__(self, products: Products, start: Tensor, capacity: int) -> None:
        self.products, self.size = products, len(start)
        Y, A = products(start)
        self.buffers = [each.new_empty((capacity, each.shape[1])) for each in (start, Y, A)]
        nudge = normalised(torch.from_numpy(stream(0, "lanczos nudge").standard_normal((1, start.shape[1]))))
        self.nudge = NUDGE * torch.finfo(start.dtype).eps * _like(nudge, start)
        self._fill(start, Y, A)

    def _fill(self, *rows: Tensor) -> None:
        for buffer, each in zip(self.buffers, rows, strict=True):
            buffer[self.size - len(each) : self.size] = each

    @property
    def rows(self) -> list[Tensor]:
        """X, Y and A, as far as they are filled."""
        return [buffer[: self.size] for buffer in self.buffers]

    def grow(self, direction: Tensor) -> None:
        """Add what is new in a direction (1, q); nothing is read back from the device."""
        X, _, _ = self.rows
        direction = normalised(direction) + self.nudge.roll(self.size, dims=1)
        for _ in range(2):
            direction = normalised(direction - (direction @ X.T) @ X)
        self.size += 1
        self._fill(direction, *self.products(direction))

    def lanczos(self, steps: int) -> None:
        """Add the next `steps` vectors of the Krylov space of the last row."""
        for _ in range(steps):
            self.grow(self.buffers[2][self.size - 1 : self.size])

    def restart(self, coefficients: Tensor) -> None:
        """Keep the combinations (j, k) of the rows; multiplied anew, so that no rounding piles up."""
        X = normalised(_like(coefficients, self.buffers[0]) @ self.buffers[0][: self.size])
        self.size = len(X)
        self._fill(X, *self.products(X))


def _like(values: Tensor, other: Tensor) -> Tensor:
    """In the precision and on the device of another; in this order, as Apple's GPUs have no float64."""
    return values.to(other.dtype).to(other.device)


def normalised(rows: Tensor) -> Tensor:
    """Each row over its length; a row of zeros as it is."""
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / lengths.clamp_min_(torch.finfo(rows.dtype).tiny)


class Ritz:
    """What a basis knows: Ritz values of M^T M in rising order, their coefficients in columns, and their residuals."""

    def __init__(self, basis: Basis) -> None:
        self.X, self.Y, A = (to_float64(rows) for rows in basis.rows)
        self.values: Tensor
        self.coefficients: Tensor
        self.values, self.coefficients = torch.linalg.eigh(_finite(self.Y @ self.Y.T))
        C = self.coefficients.T.to(A.device)
        residuals = C @ A - self.values.to(A.device)[:, None] * (C @ self.X)  # (k, q)
        self.residuals = _finite(residuals @ residuals.T)

    def leading(self, count: int) -> Tensor:
        """The coefficients of the `count` largest Ritz values in rows, the largest first."""
        return self.coefficients[:, -count:].T.flip(0)

    def top(self, count: int = BLOCK) -> Top:
        """The largest singular value ||M x|| / ||x|| of the best x in the basis, and the best `count` of them."""
        C = self.leading(count).to(self.X.device)
        vectors = C @ self.X
        value, length = torch.linalg.vector_norm(C[0] @ self.Y), torch.linalg.vector_norm(vectors[0])
        residual = math.sqrt(max(float(self.residuals[-1, -1]), 0.0)) / (2 * float(self.values[-1]) or 1.0)
        return Top(float(value / length), normalised(vectors).cpu().numpy(), self.error(), residual)

    def error(self) -> float:
        """How far the largest singular value may lie above the one found, relative to it.

        With Ritz values Theta and residuals R of all Ritz vectors but the last, M^T M is [[Theta, R^T], [R, C]] in a
        suitable basis, and lambda_max is at most that of [[Theta, N], [N, beta I]] with N^2 = R^T R, for every
        beta >= ||C||. The last Ritz value plus its residual stands for that beta, which is a guess: hence `SAFETY`.
        Source: Parlett 1998, The Symmetric Eigenvalue Problem, chapters 10 and 11 (bounds by residuals).
        """
        theta, largest = self.values[1:], float(self.values[-1])
        if not largest > 0:
            return math.inf
        squares, vectors = torch.linalg.eigh(self.residuals[1:, 1:])
        N = (vectors * squares.clamp_min_(0.0).sqrt_()) @ vectors.T
        beta = self.values[0] + self.residuals[0, 0].clamp_min(0.0).sqrt()
        corner = torch.eye(len(theta), dtype=torch.float64) * beta
        bound = torch.linalg.eigvalsh(torch.cat([torch.cat([theta.diag(), N]), torch.cat([N, corner])], dim=1))[-1]
        return SAFETY * max(float(bound) / largest - 1, 0.0) / 2


def _finite(matrix: Tensor) -> Tensor:
    """The small matrix on the CPU. Raises: FloatingPointError where it is not finite (LAPACK might not return)."""
    values = matrix.cpu()
    if not bool(torch.isfinite(values).all()):
        raise FloatingPointError("the products of an operator are not finite")
    return values


def largest(products: Products, start: Tensor, tolerance: Tolerance, limit: int, room: int = ROOM) -> Top:
    """The largest singular value of an operator to a tolerance, or what `limit` products of vectors gave.

    `tolerance.met` says which of the two it is; products with the rows that a restart keeps do not count. `start`
    (k, q) has orthonormal rows; `room` is how many rows the basis may have before its first restart.
    Raises: FloatingPointError where the products are not finite.
    """
    basis, used, steps = Basis(products, start, max(room, CAPACITY)), len(start), STRIDE
    basis.grow(basis.rows[2][:1])
    while True:
        basis.lanczos(steps - 1)
        used += steps
        ritz = Ritz(basis)
        top = ritz.top()
        if (tolerance.met(top) and used >= tolerance.explored) or used >= limit:
            return top
        if basis.size >= room:
            basis.restart(ritz.leading(max(BLOCK, basis.size // KEPT)))
            basis.grow(basis.rows[2][:1])
            room = min(2 * room, CAPACITY)
        else:
            basis.lanczos(1)
        steps = min(max(STRIDE, basis.size // 4), max(room - basis.size, 0) + 1)


def orthonormal(rows: np.ndarray | None, q: int, like: Tensor) -> Tensor:
    """Orthonormal rows (k, q) that span the given ones, or a random one; in the precision and on the device of `like`.

    Rows that depend on those before them are replaced by others.
    """
    given = stream(0, "lanczos").standard_normal((1, q)) if rows is None else rows.reshape(-1, q)[:BLOCK]
    Q: Tensor = torch.linalg.qr(torch.from_numpy(given).T).Q
    return _like(Q.T.contiguous(), like)
