"""What the documentation names exists, and what exists is documented."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from deqcli import __version__
from deqcli.recipe.library import shipped_recipes
from deqcli.runs.records import (
    CERTIFICATE_COLUMNS,
    LOSS_COLUMNS,
    PREDICTION_COLUMNS,
    RUN_KEYS,
    RUNS_COLUMNS,
    SPECTRAL_COLUMNS,
    TIMING_COLUMNS,
)  # fmt: skip
from deqcli.sweep.check_files import (
    DEPTH_COLUMNS,
    DRAW_COLUMNS,
    HERMITE_COLUMNS,
    PAIR_COLUMNS,
    RATE_COLUMNS,
    SPECTRA_COLUMNS,
)
from deqcli.sweep.predict_files import AGAINST_COLUMNS, DIRECTION_COLUMNS, SUMMARY_COLUMNS, TIMES_COLUMNS
from deqcli.theory import certificates

ROOT = Path(__file__).parent.parent
PAPER_MAP = (ROOT / "docs/paper-map.md").read_text()
NUMBERS = (ROOT / "docs/numbers.md").read_text()
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def named(pattern: str) -> list[tuple[str, str]]:
    """(module or file, name) of everything that the paper map quotes; a bare name belongs to the one before it."""
    found, last = [], ""
    for row in re.findall(r"^\|.*\|$", PAPER_MAP, re.MULTILINE)[2:]:
        cell = row.replace(r"\|", "").split("|")[2 if pattern == "code" else 3]
        for quoted in re.findall(r"`([^`]+)`", cell):
            separator = "." if pattern == "code" else "::"
            if separator not in quoted:
                found.append((last, quoted))
                continue
            last, name = quoted.rsplit(separator, 1)
            found.append((last, name))
    return found


def found(name: str) -> object:
    """What a dotted name of the package stands for; a method by its class."""
    parts = name.split(".")
    depth = next(d for d in range(len(parts), 0, -1) if (ROOT / "/".join(parts[:d])).with_suffix(".py").is_file())
    thing = importlib.import_module(".".join(parts[:depth]))
    for part in parts[depth:]:
        thing = getattr(thing, part)
    return thing


def test_every_function_of_the_paper_map_exists() -> None:
    functions = named("code")
    assert len(functions) >= 25
    for path, name in functions:
        assert found(f"{path}.{name}") is not None


def test_every_test_of_the_paper_map_exists() -> None:
    tests = named("tests")
    assert len(tests) >= 25
    for path, name in tests:
        assert f"\ndef {name}(" in (ROOT / path).read_text(), (path, name)


TABLES = {
    "loss": LOSS_COLUMNS,
    "spectral": SPECTRAL_COLUMNS,
    "certificates": CERTIFICATE_COLUMNS,
    "prediction": PREDICTION_COLUMNS,
    "runs": RUNS_COLUMNS,
    "timing": TIMING_COLUMNS,
    "draws": DRAW_COLUMNS,
    "spectra": SPECTRA_COLUMNS,
    "hermite": HERMITE_COLUMNS,
    "depth": DEPTH_COLUMNS,
    "rates": RATE_COLUMNS,
    "pairs": PAIR_COLUMNS,
    "summary": SUMMARY_COLUMNS,
    "times": TIMES_COLUMNS,
    "directions": DIRECTION_COLUMNS,
    "against": AGAINST_COLUMNS,
}


COMMON = "In every table but timing.csv"


def cells_of(row: str) -> list[str]:
    """The cells of a row of a Markdown table; an escaped bar ends none."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]


def column_rows(heading: str) -> dict[str, list[str]]:
    """Column -> its definition, unit and source, in the section of numbers.md whose heading begins so."""
    (section,) = re.findall(rf"^## {re.escape(heading)}.*?\n(.*?)(?=^## |\Z)", NUMBERS, re.MULTILINE | re.DOTALL)
    table = section.partition("| column | definition | unit | source |\n")[2].partition("\n\n")[0]
    rows = [cells_of(row) for row in table.splitlines()[1:]]
    return {name.strip(): cells for names, *cells in rows for name in names.split(",")}


@pytest.mark.parametrize(("table", "columns"), TABLES.items(), ids=TABLES)
def test_every_column_has_a_definition_a_unit_and_a_source(table: str, columns: tuple[str, ...]) -> None:
    own = column_rows(f"{table}.csv: ")
    defined = column_rows(COMMON) | own
    assert set(own) <= set(columns)
    for column in columns:
        assert len(defined[column]) == 3, column
        assert all(defined[column]), column
    assert set(columns) - set(own) <= set(RUN_KEYS)


def test_sources_of_columns_are_functions_that_exist() -> None:
    sources = {cells[-1] for table in TABLES for cells in column_rows(f"{table}.csv: ").values()}
    sources |= {cells[-1] for cells in column_rows(COMMON).values()}
    named = {name for source in sources for name in re.findall(r"`([^`]+)`", source)}
    assert len(named) >= 40
    for name in named:
        assert found(f"deqcli.{name}") is not None, name
    for source in sources:
        assert "`" in source, source


def test_rows_of_tables_have_as_many_cells_as_their_header() -> None:
    looked = 0
    for document in DOCUMENTS:
        for table in re.findall(r"^\|.*\n\|[-|: ]+\|\n(?:\|.*\n)*", document.read_text(), re.MULTILINE):
            sizes = {len(cells_of(row)) for row in table.splitlines()}
            assert len(sizes) == 1, (document.name, table[:200])
            looked += 1
    assert looked >= 40


def test_every_certificate_is_defined() -> None:
    for certificate in certificates.CERTIFICATES:
        name = certificate.__name__
        assert name in NUMBERS or f"_{name.split('condition_1_eq_')[-1]}" in NUMBERS
        assert certificate.__doc__


def test_links_between_documents_lead_somewhere() -> None:
    followed = 0
    for document in DOCUMENTS:
        prose = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\(([^)#]+)\)", prose):
            assert (document.parent / target).exists(), (document, target)
            followed += 1
    assert followed >= 8


def test_files_that_architecture_names_exist() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    paths = set(re.findall(r"`(?:deqcli/)?((?:deq|data|recipe|runs|sweep|show|cli|theory)/\w+\.py)`", text))
    assert len(paths) >= 8
    for path in paths:
        assert (ROOT / "deqcli" / path).is_file(), path


def test_the_readme_names_make_targets_and_recipes_that_exist() -> None:
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^make (\w+)", readme, re.MULTILINE))
    assert targets == {"demo", "test"}
    for target in targets:
        assert f"\n{target}: " in makefile
    assert "make test" in (ROOT / ".ci/run").read_text()
    for recipe in re.findall(r"^deqcli (?:train|sweep-width|check-init) ([\w-]+)", readme, re.MULTILINE):
        assert recipe in shipped_recipes()


def test_the_changelog_knows_this_version() -> None:
    assert f"\n## {__version__}\n" in (ROOT / "CHANGELOG.md").read_text()
