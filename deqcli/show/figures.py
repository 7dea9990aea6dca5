"""Figures of a sweep, as in Figure 1 of Ling et al. 2023: log(loss) and ||W||_2 against step, a line for each width.

To add one, write a function that draws on an `Axes` and name it in `PANELS`, and in `LAYOUTS` where it is not alone.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deqcli.runs.files import LOSS, PREDICTION, RUNS, SPECTRAL
from deqcli.runs.records import SPECTRAL_COLUMNS
from deqcli.show.style import WIDTHS, panels, save, styled, thick_lines, thin_lines

LEAST_NORM_SPAN = 0.004
FAR_ABOVE = 7.0
"""In log(loss), a factor of a thousand: a prediction that diverges is drawn no further above what was measured."""

CONVERGED = "converged"


@dataclass(frozen=True)
class Sweep:
    """The tables of a sweep, as the figures want them: converged rows, by width and seed, and what was predicted."""

    loss: pd.DataFrame
    spectral: pd.DataFrame
    prediction: pd.DataFrame
    runs: pd.DataFrame
    name: str = ""
    """Of a part: the values that its runs have on the further axes."""

    @classmethod
    def read(cls, folder: Path) -> Self:
        """From the folder of a sweep."""
        loss, prediction = pd.read_csv(folder / LOSS), pd.read_csv(folder / PREDICTION)
        rates = prediction.drop_duplicates("run_id").set_index("run_id")["learning_rate"]
        loss = logarithms(loss[loss["status"] == CONVERGED])
        loss["time"] = loss["run_id"].map(rates) * loss["width"] * loss["step"]
        prediction = logarithms(prediction)
        seen = prediction["log_loss"] <= loss["log_loss"].max() + FAR_ABOVE
        return cls(loss, pd.read_csv(folder / SPECTRAL), prediction[seen], pd.read_csv(folder / RUNS))

    @property
    def axes(self) -> list[str]:
        """The axes beyond widths and seeds: columns of the merged tables that a run's own have not."""
        return [column for column in self.spectral.columns if column not in SPECTRAL_COLUMNS]

    def facets(self) -> list[list[Self]]:
        """A part for each combination of values: the first axis side by side, the others one below another."""
        if not self.axes:
            return [[self]]
        first, others = self.axes[0], self.axes[1:]
        across = self.runs[first].drop_duplicates().tolist()
        down = self.runs[others].drop_duplicates().to_dict("records") if others else [{}]
        return [[self._part({first: value, **row}) for value in across] for row in down]

    def _part(self, values: Mapping[Hashable, Any]) -> Self:
        def of(rows: pd.DataFrame) -> pd.DataFrame:
            widths = rows["width"].unique().tolist()
            for key, value in values.items():
                rows = rows[rows[key] == value]
            rows.attrs[WIDTHS] = widths
            return rows

        name = ", ".join(f"{str(key).partition('.')[2]} {value}" for key, value in values.items())
        return replace(self, loss=of(self.loss), spectral=of(self.spectral), prediction=of(self.prediction), name=name)

    @property
    def caption(self) -> str:
        """What a line is, and what its band."""
        seeds = self.loss["seed"].nunique()
        band = f"; band from least to greatest of {seeds} seeds" if seeds > 1 else ""
        return f"width $m${band}"

    @property
    def title(self) -> str:
        """Recipe and data set, from the rows."""
        return ", ".join(str(self.loss[column].iloc[0]) for column in ("recipe", "dataset", "activation"))


def logarithms(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows whose loss has a logarithm, with it as `log_loss`."""
    positive = rows[rows["loss"] > 0]
    return positive.assign(log_loss=np.log(positive["loss"]))


def panel_loss(axes: Axes, sweep: Sweep) -> None:
    """log(loss) against step, in front of what was predicted."""
    _losses(axes, sweep, "step")
    axes.set_xlabel("step")


def panel_loss_rescaled(axes: Axes, sweep: Sweep) -> None:
    """log(loss) against eta m step, the time of the wide limit: what still differs there is the finite width."""
    _losses(axes, sweep, "time")
    axes.set_xlabel(r"$\eta \, m \cdot$ step")


def _losses(axes: Axes, sweep: Sweep, x: str) -> None:
    thin_lines(axes, sweep.prediction, x, "log_loss")
    thick_lines(axes, sweep.loss, x, "log_loss")
    axes.set_ylabel(r"log(loss)")


def panel_spectral_norm(axes: Axes, sweep: Sweep) -> None:
    """||W||_2 against step."""
    thick_lines(axes, sweep.spectral, "step", "spectral_norm")
    axes.set_xlabel("step")
    axes.set_ylabel(r"$\|W\|_2$")
    axes.ticklabel_format(axis="y", useOffset=False)
    low, high = axes.get_ylim()
    if high - low < LEAST_NORM_SPAN:  # what is flat should look flat
        middle = (low + high) / 2
        axes.set_ylim(middle - LEAST_NORM_SPAN / 2, middle + LEAST_NORM_SPAN / 2)


PANELS: dict[str, Callable[[Axes, Sweep], None]] = {
    "loss": panel_loss,
    "loss_rescaled": panel_loss_rescaled,
    "spectral_norm": panel_spectral_norm,
}
PREDICTED = (panel_loss, panel_loss_rescaled)
"""Panels with thin lines."""

LAYOUTS: dict[str, list[list[str]]] = {
    "figure-1": [["loss"], ["spectral_norm"]],
    "rescaled": [["loss", "loss_rescaled"]],
    **{name: [[name]] for name in PANELS},
}
"""The panels of each figure, row by row."""


def draw_figures(sweep_folder: Path) -> Sequence[str]:
    """Write every figure as PNG and SVG; names relative to the sweep's folder.

    The same tables give the same bytes. Nothing is drawn of a sweep in which no row converged.
    """
    sweep = Sweep.read(sweep_folder)
    if sweep.loss.empty or sweep.spectral.empty:
        return []
    with styled():
        return [name for figure in LAYOUTS for name in save(draw(sweep, figure), sweep_folder, figure)]


def draw(sweep: Sweep, figure: str) -> Figure:
    """One of the figures."""
    names = [[(part, name) for part in parts for name in row] for parts in sweep.facets() for row in LAYOUTS[figure]]
    layout = [[partial(_panel, part, name) for part, name in row] for row in names]
    predicted = any(PANELS[name] in PREDICTED for row in LAYOUTS[figure] for name in row)
    lines = [sweep.title, sweep.caption, *(["thin lines: predicted from $H(0)$"] if predicted else [])]
    drawn = panels(layout, "\n".join(lines))
    _align(drawn.axes, [name for row in names for _, name in row])
    return drawn


def _panel(sweep: Sweep, name: str, axes: Axes) -> None:
    PANELS[name](axes, sweep)
    axes.set_title(sweep.name)


def _align(axes: Sequence[Axes], names: Sequence[str]) -> None:
    """Give panels of one kind the same limits, so that parts of a sweep can be compared."""
    for name in set(names):
        alike = [each for each, its in zip(axes, names, strict=True) if its == name]
        lows, highs = zip(*(each.get_ylim() for each in alike), strict=True)
        for each in alike:
            each.set_ylim(min(lows), max(highs))
