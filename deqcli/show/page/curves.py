"""The curves of every panel, thinned for the page; what they are drawn from, and what it looks like as JSON."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from deqcli.recipe.axes import order
from deqcli.show.page.plots import lines
from deqcli.show.page.thinning import share, thin
from deqcli.show.panels import Panel
from deqcli.sweep.gather import Gathered

ROOM = 150_000
"""Points of all curves of a page together: 1.6 MB as text, a fraction of a second to draw."""

SMALLEST, LARGEST = 1e-37, 1e37
"""Sizes that float32 holds."""

FINE = 1e-3
"""A curve that varies by less than this part of its size is kept in float64: float32 would draw steps."""


@dataclass(frozen=True)
class Curve:
    """A curve of a panel as it is drawn: x and y of the points that are left of `count`."""

    run_id: str
    kind: str
    x: np.ndarray
    y: np.ndarray
    count: int


@dataclass(frozen=True)
class Drawn:
    """A panel with its curves; `summary` has a row for each, with first, least, greatest and last value."""

    panel: Panel
    curves: list[Curve]
    summary: pd.DataFrame

    @property
    def shown(self) -> int:
        """Points that are drawn."""
        return sum(len(curve.x) for curve in self.curves)

    @property
    def count(self) -> int:
        """Points that there are."""
        return sum(curve.count for curve in self.curves)


def draw(gathered: Gathered, panels: Sequence[Panel]) -> list[Drawn]:
    """Each panel with its curves, `ROOM` shared among all of them."""
    groups = [_groups(panel.curves(gathered)) for panel in panels]
    most = share([len(rows) for each in groups for rows in each], ROOM)
    return [
        Drawn(panel, [_curve(rows, panel.x, most) for rows in each], summary(each, gathered.keys, panel.x))
        for panel, each in zip(panels, groups, strict=True)
    ]


def _groups(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """The rows of each curve."""
    return [group for _, group in rows.groupby(["curve", "run_id"], sort=False)]


def _curve(rows: pd.DataFrame, x: str, most: int) -> Curve:
    xs, ys = rows[x].to_numpy(float), rows["value"].to_numpy(float)
    kept = thin(xs, ys, most)
    return Curve(str(rows["run_id"].iat[0]), str(rows["curve"].iat[0]), xs[kept], ys[kept], len(xs))


def summary(groups: Sequence[pd.DataFrame], keys: Sequence[str], x: str) -> pd.DataFrame:
    """Of each curve its first, least, greatest and last value, and where the least and the greatest are."""
    columns = [*keys, "curve", "first", "least", f"{x} of least", "greatest", f"{x} of greatest", "last"]
    return pd.DataFrame([[*_summed_up(rows, keys, x)] for rows in groups], columns=columns)


def _summed_up(rows: pd.DataFrame, keys: Sequence[str], x: str) -> Iterator[Any]:
    xs, values = rows[x].to_numpy(), rows["value"].to_numpy()
    low, high = values.argmin(), values.argmax()
    yield from (rows[key].iat[0] for key in (*keys, "curve"))
    yield from (values[0], values[low], xs[low], values[high], xs[high], values[-1])


@dataclass(frozen=True)
class Key:
    """What tells runs apart: its values in order, in words."""

    name: str
    values: list[str]


def keys(gathered: Gathered) -> list[Key]:
    """Width, seed and the further axes, with the values that the runs have."""
    return [Key(name, [words(each) for each in _values(gathered.runs[name])]) for name in gathered.keys[1:]]


def _values(column: pd.Series[Any]) -> list[Any]:
    known = column.drop_duplicates().tolist()
    return sorted((None if pd.isna(each) else each for each in known), key=order)


def words(value: object) -> str:
    """A value of a key for a person."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "-"
    return str(value).lower() if isinstance(value, (bool, np.bool_)) else str(value)


def as_json(gathered: Gathered, panels: Sequence[Drawn]) -> dict[str, Any]:
    """What the script of the page draws from.

    runs: [run_id, eta m, index of its value of each key]; curves: [run, kind, x, y], x and y indices into `arrays`.
    """
    found = keys(gathered)
    arrays = Arrays()
    places = {run: index for index, run in enumerate(gathered.runs["run_id"])}
    return {
        "keys": [{"name": key.name, "values": key.values} for key in found],
        "runs": list(_runs(gathered, found)),
        "panels": [_panel(each, places, arrays) for each in panels],
        "arrays": arrays.texts,
    }


def _runs(gathered: Gathered, found: Sequence[Key]) -> Iterator[list[Any]]:
    firsts = gathered.prediction.drop_duplicates("run_id").set_index("run_id")
    scales = (firsts["learning_rate"] * firsts["width"]).dropna()
    for row in gathered.runs.to_dict("records"):
        own = [key.values.index(words(row[key.name])) for key in found]
        scale = scales.get(row["run_id"])
        yield [row["run_id"], None if scale is None else float(scale), own]


def _panel(drawn: Drawn, places: dict[str, int], arrays: Arrays) -> dict[str, Any]:
    panel = drawn.panel
    kinds = list(panel.styles)
    return {
        "name": panel.name,
        "kinds": kinds,
        "lines": list(lines(panel).values()),
        "log": panel.vertical.log,
        "timed": panel.x == "step",
        "x": panel.horizontal.words,
        "y": panel.vertical.words,
        "reference": panel.reference,
        "curves": [
            [places[each.run_id], kinds.index(each.kind), arrays.add(each.x), arrays.add(each.y)]
            for each in drawn.curves
            if each.run_id in places
        ],
    }


class Arrays:
    """Arrays as text, each that is needed twice kept once: `u4:`, `f4:` or `f8:` and base64, little-endian."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._places: dict[str, int] = {}

    def add(self, values: np.ndarray) -> int:
        """The place of an array among the texts."""
        kind = precision(values)
        text = f"{kind}:{base64.b64encode(values.astype(f'<{kind}').tobytes()).decode()}"
        if text not in self._places:
            self._places[text] = len(self.texts)
            self.texts.append(text)
        return self._places[text]


def precision(values: np.ndarray) -> str:
    """The shortest kind of number that holds what of an array can be seen."""
    size = np.abs(values[values != 0])
    if not size.size:
        return "u4"
    if (values == np.floor(values)).all() and values.min() >= 0 and values.max() < 2**32:
        return "u4"
    fits = size.min() >= SMALLEST and size.max() <= LARGEST
    return "f4" if fits and values.max() - values.min() >= FINE * size.max() else "f8"
