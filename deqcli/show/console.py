"""Tables and sentences on a terminal, in a pipe or in a log."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from deqcli.errors import one_line

if TYPE_CHECKING:
    from rich.console import Console

PLAIN_WIDTH = 160


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


def terminal(file: IO[str]) -> Console | None:
    """A console for drawing on, None where there is no terminal that can."""
    console = _console(file)
    return console if console.is_terminal and not console.is_dumb_terminal else None


def drawable(file: IO[str]) -> Console | None:
    """A console for what is redrawn in place, None where `terminal` has none, or where colours are not wanted."""
    console = terminal(file)
    return console if console is not None and file.isatty() and not console.no_color else None


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


def picture_lines(figures: Sequence[Path]) -> list[str]:
    """A line for each figure, with the formats and data that lie beside its PNG."""
    others = {each: [other.suffix[1:] for other in figures if other.stem == each.stem] for each in figures}
    return [
        f"Picture: {each} ({', '.join(['png', *(other for other in beside if other != 'png')])})"
        for each, beside in others.items()
        if each.suffix == ".png"
    ]


def relative(path: Path) -> str:
    """A path as short as it can be from here."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
