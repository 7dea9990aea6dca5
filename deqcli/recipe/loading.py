"""From a recipe's name or path and `key=value` overrides to a checked recipe, or to all that is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path as FilePath
from typing import Any

from deqcli.errors import Mistake, RecipeRefused, as_refusal
from deqcli.recipe.checking import check
from deqcli.recipe.library import find_recipe
from deqcli.recipe.reading import MAX_BYTES, Document, Path, Place, dotted, read_text
from deqcli.recipe.schema import Recipe

COMMAND_LINE = "command line"
_OVERRIDE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)=(.*)", re.DOTALL)


def load_recipe(recipe: str, overrides: Sequence[str] = (), memory: int | None = None, alone: bool = False) -> Recipe:
    """Load, override and check a recipe.

    `memory` is what the device has, in bytes (None: this machine's); `alone` leaves its sweep aside.
    Raises: RecipeRefused with every mistake at once, each with file, line and column; Refused where there is no
    such recipe; SystemRefused where it cannot be read.
    """
    path = find_recipe(recipe)
    document = _read_file(path)
    for position, override in enumerate(overrides, start=1):
        _override(document, override, position)
    checked = check(document, path.parent, memory, alone)
    if document.mistakes or checked is None:
        raise RecipeRefused(_in_order(document))
    return checked


def _in_order(document: Document) -> list[Mistake]:
    """The mistakes by place, those of the file before those of the command line."""
    unique = dict.fromkeys(document.mistakes)
    return sorted(unique, key=lambda mistake: (mistake.source != document.source, mistake.line, mistake.column))


def _read_file(path: FilePath) -> Document:
    source = str(path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise as_refusal(error) from None
    if len(content) > MAX_BYTES:
        return _unreadable(source, Place(source), f"a recipe has at most {MAX_BYTES} bytes")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        lines = content[: error.start].decode("utf-8").removeprefix("\ufeff").split("\n")
        place = Place(source, len(lines), len(lines[-1]) + 1)
        return _unreadable(source, place, f"not UTF-8 text (byte 0x{content[error.start]:02x})")
    document = read_text(text.removeprefix("\ufeff"), source)
    if document.readable and document.value is None:
        document.value = {}
    return document


def _unreadable(source: str, place: Place, message: str) -> Document:
    document = Document(source, readable=False)
    document.blame(place, message)
    return document


def _override(document: Document, override: str, position: int) -> None:
    """Set one dotted key; its place is (command line, which override, column in it)."""
    start = Place(COMMAND_LINE, position)
    match = _OVERRIDE.fullmatch(override)
    if match is None:
        document.blame(start, f"{override[:60]!r} is not of the form key=value, such as train.steps=100")
        return
    path: Path = tuple(match[1].split("."))
    value = read_text(match[2], COMMAND_LINE, column_offset=len(match[1]) + 1, line=position)
    document.mistakes += value.mistakes
    if value.readable and isinstance(document.value, dict):
        _forget(document, path)
        if not _set(document, path, value.value, start):
            document.blame(start, f"{dotted(path)} is not known: {dotted(path[:-1])} has no keys")
            return
        document.keys |= {(*path, *below): place for below, place in value.keys.items()} | {path: start}
        document.values |= {(*path, *below): place for below, place in value.values.items()}
        document.values[path] = Place(COMMAND_LINE, position, len(match[1]) + 2)
        document.spoiled |= {(*path, *below) for below in value.spoiled}


def _forget(document: Document, path: Path) -> None:
    """Drop what is known about the place of what an override replaces."""
    for known in [known for known in document.values if known[: len(path)] == path]:
        document.values.pop(known)
        document.keys.pop(known, None)
        document.spoiled.discard(known)


def _set(document: Document, path: Path, value: object, place: Place) -> bool:
    """Put a value into the document, with the sections on the way to it; False where one of them is no section."""
    section: Any = document.value
    for depth, part in enumerate(path[:-1], start=1):
        if section.get(part) is None:
            section[part] = {}
            document.keys[path[:depth]] = document.values[path[:depth]] = place
        section = section[part]
        if not isinstance(section, dict):
            return False
    section[path[-1]] = value
    return True
