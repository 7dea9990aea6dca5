"""Tables of any length as plain lines that are never folded; where they are wider than the terminal, a block a row."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence

from deqcli.errors import one_line
from deqcli.show.console import number

PLAIN_COLUMNS = 80
GAP = "  "


def terminal_width() -> int:
    """Characters of a line of the terminal, 80 where there is none."""
    return shutil.get_terminal_size((PLAIN_COLUMNS, 24)).columns


def fitted(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    """The lines of a table that fits the terminal, its first column to the left and the others to the right.

    Where it does not fit: the first value of each row, and below it the others with the names of their columns. In a
    pipe or a file a row is always a line.
    """
    words = [[one_line(number(value)) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *words, strict=True)]
    if sys.stdout.isatty() and sum(widths) + len(GAP) * (len(widths) - 1) > terminal_width():
        yield from _blocks(columns, words, terminal_width())
        return
    for row in (columns, *words):
        first, *others = (cell.ljust(width) if not index else cell.rjust(width)
                          for index, (cell, width) in enumerate(zip(row, widths, strict=True)))  # fmt: skip
        yield GAP.join([first, *others]).rstrip()


def _blocks(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    for first, *others in rows:
        yield first
        pairs = [f"{name}\xa0{cell}" for name, cell in zip(columns[1:], others, strict=True) if cell != "-"]
        lines = textwrap.wrap(
            ", ".join(pairs), width, initial_indent=GAP, subsequent_indent=GAP, break_long_words=False,
            break_on_hyphens=False,
        )  # fmt: skip
        yield from (line.replace("\xa0", " ") for line in lines)
