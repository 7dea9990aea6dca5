"""Every command of the README and of docs/ is run, page by page, and prints what the page says.

In a fence marked `console`, lines that begin with `$ ` are commands and the others what they print on standard output
(and standard error, of one that fails), where a line `...` stands for any lines. Fences marked `sh` and `python` are
run as they are; `<!-- long -->` above a fence has its deqcli commands checked with --dry-run. What belongs to another
machine is marked otherwise. Numbers are compared to three digits: the last ones belong to a processor.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# docs/adding/ is followed by test_adding.py, on a copy of the package
PAGES = ("README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md")))
FENCE = re.compile(r"(?P<long><!-- long[^>]*-->\s*)?^```(?P<kind>\w+)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
RUN = ("console", "sh", "python")
OF_THE_CHECKOUT = ("make ", "bash .ci/run", "git clone", "cd ", "pip install")
"""What needs more than an installed deqcli: `.ci/run` runs the README's `make` commands."""

NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?")
SECONDS_AT_MOST = 400


@dataclass(frozen=True)
class Command:
    """A command of a page, and what the page says that it prints; None where it says nothing."""

    text: str
    printed: list[str] | None
    long: bool


def commands(page: str) -> Iterator[Command]:
    """What is to be run of a page, in its order."""
    for fence in FENCE.finditer(page):
        body, long = fence["body"], bool(fence["long"])
        if fence["kind"] == "console":
            yield from transcripts(body, long)
        elif fence["kind"] == "sh":
            lines = re.sub(r"\s*\\\n\s*", " ", body).splitlines()
            yield from (Command(line, None, long) for line in lines if line.strip() and not line.startswith("#"))
        elif fence["kind"] == "python":
            yield Command(f"{sys.executable} - <<'END'\n{body}END\n", None, long)


def transcripts(body: str, long: bool) -> Iterator[Command]:
    """The commands of a session, each with the lines below it."""
    for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
        first, _, rest = part.partition("\n")
        yield Command(first, rest.rstrip("\n").splitlines(), long)


def run(command: Command, folder: Path) -> subprocess.CompletedProcess[str]:
    """The command in a shell, as if deqcli had been installed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    text = f"{command.text.partition('  #')[0]} --dry-run" if command.long else command.text
    environment = {**os.environ, "PATH": path, "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        ["bash", "-c", text], cwd=folder, env=environment, capture_output=True, text=True, check=False,
        timeout=SECONDS_AT_MOST,
    )  # fmt: skip


def agrees(said: list[str], printed: list[str]) -> bool:
    """Whether the lines of a page are those printed, numbers to three digits, `...` standing for any lines."""
    if not said:
        return not printed
    if said[0].strip() == "...":
        return any(agrees(said[1:], printed[skipped:]) for skipped in range(len(printed) + 1))
    return bool(printed) and same(said[0], printed[0]) and agrees(said[1:], printed[1:])


def same(said: str, printed: str) -> bool:
    """Whether two lines are the same but for the last digits of their numbers and the width of their columns."""
    words, others = (" ".join(NUMBER.sub("#", line).split()) for line in (said, printed))
    numbers = zip(*(map(float, NUMBER.findall(line)) for line in (said, printed)), strict=False)
    return words == others and all(abs(a - b) <= 2e-3 * max(abs(a), abs(b)) for a, b in numbers)


@pytest.mark.docs
@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_runs_and_prints_what_it_says(page: str, tmp_path: Path) -> None:
    for command in commands((ROOT / page).read_text()):
        if command.text.startswith(OF_THE_CHECKOUT):
            continue
        done = run(command, tmp_path)
        shown = f"$ {command.text}\n{done.stdout}{done.stderr}"
        expected = re.search(r"# exit code (\d+)", command.text)
        assert done.returncode == (int(expected[1]) if expected else 0), shown
        if command.printed is not None:
            told = done.stdout + (done.stderr if done.returncode else "")
            printed = told.rstrip("\n").splitlines()
            assert agrees(command.printed, printed), f"{shown}\nthe page says\n" + "\n".join(command.printed)


def test_there_are_commands_to_run_and_every_fence_has_a_kind() -> None:
    found = {page: list(commands((ROOT / page).read_text())) for page in PAGES}
    assert sum(map(len, found.values())) >= 30
    assert sum(command.printed is not None for each in found.values() for command in each) >= 8
    for page in PAGES:
        opened = re.findall(r"^```(.*)$", (ROOT / page).read_text(), re.MULTILINE)[::2]
        assert set(opened) <= {*RUN, "text", "yaml", "bibtex", "json", "toml"}, page


@pytest.mark.parametrize(
    ("said", "printed", "agree"),
    [
        (["a 1.0001 b"], ["a  1.0002   b"], True),
        (["a 1.0 b"], ["a 1.1 b"], False),
        (["a"], ["b"], False),
        (["a"], ["a", "b"], False),
        (["a", "..."], ["a", "b", "c"], True),
        (["...", "c"], ["a", "b", "c"], True),
        (["...", "d"], ["a", "b", "c"], False),
        ([], ["a"], False),
        (["w00250-s000-5edc5c7f"], ["w00250-s000-5edc5c7e"], False),
    ],
)
def test_lines_agree_but_for_last_digits(said: list[str], printed: list[str], agree: bool) -> None:
    assert agrees(said, printed) is agree


def test_a_page_is_read_as_it_is_meant() -> None:
    page = "\n".join(
        [
            "```console", "$ a b", "c", "$ d", "```", "<!-- long: 4 h -->",
            "```sh", "# no", "e \\", "  f", "```", "```text", "g", "```",
        ]
    )  # fmt: skip
    assert list(commands(page)) == [
        Command("a b", ["c"], False),
        Command("d", [], False),
        Command("e f", None, True),
    ]
