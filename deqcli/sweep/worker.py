"""A worker process: batches of RunSpecs come in as JSON lines on standard input, events go out as JSON lines.

Started by `python -m deqcli.sweep.worker OUT DEVICE THREADS`. It ends with its standard input: a worker whose driver
died checkpoints and leaves.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError

from deqcli.errors import Interrupted, as_refusal
from deqcli.recipe.schema import RunSpec
from deqcli.runs.folder import COMPLETE, FAILED, INTERRUPTED

REPORT_EVERY = 0.2
"""Seconds between progress events."""


class Events:
    """The way back to the driver."""

    def __init__(self, pipe: IO[str]) -> None:
        self._pipe = pipe
        self._last: dict[str, float] = {}

    def send(self, event: str, run_id: str, **content: object) -> None:
        """Send one event of a run."""
        print(json.dumps({"event": event, "run_id": run_id, **content}), file=self._pipe, flush=True)

    def progress(self, spec: RunSpec, step: int, loss: float) -> None:
        """Send how far a run is, if the last such event of it is old enough."""
        now = time.monotonic()
        if now - self._last.get(spec.run_id, 0.0) >= REPORT_EVERY:
            self._last[spec.run_id] = now
            self.send("progress", spec.run_id, step=step, loss=loss)

    def failed(self, run_id: str, error: Exception) -> None:
        """Send why a run failed, the traceback to the log of the worker."""
        traceback.print_exception(error)
        refusal = as_refusal(error)
        self.send(FAILED, run_id, error=str(refusal), exit_code=refusal.exit_code)


def main(arguments: list[str]) -> None:
    """Compute cells until the driver closes standard input."""
    out, device, threads = Path(arguments[0]), arguments[1], int(arguments[2]) or None
    events = Events(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)  # what a library prints is no event
    cells: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_listen, args=(cells,), daemon=True).start()

    while _compute(json.loads(cells.get()), out, device, threads, events):
        pass


def _listen(cells: queue.Queue[str]) -> None:
    for line in sys.stdin:
        cells.put(line)
    os.kill(os.getpid(), signal.SIGTERM)


def _compute(batch: list[dict[str, Any]], out: Path, device: str, threads: int | None, events: Events) -> bool:
    """Run the cells of a batch and say of each how it ended; False after a signal."""
    from deqcli.runs.attempt import Outcome
    from deqcli.runs.device import Execution
    from deqcli.runs.run import run_batch

    specs = [spec for spec in (_valid(each, events) for each in batch) if spec]
    left = {spec.run_id for spec in specs}

    def on_end(spec: RunSpec, end: Outcome | Exception) -> None:
        left.remove(spec.run_id)
        if isinstance(end, Exception):
            events.failed(spec.run_id, end)
        else:
            events.send(COMPLETE, spec.run_id)

    try:
        run_batch(specs, out, Execution(device, threads), report=events.progress, on_end=on_end)
    except Interrupted as stop:
        for run_id in sorted(left):
            events.send(INTERRUPTED, run_id, error=str(stop), exit_code=stop.exit_code)
        return False
    except Exception as error:
        for run_id in sorted(left):
            events.failed(run_id, error)
    return True


def _valid(cell: dict[str, Any], events: Events) -> RunSpec | None:
    """A cell as a run; None, after saying why, where it was valid in the driver and is so no more."""
    try:
        return RunSpec.model_validate(cell["spec"])
    except ValidationError as error:  # its file has gone or changed since
        events.send(
            FAILED, cell["run_id"], error=f"the recipe is refused by now: {error.errors()[0]['msg']}", exit_code=2
        )
        return None


if __name__ == "__main__":
    main(sys.argv[1:])
