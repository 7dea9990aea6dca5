"""Ctrl-C and SIGTERM: noted while a step is under way, acted on at once everywhere else."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from deqcli.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """Turns signals into `Interrupted`; inside `deferred` the first one is only noted in `pending`.

    It is noted elsewhere too: an exception raised in a destructor is lost, and the next step still stops.
    """

    def __init__(self, signals: Sequence[signal.Signals] = SIGNALS) -> None:
        self._signals = signals
        self.pending: int | None = None
        self._deferring = False

    def _handle(self, signum: int, _frame: FrameType | None) -> None:
        first = self.pending is None
        self.pending = signum
        if not (self._deferring and first):
            raise Interrupted(signum)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Handle the signals inside the block; outside the main thread, where Python allows none, do nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {signum: signal.signal(signum, self._handle) for signum in self._signals}
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Note the first signal instead of raising it; a second one raises."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False
