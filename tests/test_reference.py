"""docs/recipe.md is what the schema says, says something of every key, and its examples are recipes."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deqcli.recipe.loading import load_recipe
from deqcli.recipe.reference import COMMAND, EXAMPLE, INTRODUCTION, by_kind, is_section, reference
from deqcli.recipe.schema import Recipe
from deqcli.recipe.wording import Schema, known_keys, phrase, recipe_schema, resolve
from tests.test_architecture import HEAVY

PAGE = Path(__file__).parent.parent / "docs/recipe.md"
SECTIONS = ("data", "model", "solver", "train", "log", "sweep", "execution", "execution.ray", "execution.slurm")


def keys_of(path: str, schema: Schema) -> Iterator[tuple[str, Schema]]:
    """Every key below a section, dotted, with what the schema says of it; those of each kind one after the other."""
    kinds = list(by_kind(schema).values()) if "discriminator" in schema else [resolve(schema)]
    for section in kinds:
        for key, part in section["properties"].items():
            if is_section(part):
                yield from keys_of(f"{path}{key}.", part)
            elif key != "kind":
                yield path + key, resolve(part)


def rows(text: str) -> list[list[str]]:
    """The cells of every row of a table."""
    found = re.findall(r"^\| (`.*) \|$", text, re.MULTILINE)
    return [re.split(r" (?<!\\)\| ", row) for row in found]


def test_the_page_is_what_the_schema_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), f"docs/recipe.md is stale; renew it: {COMMAND}"


def test_every_key_of_every_kind_has_a_row_in_the_words_of_the_messages() -> None:
    told = {(cells[0].strip("`"), cells[1].replace(r"\|", "|")) for cells in rows(PAGE.read_text(encoding="utf-8"))}
    keys = [each for each in keys_of("", resolve(recipe_schema())) if each[0] != "name"]
    for key, part in keys:
        assert (key, phrase(part)) in told
    assert len(keys) > 50


def test_every_row_has_a_type_a_default_and_a_meaning() -> None:
    found = rows(PAGE.read_text(encoding="utf-8"))
    for cells in found:
        assert len(cells) == 4, cells
        assert all(cells), cells
        assert cells[2] == "required" or cells[2].startswith("`"), cells
    assert len(found) > 40


def test_defaults_and_required_keys_are_those_of_an_error_message() -> None:
    """`known here: width (required), activation ('relu'), ...` of the section `model`, cell by cell."""
    told = {cells[0]: cells[2].strip("`") for cells in rows(reference())}
    message = known_keys(resolve(resolve(recipe_schema())["properties"]["model"]))
    expected = re.findall(r"(\w+) \(([^)]*)\)", message)
    assert len(expected) == 12
    for key, default in expected:
        assert told[f"`model.{key}`"] == default


@pytest.mark.parametrize("section", SECTIONS)
def test_every_section_has_a_heading(section: str) -> None:
    assert f"\n## `{section}`\n" in reference()


def test_every_kind_has_a_heading() -> None:
    properties = resolve(recipe_schema())["properties"]
    kinds = [(name, kind) for name in ("data", "solver") for kind in by_kind(properties[name])]
    assert len(kinds) >= 8
    for name, kind in kinds:
        assert f"\n### `{name}`, `kind: {kind}`\n" in reference()


def test_the_example_is_a_recipe_that_has_every_section(tmp_path: Path) -> None:
    path = tmp_path / "example.yaml"
    path.write_text(EXAMPLE, encoding="utf-8")
    assert f"```yaml\n{EXAMPLE}```" in PAGE.read_text(encoding="utf-8")
    recipe = load_recipe(str(path))
    assert re.findall(r"^(\w+):", EXAMPLE, re.MULTILINE) == list(Recipe.model_fields)
    assert len(recipe.cells()) == 8


def test_the_overrides_of_the_introduction_are_overrides() -> None:
    given = [each.strip("'") for each in re.findall(r"`('?[a-z_.]+=[^`]+)`", INTRODUCTION) if each != "key=value"]
    assert len(given) == 4
    recipe = load_recipe("quickstart", given)
    assert (recipe.model.sigma_w_sq, recipe.seeds, recipe.solver.tolerance) == (0.05, [0, 1], 1e-6)
    assert recipe.solver.kind == "picard"


def test_the_command_prints_the_page_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom deqcli.cli.main import app\n"
        "try:\n    app(['recipes', 'reference'])\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == reference()
    assert done.stderr.splitlines()[-1] == "[]"
