"""Full-batch gradient descent with exact implicit gradients, row by row into the tables of a run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import NoReturn

from torch import Tensor

from deqcli.deq.activations import ACTIVATIONS
from deqcli.deq.initialisation import INITIALISATIONS
from deqcli.deq.model import Cell
from deqcli.deq.network import loss
from deqcli.deq.solvers import Solution, Status
from deqcli.errors import NumericalFailure
from deqcli.recipe.schema import RunSpec
from deqcli.runs.baseline import Baseline
from deqcli.runs.metrics import Metrics
from deqcli.runs.records import Table
from deqcli.runs.standing import Spectrum

LOSS_DIVERGED_BEYOND = 1000.0
"""Times the initial loss."""

VISIBLE_EVERY = 1.0
"""Seconds after which other processes see a row at the latest, once the next one is due."""


class RowStatus(StrEnum):
    """The `status` column of loss.csv: how the solves of a step ended, or that its loss ran away."""

    CONVERGED = Status.CONVERGED.value
    EXHAUSTED = Status.EXHAUSTED.value
    DIVERGED = Status.DIVERGED.value
    LOSS_DIVERGED = "loss_diverged"


@dataclass(frozen=True)
class Tables:
    """The CSV files that a run appends to."""

    loss: Table
    spectral: Table
    timing: Table

    def flush(self) -> None:
        """Let other processes see the rows so far."""
        for table in (self.loss, self.spectral, self.timing):
            table.flush()

    def marks(self) -> dict[str, tuple[int, str]]:
        """Make all rows durable and say where each file stands."""
        return {"loss": self.loss.mark(), "spectral": self.spectral.mark(), "timing": self.timing.mark()}


@dataclass(frozen=True)
class Step:
    """A solved step: its loss, prediction error, and what the two solves came to."""

    step: int
    loss: float
    prediction_error: Tensor
    forward: Solution
    adjoint: Solution


@dataclass
class Seconds:
    """Wall time of a step, shared out evenly among the networks of a stack."""

    descend: float = 0.0
    forward: float = 0.0
    adjoint: float = 0.0


class Trainer:
    """One network on its way from step 0 to `steps`: what becomes of the solutions of each step."""

    def __init__(self, spec: RunSpec, y: Tensor, tables: Tables) -> None:
        self.spec, self.y, self.tables = spec, y, tables
        self.step = self.misses = 0
        self.stopped = False
        self.baseline: Baseline | None = None
        self.spectrum: Spectrum | None = None
        self.seconds = Seconds()
        self.logging_seconds = 0.0
        self._visible = time.perf_counter()

    @property
    def finished(self) -> bool:
        """Whether the last step is done, or the loss where the recipe stops."""
        return self.stopped or self.step >= self.spec.train.steps

    def reaches(self, value: float) -> bool:
        """Whether the recipe stops at this loss."""
        stop = self.spec.train.stop_at_loss
        return stop is not None and value <= stop

    def stop_if_reached(self, solved: Step) -> bool:
        """Whether this is the step where the recipe stops; it is then the last one."""
        self.stopped = self.reaches(solved.loss)
        return self.stopped

    def logs_spectra(self, step: int) -> bool:
        """Whether a row of spectral.csv is due at a step; its residuals are then computed and not estimated."""
        return step % self.spec.log.spectral_every == 0 or step == self.spec.train.steps or self.stopped

    def accept_equilibrium(self, forward: Solution) -> None:
        """Raise NumericalFailure, after the row that says so, where the equilibrium was not solved."""
        self.misses += forward.misses
        if forward.status is not Status.CONVERGED:
            self._fail("equilibrium", forward, forward, None)

    def accept(self, forward: Solution, adjoint: Solution, prediction_error: Tensor) -> Step:
        """The solved step. Raises: NumericalFailure, after the row that says so, where the adjoint was not solved."""
        self.misses += adjoint.misses
        if adjoint.status is not Status.CONVERGED:
            self._fail("adjoint", adjoint, forward, adjoint)
        return Step(self.step, loss(prediction_error), prediction_error, forward, adjoint)

    def log(self, solved: Step, cell: Callable[[], Cell], metrics: Metrics) -> None:
        """Write the rows that are due at this step; `cell` gives the solved network, if it is looked at.

        Raises: NumericalFailure after its row, where the loss is not finite or beyond 1000 times the initial one.
        """
        start = time.perf_counter()
        every, last = self.spec.log, self.finished
        self.refuse_runaway(solved, LOSS_DIVERGED_BEYOND * metrics.baseline.initial_loss)
        if last or solved.step % every.loss_every == 0:
            self._row(RowStatus.CONVERGED, solved.loss, solved.forward, solved.adjoint)
        if self.logs_spectra(solved.step):
            self._log_spectra(solved, cell(), metrics)
        if start - self._visible >= VISIBLE_EVERY:
            self._visible = start
            self.tables.flush()
        self.logging_seconds += time.perf_counter() - start

    def refuse_runaway(self, solved: Step, limit: float = math.inf) -> None:
        """Raise NumericalFailure after its row, where the loss is not finite or beyond a limit."""
        if not (math.isfinite(solved.loss) and solved.loss <= limit):
            self._row(RowStatus.LOSS_DIVERGED, solved.loss, solved.forward, solved.adjoint)
            raise NumericalFailure(self._runaway(solved))

    def _log_spectra(self, solved: Step, cell: Cell, metrics: Metrics) -> None:
        row = metrics.row(cell, solved.prediction_error, solved.step, solved.loss)
        self.tables.spectral.row(step=solved.step, **row)
        self.spectrum = _spectrum(solved.step, row, metrics.baseline.lambda_0)
        self.tables.timing.row(
            step=solved.step,
            seconds=self.seconds.descend + self.seconds.forward + self.seconds.adjoint,
            forward_seconds=self.seconds.forward,
            adjoint_seconds=self.seconds.adjoint,
        )
        self.tables.flush()

    def _row(self, status: RowStatus, value: float | None, forward: Solution, adjoint: Solution | None) -> None:
        self.tables.loss.row(
            step=self.step,
            loss=value,
            residual=forward.residual,
            iterations=forward.iterations,
            adjoint_residual=adjoint and adjoint.residual,
            adjoint_iterations=adjoint and adjoint.iterations,
            status=status.value,
        )

    def _fail(self, what: str, failed: Solution, forward: Solution, adjoint: Solution | None) -> NoReturn:
        self._row(RowStatus(failed.status), None, forward, adjoint)
        tolerance = self.spec.solver.tolerance_for(self.spec.train.precision)
        raise NumericalFailure(
            f"step {self.step}: the {what} was not solved: {failed.status.sentence} (residual {failed.residual:.3g}, "
            f"tolerance {tolerance:g}, iterations {failed.iterations}{failed.norm_reached}). {self._advice()}"
        )

    def _advice(self) -> str:
        if self.baseline is None:
            return _of_the_draw(self.spec)
        return f"{_smaller_rate(self.baseline)}, or more solver.max_iterations where the residual was falling."

    def _runaway(self, solved: Step) -> str:
        size = f"{solved.loss:.3g}" if math.isfinite(solved.loss) else "not a finite number"
        scales = "Use a smaller data.label_scale or model.readout_scale"
        advice = _smaller_rate(self.baseline) if self.baseline else scales
        return f"step {solved.step}: the loss diverged ({size}). {advice}."


def _of_the_draw(spec: RunSpec) -> str:
    """What to do about a draw whose equilibrium or adjoint is not found."""
    model, activation = spec.model, ACTIVATIONS[spec.model.activation]
    if model.init == "monotone" and activation.nondecreasing and activation.lipschitz <= 1:
        return "W is monotone, so there is one: use solver.kind peaceman_rachford, or more solver.max_iterations."
    limit = INITIALISATIONS[model.init].norm_limit(1.0)
    wide = "" if limit is None else f"; below {(activation.lipschitz * limit) ** -2:.3g} wide draws contract"
    return (
        f"The draw itself is at fault: use a smaller model.sigma_w_sq (now {model.sigma_w_sq:g}{wide}), a "
        "model.readout_scale nearer 1 where something overflowed, or more solver.max_iterations where the residual "
        "was falling."
    )


def _spectrum(step: int, row: dict[str, float | None], lambda_0: float) -> Spectrum:
    least = row["lambda_min"]
    ratio = None if least is None or lambda_0 == 0 else least / lambda_0
    return Spectrum(step, row["spectral_norm"], row["spectral_norm_upper"], ratio)


def _smaller_rate(baseline: Baseline) -> str:
    stable = baseline.kernel.stable_rate
    rule = "2 (1 + momentum)/lambda_max(H(0))" if baseline.dynamics.momentum else "2/lambda_max(H(0))"
    largest = "" if stable is None else f"; the largest stable one of the initial kernel is {rule} = {stable:.6g}"
    return f"Use a smaller train.learning_rate (now {baseline.learning_rate:.6g}{largest})"
