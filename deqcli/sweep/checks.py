"""What the theory says about draws, without training: certificates, kernels and depth for each width and seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from deqcli.data.dataset import Dataset
from deqcli.errors import NumericalFailure
from deqcli.recipe.schema import RunSpec
from deqcli.runs.baseline import draw_of, learning_rate, measure, solve, tensors
from deqcli.runs.device import Execution, pick_device, threads_for, threads_limited
from deqcli.runs.folder import COMPLETE, FAILED, row_keys
from deqcli.runs.resample import drawn
from deqcli.runs.run import refuse_impossible
from deqcli.theory.certificates import certify
from deqcli.theory.condition import best_delta, theorem_rate
from deqcli.theory.depth import DepthRow, Rate, depth_rows, rates_over_depth
from deqcli.theory.draw import SolvedDraw
from deqcli.theory.initial import Initial
from deqcli.theory.statement import Certificate


@dataclass(frozen=True)
class Measured:
    """The numbers of a draw, as computed where they are not bounds by name, and its learning rates."""

    spectral_norm: float
    spectral_norm_upper: float
    spectral_norm_limit: float | None
    lambda_0: float
    lambda_0_lower: float | None
    lambda_star: float | None
    lambda_min_ntk: float
    lambda_max_ntk: float
    gram_deviation: float | None
    ntk_deviation: float | None
    initial_loss: float
    delta: float | None
    error_bound: float | None
    learning_rate: float | None
    learning_rate_theorem: float | None
    learning_rate_auto: float | None
    learning_rate_largest_stable: float | None


@dataclass(frozen=True)
class CheckedDraw:
    """A draw with its numbers and certificates, or the sentence why it has none."""

    spec: RunSpec
    initial: Initial | None = None
    measured: Measured | None = None
    certificates: list[Certificate] = field(default_factory=list)
    depths: list[DepthRow] = field(default_factory=list)
    rates: list[Rate] = field(default_factory=list)
    error: str | None = None
    draws: int | None = None

    @property
    def failed(self) -> list[Certificate]:
        """What `--strict` stands for: every inequality that fails, but for Lemma 1, which is about a limit."""
        return [each for each in self.certificates if not each.holds and not each.about_a_limit]

    @property
    def outside(self) -> dict[str, str]:
        """The hypotheses that the draw does not meet, by name, in words."""
        return self.initial.outside if self.initial else {}

    def row(self) -> dict[str, object]:
        """The row of draws.csv."""
        status = COMPLETE if self.error is None else FAILED
        numbers = asdict(self.measured) if self.measured else {}
        remarks = "; ".join(self.outside.values()) or None
        ended = {"status": status, "draws": self.draws, "remarks": remarks, "error": self.error}
        return row_keys(self.spec) | numbers | ended


Finish = Callable[[Path], Sequence[str]]
"""Draws figures into the folder of a check and returns their names."""


@dataclass(frozen=True)
class CheckOptions:
    """How a check is done; none of it is part of the recipe. `depth` None leaves finite depth aside.

    `suggest` asks for an initialisation that passes; `on_try` hears what is drawn in search of it.
    """

    execution: Execution = field(default_factory=Execution)
    depth: int | None = None
    suggest: bool = False
    finish: Finish = lambda _: ()
    on_draw: Callable[[CheckedDraw], None] = lambda _: None
    on_try: Callable[[str], None] = lambda _: None


def check_draws(cells: Sequence[RunSpec], dataset: Dataset, options: CheckOptions) -> list[CheckedDraw]:
    """Measure the draws of some cells on one data set. Raises: Refused where one does not fit the device."""
    device, draws = pick_device(options.execution.device), []
    for spec in cells:
        refuse_impossible(spec, dataset, device)
        with threads_limited(threads_for(options.execution, spec.model.width, dataset.num_samples)):
            draws.append(_check_draw(spec, dataset, device, options.depth))
        options.on_draw(draws[-1])
    return draws


def _check_draw(spec: RunSpec, dataset: Dataset, device: torch.device, depth: int | None) -> CheckedDraw:
    X, y = tensors(dataset)
    try:
        found = drawn(spec, X, y, device)
        solved = solve(spec, found.params, X, y)
        initial = measure(spec, solved, against_limit=True)
        levels = [] if depth is None else _depths(spec, solved, initial, depth)
    except NumericalFailure as error:
        return CheckedDraw(spec, error=str(error))
    try:
        rate = learning_rate(spec, initial)
    except NumericalFailure:  # the draw has none of that kind, which (10) then shows
        rate = None
    fitted = rates_over_depth(levels, initial) if levels else []
    return CheckedDraw(
        spec, initial, _numbers(initial, rate), certify(initial, rate), levels, fitted, draws=found.draws
    )


def _depths(spec: RunSpec, solved: SolvedDraw, initial: Initial, depth: int) -> list[DepthRow]:
    return list(depth_rows(solved, draw_of(spec, initial.input_dim, solved.X.device), initial, depth))


def _numbers(initial: Initial, rate: float | None) -> Measured:
    computed, safe, spectra, delta = initial.computed, initial.safe, initial.spectra, best_delta(initial.safe)
    stable = initial.kernel.stable_rate
    return Measured(
        spectral_norm=computed.spectral_norm,
        spectral_norm_upper=safe.spectral_norm,
        spectral_norm_limit=initial.scales.spectral_norm_limit,
        lambda_0=computed.lambda_0,
        lambda_0_lower=None if initial.error_bound is None else safe.lambda_0,
        lambda_star=computed.lambda_star,
        lambda_min_ntk=float(spectra.ntk[0]),
        lambda_max_ntk=float(spectra.ntk[-1]),
        gram_deviation=spectra.gram_deviation,
        ntk_deviation=spectra.ntk_deviation,
        initial_loss=initial.loss,
        delta=delta,
        error_bound=initial.error_bound,
        learning_rate=rate,
        learning_rate_theorem=None if initial.scales.departures else theorem_rate(safe, delta),
        learning_rate_auto=stable and stable / 2,
        learning_rate_largest_stable=stable,
    )
