"""A sweep over widths, seeds and further axes: what is complete is kept, the rest is computed, all of it merged."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from deqcli.errors import CorruptArtefact
from deqcli.recipe.machine import cores
from deqcli.recipe.schema import Recipe, RunSpec
from deqcli.runs import files
from deqcli.runs.folder import (
    COMPLETE,
    FAILED,
    INTERRUPTED,
    RUNNING,
    SUBMITTED,
    Manifest,
    Status,
    clear,
    find_complete,
    hashes,
    locked,
    owner,
    read_manifest,
    run_folder,
    verify,
    write_manifest,
)  # fmt: skip
from deqcli.runs.signals import StopSignals
from deqcli.sweep.cells import CellEnd, OnEnd
from deqcli.sweep.drive import Listener
from deqcli.sweep.local import compute_locally
from deqcli.sweep.merge import merge
from deqcli.sweep.ray_tasks import compute_by_ray
from deqcli.sweep.slurm import refuse_queued, submit
from deqcli.sweep.status import WAITING, CellState, Paces, learn_paces, read_state
from deqcli.sweep.watch import Progress, Watcher
from deqcli.sweep.work import Work

EXECUTORS: dict[str, Callable[[Work], str | None]] = {
    "local": compute_locally,
    "ray": compute_by_ray,
    "slurm": submit,
}
"""Where cells are computed, by name: each has `deqcli.runs.run` called on (RunSpec, folder).

What goes on elsewhere after it has returned, it says in a sentence.
"""

UNUSED = (files.CHECKPOINT, files.TIMING)
"""Files of a complete run that no sweep reads."""

Finish = Callable[[Path], Sequence[str]]
"""Draws figures into a sweep's folder and returns their names."""


@dataclass(frozen=True)
class SweepOptions:
    """What a sweep is told beside its recipe; none of it decides a number."""

    device: str = "auto"
    finish: Finish = lambda _: ()
    on_end: OnEnd = lambda _: None
    on_repeat: OnEnd = lambda _: None
    on_progress: Callable[[Progress], None] = lambda _: None


@dataclass(frozen=True)
class SweepEnd:
    """The folder of a sweep and how each of its cells ended, in the order of the rows."""

    folder: Path
    ends: list[CellEnd]
    kept: int
    figures: list[Path]
    elsewhere: str | None = None
    """Where the cells that are waiting will be computed."""

    @property
    def failed(self) -> list[CellEnd]:
        """The cells that ended without being complete."""
        return [end for end in self.ends if end.status not in (COMPLETE, WAITING)]


def sweep_folder(out: Path, recipe: Recipe) -> Path:
    """<out>/<name>/sweeps/<sweep_id>."""
    return out / recipe.name / "sweeps" / recipe.sweep_id


def sweep(recipe: Recipe, out: Path, options: SweepOptions) -> SweepEnd:
    """Run every cell that is not complete, merge the tables, draw the figures.

    Raises: Refused (data, executor), Interrupted (what is complete stays so), CorruptArtefact, FolderInUse, DiskFull,
    OSError.
    """
    folder, cells = sweep_folder(out, recipe), recipe.cells()
    found = read_manifest(folder, "sweep", folder.name)
    if found is not None and found.status == SUBMITTED:
        refuse_queued(folder)
    ended = {cell.run_id: end for cell in cells if (end := _already(out, cell)) is not None}
    kept = sum(end.status == COMPLETE for end in ended.values())
    figures = _intact(folder, found) if found is not None and kept == len(cells) else None
    if figures is not None:
        return SweepEnd(folder, [ended[cell.run_id] for cell in cells], kept, figures)
    if len(ended) < len(cells):
        for variant in recipe.variants:
            variant.data.load()  # refused once, and not by every worker
    with StopSignals().installed(), locked(folder):
        clear(folder, [files.REPORT])  # it would tell of the tables before
        note(folder, recipe, RUNNING)  # first of all: a folder with anything else and no manifest is not ours
        files.replace_text(folder / files.RECIPE, files.recipe_text(recipe))
        try:
            elsewhere = _compute(recipe, out, folder, options, ended)
        except BaseException:
            with suppress(OSError):
                note(folder, recipe, INTERRUPTED)
            raise
        ends = [_as_it_was(out, ended.get(cell.run_id) or CellEnd(cell, WAITING)) for cell in cells]
        if elsewhere is not None:
            note(folder, recipe, SUBMITTED)
            return SweepEnd(folder, ends, kept, [], elsewhere)
        return SweepEnd(folder, ends, kept, conclude(recipe, out, folder, ends, options.finish))


def _already(out: Path, cell: RunSpec) -> CellEnd | None:
    """A cell that needs no computing: complete, or in a folder that cannot be trusted."""
    try:
        return CellEnd(cell, COMPLETE) if find_complete(out, cell, but=UNUSED) else None
    except CorruptArtefact as error:
        return CellEnd(cell, FAILED, str(error), error.exit_code)


def stored_end(out: Path, cell: RunSpec) -> CellEnd | None:
    """How a cell ended, by its manifest; None where it has not."""
    try:
        manifest = read_manifest(run_folder(out, cell), "run", cell.run_id)
    except CorruptArtefact as error:
        return CellEnd(cell, FAILED, str(error), error.exit_code)
    if manifest is None or manifest.status not in (COMPLETE, FAILED):
        return None
    return CellEnd(cell, manifest.status, manifest.error, manifest.exit_code)


def _as_it_was(out: Path, end: CellEnd) -> CellEnd:
    """The end of a cell; of one that was not started again, the one it had before."""
    return (stored_end(out, end.spec) or end) if end.status == INTERRUPTED else end


def _intact(folder: Path, manifest: Manifest) -> list[Path] | None:
    """The figures of a complete sweep whose files are all what was written; None where it is none, or one in small."""
    if manifest.status != COMPLETE or manifest.is_small:
        return None
    try:
        verify(folder, manifest.files)
    except CorruptArtefact:
        return None  # it can be made again from the runs
    return [folder / name for name in manifest.files if name.startswith("figures/")]


def note(folder: Path, recipe: Recipe, status: Status, digests: dict[str, str] | None = None) -> None:
    """Write a sweep's manifest."""
    cells = [cell.run_id for cell in recipe.cells()]
    manifest = Manifest(
        kind="sweep", id=recipe.sweep_id, recipe=recipe.name, status=status, cells=cells, files=digests or {}
    )
    write_manifest(folder, manifest)


def executors() -> dict[str, str]:
    """The executors, and what each finds on this machine."""
    ray, sbatch = find_spec("ray"), shutil.which("sbatch")
    return {
        "local": f"{cores()} cores",
        "ray": f"ray {version('ray')}" if ray else "not installed (extra `ray`)",
        "slurm": sbatch or "no sbatch here",
    }


def conclude(recipe: Recipe, out: Path, folder: Path, ends: Sequence[CellEnd], finish: Finish) -> list[Path]:
    """Merge the tables, draw the figures and say in the manifest how the sweep ended; the figures."""
    tables, figures = merge(recipe, out, folder, ends), finish(folder)
    status: Status = COMPLETE if all(end.status == COMPLETE for end in ends) else FAILED
    note(folder, recipe, status, hashes(folder, [files.RECIPE, *tables, *figures]))
    return [folder / name for name in figures]


def _compute(recipe: Recipe, out: Path, folder: Path, options: SweepOptions, ended: dict[str, CellEnd]) -> str | None:
    """Have the executor compute the cells that have not ended; what it says of those computed elsewhere."""
    cells = [cell for cell in recipe.cells() if cell.run_id not in ended]
    for end in ended.values():
        if end.status == FAILED:
            options.on_end(end)
    watcher = Watcher(out, recipe.cells(), ended, options.on_progress)

    def on_end(end: CellEnd) -> None:
        ended[end.spec.run_id] = end
        options.on_end(end)

    if not cells:
        return None
    listener = Listener(on_end, options.on_repeat, watcher.running)
    return EXECUTORS[recipe.execution.executor](Work(recipe, cells, out, folder, options.device, listener))


@dataclass(frozen=True)
class SweepStatus:
    """A sweep as its folders tell it: how far it is and each of its cells, and who works on it."""

    folder: Path
    state: str
    cells: list[CellState]
    progress: Progress
    owner: str | None


def sweep_status(recipe: Recipe, out: Path) -> SweepStatus:
    """How far a sweep is. `state` is that of its manifest, `interrupted` where its driver is gone, or `not started`.

    Raises: CorruptArtefact.
    """
    folder = sweep_folder(out, recipe)
    manifest, who = read_manifest(folder, "sweep", folder.name), owner(folder)
    states = [read_state(out, cell) for cell in recipe.cells()]
    paces: Paces = {}
    if any(each.steps_left for each in states):
        learn_paces(paces, out, states)
    running = sum(each.state == RUNNING for each in states)
    state = manifest.status if manifest else "not started"
    gone = state == RUNNING and who is None
    progress = Progress.of(states, paces, recipe.execution.jobs or running)
    return SweepStatus(folder, INTERRUPTED if gone else state, states, progress, who)
