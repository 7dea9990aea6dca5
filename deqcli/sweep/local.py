"""The local executor: supervised worker processes on this machine. One that dies takes only its own cells along."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import deqcli
from deqcli.errors import Interrupted
from deqcli.recipe.schema import RunSpec
from deqcli.runs.folder import COMPLETE, FAILED, INTERRUPTED
from deqcli.runs.signals import StopSignals

POLL_SECONDS = 0.2
GRACE_SECONDS = 60.0
"""How long workers may take to checkpoint after a signal."""

OnProgress = Callable[[RunSpec, int, float], None]
OnEnd = Callable[["CellEnd"], None]


@dataclass(frozen=True)
class CellEnd:
    """How a cell ended: complete, failed or interrupted, with its sentence and exit code."""

    spec: RunSpec
    status: str
    error: str | None = None
    exit_code: int = 0


class _Worker:
    """A worker process and the cells it computes."""

    def __init__(self, out: Path, device: str, threads: int) -> None:
        self.running: dict[str, RunSpec] = {}
        self.ended = self.gone = False
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the worker)
        command = [sys.executable, "-P", "-m", "deqcli.sweep.worker", str(out), device, str(threads)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=_environment(),
            start_new_session=True,  # Ctrl-C reaches the driver alone, which passes it on once
        )
        self._buffer = b""

    @property
    def stdout(self) -> IO[bytes]:
        assert self.process.stdout is not None
        return self.process.stdout

    def give(self, batch: Sequence[RunSpec]) -> None:
        """Start the cells of a batch."""
        assert self.process.stdin is not None
        self.running = {spec.run_id: spec for spec in batch}
        line = json.dumps([{"run_id": spec.run_id, "spec": spec.model_dump(mode="json")} for spec in batch])
        with suppress(BrokenPipeError):  # it is dead, which its closed output will tell
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()

    def events(self) -> list[dict[str, Any]]:
        """The events that have arrived; the last of a worker that has ended says how its cell failed.

        Of several cells nobody knows which one it was: they are left in `running`, to be tried one by one.
        """
        data = os.read(self.stdout.fileno(), 65536)
        self.gone = not data
        self.ended = self.ended or self.gone
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        if not data and len(self.running) == 1:
            (run_id,) = self.running
            return [{"event": FAILED, "run_id": run_id, "error": self._last_words(), "exit_code": 1}]
        return [json.loads(line) for line in lines]

    def lost(self) -> list[RunSpec]:
        """The cells that a worker which is gone took along without a word; they are no longer its own."""
        cells = list(self.running.values()) if self.gone else []
        if self.gone:
            self.running = {}
        return cells

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

    def close(self) -> None:
        """Make sure that nothing of it is left."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self._stderr):
            if pipe is not None:
                with suppress(BrokenPipeError):  # it died with a cell half given
                    pipe.close()


@dataclass
class LocalExecutor:
    """`jobs` workers of `threads` threads each (0: by the width), all on one device."""

    out: Path
    device: str
    jobs: int
    threads: int

    def run(self, batches: Sequence[Sequence[RunSpec]], on_progress: OnProgress, on_end: OnEnd) -> list[CellEnd]:
        """Compute the cells, batch by batch in the order given; `on_end` hears of each as it ends.

        Raises: Interrupted after SIGINT or SIGTERM, once every worker has checkpointed.
        """
        waiting, ends = deque(batches), list[CellEnd]()
        signals = StopSignals()

        def end(cell: CellEnd) -> None:
            ends.append(cell)
            on_end(cell)

        with signals.installed(), signals.deferred(), self._workers(min(self.jobs, len(batches))) as crew:
            for worker in crew.working():
                worker.give(waiting.popleft())
            while crew.working():
                if signals.pending is not None:
                    self._drain(crew, end)
                    left = sum(len(batch) for batch in waiting)
                    raise Interrupted(signals.pending, f"interrupted; {left} cells had not started")
                for worker in crew.ready(POLL_SECONDS):
                    _hear(worker, on_progress, end)
                    self._occupy(worker, crew, waiting)
        return ends

    @contextmanager
    def _workers(self, count: int) -> Iterator[_Crew]:
        crew = _Crew(self)
        try:
            for _ in range(count):
                crew.hire()
            yield crew
        finally:
            crew.close()

    def _occupy(self, worker: _Worker, crew: _Crew, waiting: deque[Sequence[RunSpec]]) -> None:
        """Give a free worker the next batch, and replace one that has ended."""
        waiting.extendleft([spec] for spec in worker.lost())
        if worker.running:
            return
        if worker.ended or not waiting:
            crew.dismiss(worker)
        if waiting:
            free = crew.hire() if worker.ended else worker
            free.give(waiting.popleft())

    def _drain(self, crew: _Crew, end: OnEnd) -> None:
        """Pass the signal on and hear the workers out; one that stays silent is ended with the crew."""

        def stopped(cell: CellEnd) -> None:
            end(cell if cell.status == COMPLETE else replace(cell, status=INTERRUPTED))

        for worker in crew.working():
            worker.stop()
        while crew.working() and (ready := crew.ready(GRACE_SECONDS)):
            for worker in ready:
                _hear(worker, lambda *_: None, stopped)
                for spec in worker.lost():
                    stopped(CellEnd(spec, INTERRUPTED, "its worker process ended"))
                if not worker.running:
                    crew.dismiss(worker)


def _hear(worker: _Worker, on_progress: OnProgress, end: OnEnd) -> None:
    """Pass on what a worker says; one whose cells have ended is free."""
    for event in worker.events():
        if event["event"] == "progress":
            on_progress(worker.running[event["run_id"]], event["step"], event["loss"])
        else:
            spec = worker.running.pop(event["run_id"])
            worker.ended = worker.ended or event["event"] == INTERRUPTED  # after that it leaves
            end(CellEnd(spec, event["event"], event.get("error"), event.get("exit_code", 0)))


def _environment() -> dict[str, str]:
    """The driver's environment, and where deqcli is if it is no installed package."""
    checkout = Path(deqcli.__file__).parent.parent
    if not (checkout / "setup.cfg").exists():
        return dict(os.environ)
    known = os.environ.get("PYTHONPATH", "")
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [known, str(checkout)]))}


class _Crew:
    """The workers at work, and which of them have something to say."""

    def __init__(self, executor: LocalExecutor) -> None:
        self._executor, self._selector = executor, selectors.DefaultSelector()
        self._all: list[_Worker] = []

    def hire(self) -> _Worker:
        worker = _Worker(self._executor.out, self._executor.device, self._executor.threads)
        self._all.append(worker)
        self._selector.register(worker.stdout, selectors.EVENT_READ, worker)
        return worker

    def dismiss(self, worker: _Worker) -> None:
        self._selector.unregister(worker.stdout)

    def working(self) -> list[_Worker]:
        return [key.data for key in self._selector.get_map().values()]

    def ready(self, seconds: float) -> list[_Worker]:
        return [key.data for key, _ in self._selector.select(seconds)]

    def close(self) -> None:
        for worker in self._all:
            worker.close()
        self._selector.close()
