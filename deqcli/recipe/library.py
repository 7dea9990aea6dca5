"""The recipes that come along, found by name from a checkout as well as from a wheel."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path

import deqcli
from deqcli.data.files import is_file
from deqcli.errors import Refused

PACKAGE = Path(deqcli.__file__).parent


def shipped_folder() -> Path:
    """deqcli/shipped_recipes of an installed wheel, recipes/ of a checkout."""
    inside = PACKAGE / "shipped_recipes"
    return inside if inside.is_dir() else PACKAGE.parent / "recipes"


def shipped_recipes() -> dict[str, Path]:
    """Name -> file of every recipe that comes along, by name."""
    return {path.stem: path for path in sorted(shipped_folder().glob("*.yaml"), key=lambda path: path.stem)}


def find_recipe(recipe: str) -> Path:
    """The file of a recipe given as a path or as the name of one that comes along.

    Raises: Refused, with the names there are.
    """
    shipped = shipped_recipes()
    if is_file(recipe):
        return Path(recipe)
    if recipe not in shipped:
        raise Refused(f"there is no recipe {recipe[:200]!r}: neither a file nor one of {', '.join(shipped)}")
    return shipped[recipe]


def header(path: Path) -> list[str]:
    """The comment lines at the top of a recipe: what it is, the command, the cost, what to expect."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.removeprefix("#").strip() for line in takewhile(lambda line: line.startswith("#"), lines)]
