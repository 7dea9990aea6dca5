"""Figures for papers: every panel of `deqcli.show.panels`, and Figure 1 of Ling et al. 2023, their data beside them.

A line is the mean over seeds of a curve of a width, its band from the least to the greatest. What is shown on a
logarithmic scale is averaged there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from operator import eq
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from deqcli.errors import Refused
from deqcli.runs.files import replace_text
from deqcli.runs.records import cell as spelled
from deqcli.show.panels import PANELS, Panel
from deqcli.show.paper import FigureOptions, known_names, layout_of, parse_size
from deqcli.show.sheet import COUNTED, Cell, Size, across, logarithmic, sheet
from deqcli.show.style import FOLDER, plain, save, styled, titled
from deqcli.sweep.gather import Gathered, gather
from deqcli.sweep.stored import open_stored

AT_THE_END, FORMATS_AT_THE_END = ("figure-1", "rescaled"), ("png", "svg")
"""What a sweep draws when it ends; other figures, and PDF, which takes as long as the rest, wait to be asked for."""

AVERAGED_AT = {"time": "step", "eigenvalue": "index"}
"""The column whose equal values are averaged, where it is not the horizontal one."""

MOST_NAMED = 3
STATISTICS = ("value", "low", "high", "seeds")


def draw_figures(sweep_folder: Path) -> Sequence[str]:
    """Write the figures that the end of a sweep leaves; names relative to its folder.

    Nothing is drawn of a sweep in which no row converged. Raises: CorruptArtefact, OSError.
    """
    gathered = gather([open_stored(sweep_folder)])
    return write_figures(gathered, sweep_folder, FigureOptions(FORMATS_AT_THE_END), AT_THE_END)


def write_figures(
    gathered: Gathered, folder: Path, options: FigureOptions, names: Sequence[str] | None = None
) -> list[str]:
    """Write figures (None: every one) into figures/ of a folder; names relative to it, each figure's CSV last.

    The same tables give the same bytes. A figure of which there is nothing to draw is left out.
    Raises: Refused (a name, a title, a size without room), CorruptArtefact, OSError.
    """
    written, points = [], _points(gathered)
    with styled():
        for name in known_names(names):
            rows = _cells(gathered, name, points, options.size)
            if rows:
                drawn = _sheet(gathered, rows, options)
                written += write(drawn, rows, folder, name, options.formats)
    return written


def write(figure: Figure, rows: Sequence[Sequence[Cell]], folder: Path, name: str, formats: Sequence[str]) -> list[str]:
    """A figure in each format, and beside it the numbers that it shows."""
    written = save(figure, folder, name, formats)
    beside = f"{FOLDER}/{name}.csv"
    replace_text(folder / beside, csv_of(rows))
    return [*written, beside]


def plot(
    gathered: Gathered, name: str = "figure-1", size: str | Size | None = None, title: str | None = None
) -> Figure:  # fmt: skip
    """A figure to be shown, changed or saved by the caller. `size` is as for `parse_size`, or inches.

    Raises: Refused, also where there is nothing to draw; CorruptArtefact.
    """
    options = FigureOptions(size=parse_size(size) if isinstance(size, str) else size, title=title)
    (known,) = known_names([name])
    with styled():
        rows = _cells(gathered, known, _points(gathered), options.size)
        if not rows:
            raise Refused(f"there is nothing to draw in {known}: no run has numbers for it")
        return _sheet(gathered, rows, options)


def _sheet(gathered: Gathered, rows: Sequence[Sequence[Cell]], options: FigureOptions) -> Figure:
    runs = gathered.runs
    return sheet(rows, heading(runs, rows, options.title), runs["width"].unique(), options.size)


@dataclass(frozen=True)
class Facet:
    """A combination of the values of the axes beyond width and seed."""

    values: Mapping[str, Any]

    @property
    def name(self) -> str:
        """As the title of its panels; a key that is not set, as one of another solver, is told only if none is."""
        pairs = {key.partition(".")[2] or key: value for key, value in self.values.items()}
        told = [f"{key} {_whole(value)}" for key, value in pairs.items() if not _missing(value)]
        return plain(", ".join(told or [f"{key} not set" for key in pairs]))

    def of(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The rows that have its values."""
        for key, value in self.values.items():
            same = rows[key].isna() if _missing(value) else rows[key].map(partial(eq, value))
            rows = rows[same.astype(bool)]
        return rows


def _whole(value: object) -> object:
    """A number that is whole as such: beside missing ones a table has it as a float."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def facets(gathered: Gathered) -> list[list[Facet]]:
    """A facet for each combination: the first axis side by side, the others one below another.

    Where the combinations are no full product, as those of several sweeps need not be, all side by side.
    """
    if not gathered.axes:
        return [[Facet({})]]
    first, *others = gathered.axes
    combinations: dict[tuple[str, ...], Facet] = {}
    for values in gathered.runs[gathered.axes].to_dict("records"):
        combinations.setdefault(tuple(map(str, values.values())), Facet({str(key): values[key] for key in values}))
    found = list(combinations.values())
    order = list(dict.fromkeys(str(facet.values[first]) for facet in found))
    rows: dict[tuple[str, ...], list[Facet]] = {}
    for facet in found:
        rows.setdefault(tuple(str(facet.values[key]) for key in others), []).append(facet)
    if len(found) < len(rows) * len(order):
        return [found]
    return [sorted(row, key=lambda facet: order.index(str(facet.values[first]))) for row in rows.values()]


def _points(gathered: Gathered) -> Callable[[str], pd.DataFrame]:
    """The curves of each panel by its name, worked out once."""
    return cache(lambda name: PANELS[name].curves(gathered))


def _cells(
    gathered: Gathered, figure: str, points: Callable[[str], pd.DataFrame], size: Size | None
) -> list[list[Cell]]:
    """The panels of a figure row by row; none where one of its panels has no thick line."""
    layout = layout_of(figure)
    rows = [
        [_cell(PANELS[name], facet, points(name), layout.curves) for facet in parts for name in names]
        for parts in _wrapped(facets(gathered), across(size) // len(layout.rows[0]))
        for names in layout.rows
    ]
    seen = {cell.panel.name for row in rows for cell in row if cell.has("thick")}
    return rows if seen.issuperset(name for names in layout.rows for name in names) else []


def _wrapped(rows: Sequence[Sequence[Facet]], most: int) -> list[Sequence[Facet]]:
    """Rows of no more than so many facets, those that are longer in several of about one length."""
    found: list[Sequence[Facet]] = []
    for row in rows:
        length = math.ceil(len(row) / math.ceil(len(row) / max(1, most)))
        found.extend(row[start : start + length] for start in range(0, len(row), length))
    return found


def _cell(panel: Panel, facet: Facet, curves: pd.DataFrame, only: Sequence[str] | None) -> Cell:
    own = facet.of(curves)
    shown = own if only is None else own[own["curve"].isin(only)]
    return Cell(panel, averaged(panel, shown), facet.name, facet.values)


def averaged(panel: Panel, curves: pd.DataFrame) -> pd.DataFrame:
    """The points of a panel: for each curve, width and place the mean over seeds, the least and the greatest of them.

    A curve that has `low` and `high` of its own keeps them. Means of what is shown on a logarithmic scale are
    geometric; where the logarithm itself is shown (`natural`), it is what is averaged.
    """
    at = AVERAGED_AT.get(panel.x, panel.x)
    rows = curves[np.isfinite(curves[[panel.x, "value"]].astype(float)).all(axis=1)]
    if panel.vertical.log:
        rows = rows[rows["value"] > 0]
    into = np.log if panel.vertical.log else np.asarray
    value = into(rows["value"].astype(float))
    sides = {side: rows[side].fillna(rows["value"]) if side in rows else rows["value"] for side in ("low", "high")}
    bounds = {side: into(own.astype(float)) for side, own in sides.items()}
    places = list(dict.fromkeys([at, panel.x, *(["time"] if "time" in rows else [])]))
    keys = pd.DataFrame({"curve": rows["curve"], "width": rows["width"], **{key: rows[key] for key in places}})
    groups = keys.assign(value=value, seeds=1, **bounds).groupby(["curve", "width", at], sort=True)
    also = {key: (key, "mean") for key in places if key != at}
    means = groups.agg(
        **also, value=("value", "mean"), low=("low", "min"), high=("high", "max"), seeds=("seeds", "sum")
    ).reset_index()
    order = list(panel.styles)
    means = means.sort_values("curve", key=lambda curves: curves.map(order.index), kind="stable", ignore_index=True)
    if logarithmic(panel.vertical):
        means[["value", "low", "high"]] = np.exp(means[["value", "low", "high"]])
    return means


def csv_of(rows: Sequence[Sequence[Cell]]) -> str:
    """The points of a figure as tidy CSV: panel, quantity, further axes, width, curve, places, statistics."""
    joined = pd.concat([_named(cell) for row in rows for cell in row if len(cell.points)], ignore_index=True)
    leading = ["panel", "quantity", *rows[0][0].values, "width", "curve"]
    places = [column for column in joined.columns if column not in (*leading, *STATISTICS)]
    joined = joined.astype({column: "Int64" for column in places if column in COUNTED})
    return joined[[*leading, *places, *STATISTICS]].to_csv(index=False, lineterminator="\n")


def _named(cell: Cell) -> pd.DataFrame:
    """The points of a panel with what tells them from those of another."""
    vertical = cell.panel.vertical
    quantity = f"log({vertical.words})" if vertical.natural else vertical.words
    named = cell.points.assign(panel=cell.panel.name, quantity=quantity)
    for key, value in cell.values.items():
        named[key] = spelled(value)
    return named


def heading(runs: pd.DataFrame, rows: Sequence[Sequence[Cell]], title: str | None) -> list[str]:
    """The title of a figure, and what its lines and bands are."""
    seeds = max((int(cell.points["seeds"].max()) for row in rows for cell in row if cell.has("thick")), default=0)
    band = f"; band from least to greatest of {seeds} seeds" if seeds > 1 else ""
    return [usual_title(runs) if title is None else titled(title), f"width $m${band}"]


def usual_title(rows: pd.DataFrame) -> str:
    """Recipe, data and activation, as the rows have them."""
    return plain(", ".join(_listed(rows[key].unique().tolist()) for key in ("recipe", "dataset", "activation")))


def _listed(names: Sequence[object]) -> str:
    return "/".join([*map(str, names[:MOST_NAMED]), *(["..."] if len(names) > MOST_NAMED else [])])
