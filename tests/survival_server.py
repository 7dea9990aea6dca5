"""The server of `tests.survival`: forks a process for each command, which forks its workers in turn."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, NoReturn

from deqcli import __main__ as command_line
from deqcli.api import finish_sweep, resolve
from deqcli.runs import files, folder
from deqcli.runs.device import Execution
from deqcli.runs.run import run_batch
from deqcli.sweep import local, worker
from deqcli.sweep.cells import CellEnd, batches
from deqcli.sweep.merge import merge
from deqcli.sweep.sweep import note
from tests.survival import SOLVERS


class Forked:
    """A worker that is forked instead of started: what `deqcli.sweep.local` uses of Popen."""

    def __init__(self, command: Sequence[str], *, stderr: IO[bytes], **_: Any) -> None:
        theirs_in, ours_in = os.pipe()
        ours_out, theirs_out = os.pipe()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
        self.pid, self._code = os.fork(), None
        if self.pid == 0:
            _become(theirs_in, theirs_out, stderr.fileno(), lambda: _work(command[4:]))
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(theirs_in)
        os.close(theirs_out)
        self.stdin, self.stdout = os.fdopen(ours_in, "wb"), os.fdopen(ours_out, "rb")

    def poll(self) -> int | None:
        return self._reap(os.WNOHANG)

    def wait(self, timeout: float | None = None) -> int | None:
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._reap(os.WNOHANG) is None:
            if deadline is not None and time.monotonic() >= deadline:
                raise subprocess.TimeoutExpired("worker", timeout or 0.0)
            time.sleep(0.002)
        return self._code

    def _reap(self, how: int) -> int | None:
        if self._code is None:
            pid, status = os.waitpid(self.pid, how)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def send_signal(self, signum: int) -> None:
        os.kill(self.pid, signum)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


def _work(arguments: Sequence[str]) -> None:
    os.closerange(3, 4096)  # the driver's lock and its pipes, among them those of other workers
    worker.main(list(arguments))


def _become(stdin: int, stdout: int, stderr: int, work: Callable[[], None]) -> NoReturn:
    """In a forked child: be a process with these three files and default signals, do the work, and end."""
    gc.freeze()  # nothing that the parent left open may be closed here later, when its number is that of another file
    os.setsid()
    for number, descriptor in enumerate((stdin, stdout, stderr)):
        os.dup2(descriptor, number)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 (as long as the process)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT, signal.SIGTERM])
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    os._exit(code)


def _start(job: dict[str, Any]) -> int:
    pid = os.fork()
    if pid == 0:
        words = Path(job["words"])
        out, err = (
            os.open(words.with_suffix(end), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644) for end in (".out", ".err")
        )
        local.subprocess = SimpleNamespace(Popen=Forked, PIPE=subprocess.PIPE, TimeoutExpired=subprocess.TimeoutExpired)  # type: ignore[assignment]
        folder.LOCK_PATIENCE = job["patience"]
        sys.argv = ["deqcli", *job["start"]]
        _become(os.open(os.devnull, os.O_RDONLY), out, err, command_line.main)
    return pid


def _wait(pid: int, seconds: float) -> int | None:
    deadline = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.005)


def _serve(scratch: Path) -> None:
    """Answer questions, a line of JSON each, until there are no more."""
    versions = files.versions()
    files.git_commit, files.versions = lambda: None, lambda: versions  # no number depends on them, and they take time
    sys.modules["pyarrow"] = None  # type: ignore[assignment]  # pandas takes it where it is, and it starts a thread
    _warm_up(str(scratch / "recipe.yaml"), scratch / "warm")
    gc.collect()
    gc.freeze()
    assert len(os.listdir("/proc/self/task")) == 1  # only a process of one thread may be forked
    for line in sys.stdin:
        job = json.loads(line)
        print(json.dumps(_start(job) if "start" in job else _wait(job["wait"], job["seconds"])), flush=True)


def _warm_up(recipe: str, out: Path) -> None:
    """Compute and draw once in this process, which leaves no child anything to import."""
    for solver in SOLVERS.values():
        loaded = resolve(recipe, ["train.steps=2", solver])
        for batch in batches(loaded.cells(), 1):
            run_batch(batch, out, Execution("cpu", 1))
    drawn = out / "drawn"
    drawn.mkdir()
    note(drawn, loaded, folder.RUNNING)
    files.replace_text(drawn / files.RECIPE, files.recipe_text(loaded))
    merge(loaded, out, drawn, [CellEnd(cell, folder.COMPLETE) for cell in loaded.cells()])
    finish_sweep(drawn)


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    _serve(Path(sys.argv[1]))
