"""Sweeps of small networks: what a step of one of eight seeds costs, against a loop of torchdeq over the seeds."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection

import torch

from benchmarks.deqcli_steps import DeqcliSteps, spec_of
from benchmarks.peers import Torchdeq
from benchmarks.problem import Problem, Shape
from benchmarks.tables import Row, median, median_ratio, publish, say

SEEDS, JOBS = 8, 2
WIDTHS = {64: 40, 128: 40, 256: 20}
"""Widths, and the steps of one timing."""

ROUNDS, UNTIMED = 9, 2
SOLVER = {"kind": "continuation"}


class Worker:
    """A process that trains some seeds as a worker of `deqcli sweep-width` does: stacked where small, one thread."""

    def __init__(self, width: int, seeds: Sequence[int]) -> None:
        self.pipe, other = multiprocessing.Pipe()
        self.process = multiprocessing.get_context("spawn").Process(target=_serve, args=(other, width, seeds))
        self.process.start()

    def close(self) -> None:
        """End it."""
        self.pipe.send(0)
        self.process.join()


def _serve(pipe: Connection, width: int, seeds: Sequence[int]) -> None:
    torch.set_num_threads(1)
    problems = [Problem(Shape(100, 20, width), seed=seed) for seed in seeds]
    stacks = [problems] if spec_of(problems[0], SOLVER).stackable else [[problem] for problem in problems]
    teams = [DeqcliSteps(stack, SOLVER, threads=1) for stack in stacks]
    pipe.send("ready")
    while steps := pipe.recv():
        for team in teams:
            for _ in range(steps):
                team.step()
        pipe.send("done")
    for team in teams:
        team.close()


def _together(workers: Sequence[Worker], steps: int) -> float:
    """Seconds for so many steps of every seed, all workers at once."""
    start = time.perf_counter()
    for worker in workers:
        worker.pipe.send(steps)
    for worker in workers:
        worker.pipe.recv()
    return time.perf_counter() - start


def _loop(peers: Sequence[Torchdeq], steps: int) -> float:
    """Seconds for so many steps of one seed after the other, on average a seed; all of them a few at a time."""
    start = time.perf_counter()
    for peer in peers:
        for _ in range(steps):
            peer.step()
    return time.perf_counter() - start


def compare(width: int, steps: int) -> Row:
    """Workers and loop in turn; milliseconds a run and step."""
    say(f"sweep of {SEEDS} seeds at m={width}")
    workers = [Worker(width, range(first, SEEDS, JOBS)) for first in range(JOBS)]
    for worker in workers:
        worker.pipe.recv()
    peers = [Torchdeq(Problem(Shape(100, 20, width), seed=seed)) for seed in range(SEEDS)]
    mine, loop = [], []
    for _ in range(ROUNDS):
        mine.append(1e3 * _together(workers, steps) / (steps * SEEDS))
        loop.append(1e3 * min(_with_threads(threads, peers) for threads in (1, 2)) / SEEDS)
    for worker in workers:
        worker.close()
    return {
        "m": width, "seeds": SEEDS, "deqcli_ms": median(mine[UNTIMED:]), "torchdeq_loop_ms": median(loop[UNTIMED:]),
        "faster_than_torchdeq": median_ratio(loop[UNTIMED:], mine[UNTIMED:]),
    }  # fmt: skip


def _with_threads(threads: int, peers: Sequence[Torchdeq]) -> float:
    torch.set_num_threads(threads)
    try:
        return _loop(peers, 1)
    finally:
        torch.set_num_threads(2)


def run() -> None:
    """All widths."""
    rows = [compare(width, steps) for width, steps in WIDTHS.items()]
    publish("sweeps", f"Sweeps of {SEEDS} seeds, n=100 d=20: milliseconds a run and step", rows)
