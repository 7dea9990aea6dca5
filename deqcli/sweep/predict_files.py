"""predict: its tables of curves, what each comes to, times, eigendirections, and what was measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from deqcli.recipe.schema import Recipe
from deqcli.runs import files
from deqcli.runs.folder import COMPLETE, Manifest, read_manifest
from deqcli.runs.predicted import OF_DRAW, prediction_keys, prediction_rows
from deqcli.runs.records import PREDICTION_COLUMNS, RUN_KEYS, Row, csv_text
from deqcli.runs.signals import StopSignals
from deqcli.sweep.against import Comparison
from deqcli.sweep.predictions import Predicted, PredictOptions, predictions
from deqcli.sweep.tables import write_tables
from deqcli.theory.ensemble import Ensemble

KEYS = (*RUN_KEYS, "kernel")
SUMMARY_COLUMNS = (
    *KEYS, "learning_rate", "learning_rate_largest_stable", "lambda_min_ntk", "lambda_max_ntk", "steps", "initial_loss",
    "final_loss", "final_loss_low", "final_loss_median", "final_loss_high", "directions_left",
)  # fmt: skip
TIMES_COLUMNS = (*KEYS, "learning_rate", "loss", "step")
DIRECTION_COLUMNS = (*KEYS, "index", "eigenvalue", "factor", "initial_loss", "final_loss")
AGAINST_COLUMNS = (*KEYS, "learning_rate", *Comparison.__annotations__)
LEFT = 0.99
"""Share of the final loss that the directions hold which are left."""


@dataclass(frozen=True)
class Predictions:
    """The folder of a prediction, its parts in the order of the rows, and its figures."""

    folder: Path
    predicted: list[Predicted]
    figures: list[Path]


def predict_folder(out: Path, recipe: Recipe, options: PredictOptions) -> Path:
    """<out>/<name>/predictions/<sweep_id>-<kernel>, with -against where runs are put beside it."""
    return out / recipe.name / "predictions" / _identity(recipe, options)


def _identity(recipe: Recipe, options: PredictOptions) -> str:
    return f"{recipe.sweep_id}-{options.kernel}" + ("" if options.against is None else "-against")


def predict(recipe: Recipe, out: Path, options: PredictOptions) -> Predictions:
    """Write what `predictions` gives, tables and figures.

    Raises: Refused, NumericalFailure (no kernel, no learning rate), CorruptArtefact, FolderInUse, Interrupted.
    """
    folder = predict_folder(out, recipe, options)
    read_manifest(folder, "prediction", _identity(recipe, options))
    with StopSignals().installed():
        predicted = list(predictions(recipe, options))
        figures = _write(folder, recipe, predicted, options)
    return Predictions(folder, predicted, [folder / name for name in figures])


def _write(folder: Path, recipe: Recipe, predicted: Sequence[Predicted], options: PredictOptions) -> list[str]:
    """Write the tables that there is something to say in, then the figures; the names of these."""
    tables = {name: text for name, make in TABLES.items() if (text := make(predicted, options)) is not None}
    note = Manifest(kind="prediction", id=_identity(recipe, options), recipe=recipe.name, status=COMPLETE)
    draw = partial(_finish, options)
    return write_tables(folder, note, recipe, tables, COMPLETE, draw, TABLES)


def _finish(options: PredictOptions, folder: Path) -> Sequence[str]:
    return options.finish(folder, options.against)


def keys(each: Predicted) -> dict[str, object]:
    """What a row is of; beside a measured run it is of that run, whatever the kernel."""
    if each.comparison is not None:
        return prediction_keys(each.spec, OF_DRAW) | {"kernel": each.kernel}
    return prediction_keys(each.spec, each.kernel)


def _curves(predicted: Sequence[Predicted], _: PredictOptions) -> str:
    curves = [(keys(each), prediction_rows(each.spec, each.prediction, each.learning_rate)) for each in predicted]
    return csv_text(PREDICTION_COLUMNS, [{**row, **own} for own, rows in curves for row in rows])


def summary(each: Predicted) -> dict[str, object]:
    """A prediction in a few numbers."""
    steps, rate, mean = each.spec.train.steps, each.learning_rate, each.mean
    low, median, high = (
        each.prediction.band(rate, [steps])[0] if isinstance(each.prediction, Ensemble) else (None, None, None)
    )
    return {
        "learning_rate": rate,
        "learning_rate_largest_stable": mean.stable_rate,
        "lambda_min_ntk": float(mean.eigenvalues[0]),
        "lambda_max_ntk": mean.largest_eigenvalue,
        "steps": steps,
        "initial_loss": mean.loss(rate, 0),
        "final_loss": mean.loss(rate, steps),
        "final_loss_low": low,
        "final_loss_median": median,
        "final_loss_high": high,
        "directions_left": directions_left(each),
    }


def directions_left(each: Predicted) -> int | None:
    """The fewest eigendirections that hold 99 % of the final loss; None where that overflows."""
    parts = sorted(each.mean.parts(each.learning_rate, each.spec.train.steps).tolist(), reverse=True)
    total, held = sum(parts), 0.0
    if not math.isfinite(total):
        return None
    for count, part in enumerate(parts):
        if held >= LEFT * total:
            return count
        held += part
    return len(parts)


def _summary(predicted: Sequence[Predicted], _: PredictOptions) -> str:
    return csv_text(SUMMARY_COLUMNS, [keys(each) | summary(each) for each in predicted])


def _times(predicted: Sequence[Predicted], options: PredictOptions) -> str:
    rows = [
        keys(each) | {"learning_rate": each.learning_rate, "loss": loss, "step": step}
        for each in predicted
        for loss, step in each.times(options.losses)
    ]
    return csv_text(TIMES_COLUMNS, rows)


def _directions(predicted: Sequence[Predicted], _: PredictOptions) -> str:
    return csv_text(DIRECTION_COLUMNS, [row for each in predicted for row in _direction_rows(each)])


def _direction_rows(each: Predicted) -> Iterator[Row]:
    rate, mean = each.learning_rate, each.mean
    before, after = mean.parts(rate, 0).tolist(), mean.parts(rate, each.spec.train.steps).tolist()
    for index, value in enumerate(mean.eigenvalues.tolist()):
        yield keys(each) | {
            "index": index,
            "eigenvalue": value,
            "factor": (1 - rate * value) ** 2,
            "initial_loss": before[index],
            "final_loss": after[index],
        }


def _against(predicted: Sequence[Predicted], _: PredictOptions) -> str | None:
    rows = [
        keys(each) | {"learning_rate": each.learning_rate} | asdict(each.comparison)
        for each in predicted
        if each.comparison is not None
    ]
    return csv_text(AGAINST_COLUMNS, rows) if rows else None


TABLES: dict[str, Callable[[Sequence[Predicted], PredictOptions], str | None]] = {
    files.PREDICTION: _curves,
    "summary.csv": _summary,
    "times.csv": _times,
    "directions.csv": _directions,
    "against.csv": _against,
}
