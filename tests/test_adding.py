"""docs/adding/: every page is followed to the letter, in a copy of the checkout."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = {path.stem: path for path in sorted((ROOT / "docs/adding").glob("*.md"))}
COPIED = ("deqcli", "recipes", "tests", "docs", "setup.cfg", "pyproject.toml")
BLOCK = re.compile(r"^(?P<above>[^\n]*)\n\n```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
NEW, ABOVE, CHANGED = (
    re.compile(pattern)
    for pattern in (
        r"New file `(?P<path>[^`]+)`:",
        r"In `(?P<path>[^`]+)`, above the line that begins with `(?P<marker>[^`]+)`:",
        r"In `(?P<path>[^`]+)`:",
    )
)
COMMANDS = "bash"
OF_THE_SHELL = ("sweep-width", "report")
"""Commands that start processes of their own, or name files by patterns."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page and the line above it."""

    above: str
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    """Every fenced block, in the order of the page."""
    text = page.read_text(encoding="utf-8")
    found = [Block(**match.groupdict()) for match in BLOCK.finditer(text)]
    assert 2 * len(found) == len(re.findall(r"^```", text, re.MULTILINE)), page
    return found


def commands(page: Path) -> list[str]:
    """The lines of the blocks of commands."""
    return [line for block in blocks(page) if block.language == COMMANDS for line in block.text.splitlines()]


def follow(page: Path, folder: Path) -> list[Path]:
    """Do to a copy of the checkout what the page says; the files that it changed."""
    changed = []
    for block in blocks(page):
        if block.language != COMMANDS:
            relative = _edit(block, folder)
            changed.append(folder / relative)
    return changed


def _edit(block: Block, folder: Path) -> str:
    if match := NEW.fullmatch(block.above):
        path = folder / match["path"]
        assert not path.exists(), path
        path.write_text(block.text, encoding="utf-8")
    elif match := ABOVE.fullmatch(block.above):
        path = folder / match["path"]
        gap = "\n\n" if path.suffix == ".py" else ""
        _replace_once(path, f"\n{match['marker']}", f"\n{block.text}{gap}{match['marker']}")
    else:
        match = CHANGED.fullmatch(block.above)
        assert match, f"no way to read: {block.above}"
        assert block.language == "diff"
        lines = block.text.splitlines(keepends=True)
        before, after = (["\n", *(line[1:] for line in lines if line[0] in signs)] for signs in (" -", " +"))
        _replace_once(folder / match["path"], "".join(before), "".join(after))
    return match["path"]


def _replace_once(path: Path, before: str, after: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(before) == 1, f"{path.name} has this {text.count(before)} times:\n{before}"
    path.write_text(text.replace(before, after), encoding="utf-8")


def copy_of_the_checkout(folder: Path) -> Path:
    """What the pages are followed in."""
    for name in COPIED:
        source, target = ROOT / name, folder / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, target)
    return folder


def environment(folder: Path) -> dict[str, str]:
    """One in which `deqcli` and `python` are those of the copy."""
    scripts = folder / ".scripts"
    scripts.mkdir()
    for name, arguments in (("deqcli", " -m deqcli"), ("python", "")):
        script = scripts / name
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)}{arguments} "$@"\n')
        script.chmod(0o755)
    paths = {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(folder)}
    return os.environ | paths | {"DEQCLI_DEVICE": "cpu", "PYTHONDONTWRITEBYTECODE": "1"}


def run(arguments: Sequence[str], folder: Path, variables: dict[str, str], given: str = "") -> str:
    """What a command prints, which must succeed."""
    done = subprocess.run(
        arguments, cwd=folder, env=variables, input=given, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{shlex.join(arguments)[:500]}\n{done.stdout}\n{done.stderr}"
    return done.stdout


IN_ONE_PROCESS = """
import json, sys
from pathlib import Path
import pytest
from typer.testing import CliRunner
from deqcli.cli.main import app
given = json.load(sys.stdin)
for arguments, target in given["commands"]:
    done = CliRunner().invoke(app, arguments)
    if done.exit_code != 0:
        sys.exit(f"{arguments}: exit code {done.exit_code}, {done.output} {done.exception!r}")
    if target is not None:
        Path(target).write_text(done.stdout, encoding="utf-8")
sys.exit(pytest.main(["-q", "-W", "ignore:Module already imported", *given["tests"]]))
"""


def test_every_page_says_what_to_change_and_how_to_see_that_it_works() -> None:
    index = (ROOT / "docs/adding.md").read_text(encoding="utf-8")
    assert len(PAGES) >= 8
    for name, page in PAGES.items():
        languages = [block.language for block in blocks(page)]
        assert set(languages) <= {"python", "diff", "markdown", COMMANDS}, name
        assert {"python", "diff"} <= set(languages), name
        assert any("pytest" in line for line in commands(page)), name
        assert any(line.startswith("deqcli ") for line in commands(page)), name
        assert f"(adding/{name}.md)" in index


def redirected(words: list[str]) -> tuple[list[str], str | None]:
    """The arguments of `deqcli ... > file`, and the file."""
    if ">" not in words:
        return words[1:], None
    return words[1 : words.index(">")], words[-1]


@pytest.mark.docs
def test_all_pages_together(tmp_path: Path) -> None:
    """Their commands, but for those that take a shell or long, and then their tests, all in one process."""
    folder = copy_of_the_checkout(tmp_path / "checkout")
    lines = [shlex.split(line) for page in PAGES.values() if follow(page, folder) for line in commands(page)]
    direct = [redirected(words) for words in lines if words[0] == "deqcli" and words[1] not in OF_THE_SHELL]
    tests = {words[3] for words in lines if words[:3] == ["python", "-m", "pytest"] and len(words) == 4}
    given = json.dumps({"commands": direct, "tests": [*sorted(tests), "tests/test_reference.py"]})
    run([sys.executable, "-c", IN_ONE_PROCESS], folder, environment(folder), given)
    assert len(direct) >= 12
    assert len(tests) >= 8


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_a_page_alone_command_by_command(name: str, tmp_path: Path) -> None:
    folder = copy_of_the_checkout(tmp_path / "checkout")
    changed, variables = follow(PAGES[name], folder), environment(folder)
    for line in commands(PAGES[name]):
        run(["sh", "-ec", line], folder, variables)
    code = sorted({str(path) for path in changed if path.suffix == ".py"})
    run(["python", "-m", "ruff", "check", *code], folder, variables)
    run(["python", "-m", "ruff", "format", "--check", *code], folder, variables)
    run(["python", "-m", "pytest", "-q", "tests/test_reference.py"], folder, variables)
