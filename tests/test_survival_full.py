"""Sweeps elsewhere and otherwise: other circumstances, a full disk, a cell that fails, somebody who looks on."""

from __future__ import annotations

import ctypes
import fcntl
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from deqcli.recipe.loading import load_recipe
from deqcli.runs import files
from deqcli.sweep.sweep import SweepOptions, sweep
from tests.survival import Server, below, differences, gone, send
from tests.waiting import wait_for

FULL = pytest.mark.reliability
ODD = "out of 100 % größer%20 'x'"
"""A folder whose name needs care wherever it is quoted, formatted or encoded."""

CLOCK = """
import time
really = time.time
time.time = lambda: really() - 1.2e9 + 3600 * (int(really() * 10) % 7)  # long ago, and jumping back and forth
time.localtime = lambda seconds=None, of=time.localtime: of(time.time() if seconds is None else seconds)
time.strftime = lambda form, when=None, of=time.strftime: of(form, time.localtime() if when is None else when)
"""
CIRCUMSTANCES: dict[str, dict[str, Any]] = {
    "hashes 0": {"PYTHONHASHSEED": "0"},
    "hashes 1": {"PYTHONHASHSEED": "1"},
    "hashes random": {"PYTHONHASHSEED": "random"},
    "Kathmandu": {"TZ": "Asia/Kathmandu"},
    "locale C": {"LC_ALL": "C"},
    "locale UTF-8": {"LC_ALL": "C.UTF-8", "LANG": "C.UTF-8"},
    "locale ASCII": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "out": ODD},
    "elsewhere": {"cwd": "/"},
    "umask": {"umask": 0o077},
    "clock": {"clock": True},
    "one job": {"jobs": 1},
    "odd folder": {"out": ODD},
}
SOME: dict[str, dict[str, Any]] = {
    "time": {"clock": True, "TZ": "Asia/Kathmandu", "PYTHONHASHSEED": "1", "jobs": 1},
    "place": {"cwd": "/", "umask": 0o077, "out": ODD, "PYTHONHASHSEED": "random"},
    "words": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONHASHSEED": "0", "jobs": 1},
}
"""The same, several at a time."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    found = Server(tmp_path_factory.mktemp("server"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def reference(server: Server) -> Path:
    """The output folder of an undisturbed sweep by two workers."""
    server.settle(lambda: server.sweep(server.scratch / "reference"))
    return server.scratch / "reference"


@pytest.mark.parametrize("name", [*SOME, *(pytest.param(each, marks=FULL) for each in CIRCUMSTANCES)])
def test_circumstances_change_no_byte(server: Server, reference: Path, tmp_path: Path, name: str) -> None:
    wanted = dict((SOME | CIRCUMSTANCES)[name])
    cwd, umask, jobs = wanted.pop("cwd", str(tmp_path)), wanted.pop("umask", -1), wanted.pop("jobs", 2)
    out = tmp_path / wanted.pop("out", "out")
    if wanted.pop("clock", False):
        (tmp_path / "sitecustomize.py").write_text(CLOCK)
        wanted["PYTHONPATH"] = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1])])
    command = server.real(*server.sweeping(out, jobs=jobs), variables=wanted, cwd=cwd, umask=umask)
    assert command.code() == 0, command.err
    assert "Traceback" not in command.err
    assert not differences(out, reference)
    modes = {path.stat().st_mode & 0o777 for path in out.rglob("*") if path.is_file()}
    assert umask == -1 or modes == {0o600}


def test_the_clock_of_the_tests_is_another(tmp_path: Path) -> None:
    """So that it is really tried out."""
    (tmp_path / "sitecustomize.py").write_text(CLOCK)
    command = [sys.executable, "-P", "-c", "import time; print(time.strftime('%Y'))"]
    variables = dict(os.environ) | {"PYTHONPATH": str(tmp_path)}
    words = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    assert int(words.stdout) < time.localtime().tm_year - 30


class Dead(BaseException):
    """Stands for the end of this process: from then on nothing is written."""


def test_a_sweep_that_dies_before_any_of_its_own_writes_goes_on(
    server: Server, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its runs are complete; what is left are the files of the sweep's folder, one after the other."""
    loaded, whole = load_recipe(server.recipe), files.replace_file
    for at in itertools.count():
        out, writes = tmp_path / str(at), itertools.count()
        shutil.copytree(reference, out, ignore=shutil.ignore_patterns("sweeps"))

        def write(*arguments: Any, at: int = at, writes: Iterator[int] = writes) -> None:
            if next(writes) >= at:
                raise Dead
            whole(*arguments)

        with monkeypatch.context() as patch, suppress(Dead):
            patch.setattr(files, "replace_file", write)
            sweep(loaded, out, SweepOptions("cpu"))
        assert sweep(loaded, out, SweepOptions("cpu")).kept == 4
        drawn = [each for each in differences(out, reference) if "figures" not in each and files.MANIFEST not in each]
        assert not drawn
        if next(writes) < at:
            return


@contextmanager
def small_disk(at: Path, size: int) -> Iterator[Path]:
    """A file system of so many bytes."""
    at.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(at)]
    if os.geteuid() or subprocess.run(options, check=False, stderr=subprocess.DEVNULL).returncode:
        pytest.skip("NO DISK WAS FULL: that needs root, who may mount a tmpfs")
    try:
        yield at
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)


@pytest.mark.parametrize("part", [0, 12] + [pytest.param(each, marks=FULL) for each in range(20)])
def test_a_full_disk_is_said_and_a_larger_one_takes_the_rest(
    server: Server, reference: Path, tmp_path: Path, part: int
) -> None:
    """It has room for some twentieths of what the sweep takes."""
    pages = [-(-path.stat().st_size // 4096) + 1 for path in reference.rglob("*")]
    with small_disk(tmp_path / "disk", 4096 * (4 + sum(pages) * part // 20)) as disk:
        out = disk / "out"
        command = server.sweep(out)
        assert command.code() in (0, 5), command.err
        assert "Traceback" not in command.err
        assert command.code() == 0 or "No space left on device" in command.err
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        again = server.sweep(out)
        assert again.code() == 0, again.err
        assert not differences(out, reference)


def without_privileges() -> None:
    """Let permissions count for root too: CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER leave the bounding set."""
    for capability in (1, 2, 3):
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)


def read_only(out: Path, allow: bool = False) -> None:
    """Take away every permission to write below a folder, or give it back."""
    for path in (out, *out.rglob("*")):
        path.chmod((0o755 if path.is_dir() else 0o644) if allow else (0o555 if path.is_dir() else 0o444))


@pytest.mark.parametrize("what", ["empty", "begun", "complete"])
def test_a_folder_that_may_only_be_read(server: Server, reference: Path, tmp_path: Path, what: str) -> None:
    """What is complete needs no writing; anything else is refused in words, and goes on once it may."""
    out = tmp_path / "out"
    out.mkdir() if what == "empty" else shutil.copytree(reference, out)
    if what == "begun":
        shutil.rmtree(next(out.glob("*/runs/w00024*")))
    read_only(out)
    before = state_of(out)
    command = server.real(*server.sweeping(out), preexec_fn=without_privileges)
    assert command.code() == (0 if what == "complete" else 5), command.err
    assert "Traceback" not in command.err
    assert what == "complete" or "Permission denied" in command.err
    assert state_of(out) == before
    read_only(out, allow=True)
    server.settle(lambda: server.sweep(out))
    assert not differences(out, reference)


FAILING = """
name: small
data: {kind: sphere, num_samples: 6, input_dim: 4, seed: 1}
model: {width: 24, sigma_w_sq: 0.05}
train: {steps: 1, learning_rate: auto, dtype: float64, seed: 0}
log: {loss_every: 10, spectral_every: 1000, checkpoint_every: 100000}
solver: {kind: picard}
sweep: {widths: [24], seeds: [0], over: {train.learning_rate: [0.001, 1000.0], train.steps: [60, 2000]}}
"""


@pytest.fixture(scope="module")
def failing(server: Server) -> Path:
    """A recipe of which two workers begin with a short cell and a long one; the next after the short one fails."""
    path = server.scratch / "failing.yaml"
    path.write_text(FAILING)
    return path


def test_a_failing_cell_stops_the_others_where_that_is_asked_for(server: Server, failing: Path, tmp_path: Path) -> None:
    arguments = ["sweep-width", failing, "execution.jobs=2", "--device", "cpu", "--out"]
    fast = server.start(*arguments, tmp_path / "fast", "--fail-fast")
    assert fast.code() == 7, fast.err
    assert len(re.findall(r"^w\d{5}-s\d{3}-\w{8} failed: step \d", fast.err, re.MULTILINE)) == 1
    assert shlex.join(["deqcli", *map(str, arguments), str(tmp_path / "fast"), "--fail-fast"]) in fast.err
    manifests = {path.parent: json.loads(path.read_text()) for path in tmp_path.glob("fast/*/runs/*/manifest.json")}
    assert sorted(each["status"] for each in manifests.values()) == ["complete", "failed", "interrupted"]
    (stopped,) = (folder for folder, each in manifests.items() if each["status"] == "interrupted")
    assert (stopped / files.CHECKPOINT).exists()
    whole, again = (server.start(*arguments, tmp_path / name) for name in ("whole", "fast"))
    for each in (whole, again):
        assert each.code() == 7, each.err
        assert "2 of 4 runs failed; the others are complete" in each.err
    assert f"resumed at step {manifests[stopped]['error'].split()[3]}" in (stopped / files.LOG).read_text()
    assert not differences(tmp_path / "fast", tmp_path / "whole")


def test_runs_that_were_stopped_are_not_said_to_have_failed_or_to_be_complete(
    server: Server, failing: Path, tmp_path: Path
) -> None:
    command = server.start("sweep-width", failing, "--fail-fast", "--device", "cpu", "--jobs", 2, "--out", tmp_path)
    assert command.code() == 7
    assert "1 of 4 runs failed" in command.err
    assert "the others are complete" not in command.err


def state_of(out: Path) -> dict[str, tuple[int, bytes]]:
    """When every file and folder below one was changed, and what is in it."""
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"") for path in out.rglob("*")
    }


def told(server: Server, out: Path) -> dict[str, Any]:
    """What `--status --json` says, which changes nothing, and `--status` in words too."""
    before = state_of(out)
    asked = [server.sweep(out, "--status", *how) for how in ([], ["--json"], ["--quiet"])]
    assert [each.code() for each in asked] == [0, 0, 0], [each.err for each in asked]
    assert state_of(out) == before
    found: dict[str, Any] = json.loads(asked[1].out)
    assert f"sweep {found['status']}" in asked[0].out
    for state, count in found["counts"].items():
        assert (f"{count} {state}" in asked[0].out) == bool(count)
    assert {state: count for state, count in found["counts"].items() if count} == {
        state: sum(cell["state"] == state for cell in found["cells"]) for state in {c["state"] for c in found["cells"]}
    }
    return found


def counts(**some: int) -> dict[str, int]:
    """Counts as they are told, those that are not given 0."""
    return dict.fromkeys(("complete", "running", "failed", "interrupted", "waiting"), 0) | some


@pytest.mark.parametrize("cells", [1, 2])
def test_who_looks_on_sees_how_far_a_sweep_is_and_changes_nothing(
    server: Server, reference: Path, tmp_path: Path, cells: int
) -> None:
    """While it runs, but held still; after the death of everything; once it is complete."""
    out, empty = tmp_path / "out", tmp_path / "empty"
    empty.mkdir()
    assert told(server, empty)["counts"] == counts(waiting=4)
    assert not list(empty.iterdir())
    command = server.sweep(out, "train.steps=300", jobs=cells)
    wait_for(lambda: command.over or len(rows(out)) > cells)
    workers = below(command.pid)
    send(signal.SIGSTOP, command.pid, *workers)
    statuses = {path: json.loads(path.read_text())["status"] for path in out.glob("*/runs/*/manifest.json")}
    complete = list(statuses.values()).count("complete")
    running = sum(held(path) and statuses.get(path.with_name(files.MANIFEST)) != "complete" for path in locks(out))
    found = told(server, out)
    assert found["status"] == "running"
    assert running
    assert found["counts"] == counts(complete=complete, running=running, waiting=4 - complete - running)
    assert {str(cell["owner"]).split(" on ")[0] for cell in found["cells"] if cell["state"] == "running"} <= {
        f"process {pid}" for pid in workers
    }
    send(signal.SIGKILL, command.pid, *workers)
    command.code()
    gone(workers)
    found = told(server, out)
    assert found["status"] == "interrupted"
    assert found["counts"] == counts(complete=complete, interrupted=len(statuses) - complete, waiting=4 - len(statuses))
    server.settle(lambda: server.sweep(out))
    found = told(server, out)
    assert (found["status"], found["counts"]) == ("complete", counts(complete=4))
    assert not differences(out, reference)


def rows(out: Path) -> list[Path]:
    """The tables of losses that have a row of a step."""
    return [path for path in out.glob("*/runs/*/loss.csv") if path.stat().st_size > 1000]


def locks(out: Path) -> list[Path]:
    """The locks of the runs."""
    return list(out.glob(f"*/runs/*/{files.LOCK}"))


def held(lock: Path) -> bool:
    """Whether a process has a lock."""
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
