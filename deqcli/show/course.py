"""What is known of a run while it is watched: where it is, its pace, the fall of its loss, its curve."""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deqcli.runs.standing import Standing

MARK_EVERY = 0.05
"""Seconds between the steps that are remembered, at least: of quick steps some, of slow ones all."""

FALL_MARKS, PACE_MARKS, CURVE_POINTS = 20, 600, 512
"""Marks that the fall of the loss is measured over (a second or 20 steps), the pace (30 seconds), and points drawn."""


@dataclass(frozen=True)
class Mark:
    """A step that is remembered, and when it was solved."""

    seconds: float
    step: int
    loss: float


class Course:
    """What was heard of a run: where it is, since when it was in each phase, and how the loss fell."""

    def __init__(self) -> None:
        self.now: Standing | None = None
        self.phases: list[tuple[str, float]] = []
        self.marks: deque[Mark] = deque(maxlen=PACE_MARKS)
        self._curve: list[Mark] = []
        self._stride, self._marked, self._count = 1, -math.inf, 0

    def hear(self, standing: Standing) -> None:
        """Take in where the run is; a few instructions, since the quickest steps take less than a millisecond."""
        seconds = time.monotonic()
        if self.now is None or standing.phase != self.now.phase:
            self.phases.append((standing.phase, seconds))
        self.now = standing
        if standing.loss is not None and seconds - self._marked >= MARK_EVERY:
            self._mark(Mark(seconds, standing.step or 0, standing.loss))

    def _mark(self, mark: Mark) -> None:
        """Remember a step; every second one of the curve is forgotten when there are too many."""
        self._marked = mark.seconds
        self.marks.append(mark)
        if self._count % self._stride == 0:
            self._curve.append(mark)
            if len(self._curve) >= CURVE_POINTS:
                self._curve, self._stride = self._curve[::2], 2 * self._stride
        self._count += 1

    @property
    def points(self) -> list[tuple[int, float]]:
        """Steps and losses from the first to the last, some hundreds at most, without those that have no logarithm."""
        marks = [*self._curve, *list(self.marks)[-1:]]
        return [(each.step, each.loss) for each in marks if 0 < each.loss < math.inf]

    @property
    def fall(self) -> float | None:
        """What log(loss) fell by in a step of late; None before it is known, and where the loss is 0."""
        marks = list(self.marks)[-FALL_MARKS - 1 :]
        if len(marks) < 2 or not (0 < marks[0].loss < math.inf and 0 < marks[-1].loss < math.inf):
            return None
        return (math.log(marks[0].loss) - math.log(marks[-1].loss)) / (marks[-1].step - marks[0].step)

    @property
    def pace(self) -> float | None:
        """Seconds of a step of late."""
        marks = list(self.marks)
        return (marks[-1].seconds - marks[0].seconds) / (marks[-1].step - marks[0].step) if len(marks) > 1 else None

    def seconds_left(self, seconds: float) -> float | None:
        """How long the steps that are left take at this pace; None before it is known."""
        pace = self.pace
        if pace is None or self.now is None:
            return None
        last = self.marks[-1]
        return max(0.0, pace * (self.now.spec.train.steps - last.step) - (seconds - last.seconds))
