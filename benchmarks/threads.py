"""From which size on a second thread makes a step faster."""

from __future__ import annotations

import time

import torch

from benchmarks.deqcli_steps import DeqcliSteps
from benchmarks.problem import Problem, Shape
from benchmarks.tables import Row, median, median_ratio, publish, say

SHAPES = [Shape(n, 50, m) for n in (50, 200, 1000) for m in (130, 200, 300, 400, 600)]
STEPS, UNTIMED = 30, 8


def run() -> None:
    """One thread and two in turn, on the same problem."""
    rows: list[Row] = []
    for shape in SHAPES:
        say(f"threads: {shape}")
        steps = {k: DeqcliSteps([Problem(shape)], {"kind": "continuation"}, threads=k) for k in (1, 2)}
        seconds: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(STEPS):
            for threads, contestant in steps.items():
                torch.set_num_threads(threads)
                start = time.perf_counter()
                contestant.step()
                seconds[threads].append(1e3 * (time.perf_counter() - start))
        one, two = (seconds[threads][UNTIMED:] for threads in (1, 2))
        rows.append(
            {
                "n": shape.n, "d": shape.d, "m": shape.m, "one_thread_ms": median(one), "two_threads_ms": median(two),
                "gain": median_ratio(one, two),
            }
        )  # fmt: skip
        for contestant in steps.values():
            contestant.close()
    torch.set_num_threads(2)
    publish("threads", "One thread against two", rows)
