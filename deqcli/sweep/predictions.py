"""What training will come to, without training: loss curves, rates and times from the tangent kernel."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from deqcli.data.dataset import Dataset
from deqcli.deq.activations import ACTIVATIONS
from deqcli.errors import Refused
from deqcli.recipe.machine import machine_memory
from deqcli.recipe.schema import Recipe, RunSpec
from deqcli.runs.baseline import dynamics, learning_rate, measure, rates, solve, tensors
from deqcli.runs.device import Execution, pick_device, threads_for, threads_limited
from deqcli.runs.predicted import OF_DATA, OF_DRAW
from deqcli.runs.resample import drawn
from deqcli.runs.run import refuse_impossible
from deqcli.runs.scope import scales
from deqcli.sweep.against import Comparison, Measurement, compare, read_measured
from deqcli.theory.condition import safe_theorem_rate
from deqcli.theory.ensemble import Ensemble, ensembles
from deqcli.theory.expected import Expected
from deqcli.theory.population import Population, kernel_bytes
from deqcli.theory.prediction import KernelPrediction

FRACTIONS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-6)
"""Of the initial loss: what the times are told for, unless losses are asked for."""

KERNELS = {"data": OF_DATA, "draw": OF_DRAW}


@dataclass(frozen=True)
class Predicted:
    """A prediction for a run, or with an `Ensemble` for all runs of a width."""

    spec: RunSpec
    prediction: KernelPrediction | Ensemble
    learning_rate: float
    comparison: Comparison | None = None

    @property
    def mean(self) -> KernelPrediction:
        """The prediction without its band."""
        return self.prediction.mean if isinstance(self.prediction, Ensemble) else self.prediction

    @property
    def kernel(self) -> str:
        """H_inf or H(0)."""
        return OF_DATA if isinstance(self.prediction, Ensemble) else OF_DRAW

    def times(self, losses: Sequence[float]) -> list[tuple[float, int | None]]:
        """(loss, first step that has it): of these losses, or else of `FRACTIONS` of the initial one."""
        start = self.mean.loss(self.learning_rate, 0) or 0.0
        wanted = losses or [fraction * start for fraction in FRACTIONS]
        return [(loss, self.mean.steps_to(loss, self.learning_rate)) for loss in wanted]


Finish = Callable[[Path, "Path | None"], Sequence[str]]
"""Draws figures into the folder of a prediction, beside what was measured; returns their names."""


@dataclass(frozen=True)
class PredictOptions:
    """How a prediction is made; none of it is part of the recipe. `kernel` is `data` or `draw`."""

    kernel: str = "data"
    losses: Sequence[float] = ()
    against: Path | None = None
    execution: Execution = field(default_factory=Execution)
    finish: Finish = lambda *_: ()


def predictions(recipe: Recipe, options: PredictOptions) -> Iterator[Predicted]:
    """Predict the training of each width from the data alone, or of each width and seed from its draw.

    With `against`, predict the runs found there at the learning rates they had, and compare.
    Raises: Refused, NumericalFailure (no kernel, no learning rate), CorruptArtefact.
    """
    if options.kernel not in KERNELS:
        raise Refused(f"--from {options.kernel}: a prediction is from {' or '.join(KERNELS)}")
    for loss in options.losses:
        if not 0 < loss < math.inf:
            raise Refused(f"--loss {loss}: a loss is a positive number")
    measured = {} if options.against is None else _asked_for(recipe, read_measured(options.against, recipe))
    cells = [each.spec for each in measured.values()] or recipe.cells()
    yield from (_from_data if options.kernel == "data" else _from_draws)(cells, recipe, options, measured)


def _asked_for(recipe: Recipe, measured: dict[str, Measurement]) -> dict[str, Measurement]:
    """The measured runs whose width and seed the recipe names. Raises: Refused where there is none."""
    found = {
        run_id: each
        for run_id, each in measured.items()
        if each.spec.model.width in recipe.widths and each.spec.train.seed in recipe.seeds
    }
    if not found:
        there = ", ".join(f"width {each.spec.model.width} seed {each.spec.train.seed}" for each in measured.values())
        raise Refused(f"--against: the recipe names none of what was measured, {there}; use --widths and --seeds")
    return found


def _from_data(
    cells: Sequence[RunSpec], recipe: Recipe, options: PredictOptions, measured: dict[str, Measurement]
) -> Iterator[Predicted]:
    """One ensemble a width; with measured runs, one row a run."""
    _refuse_without_limit(recipe)
    pick_device(options.execution.device)  # refused here as elsewhere, though nothing of this needs one
    _refuse_large(*recipe.data.shape())  # before so many samples are drawn
    dataset = recipe.data.load()
    _refuse_large(dataset.num_samples, dataset.input_dim)
    with threads_limited(threads_for(options.execution, dataset.num_samples, dataset.num_samples)):
        X, y = tensors(dataset)
        model = recipe.model
        population = Population.of(X, model.sigma_w_sq, ACTIVATIONS[model.activation], model.readout_scale)
        factors = {cell.model.width: rates(cell, dataset.input_dim) for cell in cells}
        made = ensembles(population, y, dict(sorted(factors.items())), dynamics(recipe))
        first = {cell.model.width: cell.run_id for cell in reversed(cells)}
        for cell in cells:
            width, found = cell.model.width, measured.get(cell.run_id)
            if found or first[width] == cell.run_id:
                rate = found.learning_rate if found else _rate_from_data(cell, made[width], population, X, y)
                yield _compared(Predicted(cell, made[width], rate), found)


def _rate_from_data(
    cell: RunSpec, ensemble: Ensemble, population: Population, X: torch.Tensor, y: torch.Tensor
) -> float:
    """The learning rate in numbers, `auto` and `theorem` by what the width leads one to expect."""
    wanted = cell.train.learning_rate
    if wanted == "auto":
        return ensemble.mean.auto_rate
    if wanted != "theorem":
        return wanted
    rate = safe_theorem_rate(Expected.of(population, X, y, scales(cell)).sizes(cell.model.width))
    if rate is None:
        raise Refused(
            "train.learning_rate: theorem needs a limit of L ||W||_2 below 1 and num_samples <= width; give a number"
        )
    return rate


def _from_draws(
    cells: Sequence[RunSpec], recipe: Recipe, options: PredictOptions, measured: dict[str, Measurement]
) -> Iterator[Predicted]:
    """One prediction a draw, from its H(0)."""
    dataset, device = recipe.data.load(), pick_device(options.execution.device)
    for spec in cells:
        refuse_impossible(spec, dataset, device)
        with threads_limited(threads_for(options.execution, spec.model.width, dataset.num_samples)):
            found = measured.get(spec.run_id)
            kernel, rate = _of_draw(spec, dataset, device, found.learning_rate if found else None)
            yield _compared(Predicted(spec, kernel, rate), found)


def _of_draw(
    spec: RunSpec, dataset: Dataset, device: torch.device, rate: float | None
) -> tuple[KernelPrediction, float]:
    """The kernel of a draw, and a learning rate in numbers; (10) alone needs all that is measured of a draw."""
    X, y = tensors(dataset)
    solved = solve(spec, drawn(spec, X, y, device).params, X, y)
    if rate is None and spec.train.learning_rate == "theorem":
        initial = measure(spec, solved)
        return initial.kernel, learning_rate(spec, initial)
    kernel = replace(KernelPrediction.of(solved.H, solved.prediction_error), dynamics=dynamics(spec))
    wanted = spec.train.learning_rate if rate is None else rate
    return kernel, kernel.auto_rate if isinstance(wanted, str) else wanted


def _compared(predicted: Predicted, found: Measurement | None) -> Predicted:
    if found is None:
        return predicted
    comparison = compare(found, predicted.prediction, predicted.learning_rate)
    return Predicted(predicted.spec, predicted.prediction, predicted.learning_rate, comparison)


def _refuse_without_limit(recipe: Recipe) -> None:
    """Refuse what has no kernel of its own in the limit, or another one than a Gaussian W."""
    if not scales(recipe).gaussian_limit:
        model = recipe.model
        raise Refused(
            f"a prediction from the data alone is for Gaussian and orthogonal W, an injection U X and no skip; this is "
            f"init {model.init}, injection {model.injection}, skip {str(model.skip).lower()}: use --from draw"
        )


def _refuse_large(n: int | None, d: int | None) -> None:
    """Refuse kernels that do not fit this machine, by the sizes that are known."""
    needed, has = kernel_bytes(n or 1, d or 1), machine_memory()
    if needed > has:
        raise Refused(
            f"the kernels of num_samples {n}, input_dim {d} take {needed} bytes ({needed / 1e9:.3g} GB), "
            f"this machine has {has} bytes ({has / 1e9:.3g} GB)"
        )
