"""What a person watching a sweep is told: the running cells, how many are how far, and the time that is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deqcli.recipe.schema import RunSpec
from deqcli.runs.folder import RUNNING
from deqcli.sweep.cells import CellEnd
from deqcli.sweep.status import WAITING, CellState, Paces, counts, learn_paces, read_state, seconds_left

LOOK_EVERY = 1.0
"""Seconds between looks at the folders of the running cells."""


@dataclass(frozen=True)
class Progress:
    """Cells by how far they are, those that run, and the seconds that are left for all, if a step was measured."""

    counts: Mapping[str, int]
    running: Sequence[CellState]
    seconds_left: float | None

    @classmethod
    def of(cls, states: Sequence[CellState], paces: Paces, jobs: int) -> Progress:
        """From the states of all cells, so many of which can run at a time."""
        running = [each for each in states if each.state == RUNNING]
        return cls(counts(states), running, seconds_left(states, paces, jobs))


class Watcher:
    """Looks at the running cells now and then; what has ended it need not read again."""

    def __init__(
        self, out: Path, cells: Sequence[RunSpec], ended: Mapping[str, CellEnd], tell: Callable[[Progress], None]
    ) -> None:
        self._out, self._cells, self._ended, self._tell = out, cells, ended, tell
        self._paces: Paces = {}
        self._next = 0.0

    def running(self, specs: Sequence[RunSpec]) -> None:
        """Tell how far these cells and all others are, if the last time is long enough ago."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + LOOK_EVERY
            started = {spec.run_id for spec in specs}
            states = [self._state(cell, cell.run_id in started) for cell in self._cells]
            learn_paces(self._paces, self._out, states)
            self._tell(Progress.of(states, self._paces, len(specs)))

    def _state(self, cell: RunSpec, started: bool) -> CellState:
        if started:
            return replace(read_state(self._out, cell), state=RUNNING)
        end = self._ended.get(cell.run_id)
        return CellState(cell, end.status if end else WAITING)
