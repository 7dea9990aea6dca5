"""Bookkeeping of a fixed-point iteration, item by item: what has converged by estimate, and which items need more."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

MOST_SPENT = 0.6
"""Share of the squared goal that samples left out of the product may use up together."""

SPENT = 0.3
"""Share of what is left of that which each round of leaving out may use up."""

TOO_MUCH_SPENT = 0.85
"""Share of it from which on those that were left out are taken in again: the goal has come down meanwhile."""

LEAST_RATIO = 0.7
"""Times the contraction of its network: an item that seems to contract faster than that was lucky."""

FAR_SIGHTED = 0.9
"""Contraction above which nobody plans ahead."""

MOST_PLANNED = 20
"""Iterations after which the change is looked at in any case."""

HEADROOM, HEADROOM_SMALL = 0.9, 0.3
"""Share of the tolerance that an estimate aims at: those of small networks were up to 2.8 times too small."""

SMALL = 2**16
"""Entries of a network's point below which it is small: its contraction varies from one product to the next."""


@dataclass
class Ledger:
    """Estimated residuals of the items of an equation: n samples of one network, or c stacked networks.

    change    c_j = ||z_j - z_j'||, z' the point before
    drift     what products in low precision may have put into P since the last full one
    error     margin ratio_j c_j + drift_j, the estimate of ||F(z_j) - z_j||; ratio_j = c_j / c_j', at least 0.7 `ratio`
    ratio     ||c|| / ||c'|| of a network, over the items of the last product; 0 before it is known
    allowed   the residual that a network may have, tolerance * ||F(z)||
    headroom  the share of that which an estimate may reach
    Shapes: change, drift, error (items,); ratio, margin, allowed (networks,). float64, on the CPU.
    """

    stacked: bool
    items: int
    ratio: np.ndarray
    margin: np.ndarray
    allowed: np.ndarray
    headroom: float = HEADROOM

    def __post_init__(self) -> None:
        self.change = np.full(self.items, np.inf)
        self.drift = np.zeros(self.items)
        self.error = np.full(self.items, np.inf)

    def of_network(self, values: np.ndarray, items: np.ndarray) -> np.ndarray:
        """A network's value for each of these items."""
        return values[items] if self.stacked else values

    def observe(self, items: np.ndarray, change: np.ndarray, count: int | np.ndarray = 1) -> None:
        """Take note of the changes that the last of `count` iterations made to `items`."""
        before = self.change[items]
        again = np.isfinite(before) & (before > 0)
        self._learn(items, again, change, count)
        known = self.of_network(self.ratio, items)
        seen = np.where(again, (change / np.where(again, before, 1.0)) ** (1.0 / count), known)
        ratio = np.where(known > 0, np.maximum(seen, LEAST_RATIO * known), 1.0)
        self.change[items] = change
        self.error[items] = self.of_network(self.margin, items) * ratio * change + self.drift[items]

    def _learn(self, items: np.ndarray, again: np.ndarray, change: np.ndarray, count: int | np.ndarray) -> None:
        """Update the contraction of the networks whose items have changed before."""
        if self.stacked:
            seen = (change / np.where(again, self.change[items], 1.0)) ** (1.0 / count)
            self.ratio[items[again]] = seen[again]
        elif again.any():
            self.ratio[:] = (norm(change[again]) / norm(self.change[items[again]])) ** (1.0 / count)

    def planned(self) -> np.ndarray:
        """How many more iterations each network needs by its contraction; 1 where that tells nothing."""
        return np.array([_until(*each) for each in zip(self.residual, self.goal, self.ratio, strict=True)])

    def planned_on(self, rows: np.ndarray, share: float) -> int:
        """How many iterations of `rows`, samples of one network, until it has converged or only a share is active."""
        squares, ratio = np.cumsum(np.sort(self.error[rows]) ** 2), float(self.ratio[0])
        out = self.residual[0] ** 2 - squares[-1]
        most = len(rows) - 1 - int(share * len(rows))
        done = _until(_root(squares[-1]), _root(self.goal[0] ** 2 - out), ratio)
        fewer = _until(_root(squares[most]), _root(self._budget(out)), ratio)
        return min(done, fewer)

    def _budget(self, out: float) -> float:
        """The sum of squared errors that one round of leaving out may use up, `out` being used up already."""
        return SPENT * (MOST_SPENT * float(self.goal[0]) ** 2 - out)

    @property
    def goal(self) -> np.ndarray:
        """What the estimated residual of each network is to come down to."""
        return self.headroom * self.allowed

    @property
    def residual(self) -> np.ndarray:
        """The estimated residual of each network."""
        return self.error if self.stacked else np.array([norm(self.error)])

    @property
    def unconverged(self) -> np.ndarray:
        """Whether a network's estimate is above what is allowed."""
        return ~(self.residual <= self.goal)

    def active(self, rows: np.ndarray) -> np.ndarray:
        """The items that need another iteration, where `rows` are those that had one last.

        A stacked network does while it is unconverged. Of the samples of an unconverged network those with the
        smallest errors are left out, up to `SPENT` of what is left of their share of the squared goal; they stay out
        unless the goal comes down.
        """
        if self.stacked:
            return np.flatnonzero(self.unconverged)
        if not self.unconverged[0]:
            return rows[:0]
        out = self.residual[0] ** 2 - norm(self.error[rows]) ** 2
        if out > TOO_MUCH_SPENT * self.goal[0] ** 2:
            rows, out = np.arange(self.items), 0.0
        order = rows[np.argsort(self.error[rows], kind="stable")]
        spent = np.cumsum(self.error[order] ** 2)
        return np.sort(order[~(spent <= self._budget(out))])


def _until(error: float, goal: float, ratio: float) -> int:
    """How many iterations bring an error down to a goal; 1 where the contraction tells nothing."""
    if not (0 < ratio < FAR_SIGHTED and 0 < goal < math.inf and 0 < error < math.inf):
        return 1
    return min(max(math.ceil(math.log(goal / error) / math.log(ratio)), 1), MOST_PLANNED)


def _root(square: float) -> float:
    return math.sqrt(max(square, 0.0))


def norm(values: np.ndarray) -> float:
    """The Euclidean norm."""
    return math.sqrt(float(values @ values))
