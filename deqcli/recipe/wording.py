"""Sentences about recipes, made from their JSON schema: what a key may hold, its default, its nearest neighbours."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from deqcli.errors import one_line
from deqcli.recipe.reading import LONGEST_NAME, Path, dotted
from deqcli.recipe.schema import Recipe

Schema = Mapping[str, Any]
LONGEST_VALUE = LONGEST_NAME
LEAST_LIKENESS = 0.65
UNLIMITED = 2**53


@cache
def recipe_schema() -> dict[str, Any]:
    """The JSON schema of a recipe (draft 2020-12), for editors and for the sentences here."""
    schema = Recipe.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return schema


def resolve(schema: Schema, value: object = None) -> Schema:
    """Follow references, and the discriminator of a union as far as `value` names its kind."""
    while True:
        if "$ref" in schema:
            schema = {**recipe_schema()["$defs"][schema["$ref"].rsplit("/", 1)[-1]], **_without(schema, "$ref")}
        elif "discriminator" in schema:
            default = schema.get("default", {}).get("kind")
            kind = value.get("kind", default) if isinstance(value, dict) else default
            mapping = schema["discriminator"]["mapping"]
            if not (isinstance(kind, str) and kind in mapping):
                return _of_unknown_kind(list(mapping), default)
            schema = {"$ref": mapping[kind], **_without(schema, "discriminator", "oneOf")}
        else:
            return schema


def _of_unknown_kind(kinds: list[str], default: str | None) -> Schema:
    """A section of which nothing but `kind` can be told."""
    if default is None:
        return {"type": "object", "properties": {"kind": {"enum": kinds}}, "required": ["kind"]}
    return {"type": "object", "properties": {"kind": {"enum": kinds, "default": default}}}


def _without(schema: Schema, *keys: str) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key not in keys}


def schema_at(path: Path, raw: object) -> Schema | None:
    """The schema of a key, None where it is not known; `raw` is the recipe as written (its kinds decide)."""
    schema, value = resolve(recipe_schema()), raw
    for part in path:
        value = value[part] if has_part(value, part) else None  # type: ignore[index]
        if isinstance(part, int):
            item = next((each["items"] for each in _members(schema) if "items" in each), None)
        else:
            item = schema.get("properties", {}).get(part, schema.get("additionalProperties") or None)
        if item is None:
            return None
        schema = resolve(item, value)
    return schema


def has_parts(path: Path, raw: object) -> bool:
    """Whether what stands at a path may have keys or items of its own."""
    members = _members(schema_at(path, raw) or {})
    return any("properties" in member or "items" in member or _of_any_keys(member) for member in members)


def _of_any_keys(schema: Schema) -> bool:
    """Whether a section has keys of no fixed names, all of one kind."""
    return isinstance(schema.get("additionalProperties"), dict)


def has_part(value: object, part: str | int) -> bool:
    """Whether plain data has this key or index."""
    return (isinstance(value, dict) and part in value) or (
        isinstance(value, list) and isinstance(part, int) and part < len(value)
    )


def _members(schema: Schema) -> list[Schema]:
    return [resolve(member) for member in schema.get("anyOf", [schema])]


def phrase(schema: Schema, limits: bool = False) -> str:
    """What a key may hold, in words, as "`auto`, `theorem` or a positive number"; `limits` names absurd ones too."""
    words = [word for member in _members(schema) for word in _words(member, limits)]
    return " or ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def _words(schema: Schema, limits: bool) -> list[str]:
    kind, names = schema.get("type"), schema.get("enum", [schema["const"]] if "const" in schema else None)
    if kind == "boolean":
        names = ["true", "false"]
    if names is not None:
        return [f"`{name}`" for name in names]
    if kind == "array":
        least = f" of at least {schema['minItems']}" if schema.get("minItems") else ""
        return [f"a list{least}, each {phrase(schema['items'])}"]
    if kind == "object":
        of_any = _of_any_keys(schema)
        keys = (
            f"of keys, each {phrase(schema['additionalProperties'])}"
            if of_any
            else f"with the keys {known_keys(schema)}"
        )
        return [f"a section {keys}"]
    if kind in ("integer", "number"):
        return [_number("a whole number" if kind == "integer" else "a number", schema, limits)]
    if kind == "null":
        return ["`null`"]
    return [f"text ({schema['description']})" if "pattern" in schema else "text"]


def _number(noun: str, schema: Schema, limits: bool) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if below is not None and schema["type"] == "integer":
        high, below = below - 1, None
    if high is not None and high >= UNLIMITED and not limits:
        high = None
    if below is not None:
        return f"{noun} from {low} to below {below}" if above is None else f"{noun} above {above} and below {below}"
    if above is not None:
        return "a positive number" if high is None else f"{noun} above {above} and at most {high}"
    if low is None and high is None:
        return noun
    return f"{noun}, at least {low}" if high is None else f"{noun} from {low} to {high}"


def known_keys(schema: Schema) -> str:
    """The keys of a section with their defaults, for a message."""
    required = schema.get("required", [])
    return ", ".join(
        f"{key} ({'required' if key in required else show_default(part)})"
        for key, part in schema.get("properties", {}).items()
    )


def show_default(schema: Schema) -> str:
    """The default of a key as a recipe would spell it; a section's keys have their own."""
    default = schema.get("default")
    return "optional" if isinstance(default, dict) or "default" not in schema else show(default)


_NOT_FINITE = {"Infinity": ".inf", "-Infinity": "-.inf", "NaN": ".nan"}


def show(value: object) -> str:
    """A value in a message: as JSON, one line, cut where it is long."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except ValueError:
        text = "a number of many digits"
    text = one_line(_NOT_FINITE.get(text, text))
    if isinstance(value, str):
        text = f"'{text[1:-1]}'"
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 3] + "..."


def unknown_key(path: Path, raw: object) -> str:
    """`solver.tolerence is not known; did you mean `tolerance`?` and what is known there."""
    section = schema_at(path[:-1], raw) or {}
    siblings = list(section.get("properties", {}))
    if not siblings:
        return f"{dotted(path)} is not known: {dotted(path[:-1])} has no keys"
    elsewhere = [key for key in _all_keys(raw) if path[-1] in (key, key.rsplit(".", 1)[-1])]
    near = difflib.get_close_matches(str(path[-1]), siblings, n=1, cutoff=LEAST_LIKENESS)
    guess = elsewhere[:1] or near
    question = f"did you mean `{guess[0]}`? " if guess else ""
    if guess and guess[0] == path[-1]:
        question = "write it as `{}: {{{}: ...}}`; ".format(*guess[0].split("."))
    return f"{dotted(path)} is not known; {question}known here: {known_keys(section)}"


def _all_keys(raw: object) -> list[str]:
    sections = resolve(recipe_schema())["properties"]
    return [f"{name}.{key}" for name in sections for key in (schema_at((name,), raw) or {}).get("properties", {})]


def wrong_value(path: Path, raw: object, value: object) -> str:
    """`train.learning_rate must be `auto`, `theorem` or a positive number (default 'auto'), got 'fast'`."""
    schema = schema_at(path, raw) or {}
    names = [str(name) for member in _members(schema) for name in member.get("enum", [member.get("const")]) if name]
    near = difflib.get_close_matches(value, names, n=1) if isinstance(value, str) else []
    question = f"; did you mean `{near[0]}`?" if near else ""
    default = f" (default {show_default(schema)})" if not isinstance(schema.get("default", {}), dict) else ""
    words = phrase(schema, limits=isinstance(value, int) and value >= UNLIMITED)
    return f"{dotted(path)} must be {words}{default}, got {show(value)}{question}"


def missing_key(path: Path, raw: object) -> str:
    """`model.width is missing; it must be a whole number from 1 to ...`."""
    return f"{dotted(path)} is missing; it must be {phrase(schema_at(path, raw) or {})}"
