"""The SLURM executor: an array of jobs, each a few cells; nothing is left running here, the folder tells the rest."""

from __future__ import annotations

import json
import math
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from deqcli.errors import FolderInUse, Refused, counted
from deqcli.recipe.execution import ExecutionOptions
from deqcli.recipe.schema import RunSpec
from deqcli.runs.files import replace_text
from deqcli.sweep.cells import Batch, batch_bytes, batches, by_cost
from deqcli.sweep.local import checkout
from deqcli.sweep.work import Work

FOLDER, SCRIPT, PLAN, JOB = "slurm", "array.sh", "plan.json", "job.json"
MOST_TASKS = 1000
"""Tasks of an array: SLURM's MaxArraySize is 1001 unless it was set."""

MODULE = "deqcli.cli.slurm_task"


def submit(work: Work) -> str:
    """Submit an array that computes the cells; what was submitted, in a sentence.

    Raises: Refused with what sbatch says.
    """
    folder = work.folder.absolute() / FOLDER
    tasks = _tasks(work.cells, work.execution.jobs or MOST_TASKS)
    folder.mkdir(exist_ok=True)
    plan = {
        "out": str(work.out.absolute()),
        "recipe": work.recipe.model_dump(mode="json"),
        "device": work.device,
        "tasks": [[cell.run_id for cell in task] for task in tasks],
    }
    replace_text(folder / PLAN, json.dumps(plan))
    replace_text(folder / SCRIPT, script(folder, tasks, work.execution, work.recipe.name))
    job = _tell("sbatch", "--parsable", f"--output={_log(folder)}", str(folder / SCRIPT)).split(";")[0].strip()
    replace_text(folder / JOB, json.dumps({"job": job}))
    share = f"{counted(len(work.cells), 'cell')} in {counted(len(tasks), 'task')}"
    return f"submitted SLURM job {job}: {share}, logs in {folder}"


def _tasks(cells: Sequence[RunSpec], jobs: int) -> list[list[RunSpec]]:
    """The cells of each task: a batch, or where there are too many of them several."""
    grouped = batches(by_cost(cells), jobs)
    size = math.ceil(len(grouped) / MOST_TASKS)
    return [
        [cell for batch in grouped[first : first + size] for cell in batch] for first in range(0, len(grouped), size)
    ]


def script(folder: Path, tasks: Sequence[Batch], execution: ExecutionOptions, name: str) -> str:
    """The batch script: #SBATCH lines, the recipe's own, and the task in place of the shell: signals reach it."""
    path = (
        [f"export PYTHONPATH={shlex.quote(str(where))}${{PYTHONPATH:+:$PYTHONPATH}}"] if (where := checkout()) else []
    )
    command = shlex.join([sys.executable, "-P", "-m", MODULE, str(folder)])
    lines = [f"#SBATCH {line}" for line in _directives(folder, tasks, execution, name)]
    patient = "trap '' USR1"  # until the task handles it itself
    return "\n".join(["#!/bin/sh", *lines, *execution.slurm.lines, *path, patient, f"exec {command}", ""])


def _directives(folder: Path, tasks: Sequence[Batch], execution: ExecutionOptions, name: str) -> Iterator[str]:
    slurm = execution.slurm
    throttle = slurm.throttle or execution.jobs
    yield f"--job-name=deqcli-{name}"
    yield f"--array=0-{len(tasks) - 1}" + (f"%{throttle}" if throttle else "")
    yield f"--time={slurm.time}"
    yield f"--mem={slurm.memory or _megabytes(tasks)}"
    yield f"--cpus-per-task={execution.threads or 1}"
    for option in ("partition", "account", "gres"):
        if value := getattr(slurm, option):
            yield f"--{option}={value}"
    yield f"--signal=B:USR1@{slurm.grace}"
    yield "--requeue"
    yield "--open-mode=append"


def _log(folder: Path) -> str:
    """Where the log of a task goes, as sbatch reads it: % begins a pattern there. Raises: Refused."""
    if "\\" in str(folder):
        raise Refused(f"SLURM cannot write a log below {folder}: its path has a backslash; use another --out")
    return f"{str(folder).replace('%', '%%')}/%A_%a.log"


def _megabytes(tasks: Sequence[Batch]) -> str:
    """What the largest task takes beside the process that supervises it."""
    return f"{math.ceil(1.1 * max(batch_bytes(task) for task in tasks) / 2**20) + 100}M"


def queued_job(sweep: Path) -> str | None:
    """The array that was submitted from a sweep's folder, if SLURM still has it in its queue."""
    try:
        job = str(json.loads((sweep / FOLDER / JOB).read_text(encoding="utf-8"))["job"])
        listed = subprocess.run(
            ["squeue", "--noheader", "--jobs", job], capture_output=True, text=True, check=False, timeout=30  # noqa: S607
        )  # fmt: skip
    except (OSError, ValueError, KeyError, subprocess.TimeoutExpired):
        return None
    return job if listed.returncode == 0 and listed.stdout.strip() else None


def refuse_queued(sweep: Path) -> None:
    """Raise FolderInUse while an array that was submitted earlier is in the queue."""
    if job := queued_job(sweep):
        raise FolderInUse(f"SLURM job {job} works on this sweep; wait for it (--status), or end it: scancel {job}")


def _tell(*command: str) -> str:
    """What a command of SLURM prints. Raises: Refused with what it complains of."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        raise Refused(
            f"execution.executor: slurm needs {command[0]}, which is not on the PATH of this machine"
        ) from None
    if done.returncode != 0:
        raise Refused(f"{command[0]} refused: {' '.join(done.stderr.split()) or f'exit code {done.returncode}'}")
    return done.stdout


def read_plan(folder: Path) -> dict[str, Any]:
    """What the tasks of an array compute."""
    plan: dict[str, Any] = json.loads((folder / PLAN).read_text(encoding="utf-8"))
    return plan
