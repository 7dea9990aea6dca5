"""Loss curves over one another in plain characters, a mark for each: a logarithmic scale, labels on both axes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

LABEL = 9
"""Characters of a value beside the axis."""

LEAST_WIDTH, GREATEST_WIDTH, HEIGHT = 30, 120, 17
EVERY = 4
"""Rows from a label of the vertical axis to the next."""

Cells = dict[tuple[int, int], list[str]]


@dataclass(frozen=True)
class Curve:
    """A curve: its mark, what it is called, and positive values by x; what is not positive has no logarithm."""

    mark: str
    name: str
    values: Mapping[int, float]

    @property
    def points(self) -> list[tuple[float, float]]:
        """(x, log value) in ascending x."""
        return [(x, math.log(y)) for x, y in sorted(self.values.items()) if 0 < y < math.inf]


@dataclass(frozen=True)
class _Box:
    """What is shown: `columns` from `left` to `right`, `rows` from `top` to `low`."""

    left: float
    right: float
    low: float
    top: float
    columns: int
    rows: int

    def column(self, x: float) -> int:
        return round((x - self.left) / ((self.right - self.left) or 1) * (self.columns - 1))

    def row(self, y: float) -> int:
        return round((self.top - y) / (self.top - self.low) * (self.rows - 1))

    def x(self, column: float) -> float:
        return self.left + (self.right - self.left) * column / (self.columns - 1)

    def y(self, row: int) -> float:
        return self.top - (self.top - self.low) * row / (self.rows - 1)


def overlaid(
    curves: Sequence[Curve], width: int, height: int = HEIGHT, what: str = "loss", x: str = "step"
) -> list[str]:  # fmt: skip
    """The lines of a picture of at most `width` characters; ASCII alone, but for the names.

    Where curves share a place their marks take turns, from column to column.
    """
    drawn = [points for curve in curves if (points := curve.points)]
    if not drawn:
        return [f"no {what} to be drawn"]
    columns = min(max(width, LEAST_WIDTH), GREATEST_WIDTH) - LABEL - 2
    box = _box(drawn, columns, height)
    cells: Cells = {}
    for curve in curves:
        for place in dict.fromkeys(_places(curve.points, box)):
            cells.setdefault(place, []).append(curve.mark)
    legend = [f"{curve.mark}  {curve.name}" for curve in curves]
    title = f"{what}, logarithmic scale"
    return [title, *_rows(cells, box), *_horizontal(box, x), *(legend if len(curves) > 1 else [])]


def _box(curves: Sequence[Sequence[tuple[float, float]]], columns: int, rows: int) -> _Box:
    """Around all points; a band of a factor of 2 around what is flat."""
    xs, ys = ([point[axis] for points in curves for point in points] for axis in (0, 1))
    low, top = min(ys), max(ys)
    if top - low < 1e-12:
        low, top = low - math.log(2) / 2, top + math.log(2) / 2
    return _Box(min(xs), max(xs), low, top, columns, rows)


def _places(points: Sequence[tuple[float, float]], box: _Box) -> Iterator[tuple[int, int]]:
    """(row, column) of the points, and of the lines between them."""
    for x, y in points:
        yield box.row(y), box.column(x)
    for (x0, y0), (x1, y1) in pairwise(points):
        for column in range(box.column(x0) + 1, box.column(x1)):
            share = (box.x(column) - x0) / (x1 - x0)
            yield box.row(y0 + share * (y1 - y0)), column


def _rows(cells: Cells, box: _Box) -> Iterator[str]:
    for row in range(box.rows):
        label = f"{math.exp(box.y(row)):.3g}" if row % EVERY == 0 else ""
        marks = (cells.get((row, column), [" "]) for column in range(box.columns))
        line = "".join(each[column % len(each)] for column, each in enumerate(marks))
        yield f"{label:>{LABEL}} |{line}".rstrip()


def _horizontal(box: _Box, name: str) -> Iterator[str]:
    """The axis, and below it the least, the middle and the greatest x, and its name."""
    indent = " " * (LABEL + 1)
    yield f"{indent}+{'-' * box.columns}"
    left, middle, right = (f"{round(box.x((box.columns - 1) * share))}" for share in (0, 0.5, 1))
    if box.left == box.right:
        middle = right = ""
    half = box.columns // 2
    yield f"{indent} {left:<{half - len(middle) // 2}}{middle}".ljust(LABEL + 2 + box.columns - len(right)) + right
    yield f"{indent} {name:^{box.columns}}".rstrip()
