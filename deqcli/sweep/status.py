"""How far a sweep is, read from its folders alone: no driver, no scheduler and no clock but the files' is asked."""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deqcli.errors import CorruptArtefact
from deqcli.recipe.schema import RunSpec
from deqcli.runs import files
from deqcli.runs.folder import COMPLETE, FAILED, INTERRUPTED, RUNNING, Manifest, owner, read_manifest, run_folder
from deqcli.runs.records import LOSS_COLUMNS, SPECTRAL_COLUMNS, TIMING_COLUMNS

TAIL_BYTES = 8192
PACE_ROWS = 20
"""Rows of timing.csv whose mean is the pace of a run."""

WAITING: Final = "waiting"
STATES = (COMPLETE, RUNNING, FAILED, INTERRUPTED, WAITING)

Paces = dict[tuple[int, int], float]
"""Seconds of a gradient step by (m, n); NaN where a run of that size has no step that was timed."""


@dataclass(frozen=True)
class CellState:
    """How far a cell is: its last logged step and what was logged there; None where nothing is known."""

    spec: RunSpec
    state: str
    step: int | None = None
    loss: float | None = None
    spectral_norm: float | None = None
    iterations: int | None = None
    seconds_per_step: float | None = None
    owner: str | None = None
    idle_seconds: float | None = None
    error: str | None = None

    def row(self) -> dict[str, object]:
        """The state as plain data."""
        return {"run_id": self.spec.run_id, **{key: value for key, value in vars(self).items() if key != "spec"}}

    @property
    def steps_left(self) -> int:
        """Gradient steps that are still to be made."""
        return 0 if self.state in (COMPLETE, FAILED) else self.spec.train.steps - (self.step or 0)

    @property
    def seconds_left(self) -> float | None:
        """By the cell's own last steps."""
        return None if self.seconds_per_step is None else self.steps_left * self.seconds_per_step


def read_state(out: Path, spec: RunSpec) -> CellState:
    """How far a cell is, by its manifest, its lock and the last rows of its tables.

    A run whose process was killed says `running` and has no lock: it is interrupted. A folder that cannot be trusted
    counts as failed.
    """
    folder = run_folder(out, spec)
    try:
        manifest = read_manifest(folder, "run", spec.run_id)
    except CorruptArtefact as error:
        return CellState(spec, FAILED, error=str(error))
    if manifest is None:
        who = owner(folder)
        return CellState(spec, WAITING if who is None else RUNNING, owner=who)
    if manifest.status == COMPLETE:
        return _finished(spec, manifest)
    who = owner(folder)
    state = FAILED if manifest.status == FAILED else INTERRUPTED
    return _under_way(folder, spec, RUNNING if who else state, who, None if who else manifest.error)


def _finished(spec: RunSpec, manifest: Manifest) -> CellState:
    found = manifest.results
    steps, loss, norm = (found.get(name) for name in ("steps", "final_loss", "max_spectral_norm"))
    return CellState(spec, COMPLETE, None if steps is None else int(steps), loss, norm)


def _under_way(folder: Path, spec: RunSpec, state: str, who: str | None, error: str | None) -> CellState:
    losses = tail(folder / files.LOSS, LOSS_COLUMNS)
    spectra = tail(folder / files.SPECTRAL, SPECTRAL_COLUMNS)
    last, spectrum = losses[-1] if losses else {}, spectra[-1] if spectra else {}
    return CellState(
        spec,
        state,
        step=_whole(last.get("step")),
        loss=_number(last.get("loss")),
        spectral_norm=_number(spectrum.get("spectral_norm")),
        iterations=_whole(last.get("iterations")),
        seconds_per_step=pace(folder),
        owner=who,
        idle_seconds=_idle(folder),
        error=error,
    )


def _idle(folder: Path) -> float | None:
    """Seconds since a table was written to, by the clock of whoever wrote it."""
    times = [path.stat().st_mtime for name in (files.LOSS, files.MANIFEST) if (path := folder / name).exists()]
    return max(0.0, time.time() - max(times)) if times else None


def pace(folder: Path) -> float | None:
    """Mean seconds of a gradient step, by the last rows of timing.csv; None where there is none."""
    rows = tail(folder / files.TIMING, TIMING_COLUMNS)[-PACE_ROWS:]
    seconds = [value for row in rows if row["step"] != "0" and (value := _number(row["seconds"])) is not None]
    return sum(seconds) / len(seconds) if seconds else None


def tail(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The last whole rows of a CSV file that may be being written; its words hold no comma."""
    try:
        with path.open("rb") as file:
            start = max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES)
            file.seek(start)
            lines = file.read().decode(errors="replace").split("\n")[1:-1]  # the first is cut, or the header
    except OSError:
        return []
    rows = [line.split(",") for line in lines]
    return [dict(zip(columns, row, strict=True)) for row in rows if len(row) == len(columns)]


def _number(text: str | None) -> float | None:
    return float(text) if text else None


def _whole(text: str | None) -> int | None:
    return int(text) if text else None


def counts(states: Iterable[CellState]) -> dict[str, int]:
    """How many cells are complete, running, failed, interrupted and waiting."""
    found = Counter(each.state for each in states)
    return {state: found[state] for state in STATES}


def seconds_left(states: Sequence[CellState], paces: Paces, jobs: int) -> float | None:
    """Seconds that a sweep will take yet with so many cells at a time; None where no step was measured.

    A step of a cell takes what one of the measured cell nearest in width took, times the ratio of their n m^2. No
    less than the longest cell takes alone.
    """
    known = {size: seconds for size, seconds in paces.items() if not math.isnan(seconds)}
    known |= {_size(each.spec): each.seconds_per_step for each in states if each.seconds_per_step}
    going = [each for each in states if each.steps_left]
    if going and not known:
        return None
    left = [each.steps_left * _scaled(known, _size(each.spec)) for each in going]
    return max(max(left, default=0.0), sum(left) / max(1, jobs))


def _size(spec: RunSpec) -> tuple[int, int]:
    """(m, n) of a cell, n = 1 where only the data file knows it."""
    return spec.model.width, spec.data.shape()[0] or 1


def _scaled(paces: Paces, size: tuple[int, int]) -> float:
    m, n = size
    near = min(paces, key=lambda other: (abs(math.log(other[0] / m)), abs(math.log(other[1] / n))))
    return paces[near] * (m / near[0]) ** 2 * (n / near[1])


def learn_paces(paces: Paces, out: Path, states: Iterable[CellState]) -> None:
    """Add the pace of one complete cell of each size that has none yet; a size is looked at once."""
    for each in states:
        size = _size(each.spec)
        if each.state == COMPLETE and size not in paces:
            paces[size] = pace(run_folder(out, each.spec)) or math.nan
