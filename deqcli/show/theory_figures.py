"""Figures of what the theory says: predicted loss curves, and finite depth beside the bounds of Theorems 3 to 5."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from deqcli.runs.files import LOSS, PREDICTION
from deqcli.show.figures import CONVERGED, logarithms
from deqcli.show.style import THIN, by_width, panels, save, styled, thick_lines, thin_lines

DEPTH_TITLES = {
    "population_truncation": r"$\|K - K^{(l)}\|_F$",
    "truncation": r"$\|G - G^{(l)}\|_F/m$",
    "tied_deviation": r"$\|G^{(l)}/m - K^{(l)}\|_F$",
    "untied_deviation": r"untied $\|G^{(l)}/m - K^{(l)}\|_F$",
}


def draw_prediction(folder: Path, measured: Path | None) -> Sequence[str]:
    """Predicted loss curves, in front of them what was measured, and the eigendirections that are left.

    Nothing is drawn where no predicted loss is finite.
    """
    rows = logarithms(pd.read_csv(folder / PREDICTION))
    if rows.empty:
        return []
    directions = pd.read_csv(folder / "directions.csv")
    curves = partial(_predicted, rows=rows) if measured is None else partial(_beside, rows=rows, measured=measured)
    with styled():
        title = f"{_title(rows)}\nwidth $m$; predicted from {_kernel(rows)}{_what(rows, measured)}"
        figure = panels([[curves, partial(_directions, rows=directions)]], title)
        return save(figure, folder, "prediction")


def _title(rows: pd.DataFrame) -> str:
    return ", ".join(str(rows[column].iloc[0]) for column in ("recipe", "dataset", "activation"))


def _kernel(rows: pd.DataFrame) -> str:
    return {"H_inf": r"$H_\infty$", "H(0)": "$H(0)$"}[str(rows["kernel"].iloc[0])]


def _what(rows: pd.DataFrame, measured: Path | None) -> str:
    if measured is not None:
        return " (thin) and measured, band from least to greatest seed"
    return "; band from 5 to 95 % of draws, thin: their median" if rows["loss_low"].notna().any() else ""


def _predicted(axes: Axes, rows: pd.DataFrame) -> None:
    """Predicted log(loss) against step, with its band over random initialisations where there is one."""
    thick_lines(axes, rows, "step", "log_loss")
    for _, shade, own in by_width(rows[rows["loss_low"] > 0]):
        steps, low, high = own["step"], np.log(own["loss_low"]), np.log(own["loss_high"])
        axes.fill_between(steps, low, high, color=shade, alpha=0.15, linewidth=0)
        axes.plot(steps, np.log(own["loss_median"]), color=shade, linewidth=THIN, zorder=1)
    axes.set_xlabel("step")
    axes.set_ylabel("log(loss)")


def _beside(axes: Axes, rows: pd.DataFrame, measured: Path) -> None:
    """Measured log(loss) against step, in front of what was predicted."""
    loss = pd.read_csv(measured / LOSS)
    thin_lines(axes, rows, "step", "log_loss")
    thick_lines(axes, logarithms(loss[loss["status"] == CONVERGED]), "step", "log_loss")
    axes.set_xlabel("step")
    axes.set_ylabel("log(loss)")


def _directions(axes: Axes, rows: pd.DataFrame) -> None:
    """The share of the loss that eigendirections hold up to each eigenvalue: dotted at the start, full at the end."""
    for _, shade, own in by_width(rows[rows["eigenvalue"] > 0]):
        means = own.groupby("index")[["eigenvalue", "initial_loss", "final_loss"]].mean()
        for column, style in (("initial_loss", ":"), ("final_loss", "-")):
            share = means[column].cumsum() / means[column].sum()
            axes.plot(means["eigenvalue"], share, color=shade, linestyle=style, linewidth=1.0)
    axes.set_xscale("log")
    axes.set_xlim(*_decades(axes.get_xlim()))
    axes.set_xlabel("eigenvalue of the kernel")
    axes.set_ylabel("share of the loss below it\n(dotted: step 0)")


def draw_depth(folder: Path) -> Sequence[str]:
    """The four quantities of depth.csv against depth; dotted, the theorems' bounds."""
    if not (folder / "depth.csv").exists():
        return []
    rows = pd.read_csv(folder / "depth.csv")
    draws = [partial(_quantity, rows=rows[rows["quantity"] == name], label=DEPTH_TITLES[name]) for name in DEPTH_TITLES]
    seeds = rows["seed"].nunique()
    band = f"; band from least to greatest of {seeds} seeds" if seeds > 1 else ""
    with styled():
        figure = panels([draws[:2], draws[2:]], f"{_title(rows)}\nwidth $m${band}; dotted: bounds of Theorems 3, 4, 5")
        return save(figure, folder, "depth")


def _decades(limits: tuple[float, float]) -> tuple[float, float]:
    """Limits at whole decades, which have labels."""
    low, high = limits
    return 10.0 ** math.floor(math.log10(low)), 10.0 ** math.ceil(math.log10(high))


def _quantity(axes: Axes, rows: pd.DataFrame, label: str) -> None:
    """One quantity against depth, on a logarithmic scale, with its bound."""
    thick_lines(axes, rows[rows["value"] > 0], "depth", "value", at="depth")
    for _, shade, own in by_width(rows):
        bound = own.groupby("depth")["bound"].mean()
        axes.plot(bound.index, bound, color=shade, linestyle=":", linewidth=THIN, zorder=1)
    axes.set_yscale("log")
    axes.set_ylim(*_decades(axes.get_ylim()))
    axes.set_xlabel("depth $l$")
    axes.set_ylabel(label)
