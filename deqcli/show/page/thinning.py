"""Fewer points of a curve, its extremes among them: a picture has no room for more."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LEAST = 8
"""Points that a curve has at least, where it has as many."""


def thin(x: np.ndarray, y: np.ndarray, most: int) -> np.ndarray:
    """Indices, ascending, of at most `most` points (4 or more) of a curve, all of them where it has no more.

    Kept are the first and the last point, and the lowest and the highest of each of (most - 2)/2 equal parts of the x
    axis: neither a peak nor the envelope of a noisy curve is lost.
    """
    count = len(x)
    if count <= most:
        return np.arange(count)
    parts = (most - 2) // 2
    span = float(x.max() - x.min()) or 1.0
    part = np.minimum((x - x.min()) * (parts / span), parts - 1).astype(int)
    order = np.lexsort((y, part))  # by part, each from its lowest point to its highest
    edges = np.flatnonzero(np.diff(part[order], prepend=-1, append=parts))
    lowest, highest = order[edges[:-1]], order[edges[1:] - 1]
    return np.unique(np.concatenate(([0], lowest, highest, [count - 1])))


def share(lengths: Sequence[int], room: int) -> int:
    """The most points that each curve may have so that all of them together have no more than `room`.

    Short curves leave their part to the long ones. No curve gets fewer than `LEAST`.
    """
    ascending = sorted(lengths)
    left = room
    for index, length in enumerate(ascending):
        each = left // (len(ascending) - index)
        if length > each:
            return max(each, LEAST)
        left -= length
    return max([*ascending, LEAST])
