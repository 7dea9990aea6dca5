"""A document against the schema and its contradictions: a recipe, or mistakes in the words of `wording`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from deqcli.options import Contradiction
from deqcli.recipe.axes import NO_IDENTITY, OF_THEIR_OWN, Value, value_at, with_values
from deqcli.recipe.memory import too_large
from deqcli.recipe.reading import Document, Path, Place, dotted
from deqcli.recipe.schema import SECTIONS, Recipe, RunSpec, contradictions
from deqcli.recipe.wording import has_part, has_parts, missing_key, recipe_schema, show, unknown_key, wrong_value

MOST_MISTAKES = 1000

Context = dict[str, str]
"""What validators may ask: `folder`, where the recipe lies."""


def check(document: Document, folder: FilePath, memory: int | None, alone: bool) -> Recipe | None:
    """Note what the schema refuses; where what is left makes a recipe, note its contradictions as well.

    `alone`: for the recipe's own run, whatever its sweep.
    """
    if not document.readable:
        return None
    if not isinstance(document.value, dict):
        known = ", ".join(recipe_schema()["properties"])
        place = document.values.get((), Place(document.source))
        document.blame(place, f"a recipe is a mapping with the keys {known}; got {show(document.value)}")
        return None
    context = {"folder": str(folder)}
    try:
        recipe, refused = Recipe.model_validate(document.value, context=context), set[Path]()
    except ValidationError as error:
        refused = _note(document, error)
        repaired = _validated_without(document.value, refused, context)
        if repaired is None:
            return None
        recipe = repaired
    recipe = recipe.alone() if alone else check_axes(document, recipe, refused, context)
    for found in _contradictions(recipe, memory):
        if not _touches(found, refused):
            _contradict(document, found)
    return recipe


def check_axes(document: Document, recipe: Recipe, refused: set[Path], context: Context) -> Recipe:
    """The recipe with the values of `sweep.over` as their keys take them; axes with mistakes are noted and left out."""
    over: dict[str, list[Value]] = {}
    base = {name: each for name, each in document.value.items() if name in RunSpec.model_fields}
    for key, values in recipe.sweep.over.items():
        path = ("sweep", "over", key)
        taken, before = list[Value](), len(document.mistakes)
        if why := _no_axis(key):
            _blame(document, path, why)
        else:
            taken = _values_of_axis(document, path, values, _pruned(base, (), refused), context)
        if len(document.mistakes) > before:
            refused.add(path)
        elif twice := sorted({show(each) for each in taken if taken.count(each) > 1}):
            _blame(document, path, f"{key} has {', '.join(twice)} twice")
        else:
            over[key] = taken
    found = recipe.model_copy(update={"sweep": recipe.sweep.model_copy(update={"over": over})})
    return found if _combinations_fit(document, found) else found.over_nothing()


def _combinations_fit(document: Document, recipe: Recipe) -> bool:
    """Whether the values of different axes can be had together; the first that cannot are noted."""
    if any(recipe.sweep.contradictions()):
        return True  # too many to be looked at, which is told elsewhere
    for values, plain in recipe.combinations():
        try:
            Recipe.model_validate(plain)
        except ValidationError as error:
            attempt = Document("", plain, values={tuple(key.split(".")): Place("") for key in values})
            _note(attempt, error)
            together = ", ".join(f"{key} {show(value)}" for key, value in values.items())
            for mistake in attempt.mistakes:
                _blame(document, ("sweep", "over"), f"{mistake.message} (with {together})")
            return False
    return _cells_differ(document, recipe)


def _cells_differ(document: Document, recipe: Recipe) -> bool:
    """Whether no two combinations are the same run, as those of two files of one content would be."""
    first: dict[str, RunSpec] = {}
    for cell in recipe.cells():
        same = first.setdefault(cell.run_id, cell)
        if same is not cell:
            both = f"{recipe.title(same)} and {recipe.title(cell)}"
            _blame(document, ("sweep", "over"), f"two of its runs are one: {both}")
            return False
    return True


def _no_axis(key: str) -> str | None:
    if key in OF_THEIR_OWN:
        return f"{key} is swept over by {OF_THEIR_OWN[key]}"
    if key in NO_IDENTITY:
        return f"{key} is no axis: a run is the same wherever its files lie"
    known = [name for name in SECTIONS if name in RunSpec.model_fields]
    if key.partition(".")[0] in known and key.count(".") == 1:
        return None
    return f"{show(key)} is no axis; one is a key of {', '.join(known)}, such as model.sigma_w_sq"


def _values_of_axis(
    document: Document, path: Path, values: Sequence[Value], base: Any, context: Context
) -> list[Value]:
    """What the key of an axis makes of each value, all mistakes noted; a key that is not known is named once."""
    key, taken = str(path[-1]), list[Value]()
    for index, value in enumerate(values):
        attempt = Document("", with_values(base, {key: value}), values={tuple(key.split(".")): Place("")})
        try:
            taken.append(value_at(Recipe.model_validate(attempt.value, context=context), key))
        except ValidationError as error:
            _note(attempt, error)
            for mistake in attempt.mistakes:
                _blame(document, (*path, index), mistake.message)
            if any(problem["type"] == "extra_forbidden" for problem in error.errors()):
                break
    return taken


def _blame(document: Document, path: Path, message: str) -> None:
    document.blame(_place(document, document.values, path), f"sweep.over: {message}", dotted(path))


def _contradictions(recipe: Recipe, memory: int | None) -> list[Contradiction]:
    """Those of the recipe; with further axes, those of the first combination that has any."""
    own = [replace(each, keys=tuple(f"sweep.{key}" for key in each.keys)) for each in recipe.sweep.contradictions()]
    for variant in [recipe.over_nothing()] if own else recipe.variants:
        if found := [*contradictions(variant), *too_large(variant, memory)]:
            return own + [_of_combination(recipe, variant, each) for each in found]
    return own


def _of_combination(recipe: Recipe, variant: Recipe, found: Contradiction) -> Contradiction:
    """A contradiction in which axes take part is told with their values, at the axis."""
    values = {key: value_at(variant, key) for key in recipe.axes if key in found.keys}
    if not values:
        return found
    keys = tuple(f"sweep.over.{key}" if key in values else key for key in found.keys)
    return Contradiction(keys, f"{found.message} (with {', '.join(f'{key} {show(values[key])}' for key in values)})")


def _touches(found: Contradiction, refused: Iterable[Path]) -> bool:
    """Whether a contradiction rests on a value that was refused, and may be none without it."""
    paths = [_path_of(key) for key in found.keys]
    return any(_within(part, each) or _within(each, part) for part in paths for each in refused)


def _path_of(key: str) -> Path:
    """Where a dotted key stands; that of an axis is one word below `sweep.over`."""
    axis = key.removeprefix("sweep.over.")
    return ("sweep", "over", axis) if axis != key else tuple(key.split("."))


def _within(path: Path, section: Path) -> bool:
    return path[: len(section)] == section


def _note(document: Document, error: ValidationError) -> set[Path]:
    """Note each refused key once; return their paths."""
    refused: set[Path] = set()
    for problem in error.errors(include_url=False)[:MOST_MISTAKES]:
        path = _path_in(document.value, problem)
        if not any(each in refused for each in _sections(path)):
            refused.add(path)
            if not any(_within(path, each) or _within(each, path) for each in document.spoiled):
                document.blame(*_sentence(document, path, problem))
    return refused


def _sections(path: Path) -> Iterator[Path]:
    """The path and all that it lies in."""
    return (path[:depth] for depth in range(len(path) + 1))


@cache
def _tagged() -> frozenset[str]:
    """Sections that are unions told apart by their kind, whose tag pydantic puts into its locations."""
    return frozenset(name for name, part in recipe_schema()["properties"].items() if "discriminator" in part)


def _path_in(raw: object, problem: Any) -> Path:
    """Pydantic's location without the tags of unions, which name no key."""
    path: Path = ()
    value = raw
    for depth, part in enumerate(problem["loc"]):
        tag = depth == 1 and path[0] in _tagged()
        if has_part(value, part) and not tag and has_parts(path, raw):
            path, value = (*path, part), value[part]  # type: ignore[index]
    if problem["type"] == "missing":
        path = (*path, problem["loc"][-1])
    if problem["type"].startswith("union_tag"):
        path = (*path, "kind")
    return path


def _sentence(document: Document, path: Path, problem: Any) -> tuple[Place, str, str]:
    raw, kind, key = document.value, problem["type"], dotted(path)
    if kind == "extra_forbidden":
        return _place(document, document.keys, path), unknown_key(path, raw), key
    if kind == "file":
        return _place(document, document.values, path), f"{key}: {problem['msg']}", key
    if path not in document.values:
        return _place(document, document.keys, path[:-1]), missing_key(path, raw), key
    return _place(document, document.values, path), wrong_value(path, raw, _value_at(raw, path)), key


def _place(document: Document, places: dict[Path, Place], path: Path) -> Place:
    """Where a key or value stands, or else the nearest section around it that the text has."""
    while path and path not in places:
        path = path[:-1]
    return places.get(path, Place(document.source))


def _value_at(value: Any, path: Path) -> object:
    for part in path:
        value = value[part]
    return value


def _validated_without(value: object, refused: set[Path], context: Context) -> Recipe | None:
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


def _contradict(document: Document, found: Contradiction) -> None:
    """Note a contradiction at the first of its keys that the text gives."""
    paths = [_path_of(key) for key in found.keys]
    given = next((path for path in paths if path in document.values), paths[0])
    document.blame(_place(document, document.values, given), f"{found.keys[0]}: {found.message}", found.keys[0])
