"""The tables of a sweep: those of its runs one after the other, byte for byte, and a row for each run."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deqcli.runs import files
from deqcli.runs.folder import INTERRUPTED, read_manifest, row_keys, run_folder
from deqcli.runs.records import RUNS_COLUMNS, csv_text
from deqcli.sweep.local import CellEnd

MERGED = (files.LOSS, files.SPECTRAL, files.CERTIFICATES)


def merge(out: Path, folder: Path, ends: Sequence[CellEnd]) -> list[str]:
    """Write loss.csv, spectral.csv, certificates.csv and runs.csv of a sweep; the names of what was written.

    `ends` are in the order of the rows. A failed run contributes the rows up to and with the one that failed; a run
    that was interrupted contributes none.
    """
    finished = [run_folder(out, end.spec) for end in ends if end.status != INTERRUPTED]
    for name in MERGED:
        files.replace_file(folder / name, _Concatenation([each / name for each in finished]))
    rows = [_run_row(out, end) for end in ends]
    files.replace_text(folder / files.RUNS, csv_text(RUNS_COLUMNS, rows))
    return [*MERGED, files.RUNS]


class _Concatenation:
    """Writes CSV files with the same header one after the other."""

    def __init__(self, parts: Sequence[Path]) -> None:
        self._parts = [part for part in parts if part.exists()]

    def __call__(self, beside: Path) -> None:
        with beside.open("wb") as merged:
            for index, part in enumerate(self._parts):
                with part.open("rb") as rows:
                    header = rows.readline()
                    if index == 0:
                        merged.write(header)
                    shutil.copyfileobj(rows, merged)


def _run_row(out: Path, end: CellEnd) -> dict[str, object]:
    manifest = read_manifest(run_folder(out, end.spec), "run", end.spec.run_id) or {}
    found: dict[str, Any] = manifest.get("results", {})
    return row_keys(end.spec) | {
        "status": end.status,
        "attempts": 1,
        "steps": found.get("steps"),
        "final_loss": found.get("final_loss"),
        "max_spectral_norm": found.get("max_spectral_norm"),
        "min_lambda_ratio": found.get("min_lambda_ratio"),
        "error": end.error,
    }
