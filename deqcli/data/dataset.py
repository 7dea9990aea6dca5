"""A data set as the theory wants it: every sample of norm sqrt(d), no two parallel, finite labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deqcli.data.pairs import PARALLEL_BELOW, pairs_within
from deqcli.errors import Refused

if TYPE_CHECKING:
    import numpy as np

ANTIPODAL = (
    ": with an odd activation (tanh, sin, erf, identity) lambda_* is exactly 0 for it; data.antipodal: true accepts it"
)


@dataclass(frozen=True)
class Dataset:
    """X (d, n), a column a sample of norm sqrt(d), and y (n,), both float64; `names` say where a sample is from."""

    X: np.ndarray
    y: np.ndarray
    names: Sequence[str] | None = None

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

    rows_named = names or [f"row {index}" for index in range(len(rows))]
    _refuse(~np.isfinite(rows).all(axis=1), where, "{} holds NaN or infinity", rows_named)
    _refuse(~np.isfinite(labels), where, "the label of {}, times data.label_scale, is NaN or infinite", rows_named)
    largest = np.abs(rows).max(axis=1, keepdims=True)
    _refuse(largest[:, 0] == 0, where, "{} is zero and cannot be scaled to norm sqrt(d)", rows_named)
    scaled = rows / largest  # so that no square over- or underflows
    norms = np.linalg.norm(scaled, axis=1, keepdims=True)
    directions = scaled / norms
    _refuse_parallel(directions, where, rows_named, antipodal)
    if not normalise:
        norms *= largest / largest.max()
        directions *= norms / np.sqrt(np.mean(norms**2))
    X = np.ascontiguousarray(directions.T) * np.sqrt(rows.shape[1])
    return Dataset(X, np.ascontiguousarray(labels, dtype=np.float64), names)


def _refuse(bad: np.ndarray, where: str, what: str, names: Sequence[str]) -> None:
    rows = bad.nonzero()[0]
    if len(rows):
        others = f" (and {len(rows) - 1} more rows)" if len(rows) > 1 else ""
        raise Refused(f"{where}: {what.format(names[rows[0]])}{others}")


def _refuse_parallel(directions: np.ndarray, where: str, names: Sequence[str], antipodal: bool) -> None:
    """Refuse the first pair of parallel directions: of equal sign, and of opposite sign unless they are accepted."""
    for pairs in pairs_within(directions, PARALLEL_BELOW):
        for one, other, opposite in zip(pairs.samples, pairs.others, pairs.opposite, strict=True):
            if not (opposite and antipodal):
                which, why = (" (of opposite sign)", ANTIPODAL) if opposite else ("", "")
                raise Refused(
                    f"{where}: {names[one]} and {names[other]} are parallel{which} to within {PARALLEL_BELOW:g} "
                    f"radians, which Assumption 2 excludes{why}"
                )
