"""Figures of a sweep, as in Figure 1 of Ling et al. 2023: log(loss) and ||W||_2 against step, a line for each width.

To add one, write a function that draws on an `Axes` and name it in `PANELS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deqcli.runs.files import LOSS, SPECTRAL, replace_file

FOLDER = "figures"
FORMATS = ("png", "svg")
PANEL_INCHES = (3.4, 2.6)  # the column of a two-column paper
COMBINED = "figure-1"

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
WIDTHS_PER_LINE = 5
LEAST_NORM_SPAN = 0.004


class Sweep:
    """The tables of a sweep, as the figures want them: converged rows, by width and seed."""

    def __init__(self, folder: Path) -> None:
        loss = pd.read_csv(folder / LOSS)
        drawn = (loss["status"] == "converged") & (loss["loss"] > 0)
        self.loss = loss[drawn].assign(log_loss=lambda rows: np.log(rows["loss"]))
        self.spectral = pd.read_csv(folder / SPECTRAL)

    @property
    def caption(self) -> str:
        """What a line is, and what its band."""
        seeds = self.loss["seed"].nunique()
        return "width $m$" + (f"; band from least to greatest of {seeds} seeds" if seeds > 1 else "")

    @property
    def title(self) -> str:
        """Recipe and data set, from the rows."""
        return ", ".join(str(self.loss[column].iloc[0]) for column in ("recipe", "dataset", "activation"))


def panel_loss(axes: Axes, sweep: Sweep) -> None:
    """log(loss) against step."""
    _lines(axes, sweep.loss, "log_loss")
    axes.set_ylabel(r"log(loss)")


def panel_spectral_norm(axes: Axes, sweep: Sweep) -> None:
    """||W||_2 against step."""
    _lines(axes, sweep.spectral, "spectral_norm")
    axes.set_ylabel(r"$\|W\|_2$")
    axes.ticklabel_format(axis="y", useOffset=False)
    low, high = axes.get_ylim()
    if high - low < LEAST_NORM_SPAN:  # what is flat should look flat
        middle = (low + high) / 2
        axes.set_ylim(middle - LEAST_NORM_SPAN / 2, middle + LEAST_NORM_SPAN / 2)


PANELS: dict[str, Callable[[Axes, Sweep], None]] = {"loss": panel_loss, "spectral_norm": panel_spectral_norm}


def _lines(axes: Axes, rows: pd.DataFrame, column: str) -> None:
    """A line for each width: the mean over seeds, in a band from the least to the greatest."""
    widths = sorted(rows["width"].unique())
    shades = mpl.colormaps["viridis"](np.linspace(0.0, 0.85, len(widths)))
    for index, width in enumerate(widths):
        by_step = rows[rows["width"] == width].groupby("step")[column]
        mean, low, high = by_step.mean(), by_step.min(), by_step.max()
        every = max(1, len(mean) // MARKERS_PER_LINE)
        axes.plot(
            mean.index, mean, label=str(width), color=shades[index], linestyle=DASHES[index % len(DASHES)],
            marker=MARKERS[index % len(MARKERS)], markersize=3.5, markevery=(every * index // len(widths), every),
        )  # fmt: skip
        if (high > low).any():
            axes.fill_between(mean.index, low, high, color=shades[index], alpha=0.2, linewidth=0)
    axes.set_xlabel("step")


def draw_figures(sweep_folder: Path) -> Sequence[str]:
    """Write every panel, and all of them above each other, as PNG and SVG; names relative to the sweep's folder.

    The same tables give the same bytes. Nothing is drawn of a sweep in which no row converged.
    """
    sweep = Sweep(sweep_folder)
    if sweep.loss.empty or sweep.spectral.empty:
        return []
    (sweep_folder / FOLDER).mkdir(exist_ok=True)
    layouts = {COMBINED: list(PANELS), **{name: [name] for name in PANELS}}
    with mpl.rc_context(STYLE):
        figures = {name: _figure(sweep, panels) for name, panels in layouts.items()}
        return [_save(figure, sweep_folder, name, form) for name, figure in figures.items() for form in FORMATS]


def _figure(sweep: Sweep, panels: Sequence[str]) -> Figure:
    width, height = PANEL_INCHES
    figure = Figure(figsize=(width, height * len(panels)))
    for axes, panel in zip(figure.subplots(len(panels), 1, squeeze=False)[:, 0], panels, strict=True):
        PANELS[panel](axes, sweep)
    _legend(figure, f"{sweep.title}\n{sweep.caption}")
    return figure


def _legend(figure: Figure, title: str) -> None:
    """One legend above all panels, to be read line by line (matplotlib fills it column by column)."""
    lines, widths = figure.axes[0].get_legend_handles_labels()
    columns = min(len(widths), WIDTHS_PER_LINE)
    order = [index for column in range(columns) for index in range(column, len(widths), columns)]
    legend = figure.legend(
        [lines[index] for index in order],
        [widths[index] for index in order],
        title=title,
        loc="outside upper center",
        ncols=columns,
        frameon=False,
        handlelength=2.4,
        columnspacing=1.0,
    )
    legend.get_title().set_multialignment("center")


def _save(figure: Figure, folder: Path, name: str, form: str) -> str:
    relative = f"{FOLDER}/{name}.{form}"
    metadata = {"Date": None} if form == "svg" else {"Software": None}

    def write(beside: Path) -> None:
        figure.savefig(beside, format=form, dpi=300, metadata=metadata)

    replace_file(folder / relative, write)
    return relative
