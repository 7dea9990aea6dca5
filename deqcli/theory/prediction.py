"""The loss curve before it happens: from a tangent kernel, and Theorem 1's bound."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from deqcli.errors import NumericalFailure
from deqcli.theory.dynamics import PLAIN, Dynamics

MOST_STEPS, MOST_SCANNED, FIRST_SCANNED = 10**15, 10**5, 128
MOST_ROWS = 400


@dataclass(frozen=True)
class KernelPrediction:
    """Phi(tau) = 1/2 sum_k (1 - eta h_k)^(2 tau) (v_k . e(0))^2, with H = sum_k h_k v_k v_k^T held fixed.

    `eigenvalues` h_k ascend; `projections` are v_k . e(0), or of a random e(0) the roots of their mean squares.
    `dynamics` says what takes the place of the power for another training than plain gradient descent.
    Shapes: (n,), (n,). Source: Ling et al. 2023, section 2.3, with the kernel of the start.
    """

    eigenvalues: np.ndarray
    projections: np.ndarray
    dynamics: Dynamics = PLAIN

    @classmethod
    def of(cls, H: Float64[Tensor, "n n"], prediction_error: Float64[Tensor, " n"]) -> KernelPrediction:
        """Diagonalise H (n^3 operations) and project the initial prediction error on its eigenvectors.

        Raises: NumericalFailure where either overflowed.
        """
        eigenvalues, eigenvectors = diagonalise(H, prediction_error)
        projections = eigenvectors.T @ prediction_error.cpu()
        return cls(eigenvalues.numpy(), projections.numpy())

    def loss(self, learning_rate: float, step: int) -> float | None:
        """The predicted loss at a step; None where it overflows (an unstable learning rate)."""
        (value,) = self.losses(learning_rate, [step])
        return value

    def losses(self, learning_rate: float, steps: Sequence[int]) -> list[float | None]:
        """The predicted losses at some steps, which ascend."""
        with np.errstate(over="ignore", invalid="ignore"):
            path = self.dynamics.path(learning_rate * self.eigenvalues, steps)
            values = [0.5 * float(np.sum((factors * self.projections) ** 2)) for factors in path]
        return [value if np.isfinite(value) else None for value in values]

    def parts(self, learning_rate: float, step: int) -> np.ndarray:
        """What each eigendirection adds to the loss at a step, (n,)."""
        with np.errstate(over="ignore", invalid="ignore"):
            factors = self.dynamics.factors(learning_rate * self.eigenvalues, step)
            return np.asarray(0.5 * (factors * self.projections) ** 2)

    def steps_to(self, loss: float, learning_rate: float) -> int | None:
        """The first step whose predicted loss is at most `loss`; None where it is not in 10^15 steps.

        The loss is a sum of exponentials, so convex in the step: at an unstable rate it falls, and rises from there on.
        With a schedule or momentum it need be neither, and the first 10^5 steps are looked at one by one.
        """
        if not self.dynamics.a_power:
            return self._scan(loss, learning_rate)

        def reached(step: int) -> bool:
            value = self.loss(learning_rate, step)
            return value is not None and value <= loss

        def rises(step: int) -> bool:
            now, then = self.loss(learning_rate, step), self.loss(learning_rate, step + 1)
            return now is None or then is None or then >= now

        stable = self.stable_rate
        lowest = MOST_STEPS if stable is None or learning_rate <= stable else _first(rises, MOST_STEPS)
        return _first(reached, lowest) if reached(lowest) else None

    def _scan(self, loss: float, learning_rate: float) -> int | None:
        """The first of the first steps that has the loss, looked for among twice as many each time."""
        last = FIRST_SCANNED
        while True:
            last = min(2 * last, MOST_SCANNED)
            values = self.losses(learning_rate, range(last + 1))
            found = next((step for step, value in enumerate(values) if value is not None and value <= loss), None)
            if found is not None or last >= MOST_SCANNED:
                return found

    @property
    def largest_eigenvalue(self) -> float:
        """lambda_max(H), which sets the time scale of training."""
        return float(self.eigenvalues[-1])

    @property
    def auto_rate(self) -> float:
        """1/lambda_max(H): the fastest rate at which no kernel eigendirection oscillates.

        Raises: NumericalFailure where H = 0, as in a network whose units are all dead.
        """
        if not self.largest_eigenvalue > 0:
            raise NumericalFailure(
                "train.learning_rate: auto is 1/lambda_max(H(0)), and H(0) = 0: every unit of this draw is dead; "
                "use another train.seed, a larger model.width, or a number"
            )
        return 1 / self.largest_eigenvalue

    @property
    def stable_rate(self) -> float | None:
        """2/lambda_max(H): gradient descent on the fixed kernel diverges above it; None where H = 0, and of a flow.

        With momentum beta, 1 + beta times that.
        """
        stable = self.dynamics.stable
        return stable / self.largest_eigenvalue if stable is not None and self.largest_eigenvalue > 0 else None


def _first(holds: Callable[[int], bool], last: int) -> int:
    """The first of 0, ..., last for which it holds, which it does from there on; `last` where it does for none."""
    low, high = -1, 1
    while high < last and not holds(high):
        low, high = high, 2 * high
    high = min(high, last)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def diagonalise(H: Float64[Tensor, "n n"], errors: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, ascending, and eigenvectors of a kernel, on the CPU, by LAPACK.

    Raises: NumericalFailure where it, or the square of what is to be projected, overflowed.
    """
    if not bool(H.isfinite().all() and errors.square().isfinite().all()):
        raise NumericalFailure(
            "the tangent kernel or the loss of the draw overflows; use a smaller model.readout_scale "
            "or data.label_scale"
        )
    eigenvalues, eigenvectors = torch.linalg.eigh(H.cpu())
    return eigenvalues, eigenvectors


def step_grid(steps: int) -> list[int]:
    """The steps that a predicted curve has a row for: at most 400, 0 and the last among them, closer at the start."""
    if steps < MOST_ROWS:
        return list(range(steps + 1))
    even = np.linspace(0, steps, MOST_ROWS // 2)
    early = np.geomspace(1, steps, MOST_ROWS // 2)
    return sorted({round(float(each)) for each in (*even, *early)})


def loss_bounds(
    initial_loss: float, lambda_0: float, learning_rate: float, steps: Sequence[int], dynamics: Dynamics = PLAIN
) -> list[float | None]:
    """prod_(t < tau) (1 - s(t) eta lambda_0/2) Phi(0) at steps tau that ascend, conclusion (iii) of Theorem 1.

    The proof takes each step on its own, so each may have its factor s(t) of the schedule, which is 1 without one. Of
    gradient flow it is exp(-eta lambda_0 tau) Phi(0); None with momentum, of which the theorem says nothing.
    Where eta lambda_0 / 2 exceeds 1 it says nothing either, and the factor of the step stays at 0.
    Source: Ling et al. 2023, Theorem 1.
    """
    if dynamics.momentum:
        return [None] * len(steps)
    x, schedule = learning_rate * lambda_0 / 2, dynamics.schedule
    if dynamics.a_power:
        base = math.exp(-2 * x) if dynamics.flow else max(1 - x, 0.0)
        return [base**step * initial_loss for step in steps]
    found, product, at = list[float | None](), 1.0, 0
    for step in steps:
        product *= math.prod(max(1 - schedule.factor(t) * x, 0.0) for t in range(at, step))
        at = step
        found.append(product * initial_loss)
    return found
