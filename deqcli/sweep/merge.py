"""The tables of a sweep: those of its runs one after the other, byte for byte, and a row for each run."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from deqcli.errors import NumericalFailure
from deqcli.recipe.axes import value_at
from deqcli.recipe.schema import Recipe, RunSpec
from deqcli.runs import files
from deqcli.runs.folder import COMPLETE, read_manifest, row_keys, run_folder
from deqcli.runs.records import (
    CERTIFICATE_COLUMNS,
    LOSS_COLUMNS,
    PREDICTION_COLUMNS,
    RUN_KEYS,
    RUNS_COLUMNS,
    SPECTRAL_COLUMNS,
    csv_text,
    leading_cells,
)  # fmt: skip
from deqcli.sweep.cells import CellEnd

MERGED = {
    files.LOSS: LOSS_COLUMNS,
    files.SPECTRAL: SPECTRAL_COLUMNS,
    files.CERTIFICATES: CERTIFICATE_COLUMNS,
    files.PREDICTION: PREDICTION_COLUMNS,
}

RUN_RESULTS = ("steps", "final_loss", "max_spectral_norm", "min_lambda_ratio")
"""What runs.csv tells of the results of a run."""


def merge(recipe: Recipe, out: Path, folder: Path, ends: Sequence[CellEnd]) -> list[str]:
    """Write the tables of a sweep, those in `MERGED` and runs.csv; the names of what was written.

    `ends` are in the order of the rows. Runs contribute that are complete, and those whose own numbers made them fail,
    with the rows up to that one; of any other the files are not to be trusted. The axes of `sweep.over` are columns
    behind those that name a run.
    """
    trusted = [end.spec for end in ends if _has_rows(end)]
    for name, columns in MERGED.items():
        files.replace_file(folder / name, _Concatenation(recipe, out, name, columns, trusted))
    rows = [_run_row(out, end) | axis_values(recipe, end.spec) for end in ends]
    files.replace_text(folder / files.RUNS, csv_text(with_axes(recipe, RUNS_COLUMNS), rows))
    return [*MERGED, files.RUNS]


def _has_rows(end: CellEnd) -> bool:
    return end.status == COMPLETE or end.exit_code == NumericalFailure.exit_code


def with_axes(recipe: Recipe, columns: Sequence[str]) -> list[str]:
    """Columns with the axes of the sweep behind those that name a run."""
    return [*RUN_KEYS, *recipe.axes, *columns[len(RUN_KEYS) :]]


def axis_values(recipe: Recipe, spec: RunSpec) -> dict[str, object]:
    """The value of a run on each axis of the sweep."""
    return {key: value_at(spec, key) for key in recipe.axes}


class _Concatenation:
    """Writes a header and the rows of the runs' CSV files, the cells of the axes put in."""

    def __init__(
        self, recipe: Recipe, out: Path, name: str, columns: Sequence[str], specs: Sequence[RunSpec]
    ) -> None:  # fmt: skip
        self._recipe, self._out, self._name, self._specs = recipe, out, name, specs
        self._header = csv_text(with_axes(recipe, columns), [])

    def __call__(self, beside: Path) -> None:
        with beside.open("wb") as merged:
            merged.write(self._header.encode())
            for spec in self._specs:
                part = run_folder(self._out, spec) / self._name
                if part.exists():
                    with part.open("rb") as rows:
                        rows.readline()
                        self._copy(rows, merged, spec)

    def _copy(self, rows: IO[bytes], merged: IO[bytes], spec: RunSpec) -> None:
        keys = row_keys(spec)
        old, new = (leading_cells(each) for each in (keys, keys | axis_values(self._recipe, spec)))
        if old == new:
            shutil.copyfileobj(rows, merged)
            return
        for row in rows:  # each begins with the same cells
            merged.write(new + row.removeprefix(old))


def _run_row(out: Path, end: CellEnd) -> dict[str, object]:
    found: Mapping[str, float | int | None] = {}
    if end.status == COMPLETE:
        manifest = read_manifest(run_folder(out, end.spec), "run", end.spec.run_id)
        found = manifest.results if manifest else {}
    results = {name: found.get(name) for name in RUN_RESULTS}
    return row_keys(end.spec) | results | {"status": end.status, "attempts": end.attempts, "error": end.error}
