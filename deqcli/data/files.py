"""Reading samples from NPZ and CSV files; whatever a file holds, the outcome is samples or a sentence."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deqcli.errors import Refused

if TYPE_CHECKING:
    import numpy as np

LONGEST_REASON = 200


@dataclass(frozen=True)
class Samples:
    """Rows (num_samples, input_dim) and labels (num_samples,) as read; `names` say where a row stands."""

    rows: np.ndarray
    labels: np.ndarray
    names: Sequence[str] | None = None


def is_file(path: str | os.PathLike[str]) -> bool:
    """Whether there is such a file; False for what cannot be a path, too."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def read_npz(path: Path) -> Samples:
    """X (num_samples, input_dim) and y (num_samples,) of an NPZ file, without pickle. Raises: Refused."""
    X, y = read_arrays(path, ("X", "y"))
    if not (X.ndim == 2 and X.size and y.shape == X.shape[:1]):
        raise Refused(f"{path}: X must be (num_samples, input_dim) and y (num_samples,), got {X.shape} and {y.shape}")
    return Samples(X, y)


def read_arrays(path: Path, names: tuple[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """Two arrays of real numbers of an NPZ file by their names, in float64, without pickle. Raises: Refused."""
    import numpy as np

    one, other = names
    try:
        with path.open("rb") as content, np.load(content, allow_pickle=False) as archive:
            first, second = np.asarray(archive[one]), np.asarray(archive[other])
    except Exception as error:  # numpy, zipfile and zlib document no set of what a damaged file raises
        reason = "it holds Python objects" if "pickle" in str(error) else " ".join(str(error).split())[:LONGEST_REASON]
        raise Refused(f"{path}: not an NPZ file with plain arrays {one} and {other} ({reason})") from None
    if not all(array.dtype.kind in "fiu" for array in (first, second)):
        raise Refused(f"{path}: {one} and {other} must hold real numbers, got {first.dtype} and {second.dtype}")
    with np.errstate(over="ignore"):  # what overflows is refused as infinite
        return first.astype(np.float64), second.astype(np.float64)


def read_csv(path: Path, label_column: str) -> Samples:
    """The columns of a CSV file, one of them the labels. Raises: Refused, naming the line and the column."""
    import numpy as np

    try:
        with path.open(newline="", encoding="utf-8-sig") as content:
            table = csv.reader(content, strict=True)
            header = next(table, [])
            label = _label_index(path, header, label_column)
            lines, numbers = [], []
            for line, row in _numbers(path, header, table):
                lines.append(line)
                numbers.append(row)
    except (csv.Error, UnicodeDecodeError) as error:
        raise Refused(f"{path}: not a CSV file ({error})") from None
    if not (numbers and len(header) > 1):
        raise Refused(f"{path}: needs at least one row and one column beside {label_column!r}")
    values = np.array(numbers, dtype=np.float64)
    names = [f"row {index} (line {line})" for index, line in enumerate(lines)]
    return Samples(np.delete(values, label, axis=1), values[:, label], names)


def _label_index(path: Path, header: list[str], label_column: str) -> int:
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise Refused(f"{path}: has the column {twice[0]!r} twice")
    if label_column not in header:
        columns = ", ".join(map(repr, header))[:LONGEST_REASON]
        raise Refused(f"{path}: has no column {label_column!r} for data.label_column; it has {columns or 'no header'}")
    return header.index(label_column)


def _numbers(path: Path, header: list[str], table: Iterator[list[str]]) -> Iterator[tuple[int, list[float]]]:
    """(line, numbers) of each row that is not blank."""
    for row in table:
        line = table.line_num  # type: ignore[attr-defined]
        if row:
            if len(row) != len(header):
                raise Refused(f"{path}: line {line} has {len(row)} fields, the header has {len(header)}")
            yield line, [_number(path, line, name, text) for name, text in zip(header, row, strict=True)]


def _number(path: Path, line: int, name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = None
    if number is None or "_" in text or not text.isascii():  # float reads more than CSV files mean by a number
        shown, column = text[:LONGEST_REASON], name[:LONGEST_REASON]
        raise Refused(f"{path}: line {line}, column {column!r} is not a number: {shown!r}")
    return number
