"""Panels on a sheet: their lines by width and by curve, one heading and legend above all of them, comparable limits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from deqcli.errors import Refused
from deqcli.show.panels import Panel, Quantity
from deqcli.show.style import fitted, inches, look, strokes

if TYPE_CHECKING:
    import pandas as pd

Size = tuple[float, float | None]
PANEL_WIDTH, PANEL_HEIGHT = 3.4, 2.3
"""Inches of a panel where no size is asked for: the column of a two-column paper."""

LEAST_WIDTH, LEAST_HEIGHT, MOST_HEIGHT = 1.5, 1.4, 2.8
MOST_ACROSS = 4
GAP, LABELS = 0.06, 0.65
TEXT, SMALL = 8.0, 7.0  # points, as in the style file
MARKERS_PER_LINE = 6
NEUTRAL = "0.25"
REFERENCE: Mapping[str, Any] = {"color": NEUTRAL, "linestyle": (0, (6, 2, 1, 2, 1, 2)), "linewidth": 0.7}
LEAST_SPANS = {"spectral_norm": 0.004, "lambda_ratio": 0.02}
"""What a vertical axis shows at least: what is flat should look flat."""

COUNTED = ("step", "index", "depth")
"""Horizontal columns of whole numbers."""

TEX = {"H(0)": "$H(0)$", "H(T)": "$H(T)$", "G(T)": "$G(T)$", "m K": "$m K$", "H_inf": r"$H_\infty$"}


@dataclass(frozen=True)
class Cell:
    """A panel on a sheet with the points that it shows, and what tells it from others of its kind.

    Columns of `points`: curve, width, the panel's x, value (its logarithm where the vertical quantity is shown so),
    low, high and seeds; each line in the order in which it is joined. `name` is the title above the panel, and `values`
    are those of the further axes.
    """

    panel: Panel
    points: pd.DataFrame
    name: str = ""
    values: Mapping[str, object] = field(default_factory=dict)

    def has(self, style: str) -> bool:
        """Whether there is a curve of this style."""
        return any(self.panel.styles[curve] == style for curve in self.points["curve"].unique())


class Drawn(Figure):
    """A figure that a notebook shows by itself, whatever its matplotlib is set to."""

    def _repr_png_(self) -> bytes:
        with BytesIO() as png:
            self.savefig(png, format="png", dpi=150)
            return png.getvalue()


def across(size: Size | None) -> int:
    """How many panels find room side by side."""
    return MOST_ACROSS if size is None else max(1, int(size[0] / LEAST_WIDTH))


def sheet(
    rows: Sequence[Sequence[Cell]], heading: Sequence[str], widths: Iterable[int], size: Size | None = None
) -> Figure:  # fmt: skip
    """A figure of rows of panels below lines of a heading and one legend; to be called in the style.

    `widths` are all there are, so that each looks the same in every figure. Raises: Refused where the height asked for
    leaves no room.
    """
    known = sorted(map(int, widths))
    columns = max(map(len, rows))
    width, height = size or (PANEL_WIDTH * columns, None)
    engine = ConstrainedLayoutEngine()
    figure = Drawn(figsize=(width, height or 1.0), layout=engine)
    grid = figure.add_gridspec(len(rows), columns)
    axes = [[figure.add_subplot(grid[i, j]) for j in range(len(row))] for i, row in enumerate(rows)]
    drawn = [pair for pairs in map(zip, axes, rows) for pair in pairs]
    for each, cell in drawn:
        _draw(each, cell, known)
    _align(drawn)
    _name(axes, rows, width / columns)
    keys = [_width_keys(drawn, known), [*_curve_keys(drawn), *_reference_keys(drawn)]]
    panel = min(max(PANEL_HEIGHT * width / columns / PANEL_WIDTH, LEAST_HEIGHT), MOST_HEIGHT)
    share = _place(figure, _header(figure, heading, keys, width - 2 * GAP), height, panel * len(rows))
    engine.set(rect=(0, 0, 1, share))
    return figure


def _draw(axes: Axes, cell: Cell, widths: Sequence[int]) -> None:
    """The lines of a panel: thick ones by width with their band, others thin behind them."""
    panel, lines = cell.panel, strokes(cell.panel.styles)
    axes.set_yscale("log" if logarithmic(panel.vertical) else "linear")
    axes.set_xscale("log" if panel.horizontal.log else "linear")
    for _, own in cell.points.groupby(["curve", "width"], sort=False):
        curve, index = str(own["curve"].iloc[0]), widths.index(int(own["width"].iloc[0]))
        if panel.styles[curve] == "thick":
            _thick(axes, own, panel.x, index, len(widths))
        else:
            color = look(index, len(widths))["color"]
            axes.plot(own[panel.x], own["value"], color=color, zorder=1.5, label=f"_{curve}", **lines[curve])
    if panel.horizontal.log:
        axes.set_xlim(*_decades(*axes.get_xlim()))
    elif panel.x in COUNTED:
        axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))


def _thick(axes: Axes, own: pd.DataFrame, x: str, index: int, count: int) -> None:
    """The mean over seeds of one width, in a band from the least to the greatest."""
    every = max(1, len(own) // MARKERS_PER_LINE)
    mine, label = look(index, count), str(own["width"].iloc[0])
    axes.plot(own[x], own["value"], label=label, markevery=(every * index // count, every), **mine)
    if (own["high"] > own["low"]).any():
        axes.fill_between(own[x], own["low"], own["high"], color=mine["color"], alpha=0.2, linewidth=0)


def logarithmic(vertical: Quantity) -> bool:
    """Whether the scale is logarithmic; otherwise the values are, or nothing."""
    return vertical.log and not vertical.natural


def _align(drawn: Sequence[tuple[Axes, Cell]]) -> None:
    """Give panels of one quantity the same limits, so that they can be compared; mark what the theory singles out."""
    for quantity in dict.fromkeys(cell.panel.vertical for _, cell in drawn if len(cell.points)):
        alike = [(axes, cell) for axes, cell in drawn if cell.panel.vertical == quantity]
        lows, highs = zip(*(axes.get_ylim() for axes, cell in alike if len(cell.points)), strict=True)
        limits = _decades(min(lows), max(highs)) if logarithmic(quantity) else (min(lows), max(highs))
        for axes, cell in alike:
            axes.set_ylim(*_spread(limits, LEAST_SPANS.get(cell.panel.name, 0.0)))
            if cell.panel.reference is not None and _refers(axes, cell):
                axes.axhline(cell.panel.reference, zorder=1.2, **REFERENCE)


def _decades(low: float, high: float) -> tuple[float, float]:
    """Limits at whole decades, which have labels."""
    return 10.0 ** math.floor(math.log10(low)), 10.0 ** math.ceil(math.log10(high))


def _spread(limits: tuple[float, float], least: float) -> tuple[float, float]:
    low, high = limits
    more = max(0.0, least - (high - low)) / 2
    return low - more, high + more


def _refers(axes: Axes, cell: Cell) -> bool:
    low, high = axes.get_ylim()
    reference = cell.panel.reference
    return reference is not None and low <= reference <= high


def _name(axes: Sequence[Sequence[Axes]], rows: Sequence[Sequence[Cell]], width: float) -> None:
    """Name each part and each axis, but where the panel above, below or on the left says the same."""
    for i, row in enumerate(rows):
        for j, cell in enumerate(row):
            above = rows[i - 1][j] if i and j < len(rows[i - 1]) else None
            below = rows[i + 1][j] if i + 1 < len(rows) and j < len(rows[i + 1]) else None
            if above is None or above.name != cell.name:
                axes[i][j].set_title(fitted(cell.name, TEXT, width - LABELS))
            if below is None or below.panel.horizontal != cell.panel.horizontal:
                axes[i][j].set_xlabel(cell.panel.horizontal.tex)
            if not j or row[j - 1].panel.vertical != cell.panel.vertical:
                axes[i][j].set_ylabel(label(cell.panel.vertical))


def label(vertical: Quantity) -> str:
    """A vertical quantity as TeX, or its logarithm."""
    return f"log({vertical.tex})" if vertical.natural else vertical.tex


def _width_keys(drawn: Sequence[tuple[Axes, Cell]], widths: Sequence[int]) -> list[Line2D]:
    """A key for each width that there is something of."""
    seen = {int(each) for _, cell in drawn for each in cell.points["width"].unique()}
    looks = {width: look(index, len(widths)) for index, width in enumerate(widths) if width in seen}
    return [Line2D([], [], label=str(width), **each) for width, each in looks.items()]


def _curve_keys(drawn: Sequence[tuple[Axes, Cell]]) -> list[Line2D]:
    """A key for each curve of a width, where there are several."""
    found: dict[str, Line2D] = {}
    for _, cell in drawn:
        lines = strokes(cell.panel.styles)
        for curve in cell.panel.styles:
            if curve not in found and (cell.points["curve"] == curve).any():
                found[curve] = Line2D([], [], color=NEUTRAL, label=_in_tex(curve), **lines[curve])
    return list(found.values()) if len(found) > 1 else []


def _in_tex(curve: str) -> str:
    """The name of a curve with its kernel as TeX."""
    before, _, last = curve.rpartition(" ")
    return TEX.get(curve) or (f"{before} {TEX[last]}" if last in TEX else curve)


def _reference_keys(drawn: Sequence[tuple[Axes, Cell]]) -> Iterator[Line2D]:
    for meaning in dict.fromkeys(cell.panel.meaning for axes, cell in drawn if _refers(axes, cell)):
        yield Line2D([], [], label=meaning, **REFERENCE)


def _header(
    figure: Figure, heading: Sequence[str], keys: Sequence[Sequence[Line2D]], width: float
) -> list[Text | Legend]:  # fmt: skip
    """What stands above the panels, from top to bottom, each centred."""
    lines = [fitted(line, TEXT, width) for line in heading if line]
    widest = max((inches(part, TEXT) for line in lines for part in line.splitlines()), default=0.0)
    size = TEXT * min(1.0, width / widest) if lines else TEXT
    text = figure.text(0.5, 1.0, "\n".join(lines), ha="center", va="top", fontsize=size)
    return [*([text] if lines else []), *(_legend(figure, each, width) for each in keys if each)]


def _legend(figure: Figure, keys: Sequence[Line2D], width: float) -> Legend:
    """Keys in as many columns as there is room for, to be read line by line (matplotlib fills it column by column)."""
    columns = next(count for count in range(len(keys), 0, -1) if count == 1 or _legend_width(keys, count) <= width)
    ordered = [keys[index] for column in range(columns) for index in range(column, len(keys), columns)]
    return figure.legend(handles=ordered, loc="upper center", bbox_to_anchor=(0.5, 1.0), ncols=columns)


def _legend_width(keys: Sequence[Line2D], columns: int) -> float:
    """Inches of a legend: handle, space and label of each column, and space between columns, by the style file."""
    labels = [inches(str(key.get_label()), SMALL) for key in keys]
    widest = [max(labels[column::columns]) for column in range(columns)]
    return sum(widest) + (columns * (2.6 + 0.6) + (columns - 1) * 1.2) * SMALL / 72


def _place(figure: Figure, header: Sequence[Text | Legend], height: float | None, panels: float) -> float:
    """Put what stands above the panels where it belongs; the share of the height that is left to them."""
    heights = [artist.get_window_extent().height / figure.dpi + GAP for artist in header]
    total = height or panels + sum(heights)
    width = figure.get_figwidth()
    if sum(heights) > 0.7 * total:
        raise Refused(f"the heading finds no room in {width:.3g} x {total:.3g} inches; name a larger size")
    figure.set_size_inches(width, total)
    for index, artist in enumerate(header):
        top = 1 - (GAP / 2 + sum(heights[:index])) / total
        if isinstance(artist, Legend):
            artist.set_bbox_to_anchor((0.5, top), transform=figure.transFigure)
        else:
            artist.set_y(top)
    return 1 - sum(heights) / total
