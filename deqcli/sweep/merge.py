"""The tables of a sweep: those of its runs one after the other, byte for byte, and a row for each run."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from deqcli.errors import NumericalFailure
from deqcli.runs import files
from deqcli.runs.folder import COMPLETE, read_manifest, row_keys, run_folder
from deqcli.runs.records import (
    CERTIFICATE_COLUMNS,
    LOSS_COLUMNS,
    PREDICTION_COLUMNS,
    RUNS_COLUMNS,
    SPECTRAL_COLUMNS,
    csv_text,
)  # fmt: skip
from deqcli.sweep.local import CellEnd

MERGED = {
    files.LOSS: LOSS_COLUMNS,
    files.SPECTRAL: SPECTRAL_COLUMNS,
    files.CERTIFICATES: CERTIFICATE_COLUMNS,
    files.PREDICTION: PREDICTION_COLUMNS,
}


def merge(out: Path, folder: Path, ends: Sequence[CellEnd]) -> list[str]:
    """Write the tables of a sweep, those in `MERGED` and runs.csv; the names of what was written.

    `ends` are in the order of the rows. Runs contribute that are complete, and those whose own numbers made them fail,
    with the rows up to that one; of any other the files are not to be trusted.
    """
    trusted = [run_folder(out, end.spec) for end in ends if _has_rows(end)]
    for name, columns in MERGED.items():
        files.replace_file(folder / name, _Concatenation(csv_text(columns, []), [each / name for each in trusted]))
    rows = [_run_row(out, end) for end in ends]
    files.replace_text(folder / files.RUNS, csv_text(RUNS_COLUMNS, rows))
    return [*MERGED, files.RUNS]


def _has_rows(end: CellEnd) -> bool:
    return end.status == COMPLETE or end.exit_code == NumericalFailure.exit_code


class _Concatenation:
    """Writes a header and the rows of CSV files that have the same one."""

    def __init__(self, header: str, parts: Sequence[Path]) -> None:
        self._header, self._parts = header, [part for part in parts if part.exists()]

    def __call__(self, beside: Path) -> None:
        with beside.open("wb") as merged:
            merged.write(self._header.encode())
            for part in self._parts:
                with part.open("rb") as rows:
                    rows.readline()
                    shutil.copyfileobj(rows, merged)


def _run_row(out: Path, end: CellEnd) -> dict[str, object]:
    found: dict[str, float | int | None] = {}
    if end.status == COMPLETE:
        manifest = read_manifest(run_folder(out, end.spec), "run", end.spec.run_id)
        found = manifest.results if manifest else {}
    results = {name: found.get(name) for name in ("steps", "final_loss", "max_spectral_norm", "min_lambda_ratio")}
    return row_keys(end.spec) | results | {"status": end.status, "attempts": 1, "error": end.error}
