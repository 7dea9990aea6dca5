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
    RUNS_COLUMNS,
    SPECTRAL_COLUMNS,
    TIMING_COLUMNS,
)  # fmt: skip
from deqcli.sweep.check_files import DEPTH_COLUMNS, DRAW_COLUMNS, RATE_COLUMNS, SPECTRA_COLUMNS
from deqcli.sweep.predict_files import AGAINST_COLUMNS, DIRECTION_COLUMNS, SUMMARY_COLUMNS, TIMES_COLUMNS
from deqcli.theory import certificates

ROOT = Path(__file__).parent.parent
PAPER_MAP = (ROOT / "docs/paper-map.md").read_text()
NUMBERS = (ROOT / "docs/numbers.md").read_text()


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


def test_every_function_of_the_paper_map_exists() -> None:
    functions = named("code")
    assert len(functions) >= 25
    for path, name in functions:
        parts = path.split(".")
        depth = next(d for d in range(len(parts), 0, -1) if (ROOT / "/".join(parts[:d])).with_suffix(".py").is_file())
        found = importlib.import_module(".".join(parts[:depth]))
        for part in (*parts[depth:], name):
            found = getattr(found, part)


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
    "depth": DEPTH_COLUMNS,
    "rates": RATE_COLUMNS,
    "summary": SUMMARY_COLUMNS,
    "times": TIMES_COLUMNS,
    "directions": DIRECTION_COLUMNS,
    "against": AGAINST_COLUMNS,
}


@pytest.mark.parametrize("columns", TABLES.values(), ids=TABLES)
def test_every_column_is_defined(columns: tuple[str, ...]) -> None:
    defined = {name.strip() for row in re.findall(r"^\| ([^|]+) \|", NUMBERS, re.MULTILINE) for name in row.split(",")}
    assert set(columns) - defined == set()


def test_every_certificate_is_defined() -> None:
    for certificate in certificates.CERTIFICATES:
        name = certificate.__name__
        assert name in NUMBERS or f"_{name.split('condition_1_eq_')[-1]}" in NUMBERS
        assert certificate.__doc__


def test_links_between_documents_lead_somewhere() -> None:
    followed = 0
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
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
