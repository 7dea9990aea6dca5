"""A worker process: batches of RunSpecs come in as JSON lines on standard input, events go out as JSON lines.

Started by `python -m deqcli.sweep.worker OUT SHARE`. It ends with its standard input: a worker whose driver died
checkpoints and leaves.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from deqcli.errors import DiskFull, Interrupted, OutOfMemory, Refused, as_refusal
from deqcli.recipe.schema import RunSpec
from deqcli.runs.folder import COMPLETE, FAILED, INTERRUPTED
from deqcli.sweep.cells import FULL, LOST

Send = Callable[[dict[str, Any]], None]
"""Told of each cell how it ended: event, run_id, and where it is not complete error and exit_code."""


def main(arguments: list[str]) -> None:
    """Compute cells until the driver closes standard input."""
    out, share = Path(arguments[0]), json.loads(arguments[1])
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no event
    cells: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_listen, args=(cells,), daemon=True).start()

    def send(event: dict[str, Any]) -> None:
        with suppress(BrokenPipeError):  # the driver died; what is left is to checkpoint
            print(json.dumps(event), file=pipe, flush=True)

    while (line := cells.get()) and compute(json.loads(line), out, share, send):
        pass


def _listen(cells: queue.Queue[str]) -> None:
    for line in sys.stdin:
        cells.put(line)
    cells.put("")  # for a worker that is between two batches, or whose last step was its last
    os.kill(os.getpid(), signal.SIGTERM)


def plain(batch: Sequence[RunSpec]) -> list[dict[str, Any]]:
    """The cells of a batch as they travel to another process."""
    return [{"run_id": spec.run_id, "spec": spec.model_dump(mode="json")} for spec in batch]


def compute(batch: list[dict[str, Any]], out: Path, share: Sequence[Any], send: Send) -> bool:
    """Run the cells of a batch and say of each how it ended; False where this process had better leave.

    `share` has the values of an `Execution`: device, threads, cores.
    """
    from deqcli.runs.attempt import Outcome
    from deqcli.runs.device import Execution
    from deqcli.runs.run import run_batch

    specs = [spec for spec in (_valid(each, send) for each in batch) if spec]
    left, ends = {spec.run_id for spec in specs}, set[str]()

    def on_end(spec: RunSpec, end: Outcome | Exception) -> None:
        left.remove(spec.run_id)
        event = _failure(end) if isinstance(end, Exception) else {"event": COMPLETE}
        ends.add(event["event"])
        send({"run_id": spec.run_id, **event})

    try:
        run_batch(specs, out, Execution(*share), on_end=on_end)
    except Interrupted as stop:
        for run_id in sorted(left):
            send({"run_id": run_id, "event": INTERRUPTED, "error": str(stop), "exit_code": stop.exit_code})
        return False
    except Exception as error:
        for spec in [spec for spec in specs if spec.run_id in left]:
            on_end(spec, error)
    return LOST not in ends


def _failure(error: Exception) -> dict[str, Any]:
    """How an attempt failed, in an event; the traceback goes to the log of the worker."""
    traceback.print_exception(error)
    refusal = as_refusal(error)
    event = LOST if isinstance(refusal, OutOfMemory) else FULL if isinstance(refusal, DiskFull) else FAILED
    return {"event": event, "error": str(refusal), "exit_code": refusal.exit_code}


def _valid(cell: dict[str, Any], send: Send) -> RunSpec | None:
    """A cell as a run; None, after saying why, where it was valid in the driver and is so no more."""
    try:
        return RunSpec.model_validate(cell["spec"])
    except ValidationError as error:  # its file has gone or changed since
        first = error.errors()[0]
        key = f"{first['loc'][0]}.{first['loc'][-1]}"
        why = f"the recipe was right when the sweep began, and is refused by now: {key} {first['msg']}"
        send({"run_id": cell["run_id"], "event": FAILED, "error": why, "exit_code": Refused.exit_code})
        return None


if __name__ == "__main__":
    main(sys.argv[1:])
