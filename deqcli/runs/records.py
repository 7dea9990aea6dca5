"""Tidy CSV, one writer a file: appended row by row, known at every checkpoint by its length and its hash."""

from __future__ import annotations

import csv
import hashlib
import io
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Self

from deqcli.data.files import file_sha256
from deqcli.errors import CorruptArtefact

RUN_KEYS = ("run_id", "recipe", "dataset", "activation", "width", "seed")
LOSS_COLUMNS = (
    *RUN_KEYS, "step", "loss", "residual", "iterations", "adjoint_residual", "adjoint_iterations", "status",
)  # fmt: skip
METRICS = (
    "spectral_norm", "spectral_norm_upper", "lambda_min", "gradient_norm", "pl_ratio",
    "distance_w", "distance_u", "distance_a", "loss_bound", "loss_predicted",
)  # fmt: skip
"""What spectral.csv says of a step; each is a property of `deqcli.runs.metrics.Snapshot`."""

SPECTRAL_COLUMNS = (*RUN_KEYS, "step", *METRICS)
TIMING_COLUMNS = ("run_id", "step", "seconds", "forward_seconds", "adjoint_seconds")
CERTIFICATE_COLUMNS = (
    *RUN_KEYS, "certificate", "source", "lhs", "rhs", "slack", "holds", "repaired_by_width",
)  # fmt: skip
PREDICTION_COLUMNS = (
    *RUN_KEYS, "kernel", "learning_rate", "step", "time", "loss", "loss_low", "loss_median", "loss_high",
)  # fmt: skip
RUNS_COLUMNS = (
    *RUN_KEYS, "status", "attempts", "steps", "final_loss", "max_spectral_norm", "min_lambda_ratio", "error",
)  # fmt: skip

Row = Mapping[str, object]


def cell(value: object) -> str:
    """A value as CSV: shortest round-trip floats, true/false, empty where there is no finite value."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(float(value)) if isinstance(value, float) else str(value)


def csv_text(columns: Sequence[str], rows: Iterable[Row], header: bool = True) -> str:
    """Rows as CSV text; a column that a row lacks stays empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    if header:
        writer.writerow(columns)
    writer.writerows([cell(row.get(column)) for column in columns] for row in rows)
    return buffer.getvalue()


def leading_cells(keys: Row) -> bytes:
    """The cells that every row of a run begins with."""
    return csv_text(list(keys), [keys], header=False).rstrip("\n").encode() + b","


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file as text."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def whole(path: Path) -> tuple[int, str]:
    """The mark of a file to which nothing will be appended. Raises: CorruptArtefact where it is missing."""
    if not path.exists():
        raise CorruptArtefact(f"{path} is missing; train --force computes it anew")
    return path.stat().st_size, file_sha256(path)


class Table:
    """A CSV file being written. `mark` is where it stands; reopening at a mark cuts off what came after."""

    def __init__(self, path: Path, columns: Sequence[str], keys: Row, mark: tuple[int, str] | None = None) -> None:
        leading = [column for column in columns if column in keys]
        self._path, self._columns = path, columns[len(leading) :]
        self._leading = csv_text(leading, [keys], header=False).rstrip("\n")  # the same in every row
        self._digest = hashlib.sha256()
        self._file: IO[bytes]
        try:
            self._file = path.open("wb" if mark is None else "r+b")
        except FileNotFoundError:
            raise CorruptArtefact(f"{path} is missing; train --force computes it anew") from None
        if mark is None:
            self._append(csv_text(columns, []))
        else:
            self._resume(mark)

    def _resume(self, mark: tuple[int, str]) -> None:
        length, digest = mark
        self._digest.update(self._file.read(length))
        if self._digest.hexdigest() != digest:
            self._file.close()
            raise CorruptArtefact(
                f"{self._path} was altered or cut since its checkpoint; train --force computes it anew"
            )
        self._file.truncate()

    def row(self, **values: object) -> None:
        """Append a row of numbers and words, which need no quoting; it is durable after `mark`."""
        cells = ",".join([cell(values.get(column)) for column in self._columns])
        self._append(f"{self._leading},{cells}\n")

    def _append(self, text: str) -> None:
        data = text.encode()
        self._file.write(data)
        self._digest.update(data)

    def flush(self) -> None:
        """Let other processes see the rows so far."""
        self._file.flush()

    def mark(self) -> tuple[int, str]:
        """Make the rows durable; (length in bytes, SHA-256) up to here."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell(), self._digest.hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
