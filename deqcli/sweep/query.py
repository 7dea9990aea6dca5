"""What a list of runs is asked for: conditions on keys, what to sort by, which columns. Nothing is ever evaluated."""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache, cached_property
from typing import Any, TypeVar, get_args

from pydantic import BaseModel

from deqcli.errors import Refused, one_line
from deqcli.recipe.reading import read_text
from deqcli.recipe.schema import RunSpec
from deqcli.recipe.wording import LEAST_LIKENESS
from deqcli.runs.folder import COMPLETE, FAILED, INTERRUPTED, RUNNING
from deqcli.runs.records import cell

DAMAGED = "damaged"
STATES = (COMPLETE, RUNNING, INTERRUPTED, FAILED, DAMAGED)

OWN = (
    "run_id", "recipe", "width", "seed", "status", "step", "loss", "error", "exit_code", "folder",
    "device", "device_name", "threads", "git",
)  # fmt: skip
"""Keys of a run that need no recipe: properties of `deqcli.sweep.listing.Row`."""

RESULTS = (
    "learning_rate", "largest_stable_learning_rate", "initial_loss", "final_loss", "steps", "lambda_0",
    "max_spectral_norm", "max_spectral_norm_upper", "max_spectral_norm_upper_step",
    "min_lambda_ratio", "min_lambda_ratio_step", "max_loss_over_bound", "max_loss_over_bound_step",
    "max_error_bound", "rate_measured", "rate_kernel", "rate_theorem", "residual_misses",
)  # fmt: skip
"""What a manifest tells of a complete run (docs/numbers.md)."""

VERSIONS = "versions."
ALIASES = {
    "name": "recipe", "model.width": "width", "train.seed": "seed",
    "dataset": "data.kind", "activation": "model.activation",
}  # fmt: skip
DEFAULT_COLUMNS = (
    "run_id", "recipe", "width", "seed", "status", "step", "final_loss", "max_spectral_norm", "min_lambda_ratio",
)  # fmt: skip

_CONDITION = re.compile(r"\s*([A-Za-z_][\w.-]*?)\s*(==|!=|<=|>=|=|<|>|~)(?![=<>~!])\s*(.+?)\s*", re.DOTALL)
_ORDERED: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip

Asked = TypeVar("Asked")


@cache
def recipe_keys() -> tuple[str, ...]:
    """Every dotted key that the recipe of a run can have, whatever the kinds of its sections."""
    found = dict[str, None]()
    for section, field in RunSpec.model_fields.items():
        for kind in get_args(field.annotation) or (field.annotation,):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found |= dict.fromkeys(f"{section}.{key}" for key in kind.model_fields)
    return tuple(found)


@dataclass(frozen=True)
class Key:
    """A key as it was asked for, and the `name` under which a run has it."""

    text: str
    name: str

    @property
    def of_recipe(self) -> bool:
        """Whether the recipe has to be read for it."""
        return self.name in recipe_keys()


@dataclass(frozen=True)
class Keys:
    """The keys that runs can be asked for: `further` are results and versions that some manifest has."""

    further: Sequence[str] = ()

    @cached_property
    def groups(self) -> dict[str, list[str]]:
        """The names of all keys."""
        results = [*RESULTS, *(key for key in self.further if key not in RESULTS)]
        others = [key for key in recipe_keys() if key not in ALIASES]
        return {"of a run": list(OWN), "of its results": results, "of its recipe": others}

    def find(self, text: str) -> Key:
        """The key of this name, or the only one of the recipe that ends in it. Raises: Refused, with the nearest."""
        names = [name for group in self.groups.values() for name in group]
        name = ALIASES.get(text, text)
        if name in names:
            return Key(text, name)
        ends = [key for key in recipe_keys() if key.endswith(f".{text}")]
        if len(ends) == 1:
            return Key(text, ALIASES.get(ends[0], ends[0]))
        if ends:
            raise Refused(f"{text} is several keys: {' or '.join(ends)}")
        words = {name.rpartition(".")[2]: name for name in names} | {name: name for name in names}
        near = difflib.get_close_matches(text, words, n=1, cutoff=LEAST_LIKENESS)
        guess = f"; did you mean `{words[near[0]]}`?" if near else ""
        raise _UnknownKey(f"the key {quoted(text)} is not known{guess}")


class _UnknownKey(Refused):
    """No run can have such a key."""


def quoted(text: str) -> str:
    """The beginning of a text in a message."""
    return repr(one_line(text)[:60])


@dataclass(frozen=True)
class Condition:
    """`key operator value`; a value that a run does not have meets none."""

    key: Key
    operator: str
    text: str
    value: Any

    def holds(self, found: Any) -> bool:
        """Whether a value meets it. Numbers are compared as numbers, `~` is a pattern with * and ? for the text."""
        if found is None or (isinstance(found, float) and math.isnan(found)):
            return False
        if self.operator == "~":
            return fnmatchcase(cell(found), self.text)
        if self.operator in _ORDERED:
            return is_number(found) and _ORDERED[self.operator](found, self.value)
        alike = isinstance(found, bool) == isinstance(self.value, bool) and found == self.value
        return (alike or cell(found) == self.text) != (self.operator == "!=")


def is_number(value: object) -> bool:
    """Whether a value is a number and no truth value."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


@dataclass(frozen=True)
class Query:
    """Conditions that all hold, keys to sort by (and whether the greatest is first), and the columns to be shown."""

    where: Sequence[Condition]
    sort: Sequence[tuple[Key, bool]]
    columns: Sequence[Key]

    @property
    def keys(self) -> Iterator[Key]:
        """Every key that is looked at."""
        yield from (condition.key for condition in self.where)
        yield from (key for key, _ in self.sort)
        yield from self.columns


def parse_query(keys: Keys, where: Sequence[str] = (), sort: str | None = None, columns: str | None = None) -> Query:
    """`where` are conditions, `sort` and `columns` keys with commas between them, `-KEY` sorts the greatest first.

    Without `columns` they are the usual ones, and what is sorted or filtered by but for equality.
    Raises: Refused, with everything that is wrong.
    """
    mistakes: list[tuple[str, Refused]] = []
    conditions = _each(lambda text: condition(text, keys), where, "--where", mistakes)
    order = _each(lambda text: (keys.find(text.lstrip("-")), text.startswith("-")), _split(sort), "--sort", mistakes)
    shown = _each(keys.find, _split(columns) or DEFAULT_COLUMNS, "--columns", mistakes)
    if mistakes:
        unknown = any(isinstance(refusal, _UnknownKey) for _, refusal in mistakes)
        known = [f"keys {group}: {', '.join(names)}" for group, names in keys.groups.items()] if unknown else []
        raise Refused("\n".join([*(f"{option}: {refusal}" for option, refusal in mistakes), *known]))
    if columns is None:
        asked = [*(each.key for each in conditions if each.operator not in ("=", "==")), *(key for key, _ in order)]
        shown = list({key.name: key for key in [*shown, *asked]}.values())
    return Query(conditions, order, shown)


def _split(text: str | None) -> list[str]:
    return [part for each in (text or "").split(",") if (part := each.strip())]


def _each(
    parse: Callable[[str], Asked], texts: Sequence[str], option: str, mistakes: list[tuple[str, Refused]]
) -> list[Asked]:  # fmt: skip
    """What the texts of an option mean; the sentences of those that mean nothing are noted."""
    found = []
    for text in texts:
        try:
            found.append(parse(text))
        except Refused as refusal:
            mistakes.append((option, refusal))
    return found


def condition(text: str, keys: Keys) -> Condition:
    """`width>=1000`, `recipe=quickstart`, `run_id~*-s000-*`. Raises: Refused."""
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise Refused(f"{quoted(text)} is not KEY OPERATOR VALUE, as 'width>=1000' in quotes for the shell")
    key, sign, written = keys.find(match[1]), match[2], match[3]
    document = read_text(written, "--where")
    value = document.value if document.readable and not document.mistakes else written
    if sign in _ORDERED and not is_number(value):
        raise Refused(f"{quoted(text)}: {sign} compares numbers, and {quoted(written)} is none")
    if key.name == "status" and sign != "~" and written not in STATES:
        raise Refused(f"{quoted(text)}: a status is one of {', '.join(STATES)}")
    return Condition(key, sign, written, value)
