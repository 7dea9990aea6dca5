"""The cells of a sweep: how each ended, in which batches they are computed, and what a batch needs."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from deqcli.recipe.execution import ExecutionOptions
from deqcli.recipe.machine import cores, large, machine_memory
from deqcli.recipe.memory import spec_bytes
from deqcli.recipe.schema import RunSpec

MOST_STACKED = 16
"""Networks in one stack: more gain nothing, and a worker that dies takes fewer along."""

PROCESS_BYTES = 450 * 2**20
"""What a worker process takes before its first cell: docs/performance.md."""

DEVICES = Path("/dev")

LOST, FULL = "lost", "full"
"""Ends of an attempt beside those of a manifest: its process died or memory ran out; the disk is full."""

Batch = Sequence[RunSpec]


class Share(NamedTuple):
    """What a cell is computed with, the values of an `Execution`, whose module imports torch."""

    device: str
    threads: int | None
    cores: int


@dataclass(frozen=True)
class CellEnd:
    """How a cell ended: complete, failed or interrupted, with its sentence, exit code and number of attempts."""

    spec: RunSpec
    status: str
    error: str | None = None
    exit_code: int = 0
    attempts: int = 1


def end_of(event: Mapping[str, Any], spec: RunSpec) -> CellEnd:
    """The end of a cell as the process that computed it tells it."""
    return CellEnd(spec, event["event"], event.get("error"), event.get("exit_code", 0))


OnEnd = Callable[[CellEnd], None]


def batches(cells: Sequence[RunSpec], jobs: int) -> list[list[RunSpec]]:
    """The cells in their order; small ones that differ in their seed alone are together, shared out among the jobs."""
    together: dict[str, list[RunSpec]] = {}
    for cell in cells:
        others = cell.model_copy(update={"train": cell.train.model_copy(update={"seed": 0})})
        together.setdefault(others.model_dump_json() if cell.stackable else cell.run_id, []).append(cell)
    return [
        alike[first : first + size]
        for alike in together.values()
        for size in [min(MOST_STACKED, math.ceil(len(alike) / jobs))]
        for first in range(0, len(alike), size)
    ]


def by_cost(cells: Sequence[RunSpec]) -> list[RunSpec]:
    """The cells, the most expensive first, so that none is left alone at the end."""
    return sorted(cells, key=lambda cell: -cell.model.width)


def threads_of(batch: Batch, shared: int) -> int:
    """Threads that a batch uses of those that are its share; where only the data file knows the size, all of them."""
    sizes = [(cell.model.width, cell.data.shape()[0]) for cell in batch if not cell.stackable]
    return shared if any(n is None or large(m, n) for m, n in sizes) else 1


def batch_bytes(batch: Batch) -> int:
    """Bytes of memory that a process takes for a batch at its peak, at least."""
    return PROCESS_BYTES + sum(spec_bytes(cell, keeps_start=True) for cell in batch)


def devices(device: str) -> list[str]:
    """The devices that `auto`, `cuda` or a single name stand for on this machine, each to be used by one cell."""
    if device not in ("auto", "cuda"):
        return [device]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = len(list(DEVICES.glob("nvidia[0-9]*")))  # asking torch would cost its import
    if visible is not None:
        count = min(count, len([each for each in visible.split(",") if each.strip()]))
    return [f"cuda:{index}" for index in range(count)] or [device]


def share(cells: Sequence[RunSpec], execution: ExecutionOptions, device: str) -> tuple[int, int]:
    """(workers, cores for each): no more threads than cores, no more runs than memory or GPUs."""
    found = devices(device)
    if found[0].startswith(("cuda", "mps")):
        slots = len(found)
    else:
        largest = max(spec_bytes(cell, keeps_start=True) for cell in cells)
        slots = min(cores(), max(1, machine_memory() // largest))
    jobs = execution.jobs or min(slots, len(cells))
    return jobs, max(1, cores() // jobs)
