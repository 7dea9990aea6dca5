"""Pairs of samples by the angle between their lines, which Assumption 2 wants to be more than 0."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np

PARALLEL_BELOW = 1e-6
"""Samples whose directions differ by less (radians) are parallel: float32 could not tell them apart."""

NEAR_PARALLEL_BELOW = 0.1
"""Samples whose lines are less apart (radians) are worth a look: lambda_* falls with the square of the angle."""

MOST_LISTED = 100
ROWS_PER_BLOCK, PAIRS_PER_BLOCK = 1024, 4096
LOOSE = 1e-6
"""What cosines near 1 may miss of the angle, more than enough."""


class Pair(NamedTuple):
    """Two samples by their indices from 0, the angle between their lines (radians), and whether they are opposite."""

    sample: int
    other: int
    angle: float
    opposite: bool


@dataclass(frozen=True)
class Closeness:
    """The closest pair (None of a single sample), how many pairs are near-parallel, and the closest of these."""

    closest: Pair | None
    near_parallel: int
    listed: list[Pair]


def closeness(X: np.ndarray) -> Closeness:
    """How close the columns of X (d, n) come to being parallel, of either sign.

    Source: Ling et al. 2023, Assumption 2.
    """
    import numpy as np

    directions = np.ascontiguousarray((X / np.linalg.norm(X, axis=0)).T)
    count, listed = 0, list[Pair]()
    for pairs in pairs_within(directions, NEAR_PARALLEL_BELOW):
        count += len(pairs.angles)
        listed = sorted([*listed, *pairs.closest(MOST_LISTED)], key=lambda pair: pair.angle)[:MOST_LISTED]
    return Closeness(listed[0] if listed else _closest(directions), count, listed)


class Pairs(NamedTuple):
    """Some pairs in arrays: the rows of one, of the other, the angles between their lines, and which are opposite."""

    samples: np.ndarray
    others: np.ndarray
    angles: np.ndarray
    opposite: np.ndarray

    def closest(self, most: int) -> list[Pair]:
        """The pairs of the least angles, at most so many."""
        chosen = self.angles.argsort(kind="stable")[:most]
        return [Pair(*values) for values in zip(*(each[chosen].tolist() for each in self), strict=True)]


def pairs_within(directions: np.ndarray, angle: float) -> Iterator[Pairs]:
    """The pairs of unit rows (n, d) whose lines are less than an angle apart, some at a time, in order of the rows.

    Cosines say which may be; the angle itself is 2 arcsin(||a -+ b||/2), which is exact where it is small.
    """
    import numpy as np

    for first, cosines in _cosines(directions):
        i, j = np.nonzero(np.abs(cosines) > np.cos(angle) - LOOSE)
        for some in np.array_split(np.arange(len(i)), len(i) // PAIRS_PER_BLOCK + 1):
            pairs = _measured(directions, first + i[some], j[some])
            yield Pairs(*(each[pairs.angles < angle] for each in pairs))


def _cosines(directions: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, cosines with all rows) of blocks of rows; 0 with itself and with earlier rows."""
    import numpy as np

    for first in range(0, len(directions), ROWS_PER_BLOCK):
        yield first, np.triu(directions[first : first + ROWS_PER_BLOCK] @ directions.T, k=first + 1)


def _measured(directions: np.ndarray, samples: np.ndarray, others: np.ndarray) -> Pairs:
    import numpy as np

    a, b = directions[samples], directions[others]
    opposite = np.einsum("ij,ij->i", a, b) < 0
    apart = np.linalg.norm(np.where(opposite[:, None], a + b, a - b), axis=1)
    return Pairs(samples, others, 2 * np.arcsin(apart / 2), opposite)


def _closest(directions: np.ndarray) -> Pair | None:
    """The pair of the largest cosine, of either sign; None of a single row."""
    import numpy as np

    found = []
    for first, cosines in _cosines(directions):
        later = np.triu(np.ones(cosines.shape, dtype=bool), k=first + 1)
        i, j = np.unravel_index(np.where(later, np.abs(cosines), -1).argmax(), cosines.shape)
        if first + i < j:
            found += _measured(directions, np.array([first + i]), np.array([j])).closest(1)
    return min(found, key=lambda pair: pair.angle, default=None)
