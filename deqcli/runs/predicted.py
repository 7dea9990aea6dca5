"""Predicted loss curves as rows of prediction.csv."""

from __future__ import annotations

from collections.abc import Iterator

from deqcli.recipe.schema import RunSpec
from deqcli.runs.folder import row_keys
from deqcli.runs.records import Row
from deqcli.theory.ensemble import Ensemble
from deqcli.theory.prediction import KernelPrediction, step_grid

OF_DRAW, OF_DATA = "H(0)", "H_inf"
"""The `kernel` of a prediction: that of a draw, or that of the limit, which the data alone decide."""


def prediction_rows(spec: RunSpec, prediction: KernelPrediction | Ensemble, learning_rate: float) -> Iterator[Row]:
    """The curve of a run from the kernel of its draw; or with a band, and no seed, from that of the limit."""
    steps = step_grid(spec.train.steps)
    if isinstance(prediction, Ensemble):
        kernel, mean, band = OF_DATA, prediction.mean, prediction.band(learning_rate, steps)
    else:
        kernel, mean, band = OF_DRAW, prediction, [(None, None, None)] * len(steps)
    losses = mean.losses(learning_rate, steps)
    for step, loss, (low, median, high) in zip(steps, losses, band, strict=True):
        yield prediction_keys(spec, kernel) | {
            "learning_rate": learning_rate,
            "step": step,
            "time": learning_rate * spec.model.width * step,
            "loss": loss,
            "loss_low": low,
            "loss_median": median,
            "loss_high": high,
        }


def prediction_keys(spec: RunSpec, kernel: str) -> dict[str, object]:
    """What a row of a prediction is of; from the data alone it is of no run and no seed."""
    keys = row_keys(spec) | {"kernel": kernel}
    return keys if kernel == OF_DRAW else keys | {"run_id": None, "seed": None}
