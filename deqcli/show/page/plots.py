"""The figures of a page as Bokeh models: axes, grids, tools and a renderer for each kind of curve, without data.

The script of the page fills in the curves that are wanted, and swaps scales and colours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import bokeh
from bokeh.embed import json_item
from bokeh.models import (
    BoxZoomTool,
    ColumnDataSource,
    Grid,
    LinearAxis,
    LinearScale,
    MultiLine,
    PanTool,
    Plot,
    Range1d,
)
from bokeh.models.annotations import Span
from bokeh.palettes import Viridis256

from deqcli.show.panels import Panel, Style

HEIGHT = 360
"""Of a figure, in CSS pixels."""

FONT = "system-ui, -apple-system, Segoe UI, Roboto, Noto Sans, Liberation Sans, sans-serif"
TEXT: dict[str, Any] = {
    "major_label_text_font": FONT,
    "major_label_text_font_size": "12px",
    "axis_label_text_font": FONT,
    "axis_label_text_font_size": "13px",
    "axis_label_text_font_style": "normal",
}

SHADES = 24
LIGHT, DARK = (0, 150), (92, 255)
"""The part of viridis, of 256 colours, that stands out from a white and from a black page."""

LINES: dict[tuple[Style, int], tuple[float, list[int]]] = {
    ("thick", 0): (2.0, []),
    ("thin", 0): (1.0, []),
    ("thin", 1): (1.0, [9, 4]),
    ("dotted", 0): (1.5, [2, 3]),
    ("dotted", 1): (1.5, [9, 3, 2, 3]),
}
"""Width and dashes of a style, of the first kind of curve that has it and of the second."""


def palettes() -> dict[str, list[str]]:
    """The colours from the least to the greatest width, for a light page and for a dark one."""
    return {"light": _shades(*LIGHT), "dark": _shades(*DARK)}


def _shades(first: int, last: int) -> list[str]:
    return [Viridis256[first + round((last - first) * index / (SHADES - 1))].lower() for index in range(SHADES)]


def lines(panel: Panel) -> dict[str, tuple[float, list[int]]]:
    """Width and dashes of each kind of curve of a panel."""
    seen: Counter[str] = Counter()
    found = {}
    for kind, style in panel.styles.items():
        found[kind] = LINES[style, min(seen[style], 1 if style != "thick" else 0)]
        seen[style] += 1
    return found


def figure(panel: Panel, target: str) -> dict[str, Any]:
    """A figure as Bokeh embeds it into the element `target`; the same panel gives the same document."""
    return _renumbered(json_item(_plot(panel), target))  # type: ignore[arg-type]


def _plot(panel: Panel) -> Plot:
    plot = Plot(
        x_range=Range1d(start=0, end=1),
        y_range=Range1d(start=0, end=1),
        x_scale=LinearScale(),
        y_scale=LinearScale(),
        height=HEIGHT,
        sizing_mode="stretch_width",
        toolbar_location=None,
        outline_line_color=None,
        background_fill_color=None,
        border_fill_color=None,
        min_border_right=14,
        name="plot",
    )
    for index, (side, quantity) in enumerate((("below", panel.horizontal), ("left", panel.vertical))):
        name = "xy"[index]
        axis = LinearAxis(axis_label=quantity.words, name=f"{name}_axis", minor_tick_line_color=None, **TEXT)
        plot.add_layout(axis, side)  # type: ignore[arg-type]
        plot.add_layout(Grid(axis=axis, dimension=index, name=f"{name}_grid"))  # type: ignore[arg-type]
    plot.add_tools(BoxZoomTool(name="zoom"), PanTool(name="pan"))
    if panel.reference is not None:
        span = Span(location=panel.reference, dimension="width", line_dash=[5, 4], line_width=1.2, name="reference")
        plot.add_layout(span)
    for index, (width, dashes) in enumerate(lines(panel).values()):
        source = ColumnDataSource({"xs": [], "ys": [], "colour": []}, name=f"source_{index}")
        glyph = MultiLine(xs="xs", ys="ys", line_color="colour", line_width=width, line_dash=dashes, line_join="round")
        plot.add_glyph(source, glyph, name=f"curves_{index}")
    return plot


def _renumbered(item: Mapping[str, Any]) -> dict[str, Any]:
    """The item with its models numbered from 1: Bokeh numbers those of a process one after the other."""
    names: dict[str, str] = {}
    for each in _ids(item):
        names.setdefault(each, f"m{len(names) + 1}")
    renamed = _with_ids(item, names)
    assert isinstance(renamed, dict)
    return renamed


def _ids(part: object) -> Iterator[str]:
    if isinstance(part, Mapping):
        if isinstance(part.get("id"), str):
            yield part["id"]
        for each in part.values():
            yield from _ids(each)
    elif isinstance(part, Sequence) and not isinstance(part, str):
        for each in part:
            yield from _ids(each)


def _with_ids(part: object, names: Mapping[str, str]) -> object:
    if isinstance(part, Mapping):
        return {
            key: names[value] if key in ("id", "root_id") and value in names else _with_ids(value, names)
            for key, value in part.items()
        }
    if isinstance(part, (list, tuple)):
        return [_with_ids(each, names) for each in part]
    return part


def script() -> str:
    """Bokeh's own script, with its licence at its head, from the installed package."""
    text = (Path(bokeh.__file__).parent / "server/static/js/bokeh.min.js").read_text(encoding="utf-8")
    return text.replace("</script", "<\\/script")
