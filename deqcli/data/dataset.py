"""A data set as the theory wants it: every sample of norm sqrt(d), no two parallel, finite labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from deqcli.errors import Refused

if TYPE_CHECKING:
    import numpy as np

PARALLEL_BELOW = 1e-6
"""Samples whose directions differ by less (radians) are parallel: float32 could not tell them apart."""


@dataclass(frozen=True)
class Dataset:
    """X (d, n), a column a sample of norm sqrt(d), and y (n,), both float64."""

    X: np.ndarray
    y: np.ndarray

    @property
    def num_samples(self) -> int:
        """N."""
        return int(self.X.shape[1])

    @property
    def input_dim(self) -> int:
        """D."""
        return int(self.X.shape[0])


def make_dataset(rows: np.ndarray, labels: np.ndarray, where: str) -> Dataset:
    """Scale each row (num_samples, input_dim) to norm sqrt(d) and check Assumption 2.

    Source: Ling et al. 2023, Assumption 2. Rows are counted from 0.
    Raises: Refused, naming the row: NaN or infinity, a zero row, two parallel rows (of either sign).
    """
    import numpy as np

    _refuse_rows(~np.isfinite(rows).all(axis=1), f"{where}: row {{}} holds NaN or infinity")
    _refuse_rows(~np.isfinite(labels), f"{where}: the label of row {{}} is NaN or infinite")
    largest = np.abs(rows).max(axis=1, keepdims=True)
    _refuse_rows(largest[:, 0] == 0, f"{where}: row {{}} is zero and cannot be scaled to norm sqrt(d)")
    scaled = rows / largest  # so that no square over- or underflows
    directions = scaled / np.linalg.norm(scaled, axis=1, keepdims=True)
    _refuse_parallel(directions, where)
    X = np.ascontiguousarray(directions.T) * np.sqrt(rows.shape[1])
    return Dataset(X, np.ascontiguousarray(labels, dtype=np.float64))


def _refuse_rows(bad: np.ndarray, message: str) -> None:
    rows = [int(row) for row in bad.nonzero()[0]]
    if rows:
        others = f" (and {len(rows) - 1} more rows)" if len(rows) > 1 else ""
        raise Refused(message.format(rows[0]) + others)


def _refuse_parallel(directions: np.ndarray, where: str) -> None:
    import numpy as np

    cosines = directions @ directions.T
    for i, j in np.argwhere(np.triu(np.abs(cosines) > 1 - PARALLEL_BELOW, k=1)):
        sign = np.sign(cosines[i, j])
        if np.linalg.norm(directions[i] - sign * directions[j]) < PARALLEL_BELOW:
            opposite = "" if sign > 0 else " (of opposite sign)"
            raise Refused(f"{where}: rows {i} and {j} are parallel{opposite}, which Assumption 2 excludes")
