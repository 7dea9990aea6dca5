"""What spectral.csv says about a step: one property of `Snapshot` a column.

To add a column, add a property here and name it in `METRICS` of `records`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from deqcli.deq.model import Cell
from deqcli.deq.precision import UNIT_ROUNDOFF, exact_device, to_float64
from deqcli.deq.room import ALIGNMENT
from deqcli.deq.spectral import (
    add_gram,
    gram,
    gram_least_eigenvalue,
    gram_rounding,
    multiplies_exactly,
    spectral_norm,
)  # fmt: skip
from deqcli.runs.baseline import Baseline
from deqcli.runs.records import METRICS
from deqcli.theory.ntk import empirical_ntk

ENTRIES_PER_BLOCK = {"cpu": 2**18}
"""Converted to float64 at a time where that should stay in the cache; 2^22 on other devices."""

NORM_TOLERANCE = {torch.float32: 1e-7, torch.float64: 1e-10}
"""Relative, of spectral_norm."""

FRESH_EVERY = 200
"""Steps between norms that start from random vectors: whatever a warm start might have missed is found there."""


Rows = Callable[[int], Iterable[Tensor]]
"""Gives a matrix so many rows at a time."""


@dataclass(frozen=True)
class Start:
    """U(0) and a(0), and W(0) by rows: those of a copy, or drawn again each time."""

    rows_of_w: Rows
    U: Float[Tensor, "m d"]
    a: Float[Tensor, " m"]


class Metrics:
    """What stays the same over a run: where it started, its data; and the last singular vectors of W, in rows."""

    def __init__(self, start: Start, X: Float[Tensor, "d n"], baseline: Baseline, vector: np.ndarray | None) -> None:
        self.start, self.baseline = start, baseline
        self.vector = vector
        self.X, self.XtX = X, gram(X)

    def row(self, cell: Cell, prediction_error: Tensor, step: int, loss: float) -> dict[str, float | None]:
        """The row of a step whose equilibrium and adjoint are solved."""
        snapshot = Snapshot(self, cell, prediction_error, step, loss)
        return {name: getattr(snapshot, name) for name in METRICS}


class Snapshot:
    """A solved step, measured on demand; sums of squares and eigenvalues in float64."""

    def __init__(self, metrics: Metrics, cell: Cell, prediction_error: Tensor, step: int, loss: float) -> None:
        self._metrics, self._step, self._loss = metrics, step, loss
        self._baseline, self._params = metrics.baseline, cell.params
        self._cell, self._Z, self._V = cell, aligned(cell.Z), aligned(cell.V)
        self._e = prediction_error

    @cached_property
    def _gram(self) -> Tensor:
        return gram(self._Z)

    @cached_property
    def spectral_norm(self) -> float:
        """||W||_2 from below, by Lanczos from the last row's vectors."""
        W, start = aligned(self._params.W), None if self._step % FRESH_EVERY == 0 else self._metrics.vector
        norm, self._metrics.vector = spectral_norm(W, start, NORM_TOLERANCE[W.dtype])
        return norm

    @property
    def spectral_norm_upper(self) -> float:
        """The upper bound of ||W(0)||_2 + ||W - W(0)||_F, which bounds ||W||_2 as surely as that one its norm."""
        m = self._params.W.shape[0]
        return (self._baseline.spectral_norm_upper + self.distance_w * (1 + m * m * UNIT_ROUNDOFF)) * (
            1 + 4 * UNIT_ROUNDOFF
        )

    @cached_property
    def lambda_min(self) -> float:
        """lambda_tau = lambda_min(Z^T Z); exactly 0 where there are more samples than units."""
        return gram_least_eigenvalue(self._Z, self._gram)

    @cached_property
    def gradient_norm(self) -> float:
        """||grad Phi|| = sqrt(||Z e||^2 + <S^T S, Z^T Z + X^T X>), over W, U and a together, with S = V diag(e).

        It is sqrt(e^T H e) (Ling et al. 2023, section 2.3), each of the three times its factor in `Rates`. S^T S (n, n)
        is taken in the precision of training, and summed in float64; H itself where the layer is another one.
        """
        e, G, rates = to_float64(self._e), self._gram, self._cell.component.rates
        if not (self._cell.component.plain_layer and self._params.b is None):
            H = empirical_ntk(replace(self._cell, Z=self._Z, V=self._V), G, self._metrics.X)
            return math.sqrt(max(float(torch.dot(e, H @ e)), 0.0))
        StS, scale = scaled_gram(self._V * self._e)
        by_w, by_u = torch.dot(StS, G.flatten()), torch.dot(StS, self._metrics.XtX.flatten())
        weights = scale * (rates.W * by_w + rates.U * by_u)
        return math.sqrt(max(float(rates.a * torch.dot(e, G @ e) + weights), 0.0))

    @property
    def pl_ratio(self) -> float | None:
        """||grad Phi||^2 / (2 Phi lambda_tau), at least 1; missing where Phi = 0 or lambda_tau is mere rounding.

        Missing as well where a is not trained at the learning rate itself: G is then no part of H.
        """
        if self.lambda_min <= gram_rounding(self._Z, self._gram) or self._loss == 0:
            return None
        if self._cell.component.rates.a != 1:
            return None
        return self.gradient_norm**2 / (2 * self._loss * self.lambda_min)

    @cached_property
    def distance_w(self) -> float:
        """||W - W(0)||_F."""
        return distance(self._params.W, self._metrics.start.rows_of_w)

    @property
    def distance_u(self) -> float:
        """||U - U(0)||_F."""
        return distance(self._params.U, partial(torch.split, self._metrics.start.U))

    @property
    def distance_a(self) -> float:
        """||a - a(0)||_2, of both readouts together where there is a skip connection."""
        return distance(self._params.readouts, partial(torch.split, self._metrics.start.a))

    @property
    def loss_bound(self) -> float | None:
        """(1 - eta lambda_0/2)^step Phi(0), conclusion (iii) of Theorem 1; missing where it says nothing."""
        (bound,) = self._baseline.loss_bounds([self._step])
        return bound

    @property
    def loss_predicted(self) -> float | None:
        """The loss that the tangent kernel H(0), held fixed, predicts for this step."""
        return self._baseline.kernel.loss(self._baseline.learning_rate, self._step)


def scaled_gram(S: Float[Tensor, "m n"]) -> tuple[Tensor, float]:
    """(S^T S / s, s): flat and in float64, but multiplied in the precision of S; s is the square of its largest entry.

    In float64 throughout where the device rounds what it multiplies. S is overwritten.
    """
    entry, n = float(torch.linalg.vector_norm(S, math.inf)), S.shape[1]
    S = S if multiplies_exactly(S) else to_float64(S)
    product = torch.zeros((n, n), dtype=S.dtype, device=S.device)
    add_gram(product, S.div_(entry) if entry > 0 else S)
    return to_float64(product).flatten(), entry**2


def aligned(tensor: Tensor) -> Tensor:
    """The tensor, or a copy if its memory does not begin where that of all new tensors does."""
    return tensor if tensor.data_ptr() % ALIGNMENT == 0 else tensor.clone()


def distance(now: Tensor, start: Rows) -> float:
    """||now - start||_F in float64, a block of rows at a time, so that no second matrix is made."""
    rows = max(1, ENTRIES_PER_BLOCK.get(now.device.type, 2**22) // math.prod(now.shape[1:]))
    total = torch.zeros((), dtype=torch.float64, device=exact_device(now.device))
    for a, b in zip(torch.split(now, rows), start(rows), strict=True):
        total += (to_float64(a) - to_float64(b)).square_().sum()
    return math.sqrt(float(total))
