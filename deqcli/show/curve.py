"""A curve in characters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

Points = Sequence[tuple[float, float]]

BRAILLE, DOTS = 0x2800, ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""The empty braille character, and what each dot, by row and column, adds to it."""


def curve(points: Points, columns: int, rows: int, plain: bool = False) -> list[str]:
    """The lines between (x, y) in ascending x as `rows` lines of `columns` braille characters, stars where `plain`.

    The axes are fitted: the first and the last x are at the edges, the least and the largest y at bottom and top.
    """
    wide, high = (1, 1) if plain else (2, 4)
    spans = _spans(_scaled(points, wide * columns, high * rows))
    cells = [[0] * columns for _ in range(rows)]
    for x, (low, top) in spans.items():
        for y in range(low, top + 1):
            row = high * rows - 1 - y
            cells[row // high][x // wide] |= 1 if plain else DOTS[row % high][x % wide]
    full = "*" if plain else None
    return ["".join((full or chr(BRAILLE + cell)) if cell else " " for cell in line) for line in cells]


def _scaled(points: Points, wide: int, high: int) -> list[tuple[int, float]]:
    """The points in dots, from 0 to wide - 1 and high - 1; a curve without extent is in the middle."""
    left, right = points[0][0], points[-1][0]
    low, top = min(y for _, y in points), max(y for _, y in points)
    across = (wide - 1) / (right - left) if right > left else 0.0
    if top > low:
        up = (high - 1) / (top - low)
        return [(round((x - left) * across), (y - low) * up) for x, y in points]
    return [(round((x - left) * across), (high - 1) / 2) for x, _ in points]


def _spans(dots: Sequence[tuple[int, float]]) -> dict[int, tuple[int, int]]:
    """The lowest and the highest dot of each column that the lines between the points go through."""
    spans: dict[int, tuple[int, int]] = {}
    for x, low, top in _pieces(dots):
        before = spans.get(x, (low, top))
        spans[x] = min(low, before[0]), max(top, before[1])
    return spans


def _pieces(dots: Sequence[tuple[int, float]]) -> Iterator[tuple[int, int, int]]:
    yield dots[0][0], round(dots[0][1]), round(dots[0][1])
    for (x0, y0), (x1, y1) in pairwise(dots):
        slope, before = (y1 - y0) / max(1, x1 - x0), y0
        for x in range(min(x0 + 1, x1), x1 + 1):
            y = y1 if x == x1 else y0 + slope * (x - x0)
            yield x, round(min(before, y)), round(max(before, y))
            before = y
