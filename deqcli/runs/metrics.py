"""What spectral.csv says about a step: one property of `Snapshot` a column.

To add a column, add a property here and name it in `METRICS` of `records`.
"""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from deqcli.deq.network import Network, Params
from deqcli.deq.precision import UNIT_ROUNDOFF, to_float64
from deqcli.deq.spectral import gram, gram_least_eigenvalue, gram_rounding, spectral_norm
from deqcli.runs.baseline import Baseline
from deqcli.runs.records import METRICS
from deqcli.theory.ntk import empirical_ntk
from deqcli.theory.prediction import loss_bound

ROWS_PER_BLOCK = 512


class Metrics:
    """What stays the same over a run: where it started, its data, and the last singular vector of W."""

    def __init__(self, start: Params, X: Float[Tensor, "d n"], baseline: Baseline, vector: np.ndarray | None) -> None:
        self.start, self.baseline = start, baseline
        self.vector = vector
        self.XtX = gram(X)

    def row(self, network: Network, prediction_error: Tensor, step: int, loss: float) -> dict[str, float | None]:
        """The row of a step whose equilibrium and adjoint are solved."""
        snapshot = Snapshot(self, network, prediction_error, step, loss)
        return {name: getattr(snapshot, name) for name in METRICS}


class Snapshot:
    """A solved step, measured on demand; sums of squares and eigenvalues in float64."""

    def __init__(self, metrics: Metrics, network: Network, prediction_error: Tensor, step: int, loss: float) -> None:
        self._metrics, self._network, self._step, self._loss = metrics, network, step, loss
        self._baseline = metrics.baseline
        self._e = to_float64(prediction_error)

    @cached_property
    def _gram(self) -> Tensor:
        return gram(self._network.Z)

    @cached_property
    def spectral_norm(self) -> float:
        """||W||_2 from below, by Lanczos from the last step's vector."""
        norm, self._metrics.vector = spectral_norm(self._network.params.W, self._metrics.vector)
        return norm

    @property
    def spectral_norm_upper(self) -> float:
        """The upper bound of ||W(0)||_2 + ||W - W(0)||_F, which bounds ||W||_2 as surely as that one its norm."""
        m = self._network.params.W.shape[0]
        return (self._baseline.spectral_norm_upper + self.distance_w * (1 + m * m * UNIT_ROUNDOFF)) * (
            1 + 4 * UNIT_ROUNDOFF
        )

    @cached_property
    def lambda_min(self) -> float:
        """lambda_tau = lambda_min(Z^T Z); exactly 0 where there are more samples than units."""
        return gram_least_eigenvalue(self._network.Z, self._gram)

    @cached_property
    def gradient_norm(self) -> float:
        """||grad Phi|| = sqrt(e^T H e), over W, U and a together (Ling et al. 2023, section 2.3)."""
        e, G = self._e, self._gram
        H = empirical_ntk(self._network, G, self._metrics.XtX)
        return math.sqrt(max(float(e @ H @ e), 0.0))

    @property
    def pl_ratio(self) -> float | None:
        """||grad Phi||^2 / (2 Phi lambda_tau), at least 1; missing where Phi = 0 or lambda_tau is mere rounding."""
        if self.lambda_min <= gram_rounding(self._network.Z, self._gram) or self._loss == 0:
            return None
        return self.gradient_norm**2 / (2 * self._loss * self.lambda_min)

    @cached_property
    def distance_w(self) -> float:
        """||W - W(0)||_F."""
        return distance(self._network.params.W, self._metrics.start.W)

    @property
    def distance_u(self) -> float:
        """||U - U(0)||_F."""
        return distance(self._network.params.U, self._metrics.start.U)

    @property
    def distance_a(self) -> float:
        """||a - a(0)||_2."""
        return distance(self._network.params.a, self._metrics.start.a)

    @property
    def loss_bound(self) -> float:
        """(1 - eta lambda_0/2)^step Phi(0), conclusion (iii) of Theorem 1."""
        b = self._baseline
        return loss_bound(b.initial_loss, b.lambda_0, b.learning_rate, self._step)

    @property
    def loss_predicted(self) -> float | None:
        """The loss that the tangent kernel H(0), held fixed, predicts for this step."""
        return self._baseline.kernel.loss(self._baseline.learning_rate, self._step)


def distance(now: Tensor, start: Tensor) -> float:
    """||now - start||_F in float64, a block of rows at a time, so that no second matrix is made."""
    total = 0.0
    for a, b in zip(torch.split(now, ROWS_PER_BLOCK), torch.split(start, ROWS_PER_BLOCK), strict=True):
        total += float((to_float64(a) - to_float64(b)).square_().sum())
    return math.sqrt(total)
