"""Finished runs beside their prediction: how far apart, in decades of the loss."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deqcli.errors import Refused
from deqcli.recipe.loading import load_recipe
from deqcli.recipe.schema import Recipe, RunSpec
from deqcli.runs import files
from deqcli.sweep.stored import open_stored
from deqcli.theory.ensemble import Ensemble
from deqcli.theory.prediction import KernelPrediction

CONVERGED = "converged"


@dataclass(frozen=True)
class Measurement:
    """A run that was trained: its learning rate, and (step, loss) of its rows."""

    spec: RunSpec
    learning_rate: float
    losses: list[tuple[int, float]]


@dataclass(frozen=True)
class Comparison:
    """log10(loss) - log10(predicted loss): the one largest in size and its step, and the last; rows within the band."""

    largest_deviation: float
    largest_deviation_step: int
    final_deviation: float
    share_in_band: float | None


def read_measured(path: Path, recipe: Recipe) -> dict[str, Measurement]:
    """The runs of a run's or a sweep's folder by run_id, in the order of their rows.

    Raises: Refused where the folder is no such one, or its data and model are not the recipe's; CorruptArtefact where
    its tables are not what was written.
    """
    for name in (files.RECIPE, files.MANIFEST, files.LOSS, files.PREDICTION):
        if not (path / name).is_file():
            raise Refused(f"--against {path}: it has no {name}; name the folder of a finished run or sweep")
    stored = open_stored(path)
    trained = load_recipe(str(path / files.RECIPE))
    _refuse_other(path, recipe, trained)
    rates = {row["run_id"]: float(row["learning_rate"]) for row in stored.rows(files.PREDICTION)}
    rows = [row for row in stored.rows(files.LOSS) if row["status"] == CONVERGED and float(row["loss"]) > 0]
    losses: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        losses.setdefault(row["run_id"], []).append((int(row["step"]), float(row["loss"])))
    cells = {cell.run_id: cell for cell in trained.cells()}
    found = {each: Measurement(cells[each], rates[each], losses[each]) for each in losses if each in cells}
    if not found:
        raise Refused(f"--against {path}: no row of its {files.LOSS} is of a converged step")
    return found


def _refuse_other(path: Path, recipe: Recipe, trained: Recipe) -> None:
    differs = list(_differences(recipe, trained))
    if differs:
        raise Refused(f"--against {path}: it was trained with another {', '.join(differs)} than the recipe says")


def _differences(recipe: Recipe, trained: Recipe) -> Iterator[str]:
    """Keys of data and model that decide a prediction and differ; the width is the run's."""
    for section in ("data", "model"):
        ours, theirs = (getattr(each, section).identity() for each in (recipe, trained))
        for key in sorted({*ours, *theirs} - {"width"}):
            if ours.get(key) != theirs.get(key):
                yield f"{section}.{key} ({theirs.get(key)!r}, not {ours.get(key)!r})"


def compare(measured: Measurement, prediction: KernelPrediction | Ensemble, learning_rate: float) -> Comparison:
    """Put the rows of a run beside the prediction for them; a predicted loss of 0 or overflow is infinitely far."""
    mean = prediction.mean if isinstance(prediction, Ensemble) else prediction
    steps = [step for step, _ in measured.losses]
    predicted = mean.losses(learning_rate, steps)
    deviations = [
        (_decades(loss, expected), step) for (step, loss), expected in zip(measured.losses, predicted, strict=True)
    ]
    largest, step = max(deviations, key=lambda each: abs(each[0]))
    share = _share_in_band(measured, prediction, learning_rate) if isinstance(prediction, Ensemble) else None
    return Comparison(largest, step, deviations[-1][0], share)


def _decades(loss: float, predicted: float | None) -> float:
    if predicted is None or predicted == 0:
        return -math.inf if predicted is None else math.inf
    return math.log10(loss) - math.log10(predicted)


def _share_in_band(measured: Measurement, ensemble: Ensemble, learning_rate: float) -> float:
    bands = ensemble.band(learning_rate, [step for step, _ in measured.losses])
    inside = [
        low is not None and high is not None and low <= loss <= high
        for (low, _, high), (_, loss) in zip(bands, measured.losses, strict=True)
    ]
    return sum(inside) / len(inside)
