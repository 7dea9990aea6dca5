"""A task of a SLURM array: its cells in a supervised worker, checkpointed and requeued before the time limit."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from deqcli.data.files import file_sha256
from deqcli.errors import CellsFailed, FolderInUse, Interrupted
from deqcli.recipe.schema import Recipe, RunSpec
from deqcli.runs.files import CHECKPOINT
from deqcli.runs.folder import FAILED, locked, run_folder
from deqcli.runs.signals import StopSignals
from deqcli.sweep.cells import CellEnd, Share, batches, devices
from deqcli.sweep.drive import Drive, Listener
from deqcli.sweep.local import local_pool
from deqcli.sweep.slurm import read_plan
from deqcli.sweep.sweep import Finish, conclude, stored_end, sweep_folder

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def run_task(folder: Path, finish: Finish) -> int:
    """Compute the cells of this task of the array planned in `folder`; the exit code.

    Before the time limit every cell checkpoints and the task goes back to the queue, unless it got no step further.
    The last task to end merges the tables.
    """
    plan = read_plan(folder)
    out, recipe = Path(plan["out"]), Recipe.model_validate(plan["recipe"])
    wanted = set(plan["tasks"][int(os.environ["SLURM_ARRAY_TASK_ID"])])
    cells = [cell for cell in recipe.cells() if cell.run_id in wanted]
    before, computed = _checkpoints(out, cells), False
    failed: list[CellEnd] = []
    try:
        _compute(recipe, out, cells, plan["device"], failed)
        computed = True
        with StopSignals().installed():
            _conclude(recipe, out, finish)
    except Interrupted as stop:
        return _interrupted(stop, computed or _checkpoints(out, cells) != before)
    return CellsFailed.exit_code if failed else 0


def _checkpoints(out: Path, cells: Sequence[RunSpec]) -> list[str | None]:
    """The hash of each cell's checkpoint: another one for another step, whatever rows are logged."""
    paths = [run_folder(out, cell) / CHECKPOINT for cell in cells]
    return [file_sha256(path) if path.exists() else None for path in paths]


def _compute(recipe: Recipe, out: Path, cells: Sequence[RunSpec], device: str, failed: list[CellEnd]) -> None:
    def ended(end: CellEnd) -> None:
        _say(f"{end.spec.run_id} {end.status}" + (f": {end.error}" if end.error else ""))
        if end.status == FAILED:
            failed.append(end)

    def repeated(end: CellEnd) -> None:
        _say(f"{end.spec.run_id}: {end.error}; attempt {end.attempts}")

    execution = recipe.execution
    share = Share(devices(device)[0], execution.threads, execution.threads or 1)
    with local_pool(out, [share], 1) as pool:
        Drive(pool, batches(cells, 1), execution, Listener(ended, repeated), SIGNALS).run()


def _say(sentence: str) -> None:
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {sentence}", flush=True)


def _interrupted(stop: Interrupted, went_on: bool) -> int:
    """After the checkpoint: back to the queue where it was the time limit that came near; else as SLURM decides."""
    _say(str(stop))
    task = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    if stop.signum != signal.SIGUSR1 and not (stop.signum == signal.SIGTERM and _out_of_time(task)):
        return stop.exit_code
    if not went_on:
        _say("no step was made in the time limit; execution.slurm.time must be longer")
        return stop.exit_code
    done = _scontrol("requeue", task)
    _say(f"requeued {task}" if done.returncode == 0 else f"{task} cannot be requeued: {done.stderr.strip()}")
    return 0 if done.returncode == 0 else stop.exit_code


def _out_of_time(task: str) -> bool:
    """Whether SLURM ends this task because of its time limit, and not because somebody cancelled or requeued it."""
    return "Reason=TimeLimit" in _scontrol("show", "job", task).stdout


def _scontrol(*arguments: str) -> subprocess.CompletedProcess[str]:
    """In a session of its own: the signal that ends the task must not end this."""
    command = ["scontrol", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, start_new_session=True)


def _conclude(recipe: Recipe, out: Path, finish: Finish) -> None:
    """Merge the tables if every cell of the sweep is complete or failed."""
    folder = sweep_folder(out, recipe)
    ends = [stored_end(out, cell) for cell in recipe.cells()]
    if all(end is not None for end in ends):
        try:
            with locked(folder):
                conclude(recipe, out, folder, [end for end in ends if end is not None], finish)
            _say(f"merged into {folder}")
        except FolderInUse as other:  # the other last task, which sees the same
            _say(str(other))
