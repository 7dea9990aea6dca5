"""Runs in processes of their own, in which the k-th change of the output folder goes wrong.

A server imports everything once and forks a child for each job; the child arms the shim `faults.c`, which is preloaded,
and computes.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import pytest

from deqcli.errors import as_refusal
from deqcli.recipe.schema import RunSpec
from deqcli.runs import files, folder
from deqcli.runs.attempt import Outcome
from deqcli.runs.device import Execution
from deqcli.runs.run import run_batch
from deqcli.runs.standing import Standing
from tests.runs import CSV, recipe

CPU = Execution("cpu", 1)
ROOT = Path(__file__).parents[1]
NAMES = "names.json"
SAME = (*CSV, files.RECIPE, files.CHECKPOINT)
"""What a run leaves that is a function of its recipe, to the byte."""

LEFT = {*SAME, files.TIMING, files.MANIFEST, files.LOG, files.LOCK, files.OWNER}
"""And nothing else; .owner is left only by who was killed when all was done."""

TINY = """
name: tiny
data: {kind: sphere, num_samples: 4, input_dim: 3, seed: 1}
model: {width: 6, sigma_w_sq: 0.05}
train: {steps: 6, learning_rate: auto, dtype: float64, seed: 2}
log: {loss_every: 1, spectral_every: 2, checkpoint_every: 3}
"""


class Fault(IntEnum):
    """What happens at the k-th change; the numbers are those of faults.c."""

    NONE = 0
    KILL_BEFORE = 1
    KILL_AFTER = 2
    """After half of its bytes, where it is a write."""
    NO_SPACE = 3
    IO_ERROR = 4
    FULL = 5
    """From then on there is no room for a byte, nor for a name."""
    FILLING = 6
    """Half of the next write fits, then not a byte; names still do."""


KILLS = (Fault.KILL_BEFORE, Fault.KILL_AFTER)
ONCE = (Fault.NO_SPACE, Fault.IO_ERROR)
FULL_DISKS = (Fault.FULL, Fault.FILLING)


@dataclass(frozen=True)
class End:
    """How a job ended: by which signal (0: none), each run with which exit code, what was raised, in which words."""

    signal: int
    codes: dict[str, int]
    raised: int
    sentences: list[str]
    calls: list[str]
    """The changes that were counted, each as `number call path`."""


class Server:
    """A process with the shim in it, of which each job gets a child of its own."""

    def __init__(self, shim: Path, scratch: Path) -> None:
        scratch.mkdir()
        self._log = scratch / "calls"
        environment = os.environ | {"LD_PRELOAD": str(shim), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "tests.faults", str(scratch)]
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def compute(
        self, specs: Sequence[RunSpec], out: Path, fault: Fault = Fault.NONE, at: int = 0, force: bool = False,
        durable: Path | None = None, stop: int | None = None,
    ) -> End:  # fmt: skip
        """Run `specs` in `out`, and let change number `at` go wrong.

        `durable` is where what fsync saved is kept; at step `stop` SIGTERM asks the process to stop.
        """
        self._log.write_text("")
        job = {
            "specs": [spec.model_dump(mode="json") for spec in specs],
            "out": os.path.realpath(out),
            "fault": int(fault),
            "at": at,
            "force": force,
            "durable": durable and str(durable),
            "stop": stop,
            "log": str(self._log),
        }
        to, back = self._process.stdin, self._process.stdout
        assert to
        assert back
        to.write(json.dumps(job) + "\n")
        to.flush()
        return End(**json.loads(back.readline()), calls=self._log.read_text().splitlines())

    def close(self) -> None:
        """Let it go."""
        self._process.communicate()


def shim(to: Path) -> Path:
    """faults.c compiled into a folder; where that cannot be done, skip the test loudly."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("NO FAULT WAS INJECTED: that needs Linux and a C compiler, such as cc")
    path, source = to / "faults.so", Path(__file__).with_name("faults.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(path), str(source)], check=True)
    return path


def tiny(to: Path, *overrides: str) -> RunSpec:
    """A run of 50 ms that writes all there is to write more than once."""
    return recipe(to, *overrides, text=TINY).run()


def finish(specs: Sequence[RunSpec], out: Path, force: bool = False) -> dict[str, Outcome | Exception]:
    """Run `specs` in this process, without faults; the end of each by its run_id."""
    ends: dict[str, Outcome | Exception] = {}
    run_batch(specs, out, CPU, force, on_end=lambda spec, end: ends.update({spec.run_id: end}))
    return ends


def content(of: Path) -> dict[str, bytes]:
    """Every file below a folder by its path in it."""
    return {str(path.relative_to(of)): path.read_bytes() for path in sorted(of.rglob("*")) if path.is_file()}


class Reference:
    """Uninterrupted runs, and what is said against others of the same recipes."""

    def __init__(self, specs: Sequence[RunSpec], out: Path) -> None:
        self.specs = list(specs)
        self._wanted = {id_: self._numbers(end) for id_, end in finish(specs, out).items()}

    @staticmethod
    def _numbers(end: Outcome | Exception) -> dict[str, object]:
        if isinstance(end, Exception):
            raise end
        return {name: (end.folder / name).read_bytes() for name in SAME} | {"results": end.manifest.results}

    def complaints(self, out: Path) -> list[str]:
        """What is wrong with the runs in `out`: not complete, other bytes, or files too many."""
        return [complaint for spec in self.specs for complaint in self.complaints_of(spec, out)]

    def complaints_of(self, spec: RunSpec, out: Path) -> list[str]:
        """What is wrong with one of them."""
        try:
            manifest = folder.find_complete(out, spec)
        except Exception as error:
            return [f"{type(error).__name__}: {error}"]
        if manifest is None:
            return [f"{spec.run_id} is not complete"]
        at = folder.run_folder(out, spec)
        found = self._numbers(Outcome(at, manifest, computed=True))
        complaints = [f"other {name}" for name, wanted in self._wanted[spec.run_id].items() if found[name] != wanted]
        left = {path.name for path in at.iterdir()} - LEFT
        return complaints + [f"left behind: {sorted(left)}"] * bool(left)

    def complaints_after_another_run(self, out: Path) -> list[str]:
        """Run again in `out`, without faults: what is wrong then.

        What was found complete is only read: a file that a start had begun before it was killed may lie there.
        """
        ends = finish(self.specs, out).values()
        if errors := [f"{type(end).__name__}: {end}" for end in ends if isinstance(end, Exception)]:
            return errors
        read_only = any(isinstance(end, Outcome) and not end.computed for end in ends)
        return [each for each in self.complaints(out) if not (read_only and each.startswith("left behind"))]


def cut_power(at: Path, durable: Path, names_lost: bool) -> None:
    """Leave of each file in a folder the bytes that fsync made durable; with `names_lost`, of the names as well.

    The disk may keep any part of what was not synced; these are the extremes.
    """
    known = durable / at.name / NAMES
    now = {path.name: path.stat().st_ino for path in at.iterdir()} if at.exists() else {}
    then = json.loads(known.read_text()) if known.exists() else {}
    kept = {}
    for name, inode in (then if names_lost else now).items():
        synced = durable / at.name / str(inode)
        kept[name] = synced.read_bytes() if synced.exists() else b""
    for name in now:
        (at / name).unlink()
    for name, data in kept.items():
        (at / name).write_bytes(data)


def _keep_what_is_durable(out: Path, durable: Path) -> None:
    """From now on, copy into `durable` what fsync is called for; what is there already has been durable for long."""
    really, held = os.fsync, []

    def keep(path: Path) -> None:
        kept = durable / (path if path.is_dir() else path.parent).name
        kept.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            inodes = {each.name: each.stat().st_ino for each in path.iterdir()}
            (kept / NAMES).write_text(json.dumps(inodes))
        else:
            held.append(path.open("rb"))  # so that no other file gets this inode
            (kept / str(os.fstat(held[-1].fileno()).st_ino)).write_bytes(held[-1].read())

    def fsync(fd: int) -> None:
        really(fd)
        keep(Path(os.readlink(f"/proc/self/fd/{fd}")))

    for path in out.glob("*/runs/*"):
        for each in (*path.iterdir(), path):
            keep(each)
    os.fsync = fsync  # type: ignore[assignment]


def _compute(job: dict[str, Any]) -> dict[str, Any]:
    """The job in a child: what came of it, where it lives to tell."""
    codes: dict[str, int] = {}
    sentences: list[str] = []

    def code(end: Outcome | BaseException) -> int:
        if isinstance(end, Outcome):
            return 0
        refusal = as_refusal(end) if isinstance(end, Exception) else end
        sentences.append(str(refusal))
        return getattr(refusal, "exit_code", 1)

    def report(standing: Standing) -> None:
        if standing.step is not None and standing.step == job["stop"]:
            os.kill(os.getpid(), signal.SIGTERM)

    specs, out, raised = [RunSpec.model_validate(each) for each in job["specs"]], Path(job["out"]), 0
    if job["durable"]:
        _keep_what_is_durable(out, Path(job["durable"]))
    log = os.open(job["log"], os.O_WRONLY | os.O_APPEND)
    ctypes.CDLL(None).fault_arm(os.fsencode(out), ctypes.c_long(job["at"]), job["fault"], log)
    try:
        run_batch(specs, out, CPU, job["force"], report, lambda spec, end: codes.update({spec.run_id: code(end)}))
    except BaseException as error:
        raised = code(error)
    return {"codes": codes, "raised": raised, "sentences": sentences}


def _forked(compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a child says, and the signal that it died of."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with os.fdopen(writing, "w") as words:
                json.dump(compute(), words)
        finally:
            os._exit(0)  # whatever happens: it must not go on as a second server
    os.close(writing)
    with os.fdopen(reading) as words:
        text = words.read()
    signum = -min(0, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    assert text or signum
    return {"signal": signum, **(json.loads(text) if text else {"codes": {}, "raised": 0, "sentences": []})}


def _serve(scratch: Path) -> None:
    """Answer jobs, a line of JSON each, until there are no more."""
    finish([tiny(scratch)], scratch)  # leaves no child anything to import
    gc.collect()
    gc.freeze()  # what nobody changes is not copied
    gc.disable()
    assert len(os.listdir("/proc/self/task")) == 1  # only a process of one thread may be forked
    for line in sys.stdin:
        job = json.loads(line)
        print(json.dumps(_forked(lambda: _compute(job))), flush=True)  # noqa: B023 (called at once)


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    _serve(Path(sys.argv[1]))
