"""Commands that look at one combination of further axes at a time do so for each, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deqcli.recipe.schema import Recipe


def combinations(recipe: Recipe) -> Iterator[tuple[dict[str, Any], Recipe]]:
    """The values on the further axes, and the recipe that has them: one without values where there are no such axes."""
    from deqcli.recipe.axes import value_at

    for variant in recipe.variants:
        yield {key: value_at(variant, key) for key in recipe.axes}, variant


def heading(values: Mapping[str, object]) -> str:
    """The line above what belongs to a combination."""
    return "== " + ", ".join(f"{key} {value}" for key, value in values.items())


def one_document(found: Sequence[tuple[Mapping[str, object], Mapping[str, object]]]) -> Mapping[str, object]:
    """The document of the only combination, or a list of theirs, each with its values."""
    if len(found) == 1 and not found[0][0]:
        return found[0][1]
    return {"combinations": [{"over": values, **document} for values, document in found]}
