"""A sweep over widths and seeds: what is complete is kept, the rest is computed, all of it merged."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from deqcli.errors import CorruptArtefact, Interrupted, Refused
from deqcli.recipe.machine import cores, machine_memory
from deqcli.recipe.memory import spec_bytes
from deqcli.recipe.schema import Recipe, RunSpec
from deqcli.runs import files
from deqcli.runs.folder import (
    COMPLETE,
    FAILED,
    INTERRUPTED,
    RUNNING,
    Manifest,
    Status,
    clear,
    find_complete,
    hashes,
    locked,
    read_manifest,
    write_manifest,
)  # fmt: skip
from deqcli.runs.signals import StopSignals
from deqcli.sweep.local import CellEnd, LocalExecutor, OnEnd, OnProgress
from deqcli.sweep.merge import merge

NVIDIA = Path("/dev/nvidiactl")
"""There where a CUDA device may be: asking torch would cost its import."""

EXECUTORS = {"local": LocalExecutor}
"""Where cells are computed, by name; each runs `deqcli.runs.run.run` on (RunSpec, folder)."""

MOST_STACKED = 16
"""Networks in one stack: more gain nothing, and a worker that dies takes fewer along."""

Finish = Callable[[Path], Sequence[str]]
"""Draws figures into a sweep's folder and returns their names."""


@dataclass(frozen=True)
class SweepOptions:
    """How a sweep is computed; none of it is part of the recipe. `jobs` None: by cells, cores and memory."""

    executor: str = "local"
    device: str = "auto"
    jobs: int | None = None
    finish: Finish = lambda _: ()
    on_progress: OnProgress = lambda *_: None
    on_end: OnEnd = lambda _: None


@dataclass(frozen=True)
class SweepEnd:
    """The folder of a sweep and how each of its cells ended, in the order of the rows."""

    folder: Path
    ends: list[CellEnd]
    kept: int
    figures: list[Path]

    @property
    def failed(self) -> list[CellEnd]:
        """The cells that are not complete."""
        return [end for end in self.ends if end.status != COMPLETE]


def sweep_folder(out: Path, recipe: Recipe) -> Path:
    """<out>/<name>/sweeps/<sweep_id>."""
    return out / recipe.name / "sweeps" / recipe.sweep_id


def sweep(recipe: Recipe, out: Path, options: SweepOptions) -> SweepEnd:
    """Run every cell that is not complete, merge the tables, draw the figures.

    Raises: Refused (data, executor), Interrupted (what is complete stays so), CorruptArtefact, FolderInUse, OSError.
    """
    folder, cells = sweep_folder(out, recipe), recipe.cells()
    if options.executor not in EXECUTORS:
        raise Refused(f"--executor {options.executor}: there is {', '.join(EXECUTORS)}")
    read_manifest(folder, "sweep", recipe.sweep_id)
    ended = {cell.run_id: end for cell in cells if (end := _already(out, cell)) is not None}
    kept = sum(end.status == COMPLETE for end in ended.values())
    if len(ended) < len(cells):
        recipe.data.load()  # refused once, and not by every worker
    with StopSignals().installed(), locked(folder):
        clear(folder, [])
        files.replace_text(folder / files.RECIPE, files.recipe_text(recipe))
        _note(folder, recipe, RUNNING)
        try:
            _compute([cell for cell in cells if cell.run_id not in ended], out, options, ended)
            ends = [ended[cell.run_id] for cell in cells]
            tables, figures = merge(out, folder, ends), options.finish(folder)
        except Interrupted:
            _note(folder, recipe, INTERRUPTED)
            raise
        status: Status = COMPLETE if all(end.status == COMPLETE for end in ends) else FAILED
        _note(folder, recipe, status, hashes(folder, [files.RECIPE, *tables, *figures]))
    return SweepEnd(folder, ends, kept, [folder / name for name in figures])


def _already(out: Path, cell: RunSpec) -> CellEnd | None:
    """A cell that needs no computing: complete, or in a folder that cannot be trusted."""
    try:
        return CellEnd(cell, COMPLETE) if find_complete(out, cell) else None
    except CorruptArtefact as error:
        return CellEnd(cell, FAILED, str(error), error.exit_code)


def _note(folder: Path, recipe: Recipe, status: Status, digests: dict[str, str] | None = None) -> None:
    cells = [cell.run_id for cell in recipe.cells()]
    manifest = Manifest(
        kind="sweep", id=recipe.sweep_id, recipe=recipe.name, status=status, cells=cells, files=digests or {}
    )
    write_manifest(folder, manifest)


def _compute(cells: list[RunSpec], out: Path, options: SweepOptions, ended: dict[str, CellEnd]) -> None:
    """Run the cells, the most expensive first, so that none is left alone at the end."""

    def on_end(end: CellEnd) -> None:
        ended[end.spec.run_id] = end
        options.on_end(end)

    for end in ended.values():
        if end.status == FAILED:
            options.on_end(end)
    if cells:
        jobs, threads = share(cells, options)
        executor = EXECUTORS[options.executor](out, options.device, jobs, threads)
        executor.run(batches(sorted(cells, key=lambda cell: -cell.model.width), jobs), options.on_progress, on_end)


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


def share(cells: Sequence[RunSpec], options: SweepOptions) -> tuple[int, int]:
    """(workers, threads of each; 0: by the width): no more threads than cores, no more runs than memory holds."""
    fitting = max(1, machine_memory() // max(spec_bytes(cell, keeps_start=True) for cell in cells))
    on_gpu = options.device.startswith(("cuda", "mps")) or (options.device == "auto" and NVIDIA.exists())
    jobs = options.jobs or min(1 if on_gpu else cores(), len(cells), fitting)
    return jobs, max(1, cores() // jobs) if jobs > 1 else 0
