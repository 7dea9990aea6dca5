"""Figures of what the theory says: predicted loss curves, and finite depth beside the bounds of Theorems 3 to 5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from deqcli.runs import files
from deqcli.show.figures import averaged, heading, write
from deqcli.show.panels import LOSS, MEASURED, STEP, Panel, Quantity, Style
from deqcli.show.paper import FORMATS
from deqcli.show.sheet import TEX, Cell, sheet
from deqcli.show.style import styled
from deqcli.sweep.gather import CONVERGED

DEPTH = "depth.csv"
DEPTH_PANELS = {
    "population_truncation": r"$\|K - K^{(l)}\|_F$",
    "truncation": r"$\|G - G^{(l)}\|_F/m$",
    "tied_deviation": r"$\|G^{(l)}/m - K^{(l)}\|_F$",
    "untied_deviation": r"untied $\|G^{(l)}/m - K^{(l)}\|_F$",
}
MEDIAN, BOUNDS = "median of random draws", "bounds of Theorems 3, 4, 5"
AT_START, AT_END = "at the start", "at the last step"
SHARE = Quantity("share of the loss below it", "share of the loss below it")
EIGENVALUE = Quantity("eigenvalue", "eigenvalue of the kernel", log=True)


def draw_prediction(folder: Path, measured: Path | None) -> Sequence[str]:
    """Predicted loss curves, in front of them what was measured, and the eigendirections that are left.

    Nothing is drawn where no predicted loss is finite.
    """
    rows = pd.read_csv(folder / files.PREDICTION)
    rows = rows[rows["loss"] > 0]
    if rows.empty:
        return []
    kernel = str(rows["kernel"].iloc[0])
    curves = _predicted(rows, kernel) if measured is None else _beside(rows, kernel, measured)
    styles: dict[str, Style] = {name: "thin" if index else "thick" for index, name in enumerate(curves)}
    loss = _cell("loss", LOSS, curves, styles, STEP, "step")
    directions = _directions(pd.read_csv(folder / "directions.csv"))
    left = _cell("directions", SHARE, directions, {AT_END: "thick", AT_START: "dotted"}, EIGENVALUE, "eigenvalue")
    band = "; band from 5 to 95 % of random draws" if MEDIAN in curves else ""
    return _write(folder, "prediction", rows, [[loss, left]], f"; predicted from {TEX[kernel]}{band}")


def _predicted(rows: pd.DataFrame, kernel: str) -> dict[str, pd.DataFrame]:
    """The predicted loss, and over random initialisations its band and its median, where there are these."""
    found = {f"predicted from {kernel}": rows.assign(value=rows["loss"], low=rows["loss_low"], high=rows["loss_high"])}
    medians = rows[rows["loss_median"] > 0]
    return found | ({MEDIAN: medians.assign(value=medians["loss_median"])} if len(medians) else {})


def _beside(rows: pd.DataFrame, kernel: str, measured: Path) -> dict[str, pd.DataFrame]:
    """The measured loss beside the predicted one."""
    loss = pd.read_csv(measured / files.LOSS)
    loss = loss[loss["status"] == CONVERGED]
    return {MEASURED: loss.assign(value=loss["loss"]), f"predicted from {kernel}": rows.assign(value=rows["loss"])}


def _directions(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The share of the loss that eigendirections hold up to each eigenvalue, at the last step and at the start."""
    found = {}
    for name, column in ((AT_END, "final_loss"), (AT_START, "initial_loss")):
        held = rows.groupby(["width", "seed"], dropna=False)[column]
        shares = rows.assign(value=held.cumsum() / held.transform("sum"))
        found[name] = shares[shares["eigenvalue"] > 0]
    return found


def draw_depth(folder: Path) -> Sequence[str]:
    """The four quantities of depth.csv against depth; dotted, the theorems' bounds. Nothing of a check without any."""
    if not (folder / DEPTH).exists():
        return []
    rows = pd.read_csv(folder / DEPTH)
    cells = [_depth_cell(name, tex, rows[rows["quantity"] == name]) for name, tex in DEPTH_PANELS.items()]
    return _write(folder, "depth", rows, [cells[:2], cells[2:]], "")


def _depth_cell(name: str, tex: str, rows: pd.DataFrame) -> Cell:
    curves = {MEASURED: rows, BOUNDS: rows.assign(value=rows["bound"])}
    styles: dict[str, Style] = {MEASURED: "thick", BOUNDS: "dotted"}
    return _cell(name, Quantity(name, tex, log=True), curves, styles, Quantity("depth", "depth $l$"), "depth")


def _cell(
    name: str, vertical: Quantity, curves: Mapping[str, pd.DataFrame], styles: dict[str, Style],
    horizontal: Quantity, x: str,
) -> Cell:  # fmt: skip
    """A panel of curves that each have a column `value`."""
    rows = pd.concat([own.assign(curve=curve) for curve, own in curves.items()], ignore_index=True)
    panel = Panel(name, name, "", vertical, lambda _: rows, styles, x, horizontal)
    return Cell(panel, averaged(panel, rows))


def _write(
    folder: Path, name: str, rows: pd.DataFrame, cells: Sequence[Sequence[Cell]], what: str
) -> Sequence[str]:  # fmt: skip
    if not any(cell.has("thick") for row in cells for cell in row):
        return []
    with styled():
        title, widths = heading(rows, cells, None)
        return write(sheet(cells, [title, widths + what], rows["width"].unique()), cells, folder, name, FORMATS)
