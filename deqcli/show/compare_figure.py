"""The picture of a comparison: loss curves over one another, and below them how far each is from the first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deqcli.runs.files import replace_file
from deqcli.show.style import UNDATED, fitted, look, plain, styled
from deqcli.sweep.comparing import Comparison, Losses, relative_difference

WIDTH, HEIGHT, LEGEND_LINE = 5.5, 5.0, 0.17
"""Inches: of the figure, of its panels, and what each line of the legend adds."""

ALIKE = {"marker": "", "linewidth": 1.0}


def draw_comparison(comparison: Comparison, path: Path) -> None:
    """Write the picture in the format of the path's suffix. The same runs give the same bytes.

    Raises: OSError.
    """
    form = path.suffix.removeprefix(".").lower()
    with styled():
        figure = _figure(comparison)

        def write(beside: Path) -> None:
            figure.savefig(beside, format=form, metadata=UNDATED[form])

        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, write)


def _figure(comparison: Comparison) -> Figure:
    """The losses on a logarithmic axis, and below them |loss - first| / max(loss, first)."""
    size = mpl.rcParams["font.size"]
    names = [fitted(plain(name), size, 0.8 * WIDTH) for name in comparison.marked]
    lines = sum(name.count("\n") + 1 for name in names)
    figure = Figure(figsize=(WIDTH, HEIGHT + LEGEND_LINE * lines), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    first = comparison.losses[0]
    for index, (losses, name) in enumerate(zip(comparison.losses, names, strict=True)):
        own: dict[str, Any] = {**look(index, len(names)), **ALIKE}
        above.plot(*_points(losses), label=name, **own)
        common = losses.keys() & first.keys()
        below.plot(*_points({step: relative_difference(losses[step], first[step]) for step in common}), **own)
    if comparison.tolerance > 0:
        below.axhline(comparison.tolerance, color="grey", linewidth=0.8, linestyle=":")
    _label(above, "loss")
    _label(below, "relative difference from A")
    below.set_xlabel("step")
    figure.legend(loc="outside upper center", frameon=False, fontsize=size, borderaxespad=0.8)
    return figure


def _points(values: Losses) -> tuple[list[int], list[float]]:
    """(steps, values) in ascending steps; what is 0 is a gap in the line."""
    steps = sorted(values)
    return steps, [values[step] if values[step] > 0 else float("nan") for step in steps]


def _label(axes: Axes, what: str) -> None:
    axes.set_ylabel(what)
    if any(np.isfinite(np.asarray(line.get_ydata(), float)).any() for line in axes.get_lines()):
        axes.set_yscale("log")
