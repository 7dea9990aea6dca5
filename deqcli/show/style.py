"""How figures look, and what they share: a line for each width, a legend, files that come out the same each time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deqcli.runs.files import replace_file

FOLDER = "figures"
FORMATS = ("png", "svg")
PANEL_INCHES = (3.4, 2.6)  # the column of a two-column paper

STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "legend.fontsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.2,
    "svg.hashsalt": "deqcli",
    "figure.constrained_layout.use": True,
}
DASHES: tuple[object, ...] = ("-", (0, (5, 1.5)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (7, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
MARKERS_PER_LINE = 6
ENTRIES_PER_LINE = 5
THIN = 0.6
WIDTHS = "widths"
"""The attribute of a part of a table that has the widths of the whole."""


def by_width(rows: pd.DataFrame) -> Iterator[tuple[int, Any, pd.DataFrame]]:
    """(index, colour, rows) of each width, ascending, from dark to light; those of a part as in the whole."""
    widths = sorted(rows.attrs.get(WIDTHS, rows["width"].unique()))
    shades = mpl.colormaps["viridis"](np.linspace(0.0, 0.85, len(widths)))
    for index, width in enumerate(widths):
        own = rows[rows["width"] == width]
        if not own.empty:
            yield index, shades[index], own


def thick_lines(axes: Axes, rows: pd.DataFrame, x: str, y: str, at: str = "step") -> None:
    """A line for each width: the mean over seeds at each `at`, in a band from the least to the greatest."""
    count = rows["width"].nunique()
    for index, shade, own in by_width(rows):
        groups = own.groupby(at)
        mean, low, high, where = groups[y].mean(), groups[y].min(), groups[y].max(), groups[x].mean()
        every = max(1, len(mean) // MARKERS_PER_LINE)
        axes.plot(
            where, mean, label=str(own["width"].iloc[0]), color=shade, linestyle=DASHES[index % len(DASHES)],
            marker=MARKERS[index % len(MARKERS)], markersize=3.5, markevery=(every * index // count, every),
        )  # fmt: skip
        if (high > low).any():
            axes.fill_between(where, low, high, color=shade, alpha=0.2, linewidth=0)


def thin_lines(axes: Axes, rows: pd.DataFrame, x: str, y: str, at: str = "step") -> None:
    """A thin line for each width, behind all others and not in the legend: the mean over seeds."""
    for _, shade, own in by_width(rows):
        groups = own.groupby(at)
        axes.plot(groups[x].mean(), groups[y].mean(), color=shade, linewidth=THIN, zorder=1)


def legend(figure: Figure, title: str) -> None:
    """One legend above all panels, to be read line by line (matplotlib fills it column by column)."""
    found = [each.get_legend_handles_labels() for each in figure.axes]
    known = {name: line for lines, names in found for line, name in zip(lines, names, strict=True)}
    names = sorted(known, key=lambda name: (len(name), name))
    lines = [known[name] for name in names]
    columns = min(len(names), ENTRIES_PER_LINE)
    order = [index for column in range(columns) for index in range(column, len(names), columns)]
    drawn = figure.legend(
        [lines[index] for index in order],
        [names[index] for index in order],
        title=title,
        loc="outside upper center",
        ncols=columns,
        frameon=False,
        handlelength=2.4,
        columnspacing=1.0,
    )
    drawn.get_title().set_multialignment("center")


def panels(layout: Sequence[Sequence[Callable[[Axes], None]]], title: str) -> Figure:
    """A figure of rows of panels, each drawn by its function, with a legend of the widths of the first."""
    width, height = PANEL_INCHES
    figure = Figure(figsize=(width * len(layout[0]), height * len(layout)))
    grid = figure.subplots(len(layout), len(layout[0]), squeeze=False)
    for axes, draw in zip(grid.flat, (draw for row in layout for draw in row), strict=True):
        draw(axes)
    legend(figure, title)
    return figure


def save(figure: Figure, folder: Path, name: str) -> list[str]:
    """Write a figure in every format; names relative to the folder. The same figure gives the same bytes."""
    (folder / FOLDER).mkdir(exist_ok=True)
    return [_save(figure, folder, f"{FOLDER}/{name}.{form}", form) for form in FORMATS]


def _save(figure: Figure, folder: Path, relative: str, form: str) -> str:
    metadata = {"Date": None} if form == "svg" else {"Software": None}

    def write(beside: Path) -> None:
        figure.savefig(beside, format=form, dpi=300, metadata=metadata)

    replace_file(folder / relative, write)
    return relative


def styled() -> Any:
    """The context in which figures are made and saved."""
    return mpl.rc_context(STYLE)
