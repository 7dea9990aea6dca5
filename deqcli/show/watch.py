"""Watching a sweep: a live table on a terminal, a plain line for each running cell and minute elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from deqcli.show.console import Screen, number, terminal

if TYPE_CHECKING:
    from rich.table import Table

    from deqcli.recipe.schema import Recipe
    from deqcli.sweep.status import CellState
    from deqcli.sweep.watch import Progress

LINES_EVERY = 60.0
"""Seconds between the plain lines of a cell."""

COLUMNS = ("cell", "step", "loss", "||W||_2", "iterations", "time left")
WIDE, NARROW_COLUMNS = 80, ("cell", "step", "loss", "time left")
"""Columns of a terminal from which all of `COLUMNS` are shown, and what is shown below."""


class SweepWatch:
    """Hears how far a sweep is, and shows nothing of it."""

    def update(self, progress: Progress) -> None:
        """Show how far the cells are."""


@contextmanager
def watching(screen: Screen, recipe: Recipe) -> Iterator[SweepWatch]:
    """What shows a sweep of this recipe on standard error, for the block."""
    if screen.quiet or screen.as_json:
        yield SweepWatch()
        return
    console = terminal(sys.stderr)
    if console is None:
        yield LineWatch(recipe)
        return
    from rich.live import Live

    columns = COLUMNS if console.width >= WIDE else NARROW_COLUMNS
    with Live(console=console, transient=True, refresh_per_second=2, redirect_stderr=True) as live:
        yield LiveWatch(recipe, columns, live.update)


class LineWatch(SweepWatch):
    """A line for each running cell and for all of them, once a minute."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe, self._next = recipe, time.monotonic() + LINES_EVERY

    def update(self, progress: Progress) -> None:
        if time.monotonic() >= self._next:
            self._next += LINES_EVERY
            for each in progress.running:
                print(f"{self._recipe.title(each.spec)}: {'  '.join(words(each))}", file=sys.stderr)
            print(summary(progress.counts, progress.seconds_left), file=sys.stderr, flush=True)


class LiveWatch(SweepWatch):
    """A table of the running cells above the counts, drawn anew in place."""

    def __init__(self, recipe: Recipe, columns: Sequence[str], draw: Callable[[Table], None]) -> None:
        self._recipe, self._columns, self._draw = recipe, columns, draw

    def update(self, progress: Progress) -> None:
        self._draw(_table(self._recipe, self._columns, progress))


def _table(recipe: Recipe, columns: Sequence[str], progress: Progress) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", caption_justify="left", caption_style="")
    for index, column in enumerate(columns):
        table.add_column(escape(column), justify="left" if index == 0 else "right", no_wrap=index > 0)
    for each in progress.running:
        row = dict(zip(COLUMNS, [recipe.title(each.spec), *values(each)], strict=True))
        table.add_row(*(escape(row[column]) for column in columns))
    table.caption = escape(summary(progress.counts, progress.seconds_left))
    return table


def values(state: CellState) -> list[str]:
    """Step, loss, norm of W, iterations and time left of a cell, as `COLUMNS` names them."""
    step = f"{state.step or 0}/{state.spec.train.steps}"
    shown = [number(each, 4) for each in (state.loss, state.spectral_norm, state.iterations)]
    return [step, *shown, duration(state.seconds_left)]


def words(state: CellState) -> list[str]:
    """The values of a cell, each with its name."""
    return [f"{name} {value}" for name, value in zip(COLUMNS[1:], values(state), strict=True)]


def summary(counts: Mapping[str, int], seconds_left: float | None) -> str:
    """`3 complete, 2 running, 5 waiting; 4 min left`."""
    cells = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    busy = any(counts.get(state) for state in ("running", "waiting", "interrupted"))
    return cells + (f"; {duration(seconds_left)} left" if busy and seconds_left is not None else "")


def duration(seconds: float | None) -> str:
    """A time for a person, rounded; a dash where it is not known."""
    if seconds is None:
        return "-"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def state_columns() -> list[str]:
    """The columns of `state_rows`."""
    return [COLUMNS[0], "state", *COLUMNS[1:]]


def remark(state: CellState) -> str | None:
    """What there is to say of a cell beside its numbers: why it failed, or who computes it since when in silence."""
    if state.error:
        return state.error
    if state.owner is None or state.idle_seconds is None:
        return None
    return f"{state.owner}, last wrote {duration(state.idle_seconds)} ago"


def state_rows(recipe: Recipe, states: Sequence[CellState]) -> list[list[object]]:
    """A row for each cell: its title, state and values."""
    return [[recipe.title(each.spec), each.state, *values(each)] for each in states]
