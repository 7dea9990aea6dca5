"""Driving a pool: batches started as they fit, attempts repeated that died, everything stopped when it must be."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from signal import Signals
from typing import Protocol

from deqcli.errors import DiskFull, Interrupted
from deqcli.recipe.execution import ExecutionOptions
from deqcli.recipe.schema import RunSpec
from deqcli.runs.folder import COMPLETE, FAILED, INTERRUPTED
from deqcli.runs.signals import SIGNALS, StopSignals
from deqcli.sweep.cells import FULL, LOST, Batch, CellEnd, OnEnd

POLL_SECONDS = 0.2
GRACE_SECONDS = 60.0
"""How long what runs may take to checkpoint after it was asked to stop."""


class Pool(Protocol):
    """Where batches are computed, several at a time; every cell that was started ends once."""

    def room(self, batch: Batch) -> bool:
        """Whether a batch can be started now."""

    def start(self, batch: Batch) -> None:
        """Start the cells of a batch."""

    def ended(self, seconds: float) -> list[CellEnd]:
        """The cells that have ended, after waiting for one up to so many seconds."""

    def stop(self) -> None:
        """Ask everything that runs for a checkpoint and an end."""


@dataclass(frozen=True)
class Listener:
    """Hears how a sweep goes: of a cell that has ended, of an attempt that is repeated, and of those that run."""

    ended: OnEnd = lambda _: None
    repeated: OnEnd = lambda _: None
    running: Callable[[Sequence[RunSpec]], None] = lambda _: None


class Drive:
    """The cells of a sweep on their way through a pool."""

    def __init__(
        self, pool: Pool, batches: Sequence[Batch], execution: ExecutionOptions, listener: Listener,
        signals: Sequence[Signals] = SIGNALS,
    ) -> None:  # fmt: skip
        self._pool, self._execution, self._listener = pool, execution, listener
        self._signals = StopSignals(signals)
        self._waiting = list(batches)
        self._running: dict[str, RunSpec] = {}
        self._together: set[str] = set()
        self._attempts = Counter[str]()
        self._full: CellEnd | None = None
        self._failed = False

    def run(self) -> None:
        """Compute every cell; the listener hears of each as it ends.

        Raises: Interrupted after a signal, DiskFull, both once everything that ran has checkpointed or ended.
        """
        signals = self._signals
        with signals.installed(), signals.deferred():
            while self._waiting or self._running:
                self._fill()
                for end in self._pool.ended(POLL_SECONDS):
                    self._take(end)
                self._listener.running(list(self._running.values()))
                if signals.pending is not None:
                    left = self._drain()
                    raise Interrupted(signals.pending, f"interrupted; {left} cells had not started")
                if self._full is not None:
                    self._drain()
                    raise DiskFull(f"{self._full.spec.run_id}: {self._full.error}")
                if self._failed and self._execution.fail_fast:
                    self._drain()
                    self._leave_waiting()

    def _fill(self) -> None:
        """Start whatever fits, in its order; alone everything does."""
        for batch in list(self._waiting):
            if self._pool.room(batch):
                self._waiting.remove(batch)
                self._running |= {spec.run_id: spec for spec in batch}
                self._together |= {spec.run_id for spec in batch if len(batch) > 1}
                self._pool.start(batch)

    def _take(self, end: CellEnd) -> None:
        del self._running[end.spec.run_id]
        if end.status == LOST:
            self._lost(end)
            return
        if end.status == FULL:
            self._full = end
        self._end(replace(end, status=FAILED) if end.status == FULL else end)

    def _lost(self, end: CellEnd) -> None:
        """Try a cell again, alone; where it shared its process nobody knows which cell was to blame, and none is."""
        run_id = end.spec.run_id
        shared = run_id in self._together
        self._together.discard(run_id)
        self._attempts[run_id] += not shared
        if self._attempts[run_id] > self._execution.retries:
            self._end(replace(end, status=FAILED))
        else:
            self._waiting.insert(0, [end.spec])
            self._listener.repeated(replace(end, attempts=self._attempts[run_id] + 1))

    def _end(self, end: CellEnd) -> None:
        self._failed = self._failed or end.status == FAILED
        vain = self._attempts[end.spec.run_id] if end.status == FAILED else 0
        self._listener.ended(replace(end, attempts=max(1, vain)))

    def _drain(self) -> int:
        """Stop what runs and hear it out; what stays silent is left to its end. The number of cells not started."""
        self._pool.stop()
        deadline = time.monotonic() + GRACE_SECONDS
        while self._running and time.monotonic() < deadline:
            for end in self._pool.ended(POLL_SECONDS):
                del self._running[end.spec.run_id]
                kept = end.status in (COMPLETE, FAILED)
                self._end(end if kept else replace(end, status=INTERRUPTED))
        return sum(len(batch) for batch in self._waiting)

    def _leave_waiting(self) -> None:
        for batch in self._waiting:
            for spec in batch:
                self._end(CellEnd(spec, INTERRUPTED, "not started, since another run failed (fail_fast)"))
        self._waiting = []
