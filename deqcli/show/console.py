"""Tables, sentences and progress on a terminal; plain lines in a pipe or a log."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from deqcli.errors import one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from deqcli.recipe.schema import RunSpec

PLAIN_WIDTH = 160
PLAIN_EVERY = 30.0
"""Seconds between progress lines where there is no terminal."""


def number(value: object, digits: int = 6) -> str:
    """A value for a person: few digits, yes/no, a dash where there is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


class Screen:
    """Where a command speaks: results on standard output, progress and failures on standard error."""

    def __init__(self, quiet: bool = False, as_json: bool = False) -> None:
        self.quiet, self.as_json = quiet, as_json

    def say(self, sentence: str) -> None:
        """A line of the result, never folded, so that a path in it can be copied."""
        if not (self.quiet or self.as_json):
            print(sentence)

    def note(self, sentence: str) -> None:
        """A line about what is going on."""
        if not (self.quiet or self.as_json):
            print(sentence, file=sys.stderr)

    def complain(self, sentence: str) -> None:
        """A failure; shown whatever was asked for, printable whatever it quotes."""
        print("\n".join(map(one_line, sentence.splitlines())), file=sys.stderr)

    def table(self, title: str, columns: list[str], rows: list[list[object]], digits: int = 6) -> None:
        """A small table, its first column to the left and the others to the right."""
        if self.quiet or self.as_json:
            return
        from rich.markup import escape
        from rich.table import Table

        table = Table(title=escape(title), title_justify="left", box=None, pad_edge=False, header_style="bold")
        for index, column in enumerate(columns):
            table.add_column(escape(column), justify="left" if index == 0 else "right", overflow="fold")
        for row in rows:
            table.add_row(*(escape(number(value, digits)) for value in row))
        console = _console(sys.stdout)
        with console.capture() as printed:  # rich would end the program itself where nobody reads on
            console.print(table)
        print(printed.get(), end="")

    def document(self, content: Mapping[str, Any]) -> None:
        """The one JSON document of --json."""
        if self.as_json:
            print(json.dumps(_finite(content), indent=1, default=str, allow_nan=False))

    @contextmanager
    def progress(self) -> Iterator[Watch]:
        """A display of running cells: bars on a terminal, a line now and then elsewhere, nothing when quiet."""
        if self.quiet or self.as_json:
            yield Watch()
            return
        console = terminal(sys.stderr)
        if console is not None:
            with _bars(console) as bars:
                yield BarWatch(bars)
        else:
            yield LineWatch()


def terminal(file: IO[str]) -> Console | None:
    """A console for drawing on, None where there is no terminal that can."""
    console = _console(file)
    return console if console.is_terminal and not console.is_dumb_terminal else None


def _finite(value: object) -> object:
    """The value with null for what JSON has no number for."""
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _console(file: IO[str]) -> Console:
    from rich.console import Console

    return Console(file=file, width=None if file.isatty() else PLAIN_WIDTH, highlight=False)


class Watch:
    """Hears how far runs are, and shows nothing of it."""

    def progress(self, spec: RunSpec, step: int, loss: float) -> None:
        """A run is at `step` with `loss`."""

    def end(self, spec: RunSpec) -> None:
        """A run has ended."""


def _bars(console: Console) -> Progress:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TextColumn("{task.fields[state]}"))
    return Progress(*columns, TimeRemainingColumn(), console=console, transient=True)


class BarWatch(Watch):
    """A bar for each running cell."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def progress(self, spec: RunSpec, step: int, loss: float) -> None:
        if spec.run_id not in self._tasks:
            title = f"width {spec.model.width} seed {spec.train.seed}"
            self._tasks[spec.run_id] = self._bars.add_task(title, total=spec.train.steps, state="")
        state = f"step {step}/{spec.train.steps} loss {loss:.4g}"
        self._bars.update(self._tasks[spec.run_id], completed=step, state=state)

    def end(self, spec: RunSpec) -> None:
        if spec.run_id in self._tasks:
            self._bars.remove_task(self._tasks.pop(spec.run_id))


class LineWatch(Watch):
    """A plain line for each cell now and then."""

    def __init__(self) -> None:
        self._last = dict[str, float]()

    def progress(self, spec: RunSpec, step: int, loss: float) -> None:
        now = time.monotonic()
        if now - self._last.setdefault(spec.run_id, now) >= PLAIN_EVERY:
            self._last[spec.run_id] = now
            print(f"{spec.run_id}: step {step}/{spec.train.steps} loss {loss:.4g}", file=sys.stderr)


def relative(path: Path) -> str:
    """A path as short as it can be from here."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
