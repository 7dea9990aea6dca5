"""A data set as the theory wants it: every sample of norm sqrt(d), no two parallel, finite labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deqcli.errors import Refused

if TYPE_CHECKING:
    import numpy as np

PARALLEL_BELOW = 1e-6
"""Samples whose directions differ by less (radians) are parallel: float32 could not tell them apart."""

ANTIPODAL = (
    ": with an odd activation (tanh, sin, erf, identity) lambda_* is exactly 0 for it; data.antipodal: true accepts it"
)

ROWS_PER_BLOCK, PAIRS_PER_BLOCK = 1024, 4096


@dataclass(frozen=True)
class Dataset:
    """X (d, n), a column a sample of norm sqrt(d), and y (n,), both float64."""

    X: np.ndarray
    y: np.ndarray

    @property
    def num_samples(self) -> int:
        """n."""
        return int(self.X.shape[1])

    @property
    def input_dim(self) -> int:
        """d."""
        return int(self.X.shape[0])


def make_dataset(
    rows: np.ndarray, labels: np.ndarray, where: str, names: Sequence[str] | None = None, antipodal: bool = False,
    normalise: bool = True,
) -> Dataset:  # fmt: skip
    """Scale each row (num_samples, input_dim) to norm sqrt(d) and check Assumption 2.

    `where` and `names` (default: `row 0`, `row 1`, ...) say in a refusal which row of what is at fault; `antipodal`
    accepts pairs x, -x, against Assumption 2. Without `normalise` one factor scales all rows, and their mean squared
    norm is d.
    Source: Ling et al. 2023, Assumption 2.
    Raises: Refused, naming the row: NaN or infinity, a zero row, two parallel rows (of either sign).
    """
    import numpy as np

    names = names or [f"row {index}" for index in range(len(rows))]
    _refuse(~np.isfinite(rows).all(axis=1), where, "{} holds NaN or infinity", names)
    _refuse(~np.isfinite(labels), where, "the label of {}, times data.label_scale, is NaN or infinite", names)
    largest = np.abs(rows).max(axis=1, keepdims=True)
    _refuse(largest[:, 0] == 0, where, "{} is zero and cannot be scaled to norm sqrt(d)", names)
    scaled = rows / largest  # so that no square over- or underflows
    norms = np.linalg.norm(scaled, axis=1, keepdims=True)
    directions = scaled / norms
    _refuse_parallel(directions, where, names, antipodal)
    if not normalise:
        norms *= largest / largest.max()
        directions *= norms / np.sqrt(np.mean(norms**2))
    X = np.ascontiguousarray(directions.T) * np.sqrt(rows.shape[1])
    return Dataset(X, np.ascontiguousarray(labels, dtype=np.float64))


def _refuse(bad: np.ndarray, where: str, what: str, names: Sequence[str]) -> None:
    rows = bad.nonzero()[0]
    if len(rows):
        others = f" (and {len(rows) - 1} more rows)" if len(rows) > 1 else ""
        raise Refused(f"{where}: {what.format(names[rows[0]])}{others}")


def _refuse_parallel(directions: np.ndarray, where: str, names: Sequence[str], antipodal: bool) -> None:
    """Refuse the first pair of parallel directions: of equal sign, and of opposite sign unless they are accepted."""
    for one, other, sign in _parallel_pairs(directions):
        if sign > 0 or not antipodal:
            which, why = ("", "") if sign > 0 else (" (of opposite sign)", ANTIPODAL)
            raise Refused(
                f"{where}: {names[one]} and {names[other]} are parallel{which} to within {PARALLEL_BELOW:g} radians, "
                f"which Assumption 2 excludes{why}"
            )


def _parallel_pairs(directions: np.ndarray) -> Iterator[tuple[int, int, float]]:
    """(i, j, sign) of each parallel pair: those with a cosine near 1, judged by their difference, exactly."""
    import numpy as np

    for first in range(0, len(directions), ROWS_PER_BLOCK):
        cosines = directions[first : first + ROWS_PER_BLOCK] @ directions.T
        i, j = np.nonzero(np.triu(np.abs(cosines) > 1 - PARALLEL_BELOW, k=first + 1))
        for pairs in np.array_split(np.arange(len(i)), len(i) // PAIRS_PER_BLOCK + 1):
            signs = np.sign(cosines[i[pairs], j[pairs]])
            apart = np.linalg.norm(directions[first + i[pairs]] - signs[:, None] * directions[j[pairs]], axis=1)
            for k in (apart < PARALLEL_BELOW).nonzero()[0]:
                yield int(first + i[pairs][k]), int(j[pairs][k]), float(signs[k])
