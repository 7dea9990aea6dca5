"""What the rows of spectral.csv cost, beside a step of the same network."""

from __future__ import annotations

import time

from benchmarks.deqcli_steps import DeqcliSteps
from benchmarks.problem import Problem, Shape
from benchmarks.tables import Row, median, publish, say
from deqcli.runs.metrics import Snapshot
from deqcli.runs.records import METRICS

SHAPES = (Shape(200, 50, 500), Shape(1000, 1000, 1000), Shape(1000, 1000, 1000, "float64"))
EVERY, TIMES = 20, 4
"""Steps between measurements, as in the recipes, and how many there are."""


def compare(shape: Shape) -> list[Row]:
    """Train, and look at every 20th step: seconds of each column, in turn with the steps."""
    say(f"loggers at {shape}")
    steps = DeqcliSteps([Problem(shape)], {"kind": "continuation"})
    spent: dict[str, list[float]] = {name: [] for name in METRICS}
    plain = []
    for turn in range(1 + TIMES):  # the first one starts cold
        for _ in range(EVERY):
            start = time.perf_counter()
            steps.step()
            plain.append(time.perf_counter() - start)
        for name, seconds in _columns(steps).items():
            spent[name] += [seconds] * (turn > 0)
    steps.close()
    step = median(plain[EVERY:])
    return [
        {
            "n": shape.n, "d": shape.d, "m": shape.m, "dtype": shape.dtype, "column": name,
            "ms": 1e3 * median(spent[name]), "percent_of_a_step": 100 * median(spent[name]) / step,
        }
        for name in METRICS
    ]  # fmt: skip


def _columns(steps: DeqcliSteps) -> dict[str, float]:
    attempt, team = steps.attempts[0], steps.team
    trainer, cell = attempt.trainer, team.network.cell(0)
    e = team.network.prediction_error(attempt.y)
    snapshot = Snapshot(attempt.metrics, cell, e, trainer.step + 1, 1.0)  # + 1: no multiple of 200, which starts cold
    seconds = {}
    for name in METRICS:
        start = time.perf_counter()
        getattr(snapshot, name)
        seconds[name] = time.perf_counter() - start
    return seconds


def run() -> None:
    """All shapes."""
    rows = [row for shape in SHAPES for row in compare(shape)]
    publish("loggers", "Columns of spectral.csv; what a column takes from another is counted once, at the first", rows)
