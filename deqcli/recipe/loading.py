"""From a recipe's name or path and `key=value` overrides to a checked recipe, or to all that is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from deqcli.errors import Mistake, RecipeRefused
from deqcli.options import Contradiction
from deqcli.recipe.library import find_recipe
from deqcli.recipe.memory import too_large
from deqcli.recipe.reading import MAX_BYTES, Document, Path, Place, dotted, read_text
from deqcli.recipe.schema import Recipe, contradictions
from deqcli.recipe.wording import missing_key, unknown_key, wrong_value

COMMAND_LINE = "command line"
_OVERRIDE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)=(.*)", re.DOTALL)


def load_recipe(recipe: str, overrides: Sequence[str] = (), memory: int | None = None) -> Recipe:
    """Load, override and check a recipe; `memory` is what the device has, in bytes (None: this machine's).

    Raises: RecipeRefused with every mistake at once, each with file, line and column; Refused where there is no
    such recipe.
    """
    path = find_recipe(recipe)
    document = _read_file(path)
    if isinstance(document.value, dict):
        for position, override in enumerate(overrides, start=1):
            _override(document, override, position)
    checked = _check(document, path, memory)
    if document.mistakes or checked is None:
        raise RecipeRefused(_in_order(document.mistakes, str(path)))
    return checked


def _in_order(mistakes: list[Mistake], first: str) -> list[Mistake]:
    unique = dict.fromkeys(mistakes)
    return sorted(unique, key=lambda mistake: (mistake.source != first, mistake.line, mistake.column))


def _read_file(path: FilePath) -> Document:
    source = str(path)
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    document = Document(mistakes=[])
    if len(content) > MAX_BYTES:
        document.blame(Place(source), f"a recipe has at most {MAX_BYTES} bytes")
        return document
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        place = Place(source, before.count(b"\n") + 1, error.start - before.rfind(b"\n"))
        document.blame(place, f"not UTF-8 text (byte 0x{content[error.start]:02x})")
        return document
    return read_text(text, source)


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
    _forget(document, path)
    document.keys[path] = start
    document.values[path] = Place(COMMAND_LINE, position, len(match[1]) + 2)
    document.keys |= {(*path, *below): place for below, place in value.keys.items()}
    document.values |= {(*path, *below): place for below, place in value.values.items()}
    if not _set(document.value, path, value.value):
        document.blame(start, f"{dotted(path)} is not known: {dotted(path[:-1])} has no keys")


def _forget(document: Document, path: Path) -> None:
    """Drop the places of what an override replaces."""
    for places in (document.keys, document.values):
        for known in [known for known in places if known[: len(path)] == path]:
            del places[known]


def _set(root: object, path: Path, value: object) -> bool:
    section: Any = root
    for part in path[:-1]:
        if not isinstance(section, dict):
            return False
        section = section.setdefault(part, {})
    if not isinstance(section, dict):
        return False
    section[path[-1]] = value
    return True


def _check(document: Document, path: FilePath, memory: int | None) -> Recipe | None:
    """Note what the schema refuses; where what is left makes a recipe, note its contradictions as well."""
    if document.mistakes and document.value is None:
        return None
    context = {"folder": str(path.parent)}
    try:
        recipe = Recipe.model_validate(document.value, context=context)
        refused: set[Path] = set()
    except ValidationError as error:
        refused = _note(document, error, str(path))
        repaired = _validated_without(document.value, refused, context)
        if repaired is None:
            return None
        recipe = repaired
    for found in (*contradictions(recipe), *too_large(recipe, memory)):
        paths = [tuple(key.split(".")) for key in found.keys]
        if not any(part[: len(each)] == each for part in paths for each in refused):
            _contradict(document, found, str(path))
    return recipe


def _note(document: Document, error: ValidationError, source: str) -> set[Path]:
    """Note each refused key once; return their paths."""
    refused: dict[Path, None] = {}
    for problem in error.errors(include_url=False):
        path = _path_in(document.value, problem)
        if path in refused or any(path[: len(each)] == each for each in refused):
            continue
        refused[path] = None
        document.blame(*_sentence(document, path, problem, source))
    return set(refused)


def _path_in(value: object, problem: Any) -> Path:
    """Pydantic's location without the tags of unions, which name no key."""
    path: Path = ()
    for part in problem["loc"]:
        if (isinstance(value, dict) and part in value) or (
            isinstance(value, list) and isinstance(part, int) and part < len(value)
        ):
            path, value = (*path, part), value[part]
    if problem["type"] == "missing":
        path = (*path, problem["loc"][-1])
    if problem["type"].startswith("union_tag"):
        path = (*path, "kind")
    return path


def _sentence(document: Document, path: Path, problem: Any, source: str) -> tuple[Place, str, str]:
    raw, kind = document.value, problem["type"]
    present = path in document.values
    if kind == "extra_forbidden":
        return _place(document.keys, path, source), unknown_key(path, raw), dotted(path)
    if kind == "missing" or not present:
        return _place(document.keys, path[:-1], source), missing_key(path, raw), dotted(path)
    place = _place(document.values, path, source)
    if kind == "file":
        return place, f"{dotted(path)}: {problem['msg']}", dotted(path)
    return place, wrong_value(path, raw, _value_at(raw, path)), dotted(path)


def _place(places: dict[Path, Place], path: Path, source: str) -> Place:
    """Where a key or value stands, or else the nearest section around it that the text has."""
    while path and path not in places:
        path = path[:-1]
    return places.get(path, Place(source))


def _value_at(value: Any, path: Path) -> object:
    for part in path:
        value = value[part]
    return value


def _validated_without(value: object, refused: set[Path], context: dict[str, str]) -> Recipe | None:
    """The recipe that is left without the refused keys, None where it needs them."""
    try:
        return Recipe.model_validate(_pruned(value, (), refused), context=context)
    except ValidationError:
        return None


def _pruned(value: object, path: Path, refused: set[Path]) -> object:
    if isinstance(value, dict):
        kept = {key: part for key, part in value.items() if (*path, key) not in refused}
        return {key: _pruned(part, (*path, key), refused) for key, part in kept.items()}
    if isinstance(value, list):
        return [part for index, part in enumerate(value) if (*path, index) not in refused]
    return value


def _contradict(document: Document, found: Contradiction, source: str) -> None:
    """Note a contradiction at the first of its keys that the text gives."""
    paths: list[Path] = [tuple(key.split(".")) for key in found.keys]
    given = next((path for path in paths if path in document.values), paths[0])
    message = f"{found.keys[0]}: {found.message}"
    document.blame(_place(document.values, given, source), message, found.keys[0])
