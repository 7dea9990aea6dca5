"""The local executor: supervised worker processes on this machine. One that dies takes only its own cells along."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import deqcli
from deqcli.recipe.machine import available_memory, machine_memory
from deqcli.recipe.schema import RunSpec
from deqcli.runs.folder import INTERRUPTED
from deqcli.sweep.cells import (
    LOST,
    PROCESS_BYTES,
    Batch,
    CellEnd,
    Share,
    batch_bytes,
    batches,
    by_cost,
    devices,
    end_of,
    share,
)
from deqcli.sweep.drive import Drive
from deqcli.sweep.work import Work
from deqcli.sweep.worker import plain


def compute_locally(work: Work) -> None:
    """Compute the cells in worker processes. Raises: Interrupted, DiskFull."""
    jobs, each = share(work.cells, work.execution, work.device)
    grouped = batches(by_cost(work.cells), jobs)
    shares = [Share(device, work.execution.threads, each) for device in devices(work.device)]
    with local_pool(work.out, shares, min(jobs, len(grouped))) as pool:
        Drive(pool, grouped, work.execution, work.listener).run()


@contextmanager
def local_pool(out: Path, shares: Sequence[Share], jobs: int) -> Iterator[LocalPool]:
    """A pool of which no process is left after the block, however it is left."""
    on_gpu = shares[0].device.startswith("cuda")  # which has a memory of its own
    needs = (lambda _: PROCESS_BYTES) if on_gpu else batch_bytes
    pool = LocalPool(lambda slot: Worker(out, shares[slot % len(shares)]), jobs, needs)
    try:
        yield pool
    finally:
        pool.close()


LEAVE_SECONDS = 2.0
"""How long a worker may take to leave before it is killed."""


class Worker:
    """A worker process and the cells it computes."""

    def __init__(self, out: Path, share: Share) -> None:
        self.running: dict[str, RunSpec] = {}
        self.leaving = False
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the worker)
        command = [sys.executable, "-P", "-m", "deqcli.sweep.worker", str(out), json.dumps(share)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=environment(),
            start_new_session=True,  # Ctrl-C reaches the driver alone, which passes it on once
        )
        self._buffer = b""

    @property
    def stdout(self) -> IO[bytes]:
        assert self.process.stdout is not None
        return self.process.stdout

    def give(self, batch: Batch) -> None:
        """Start the cells of a batch."""
        assert self.process.stdin is not None
        self.running = {spec.run_id: spec for spec in batch}
        with suppress(BrokenPipeError):  # it is dead, which its closed output will tell
            self.process.stdin.write(json.dumps(plain(batch)).encode() + b"\n")
            self.process.stdin.flush()

    def ends(self) -> list[CellEnd]:
        """The ends that have arrived; those of a worker that is gone say how it went."""
        data = os.read(self.stdout.fileno(), 65536)
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        found = [self._end(json.loads(line)) for line in lines]
        if not data:
            self.leaving = True
            found += [CellEnd(spec, LOST, self._last_words(), 1) for spec in self.running.values()]
            self.running = {}
        return found

    def _end(self, event: dict[str, Any]) -> CellEnd:
        self.leaving = self.leaving or event["event"] in (INTERRUPTED, LOST)  # after that it leaves
        return end_of(event, self.running.pop(event["run_id"]))

    def _last_words(self) -> str:
        code = self.process.wait()
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        how = f"signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exit code {code}"
        return f"its worker process ended with {how}" + (f": {lines[-1]}" if lines and code >= 0 else "")

    def stop(self) -> None:
        """Ask for a checkpoint and an end."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def let_go(self) -> None:
        """Have it leave by itself, once it has let go of the folder of its last cell."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it died with a cell half given
            self.process.stdin.close()

    def close(self) -> None:
        """Make sure that nothing of it is left."""
        self.let_go()
        try:
            self.process.wait(LEAVE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.stdout.close()
        self._stderr.close()


def environment() -> dict[str, str]:
    """This process's environment, and where deqcli is if it is no installed package."""
    known = os.environ.get("PYTHONPATH", "")
    where = checkout()
    return dict(os.environ) | ({"PYTHONPATH": os.pathsep.join(filter(None, [known, str(where)]))} if where else {})


def checkout() -> Path | None:
    """The folder above the package where that is no installed one."""
    folder = Path(deqcli.__file__).parent.parent
    return folder if (folder / "setup.cfg").exists() else None


class LocalPool:
    """Slots for workers, each with a device of its own where there are enough; a worker serves many batches."""

    def __init__(self, hire: Callable[[int], Worker], jobs: int, needs: Callable[[Batch], int] = batch_bytes) -> None:
        self._hire, self._needs = hire, needs
        self._slots: list[Worker | None] = [None] * jobs
        self._selector = selectors.DefaultSelector()

    @property
    def _busy(self) -> list[Worker]:
        return [worker for worker in self._slots if worker and worker.running]

    def room(self, batch: Batch) -> bool:
        """Whether a slot is free, and the memory for the batch beside what runs."""
        if len(self._busy) == len(self._slots):
            return False
        needed, promised = self._needs(batch), sum(self._needs(list(worker.running.values())) for worker in self._busy)
        return not promised or (promised + needed <= machine_memory() and needed <= available_memory())

    def start(self, batch: Batch) -> None:
        """Give the batch to a worker that has none, or to a new one."""
        slot = next(index for index, worker in enumerate(self._slots) if not (worker and worker.running))
        worker = self._slots[slot]
        if worker is None or worker.leaving:
            if worker is not None:
                self._dismiss(worker)
            worker = self._slots[slot] = self._hire(slot)
            self._selector.register(worker.stdout, selectors.EVENT_READ, worker)
        worker.give(batch)

    def ended(self, seconds: float) -> list[CellEnd]:
        """What the workers say, after waiting up to so many seconds for a word."""
        found = []
        for key, _ in self._selector.select(seconds):
            worker: Worker = key.data
            found += worker.ends()
            if worker.leaving and not worker.running:
                self._dismiss(worker)
        return found

    def _dismiss(self, worker: Worker) -> None:
        with suppress(KeyError):
            self._selector.unregister(worker.stdout)
        self._slots = [None if each is worker else each for each in self._slots]
        worker.close()

    def stop(self) -> None:
        """Pass a signal on to the workers that compute."""
        for worker in self._busy:
            worker.stop()

    def close(self) -> None:
        """End every worker."""
        left = [worker for worker in self._slots if worker is not None]
        for worker in left:
            worker.let_go()
        for worker in left:
            worker.close()
        self._selector.close()
