"""The picture of two spectra: the eigenvalues of G/m as bars, and of their limit K as an outline, for each width."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from deqcli.runs.files import replace_text
from deqcli.show.figures import usual_title
from deqcli.show.paper import FORMATS
from deqcli.show.sheet import NEUTRAL, TEXT
from deqcli.show.style import FOLDER, fitted, look, save, styled

NAME = "spectra"
SAMPLE, LIMIT = "G/m", "K"
KERNELS = {"G": SAMPLE, "m K": LIMIT}
"""Kernels of spectra.csv that are shown, and what they are called after division by m."""

MOST_WIDTHS = 4
FEWEST_BINS, MOST_BINS = 10, 48
LOGARITHMIC_FROM = 30.0
"""Largest by least eigenvalue from which the axis is logarithmic."""

ROUNDED_BELOW = 1e-12
"""Of the largest eigenvalue: what is less is 0 but for rounding, and has no place on a logarithmic axis."""

WIDTH, HEIGHT, HEADER, STEM = 5.0, 1.35, 0.75, 0.14
"""Inches of the figure, of a panel and of what is above them; the height of a stem in a panel."""

COLUMNS = ["width", "curve", "part", "low", "high", "count", "seeds"]


def draw_spectra(folder: Path) -> Sequence[str]:
    """Histograms of the eigenvalues of G/m (mean count over seeds) and of K, a row for each of at most 4 widths.

    An eigenvalue farther from its neighbours than a bin is wide has a stem. Names relative to the folder, the CSV with
    what is shown last; nothing of a check without both spectra. The same tables give the same bytes.
    Source: Ling et al., ICML 2024, for spectra of mixtures. Raises: OSError.
    """
    rows = spectra_of(pd.read_csv(folder / "spectra.csv"))
    if set(rows["curve"]) != {SAMPLE, LIMIT}:
        return []
    widths = sorted(rows["width"].unique().tolist())
    shown = pd.concat([shown_of(rows, width) for width in spread(widths)], ignore_index=True)
    draws = pd.read_csv(folder / "draws.csv")
    with styled():
        written = save(_figure(shown, draws, widths), folder, NAME, FORMATS)
    beside = f"{FOLDER}/{NAME}.csv"
    replace_text(folder / beside, shown[COLUMNS].to_csv(index=False, lineterminator="\n"))
    return [*written, beside]


def spectra_of(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of spectra.csv with eigenvalues of G/m and K; K, which no draw decides, of the first seed alone."""
    rows = table[table["kernel"].isin(list(KERNELS))].copy()
    rows["curve"] = rows["kernel"].map(KERNELS)
    rows["eigenvalue"] /= rows["width"]
    first = rows["seed"] == rows.groupby(["width", "curve"])["seed"].transform("min")
    return rows[(rows["curve"] == SAMPLE) | first]


def spread(widths: Sequence[int]) -> list[int]:
    """At most `MOST_WIDTHS` of the widths, the least and the greatest among them."""
    chosen = np.linspace(0, len(widths) - 1, min(len(widths), MOST_WIDTHS)).round().astype(int)
    return [widths[index] for index in chosen]


def bins(eigenvalues: np.ndarray) -> np.ndarray:
    """Edges that hold every positive eigenvalue of these, even in the logarithm where they spread over decades."""
    seen = eigenvalues[eigenvalues > ROUNDED_BELOW * eigenvalues.max()]
    count = int(np.clip(2 * np.sqrt(len(seen)), FEWEST_BINS, MOST_BINS))
    low, high = float(seen.min()), float(seen.max())
    if high < LOGARITHMIC_FROM * low:
        margin = 1e-9 * high if high > low else 0.5 * high  # the ends lie inside, whatever is rounded
        return np.linspace(low - margin, high + margin, count + 1)
    return np.geomspace(low * (1 - 1e-9), high * (1 + 1e-9), count + 1)


def isolated(eigenvalues: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Those of one spectrum that are farther from both neighbours than a bin is wide, on the axis of the bins."""
    place = np.log if is_logarithmic(edges) else np.asarray
    inside = np.sort(eigenvalues[eigenvalues >= edges[0]])
    gaps = np.diff(place(inside), prepend=-np.inf, append=np.inf)
    apart = gaps > place(edges[1]) - place(edges[0])
    return np.asarray(inside[apart[:-1] & apart[1:]])


def is_logarithmic(edges: np.ndarray) -> bool:
    """Whether the bins are even in the logarithm."""
    return bool(edges[1] - edges[0] < 0.5 * (edges[-1] - edges[-2]))


def shown_of(rows: pd.DataFrame, width: int) -> pd.DataFrame:
    """What both curves of a width have: bins with mean counts, what is 0 but for rounding, isolated eigenvalues.

    Columns as in the CSV; an isolated eigenvalue is low = high, without a count.
    """
    edges = bins(rows["eigenvalue"].to_numpy())
    parts = [part for curve in (SAMPLE, LIMIT) for part in _parts(rows, width, curve, edges)]
    return pd.concat([part for part in parts if len(part)], ignore_index=True)


def _parts(rows: pd.DataFrame, width: int, curve: str, edges: np.ndarray) -> Iterator[pd.DataFrame]:
    own = rows[(rows["width"] == width) & (rows["curve"] == curve)]
    spectra = [each.to_numpy() for _, each in own.groupby("seed")["eigenvalue"]]
    known = {"width": width, "curve": curve, "seeds": len(spectra)}
    counts = sum(np.histogram(each, edges)[0] for each in spectra) / max(1, len(spectra))
    yield pd.DataFrame({**known, "part": "histogram", "low": edges[:-1], "high": edges[1:], "count": counts})
    below = sum(int((each < edges[0]).sum()) for each in spectra) / max(1, len(spectra))
    yield pd.DataFrame([{**known, "part": "zero", "low": 0.0, "high": 0.0, "count": below}] if below else [])
    alone = np.concatenate([isolated(each, edges) for each in spectra])
    yield pd.DataFrame({**known, "part": "isolated", "low": alone, "high": alone, "count": None})


def _figure(shown: pd.DataFrame, draws: pd.DataFrame, widths: Sequence[int]) -> Figure:
    """A panel for each width below one legend, all with the same axes."""
    drawn = shown["width"].unique().tolist()
    figure = Figure(figsize=(WIDTH, HEIGHT * len(drawn) + HEADER), layout="constrained")
    panels = figure.subplots(len(drawn), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, width in zip(panels, drawn, strict=True):
        color = look(widths.index(width), len(widths))["color"]
        _draw(axes, shown[shown["width"] == width], color)
        axes.set_title(title_of(width, shown, draws), fontsize=TEXT)
        axes.set_ylabel("count")
    panels[-1].set_xlabel("eigenvalue")
    keys = [
        Patch(facecolor="0.6", label="$G/m$"),
        Line2D([], [], color=NEUTRAL, linewidth=1.2, label="$K$"),
        Line2D([], [], color="0.6", marker="o", label="alone, of $G/m$"),
        Line2D([], [], color=NEUTRAL, marker="D", fillstyle="none", label="alone, of $K$"),
    ]
    heading = fitted("\n".join([usual_title(draws), *caption(shown, widths)]), TEXT, 0.95 * WIDTH)
    legend = figure.legend(handles=keys, loc="outside upper center", ncols=len(keys), title=heading, borderaxespad=0.6)
    legend.get_title().set(fontsize=TEXT, multialignment="center")
    return figure


def _draw(axes: Axes, shown: pd.DataFrame, color: object) -> None:
    for curve, stroke, marker in ((SAMPLE, color, "o"), (LIMIT, NEUTRAL, "D")):
        own = shown[shown["curve"] == curve]
        binned, alone = own[own["part"] == "histogram"], own[own["part"] == "isolated"]["low"]
        edges = [*binned["low"], binned["high"].iloc[-1]]
        filled = curve == SAMPLE
        axes.stairs(
            binned["count"].astype(float), edges, fill=filled, color=stroke, alpha=0.55 if filled else 1, linewidth=1.0
        )  # fmt: skip
        axes.set_xscale("log" if is_logarithmic(np.array(edges)) else "linear")
        if alone.empty:  # a line of no points would be laid out at the corner of the figure
            continue
        axes.vlines(alone, 0, STEM, color=stroke, linewidth=0.9, transform=axes.get_xaxis_transform())
        axes.plot(
            alone, [STEM] * len(alone), marker, color=stroke, transform=axes.get_xaxis_transform(), clip_on=False,
            fillstyle="full" if filled else "none", markersize=3.5 if filled else 5.5, markeredgewidth=0.9,
        )  # fmt: skip


def title_of(width: int, shown: pd.DataFrame, draws: pd.DataFrame) -> str:
    """The width, how far G/m is from K, from the least to the greatest of the seeds, and how many have no place."""
    deviations = draws.loc[draws["width"] == width, "gram_deviation"].dropna()
    ends = dict.fromkeys(f"{each:.3g}" for each in (deviations.min(), deviations.max()))
    zero = shown.loc[(shown["width"] == width) & (shown["part"] == "zero"), ["curve", "count"]]
    none = [f";   {count:g} of ${curve}$ are 0" for curve, count in zip(zero["curve"], zero["count"], strict=True)]
    return rf"$m = {width}$:   $\|G/m - K\|_F/\|K\|_F$ = {' to '.join(ends)}{''.join(none)}"


def caption(shown: pd.DataFrame, widths: Sequence[int]) -> list[str]:
    """What the counts are, and which widths are left out."""
    seeds = int(shown.loc[shown["curve"] == SAMPLE, "seeds"].max())
    left = [str(width) for width in widths if width not in shown["width"].unique()]
    what = f"bars: mean of {seeds} seeds" if seeds > 1 else ""
    return [line for line in (what, f"widths left out: {', '.join(left)}" if left else "") if line]
