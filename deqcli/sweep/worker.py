"""A worker process: RunSpecs come in as JSON lines on standard input, events go out as JSON lines.

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
from typing import IO

from pydantic import ValidationError

from deqcli.errors import Interrupted, as_refusal
from deqcli.recipe.schema import RunSpec
from deqcli.runs.folder import COMPLETE, FAILED, INTERRUPTED

REPORT_EVERY = 0.2
"""Seconds between progress events."""


class Events:
    """The way back to the driver."""

    def __init__(self, pipe: IO[str]) -> None:
        self._pipe, self._last = pipe, 0.0

    def send(self, event: str, **content: object) -> None:
        """Send one event."""
        print(json.dumps({"event": event, **content}), file=self._pipe, flush=True)

    def progress(self, spec: RunSpec, step: int, loss: float) -> None:
        """Send how far a run is, if the last such event is old enough."""
        now = time.monotonic()
        if now - self._last >= REPORT_EVERY:
            self._last = now
            self.send("progress", step=step, loss=loss)


def main(arguments: list[str]) -> None:
    """Compute cells until the driver closes standard input."""
    out, device, threads = Path(arguments[0]), arguments[1], int(arguments[2]) or None
    events = Events(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)  # what a library prints is no event
    cells: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_listen, args=(cells,), daemon=True).start()

    while _compute(cells.get(), out, device, threads, events):
        pass


def _listen(cells: queue.Queue[str]) -> None:
    for line in sys.stdin:
        cells.put(line)
    os.kill(os.getpid(), signal.SIGTERM)


def _compute(cell: str, out: Path, device: str, threads: int | None, events: Events) -> bool:
    """Run one cell and say how it ended; False after a signal."""
    from deqcli.runs.device import Execution
    from deqcli.runs.run import run

    try:
        run(RunSpec.model_validate_json(cell), out, Execution(device, threads), report=events.progress)
    except Interrupted as stop:
        events.send(INTERRUPTED, error=str(stop), exit_code=stop.exit_code)
        return False
    except ValidationError as error:  # it was valid in the driver: its file has gone or changed since
        events.send(FAILED, error=f"the recipe is refused by now: {error.errors()[0]['msg']}", exit_code=2)
    except Exception as error:
        traceback.print_exc()
        refusal = as_refusal(error)
        events.send(FAILED, error=str(refusal), exit_code=refusal.exit_code)
    else:
        events.send(COMPLETE)
    return True


if __name__ == "__main__":
    main(sys.argv[1:])
