"""Axes of a sweep beyond widths and seeds: a dotted key of a run, and the values that it takes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, reduce
from typing import Any, get_args

from deqcli.data.kinds import DataOptions
from deqcli.deq.kinds import SolverOptions

Value = bool | int | float | str | None
"""What a key may be set to: no list and no section."""

OF_THEIR_OWN = {"model.width": "sweep.widths", "train.seed": "sweep.seeds"}
"""Keys that are swept over by a list of their own."""

NO_IDENTITY = ("data.root",)
"""Keys that say where something lies, and are no part of what a run is."""

UNIONS = {"data": DataOptions, "solver": SolverOptions}
"""Sections that have other keys for each `kind`."""


def order(value: Value) -> tuple[bool, float, str]:
    """The order of the values of an axis: numbers ascending, then words."""
    number = isinstance(value, (int, float))
    return not number, float(value) if isinstance(value, (int, float)) else 0.0, str(value)


def with_values(plain: Mapping[str, Any], values: Mapping[str, Value]) -> dict[str, Any]:
    """A recipe in plain data with dotted keys set; the original is left.

    Of a section that gets another kind, the keys that this kind does not know are left out; so is the hash of a data
    file that gets another path. The hash of images is that of one kind and split; of others any will do.
    """
    result = dict(plain)
    for key in sorted(values, key=lambda key: not key.endswith(".kind")):  # a kind decides which other keys there are
        value = values[key]
        section, _, name = key.partition(".")
        held = result.get(section)
        held = dict(held) if isinstance(held, dict) else {}
        result[section] = {**_fitting(section, held, name, value), name: value} if name else value
    return result


def _fitting(section: str, held: dict[str, Any], name: str, value: Value) -> dict[str, Any]:
    """What a section keeps beside a new value of one of its keys."""
    if (section, name) == ("data", "path"):
        return {key: each for key, each in held.items() if key != "sha256"}
    if section == "data" and name in ("kind", "split") and held.get("sha256") and value != held.get(name):
        held = {**held, "sha256": "any"}  # of other files, which have a digest of their own
    known = _keys_by_kind(section).get(value) if name == "kind" else None
    return held if known is None else {key: each for key, each in held.items() if key in known}


@cache
def _keys_by_kind(section: str) -> dict[Value, frozenset[str]]:
    kinds = get_args(get_args(UNIONS[section])[0]) if section in UNIONS else ()
    return {get_args(each.model_fields["kind"].annotation)[0]: frozenset(each.model_fields) for each in kinds}


def value_at(spec: object, key: str) -> Any:
    """The value of a dotted key of a run."""
    return reduce(getattr, key.split("."), spec)
