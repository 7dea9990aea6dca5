"""The arguments and options that commands share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from deqcli.errors import Refused

MOST_VALUES = 100_000


def complete_recipe(incomplete: str) -> list[str]:
    """Names of recipes for the shell."""
    from deqcli.recipe.library import shipped_recipes

    return [name for name in shipped_recipes() if name.startswith(incomplete)]


RecipeArgument = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="A recipe's path, or the name of one that comes along.",
        autocompletion=complete_recipe,
    ),
]
OverridesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Override keys of the recipe, as train.steps=100.")
]
OutOption = Annotated[
    Path, typer.Option("--out", envvar="DEQCLI_OUT", help="Folder above <name>/runs, sweeps, checks, predictions.")
]
DeviceOption = Annotated[
    str, typer.Option(envvar="DEQCLI_DEVICE", help="auto (CUDA where there is one), cpu, cuda, cuda:1 or mps.")
]
WidthsOption = Annotated[
    str | None, typer.Option(metavar="M,M,...", help="Widths: 64,128,256, or 64:320:64 without its end.")
]
SeedsOption = Annotated[
    str | None, typer.Option(metavar="S,S,...", help="Network seeds: 0,1,2, or 0:3 without its end.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
QuietOption = Annotated[bool, typer.Option("--quiet", envvar="DEQCLI_QUIET", help="Print errors only.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Check everything and say what would run.")]


def values_override(key: str, text: str | None) -> list[str]:
    """`--widths 64:320:64` as the override that it stands for, so that it meets the same check."""
    if text is None:
        return []
    parts = [value for part in text.split(",") for value in _expanded(part.strip())]
    return [f"{key}=[{', '.join(parts)}]"]


def _expanded(part: str) -> Sequence[str]:
    match = re.fullmatch(r"(\d{1,15}):(\d{1,15})(?::(\d{1,15}))?", part)
    if match is None:
        return [f'"{part}"' if ":" in part else part]
    start, stop, step = int(match[1]), int(match[2]), int(match[3] or 1)
    values = range(start, stop, step) if step else range(0)
    if not 0 < len(values) <= MOST_VALUES:
        raise Refused(f"{part} names {len(values)} values; start:stop:step needs 1 to {MOST_VALUES}")
    return [str(value) for value in values]
