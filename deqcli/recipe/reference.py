"""docs/recipe.md: every key of a recipe as Markdown, from the JSON schema, in the words of the error messages."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence

from deqcli.recipe.wording import Schema, phrase, recipe_schema, resolve, show_default

COMMAND = "deqcli recipes reference > docs/recipe.md"
LINE = 120

INTRODUCTION = """\
# Recipes: every key

A recipe is a page of YAML that says what a run is. Every mistake in one is told at once, with its place, before
anything is computed; what a key may hold is told by the same words as here.

```sh
deqcli recipes copy quickstart first.yaml                   # a recipe to begin with
deqcli recipes validate first.yaml train.steps=100          # names every mistake; nothing is run
deqcli recipes schema                                       # the JSON schema, for editors
```

**YAML.** Words without quotes are read as YAML 1.2 reads them: `1e-3` is a number, `true` and `false` are truth values,
`null` and nothing are null; `yes`, `on`, `1:30` and `2026-01-01` are text. A whole number has no point: `10`, not
`10.0`. A key may stand once; anchors, aliases and tags are refused, as are unknown keys, NaN and infinity. The order of
keys means nothing, and a key or a section that is left out has its default.

**Overrides.** `key=value` behind a recipe's name sets the key of that dotted path: `model.sigma_w_sq=0.05`,
`'sweep.seeds=[0, 1]'` (in quotes, for the shell), `'solver={kind: picard, tolerance: 1e-6}'`, which replaces the
section, while `solver.kind=picard` keeps the rest of it. The value is YAML and is checked as the file is; the last one
wins. `--width`, `--seed`, `--widths`, `--seeds`, `--executor`, `--jobs`, `--retries` and `--fail-fast` are overrides
with a shorter name.

**What names a run.** `name`, `data`, `model`, `solver`, `train` and `log` decide what a run computes and writes, and
their hash is in the name of its folder. `sweep` says which runs there are, `execution` where they are computed: neither
is part of a run.

A recipe with all its sections, each described below:
"""

EXAMPLE = """\
name: two-scales                     # what the folder of its outputs is called
data: {kind: sphere, num_samples: 40, input_dim: 20, labels: signs, seed: 1}
model: {width: 64, activation: relu, init: gaussian, sigma_w_sq: 0.08, readout_scale: 1.0}
solver: {kind: continuation, tolerance: 1e-7, max_iterations: 300}
train: {steps: 100, learning_rate: auto, dtype: float64, seed: 0}
log: {loss_every: 1, spectral_every: 10, checkpoint_every: 50}
sweep:
  widths: [64, 128]
  seeds: [0, 1]
  over: {model.sigma_w_sq: [0.01, 0.08]}
execution: {executor: local, jobs: 2}
"""

HEADER = "| key | may be | default | meaning |\n|---|---|---|---|"


def reference() -> str:
    """The introduction, and a table for each section and each kind of it."""
    recipe = resolve(recipe_schema())
    keys = {key: part for key, part in recipe["properties"].items() if not is_section(part)}
    blocks = [INTRODUCTION, f"```yaml\n{EXAMPLE}```", "## The recipe itself", table(recipe, keys)]
    for key, part in recipe["properties"].items():
        if is_section(part):
            blocks += _section(key, part)
    return "\n\n".join(block.strip("\n") for block in blocks) + f"\n\n<!-- Made by: {COMMAND} -->\n"


def is_section(schema: Schema) -> bool:
    """Whether it has keys of its own, the same for everybody or by its kind."""
    return "discriminator" in schema or "properties" in resolve(schema)


def _section(path: str, schema: Schema) -> Iterator[str]:
    """Heading, what it is, and the tables of a section, of the sections in it, and of its kinds."""
    if "discriminator" in schema:
        yield from _kinds(path, schema)
        return
    section = resolve(schema)
    inner = {key: part for key, part in section["properties"].items() if is_section(part)}
    yield f"## `{path}`"
    yield paragraph(section)
    yield table(section, {key: part for key, part in section["properties"].items() if key not in inner}, path)
    for key, part in inner.items():
        yield from _section(f"{path}.{key}", part)


def _kinds(path: str, schema: Schema) -> Iterator[str]:
    """The keys that all kinds share, and then the own ones of each."""
    kinds = by_kind(schema)
    shared, unnamed = shared_keys(list(kinds.values())), next(iter(kinds)) if "default" in schema else None
    whether = f"`{unnamed}` where it is left out" if unnamed else "required"
    yield f"## `{path}`"
    yield filled(f"`{path}.kind` is one of {', '.join(f'`{kind}`' for kind in kinds)} ({whether}). Keys of every kind:")
    yield table({}, shared, path)
    for kind, section in kinds.items():
        own = {key: part for key, part in section["properties"].items() if key not in {"kind", *shared}}
        yield f"### `{path}`, `kind: {kind}`"
        yield paragraph(section)
        yield table(section, own, path) if own else "No further keys."


def by_kind(schema: Schema) -> dict[str, Schema]:
    """The section of each kind, in the order of the union, but that of the default first."""
    sections = [resolve(member) for member in schema["oneOf"]]
    kinds = {section["properties"]["kind"]["const"]: section for section in sections}
    default = schema.get("default", {}).get("kind")
    return dict(sorted(kinds.items(), key=lambda each: each[0] != default))


def shared_keys(sections: Sequence[Schema]) -> Mapping[str, Schema]:
    """The optional keys that are the same in all of these sections."""
    first, *others = sections
    return {
        key: part
        for key, part in first["properties"].items()
        if "default" in part and all(other["properties"].get(key) == part for other in others)
    }


def paragraph(section: Schema) -> str:
    """The first paragraph of what a section says of itself."""
    return filled(" ".join(section.get("description", "").split("\n\n")[0].split()))


def filled(text: str) -> str:
    """A text in lines."""
    return textwrap.fill(text, LINE, break_long_words=False, break_on_hyphens=False)


def table(section: Schema, keys: Mapping[str, Schema], path: str = "") -> str:
    """A row for each key: what it may be, its default, what it means."""
    required = section.get("required", [])
    return "\n".join([HEADER, *(_row(path, key, part, key in required) for key, part in keys.items())])


def _row(path: str, key: str, schema: Schema, required: bool) -> str:
    part = resolve(schema)
    default = "required" if required else f"`{show_default(part)}`" if part["default"] != {} else "`{}`"
    words = "text" if "pattern" in part else phrase(part)
    name = f"{path}.{key}" if path else key
    cells = (f"`{name}`", words, default, part["description"])
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"
