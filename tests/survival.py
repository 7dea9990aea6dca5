"""Commands of deqcli in processes of their own that tests kill, stop and race; what such a sweep must come to.

A start of the command takes seconds, most of them imports. So a server imports everything once and forks a process for
each command, which forks its workers in turn; pipes, signals, sessions and locks are those of real ones. `real` ones
can be had too.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deqcli.runs import files, folder
from tests.waiting import wait_for

ROOT = Path(__file__).parents[1]
PATIENCE = 60.0
"""Seconds that anything may take to end; on an idle machine it is a few."""

VOLATILE = {files.TIMING, files.MANIFEST, files.LOG, files.LOCK, files.OWNER}
"""Files that tell of the computing and not of the recipe."""

SWEEP = """
name: small
data: {kind: sphere, num_samples: 6, input_dim: 4, seed: 1}
model: {width: 24, sigma_w_sq: 0.05}
train: {steps: 300, learning_rate: auto, dtype: float64, seed: 0}
log: {loss_every: 1, spectral_every: 50, checkpoint_every: 20}
solver: {kind: picard}
sweep: {widths: [24, 32], seeds: [0, 1]}
"""
SOLVERS = {"apart": "solver.kind=picard", "stacked": "solver.kind=continuation"}
"""Cells that are computed one by one, and cells of which two share their products."""


def chances(seed: object) -> random.Random:
    """The same numbers whenever the tests run."""
    return random.Random(str(seed))  # noqa: S311 (they are no secret)


@dataclass
class Going:
    """A command that was started."""

    pid: int
    real: bool
    _wait: Callable[[float], int | None]
    _words: Path

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._wait(0.0) is not None

    @property
    def listens(self) -> bool:
        """Whether it handles SIGTERM by now; Python itself begins without, and with a traceback for Ctrl-C."""
        with suppress(OSError):
            caught = re.search(r"^SigCgt:\s*(\w+)", Path(f"/proc/{self.pid}/status").read_text(), re.MULTILINE)
            return bool(caught and int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)
        return False

    def code(self) -> int:
        """Its exit code, minus the signal where one ended it; it must end before our patience does."""
        code = self._wait(PATIENCE)
        assert code is not None, f"still going after {PATIENCE} s: {self.err}"
        return code

    @property
    def err(self) -> str:
        """What it has said on standard error."""
        return self._words.with_suffix(".err").read_text(errors="replace")

    @property
    def out(self) -> str:
        """What it has said on standard output."""
        return self._words.with_suffix(".out").read_text(errors="replace")


def send(signum: int, *pids: int) -> None:
    """Send a signal to processes, where they are still there."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signum)


class Server:
    """Starts commands in forked processes, and in real ones."""

    def __init__(self, scratch: Path) -> None:
        if sys.platform != "linux":
            pytest.skip("NOTHING WAS KILLED: that needs the /proc of Linux")
        self.scratch = scratch
        self.scratch.mkdir(exist_ok=True)
        self.recipe = str(scratch / "recipe.yaml")
        Path(self.recipe).write_text(SWEEP)
        self._number, self._codes = 0, dict[int, int]()
        command = [sys.executable, "-m", "tests.survival_server", str(scratch)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = subprocess.Popen(command, cwd=ROOT, env=environment(), text=True, **pipes)  # type: ignore[call-overload]

    def start(self, *arguments: object, patience: float = folder.LOCK_PATIENCE) -> Going:
        """A forked command; `patience` is for a folder that is in use."""
        words = self._next()
        pid = self._ask({"start": [str(each) for each in arguments], "words": str(words), "patience": patience})
        return Going(pid, False, lambda seconds: self._code(pid, seconds), words)

    def real(self, *arguments: object, variables: Mapping[str, str] = {}, **how: Any) -> Going:
        """A command as a shell starts it; `how` is for Popen."""
        words, command = self._next(), [sys.executable, "-m", "deqcli", *map(str, arguments)]
        with words.with_suffix(".out").open("wb") as out, words.with_suffix(".err").open("wb") as err:
            env = environment() | variables
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=env, start_new_session=True, **how
            )

        def wait(seconds: float) -> int | None:
            with suppress(subprocess.TimeoutExpired):
                return process.wait(seconds)
            return None

        return Going(process.pid, True, wait, words)

    def sweep(self, out: Path, *overrides: object, jobs: int = 2, **how: Any) -> Going:
        """A forked sweep of the recipe, none of whose cells is given up for its killed workers."""
        return self.start(*self.sweeping(out, *overrides, jobs=jobs), **how)

    def sweeping(self, out: Path | str, *overrides: object, jobs: int = 2) -> list[object]:
        """The arguments of such a sweep."""
        options = ["--jobs", jobs, "--retries", 1000, "--device", "cpu", "--out", out]
        return ["sweep-width", self.recipe, *overrides, *options]

    def settle(self, again: Callable[[], Going]) -> None:
        """Start a command until it is done; only a worker that is not gone yet may keep it from that."""
        for _ in range(10):
            command = again()
            code = command.code()
            assert "Traceback" not in command.err
            if code == 0:
                return
            assert code in (6, 7), f"exit code {code}: {command.err}"
            assert "is in use by" in command.err
        raise AssertionError(f"never done: {command.err}")

    def close(self) -> None:
        """Let it go."""
        self._process.communicate()

    def _next(self) -> Path:
        self._number += 1
        return self.scratch / f"command-{self._number}.out"

    def _ask(self, question: dict[str, object]) -> Any:
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def _code(self, pid: int, seconds: float) -> int | None:
        if pid not in self._codes:
            code = self._ask({"wait": pid, "seconds": seconds})
            if code is None:
                return None
            self._codes[pid] = code
        return self._codes[pid]


def environment() -> dict[str, str]:
    """That of a command: one thread, so that two of them share two cores."""
    return dict(os.environ) | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def below(pid: int) -> list[int]:
    """The living processes that a process started, and those that they started."""
    parents: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent = status.read_text().rsplit(")", 1)[1].split()[:2]
            if state != "Z":
                parents.setdefault(int(parent), []).append(int(status.parent.name))
    found = parents.get(pid, [])
    return found + [each for child in found for each in below(child)]


def gone(pids: Sequence[int]) -> None:
    """Wait until none of these processes is left, but zombies, which wait for whoever started them."""

    def left() -> list[int]:
        states = [Path(f"/proc/{pid}/stat") for pid in pids]
        return [1 for each in states if each.exists() and " Z " not in _text(each)]

    wait_for(lambda: not left(), PATIENCE)


def _text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text()
    return " Z "


def results(out: Path) -> dict[str, bytes]:
    """Every file below an output folder that the recipe decides, by its path in it."""
    paths = [path for path in sorted(out.rglob("*")) if path.is_file() and path.name not in VOLATILE]
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}


def said(out: Path) -> dict[str, object]:
    """What the manifests below an output folder say of the numbers."""
    found: dict[str, object] = {}
    for path in sorted(out.rglob(files.MANIFEST)):
        content = json.loads(path.read_text())
        digests = {name: digest for name, digest in content["files"].items() if name not in VOLATILE}
        told = {key: content[key] for key in ("kind", "id", "status", "error", "results", "changed", "cells")}
        found[str(path.relative_to(out))] = told | {"files": digests}
    return found


def differences(out: Path, reference: Path) -> list[str]:
    """The files of an output folder that are others than in another, or in one of the two alone."""
    found, wanted = (results(each) | said(each) for each in (out, reference))
    return sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
