"""Time of a whole training step, contestant by contestant, in turn: first the same losses, then the clock."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol

from benchmarks.deqcli_steps import DeqcliSteps
from benchmarks.peers import Floor, Jaxopt, Torchdeq, TorchdeqAnderson, TorchdeqBroyden, TorchdeqWarm, Unrolled
from benchmarks.problem import Problem, Shape
from benchmarks.tables import Row, median, median_ratio, publish, say

AGREEMENT = {"float32": 1e-4, "float64": 1e-8}
"""Largest relative difference of losses at the same step."""

CHECKED = 5
"""Rounds after which losses are compared before anything counts; of those who take fewer, the last round counts."""


class Contestant(Protocol):
    """Takes one gradient step at a time."""

    def step(self) -> None:
        """One gradient step."""


@dataclass(frozen=True)
class Entry:
    """A contestant by name; `module` is what it needs; `slow` ones take part in a few rounds only."""

    name: str
    make: Callable[[Problem], Any]
    module: str | None = None
    slow: bool = False

    @property
    def installed(self) -> bool:
        """Whether what it needs is there."""
        return self.module is None or importlib.util.find_spec(self.module) is not None


def deqcli(name: str, **solver: Any) -> Entry:
    """deqcli with a solver."""
    return Entry(name, lambda problem: DeqcliSteps([problem], solver))


ENTRIES = (
    deqcli("deqcli", kind="continuation"),
    deqcli("deqcli, float32 alone", kind="continuation", corrections="full"),
    deqcli("deqcli, picard", kind="picard"),
    Entry("torchdeq, fixed point", Torchdeq, "torchdeq"),
    Entry("torchdeq, warm start", TorchdeqWarm, "torchdeq"),
    Entry("torchdeq, Anderson", TorchdeqAnderson, "torchdeq", slow=True),
    Entry("torchdeq, Broyden", TorchdeqBroyden, "torchdeq", slow=True),
    Entry("jaxopt, BiCGSTAB", Jaxopt, "jaxopt"),
    Entry("autograd, unrolled", Unrolled),
)
"""The first one is what is measured."""


EVERYONE = tuple(each.name for each in ENTRIES)
FAST = ("deqcli", "deqcli, picard", "torchdeq, fixed point", "torchdeq, warm start")
"""Who takes part where the others would take minutes."""


@dataclass(frozen=True)
class Scenario:
    """A problem, who takes part, and in how many rounds: deqcli, others, and those that are slow.

    In a round everyone takes `block` steps in a row, as in training: where steps take milliseconds, a cache that others
    have just filled would be what is measured.
    """

    shape: Shape
    factor: float
    rounds: int
    others: int
    slow: int = 3
    block: int = 1
    names: tuple[str, ...] = EVERYONE


SCENARIOS = (
    Scenario(Shape(200, 50, 500), 1.0, 20, 12, block=10),
    Scenario(Shape(1000, 1000, 1000), 1.0, 40, 12),
    Scenario(Shape(1000, 1000, 1000), 0.1, 120, 9, names=FAST),
    Scenario(Shape(1000, 1000, 1000, "float64"), 1.0, 14, 7, 2),
    Scenario(Shape(1000, 1000, 3000), 1.0, 13, 7, names=FAST),
)


def compare(scenario: Scenario) -> list[Row]:
    """Build the contestants, let them step in turn, check their losses, and give a row for each."""
    problem = Problem(scenario.shape, scenario.factor)
    say(f"{problem.shape}, learning rate {scenario.factor:g}/lambda_max(H(0))")
    entries = [each for each in ENTRIES if each.installed and each.name in scenario.names]
    floor, floors = Floor(problem), list[float]()
    seconds: dict[str, list[float]] = {each.name: [] for each in entries}
    with ExitStack() as stack:
        running = {each.name: _made(each, problem, stack) for each in entries}
        for turn in range(scenario.rounds):
            floors.append(_timed(floor, scenario.block))
            for each in entries:
                if turn < _rounds(each, scenario):
                    seconds[each.name].append(_timed(running[each.name], scenario.block))
            if turn == CHECKED - 1:
                _check(problem, running)
        _check(problem, running)
    return [_row(scenario, each.name, seconds, floors) for each in entries] + [_floor_row(scenario, floors)]


def _made(entry: Entry, problem: Problem, stack: ExitStack) -> Any:
    contestant = entry.make(problem)
    if isinstance(contestant, DeqcliSteps):
        stack.callback(contestant.close)
    return contestant


def _rounds(entry: Entry, scenario: Scenario) -> int:
    if entry.slow:
        return scenario.slow
    return scenario.rounds if entry.name.startswith("deqcli") else scenario.others


def _timed(contestant: Contestant, block: int) -> float:
    """Seconds of a step."""
    start = time.perf_counter()
    for _ in range(block):
        contestant.step()
    return (time.perf_counter() - start) / block


def _losses(contestant: Any) -> list[float]:
    losses: list[float] = contestant.losses[0] if isinstance(contestant, DeqcliSteps) else contestant.losses
    return losses


def _check(problem: Problem, running: dict[str, Any]) -> None:
    """Raise RuntimeError where a loss is not that of plain iteration."""
    losses = {name: _losses(contestant) for name, contestant in running.items()}
    reference = losses["deqcli, picard"]
    for name, found in losses.items():
        for step, (loss, wanted) in enumerate(zip(found, reference, strict=False), start=1):
            if not abs(loss - wanted) <= AGREEMENT[problem.shape.dtype] * wanted:
                raise RuntimeError(f"{problem.shape}, step {step}: the loss of {name} is {loss!r}, not {wanted!r}")


def _row(scenario: Scenario, name: str, seconds: dict[str, list[float]], floors: Sequence[float]) -> Row:
    shape, mine = scenario.shape, _over_floor(seconds[name], floors)
    torchdeq = _over_floor(seconds["torchdeq, fixed point"], floors) if "torchdeq, fixed point" in seconds else None
    timed = seconds[name][_first(seconds[name]) :]
    return {
        "n": shape.n, "d": shape.d, "m": shape.m, "dtype": shape.dtype, "rate": scenario.factor, "method": name,
        "ms_per_step": 1e3 * median(timed), "over_floor": mine,
        "faster_than_torchdeq": torchdeq / mine if torchdeq else None, "steps_timed": len(timed) * scenario.block,
    }  # fmt: skip


def _first(seconds: Sequence[float]) -> int:
    """The first round that counts."""
    return min(CHECKED, len(seconds) - 1)


def _over_floor(seconds: Sequence[float], floors: Sequence[float]) -> float:
    first = _first(seconds)
    return median_ratio(seconds[first:], floors[first:])


def _floor_row(scenario: Scenario, floors: list[float]) -> Row:
    return _row(scenario, "floor", {"floor": floors}, floors)


def run() -> None:
    """All scenarios."""
    rows = [row for scenario in SCENARIOS for row in compare(scenario)]
    publish("steps", "Whole training steps (medians; after the first five)", rows)
