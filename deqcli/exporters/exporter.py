"""What an exporter is, and what it tells of its work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from deqcli.sweep.gather import Gathered

State = Literal["written", "replaced", "unchanged"]
"""`replaced` is what an earlier export had left, `unchanged` what was there already, the same."""

Tell = Callable[["Item"], None]


@dataclass(frozen=True)
class Item:
    """A file or run of the other tool: how many rows or numbers it has, and whether it was there before."""

    name: str
    numbers: int
    state: State

    def __str__(self) -> str:
        return f"{self.name}: {self.numbers} {'rows' if '.' in self.name else 'numbers'} {self.state}"


@dataclass(frozen=True)
class Exported:
    """What an export wrote (`what`: tables or runs), where, and the command or call that opens it there."""

    to: str
    what: str
    place: str
    items: list[Item]
    opens: str
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Exporter:
    """Hands gathered runs to a tool: `write(gathered, place, tell)` puts them in a folder, or where a URI says.

    `modules` are what it imports, which the extra of its name installs. `elsewhere` is where runs go if no place is
    named: None where that is a folder beside them.
    """

    write: Callable[[Gathered, str, Tell], Exported]
    modules: Sequence[str]
    takes_uri: bool = False
    elsewhere: Callable[[], str | None] = lambda: None
