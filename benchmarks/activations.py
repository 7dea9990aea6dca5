"""What other activations cost: a step of each beside a step of the ReLU, in turn."""

from __future__ import annotations

import time
from contextlib import ExitStack

from benchmarks.deqcli_steps import DeqcliSteps
from benchmarks.problem import Problem, Shape
from benchmarks.tables import Row, median, median_ratio, publish, say
from deqcli.deq.activations import ACTIVATIONS

SHAPES = (Shape(200, 50, 500), Shape(1000, 1000, 1000))
ROUNDS, BLOCK = 15, 5
RELU = "relu"


def run() -> None:
    """The table of docs/performance.md."""
    rows = [row for shape in SHAPES for row in _of(shape)]
    publish("activations", f"A step of each activation, medians of {ROUNDS} rounds of {BLOCK} steps", rows)


def _of(shape: Shape) -> list[Row]:
    say(f"{shape}, learning rate 1/lambda_max(H(0))")
    seconds: dict[str, list[float]] = {name: [] for name in ACTIVATIONS}
    with ExitStack() as stack:
        running = {
            name: DeqcliSteps([Problem(shape, activation=name)], {"kind": "continuation"}) for name in ACTIVATIONS
        }
        for each in running.values():
            stack.callback(each.close)
        for _ in range(ROUNDS):
            for name, each in running.items():
                seconds[name].append(_timed(each))
    return [
        {
            "shape": str(shape),
            "activation": name,
            "milliseconds": 1000 * median(own),
            "to_relu": median_ratio(own, seconds[RELU]),
        }
        for name, own in seconds.items()
    ]


def _timed(contestant: DeqcliSteps) -> float:
    start = time.perf_counter()
    for _ in range(BLOCK):
        contestant.step()
    return (time.perf_counter() - start) / BLOCK
