"""Watching a download: a line that is redrawn in place on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from deqcli.data.fetch import in_words
from deqcli.errors import one_line
from deqcli.show.console import Screen, drawable
from deqcli.show.watch import duration

if TYPE_CHECKING:
    from rich.console import Console

    from deqcli.data.download import Progress
    from deqcli.data.fetch import FetchedFile

LINES_EVERY = 5.0
"""Seconds between plain lines."""

REDRAWN = 4
"""Times a second."""

PACE_OVER, MARK_EVERY = 10.0, 0.1
"""Seconds that the pace is measured over, and between the marks it is measured by."""


class Flow:
    """What was heard of a download: where it is, and its pace of late."""

    def __init__(self) -> None:
        self.now: Progress | None = None
        self._marks: deque[tuple[float, int]] = deque()

    def hear(self, progress: Progress) -> None:
        """Take in where the download is; another file, or one that begins anew, has a pace of its own."""
        before, self.now = self.now, progress
        if before is None or before.file != progress.file or progress.done < before.done:
            self._marks.clear()
        seconds = time.monotonic()
        if not self._marks or seconds - self._marks[-1][0] >= MARK_EVERY:
            self._marks.append((seconds, progress.done))
        while seconds - self._marks[0][0] > PACE_OVER:
            self._marks.popleft()

    def pace(self, seconds: float) -> float | None:
        """Bytes a second up to this moment; None before it is known."""
        marks = list(self._marks)
        if not marks or self.now is None or seconds - marks[0][0] < MARK_EVERY:
            return None
        return (self.now.done - marks[0][1]) / (seconds - marks[0][0])

    def line(self, seconds: float) -> str:
        """`45% mnist/train-images-idx3-ubyte.gz: 4.5 MB of 9.9 MB, 4 s left, 1.2 MB/s`: what counts is not cut off."""
        now, pace = self.now, self.pace(seconds)
        if now is None:
            return ""
        told = [f"{in_words(now.done)} of {in_words(now.size)}"]
        if pace is not None and pace > 0:  # it may have gone on to another file while it is drawn
            told += [f"{duration((now.size - now.done) / pace)} left", f"{in_words(pace)}/s"]
        return f"{now.done / max(1, now.size):.0%} {now.file}: {', '.join(told)}"


class FetchWatch:
    """Hears how far a download is, and shows nothing of it."""

    def hear(self, progress: Progress) -> None:
        """Take in where the download is."""

    def ended(self, file: FetchedFile) -> None:
        """Take in that a file is there."""


@contextmanager
def fetching(screen: Screen) -> Iterator[FetchWatch]:
    """What shows a download on standard error, for the block."""
    if screen.quiet or screen.as_json:
        yield FetchWatch()
        return
    console = drawable(sys.stderr)
    watch = LineWatch(console)
    with nullcontext() if console is None else _drawn(watch.flow, console):
        yield watch


class LineWatch(FetchWatch):
    """A line for each file that is there and for what goes otherwise; where nothing is drawn, one now and then."""

    def __init__(self, console: Console | None) -> None:
        self.flow, self._console = Flow(), console
        self._next = time.monotonic() + LINES_EVERY if console is None else math.inf

    def hear(self, progress: Progress) -> None:
        self.flow.hear(progress)
        if progress.remark is not None:
            host = f"{urlsplit(progress.url).netloc}: " if progress.url else ""
            self._print(f"{progress.file}: {host}{progress.remark}")
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + LINES_EVERY
            self._print(self.flow.line(time.monotonic()))

    def ended(self, file: FetchedFile) -> None:
        self._print(str(file))

    def _print(self, line: str) -> None:
        with suppress(OSError, ValueError):  # that nobody reads is no reason to stop
            if self._console is None:
                print(one_line(line), file=sys.stderr, flush=True)
            else:
                self._console.print(one_line(line), soft_wrap=True, markup=False, highlight=False)


@contextmanager
def _drawn(flow: Flow, console: Console) -> Iterator[None]:
    """The line of a flow, drawn anew in place for the block, and gone in the end."""
    from rich.live import Live
    from rich.text import Text

    def draw() -> Text:
        text = Text(flow.line(time.monotonic()), no_wrap=True)
        text.truncate(console.width - 1, overflow="crop" if console.options.ascii_only else "ellipsis")
        return text

    live = Live(get_renderable=draw, console=console, transient=True, refresh_per_second=REDRAWN, redirect_stdout=False)
    live.start()
    try:
        yield
    finally:
        with suppress(OSError):  # a terminal that is gone is no reason to fail
            try:
                live.stop()
            finally:
                console.show_cursor(True)
