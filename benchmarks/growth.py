"""How the cost of a step grows with m, n and d, over a decade each."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from benchmarks.deqcli_steps import DeqcliSteps
from benchmarks.peers import Floor
from benchmarks.problem import Problem, Shape
from benchmarks.tables import Row, median, publish, say

LADDERS = {
    "m": [Shape(300, 300, m) for m in (300, 550, 1000, 1700, 3000)],
    "n": [Shape(n, 300, 1000) for n in (100, 180, 300, 550, 1000)],
    "d": [Shape(300, d, 1000) for d in (100, 180, 300, 550, 1000)],
}
STEPS, UNTIMED = 25, 10


def run() -> None:
    """The three ladders, and the exponents that fit them."""
    rows: list[Row] = []
    for name, shapes in LADDERS.items():
        times = [_timed(shape) for shape in shapes]
        sizes = [getattr(shape, name) for shape in shapes]
        mine, floor = (_exponent(sizes, [each[k] for each in times]) for k in (0, 1))
        for size, (ms, floor_ms) in zip(sizes, times, strict=True):
            rows.append(
                {
                    "of": name, "size": size, "deqcli_ms": ms, "floor_ms": floor_ms,
                    "deqcli_exponent": mine, "floor_exponent": floor,
                }
            )  # fmt: skip
    publish("growth", "Growth of a step over a decade: time ~ size^exponent (others: 300; m: 1000)", rows)


def _timed(shape: Shape) -> tuple[float, float]:
    say(f"growth: {shape}")
    problem = Problem(shape)
    steps, floor = DeqcliSteps([problem], {"kind": "continuation"}), Floor(problem)
    mine, least = [], []
    for _ in range(STEPS):
        for contestant, seconds in ((steps, mine), (floor, least)):
            start = time.perf_counter()
            contestant.step()
            seconds.append(1e3 * (time.perf_counter() - start))
    steps.close()
    return median(mine[UNTIMED:]), median(least[UNTIMED:])


def _exponent(sizes: Sequence[int], times: Sequence[float]) -> float:
    return float(np.polyfit(np.log(sizes), np.log(times), 1)[0])
