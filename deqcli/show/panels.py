"""What can be looked at: the panels of figures and reports, each its curves as tidy data and the names of its axes.

To add a figure, write a function `Gathered -> curves`, and name a `Panel` with it in `PANELS`: it is then drawn for
papers (`figures.py`), is part of every report, and its data stand beside it as CSV.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from sys import float_info
from typing import TYPE_CHECKING, Literal

from deqcli.show.bounds import bounds_at
from deqcli.sweep.gather import Gathered
from deqcli.sweep.spectra import KERNELS, final_spectra

if TYPE_CHECKING:
    import pandas as pd

Style = Literal["thick", "thin", "dotted"]
MEASURED, PREDICTED, BOUND = "measured", "predicted from H(0)", "bound of Theorem 1"
FAR_ABOVE = 1e3
"""A prediction or a bound is drawn no further above what was measured."""

EPSILON = float_info.epsilon
MOST_SPECTRA = 12
"""Runs whose spectra are worked out: one of each width and combination, the first of them."""


@dataclass(frozen=True)
class Quantity:
    """What an axis shows: in words, as TeX for a figure of a paper, and whether its scale is logarithmic.

    `natural` is for a paper's figure that shows the natural logarithm on a linear scale instead, as Figure 1 does.
    """

    words: str
    tex: str
    log: bool = False
    natural: bool = False


STEP = Quantity("step", "step")
TIME = Quantity("eta m step", r"$\eta \, m \cdot$ step")


@dataclass(frozen=True)
class Panel:
    """A figure. `curves` gives rows of one point each, in the order in which they are to be joined.

    Columns: those of `Gathered.keys`, `curve` (a name in `styles`), the column `x`, `value`; panels whose x is `step`
    have `time` = eta m step as well. `reference` is a value that the theory singles out, in the words of `meaning`.
    `what` says in a sentence what is shown.
    """

    name: str
    title: str
    what: str
    vertical: Quantity
    curves: Callable[[Gathered], pd.DataFrame]
    styles: dict[str, Style]
    x: str = "step"
    horizontal: Quantity = STEP
    reference: float | None = None
    meaning: str = ""


def _stacked(gathered: Gathered, parts: dict[str, pd.DataFrame], x: str = "step") -> pd.DataFrame:
    """Rows of several curves, each with its name, of the columns that a panel has."""
    import pandas as pd

    columns = [*gathered.keys, *(["time"] if x == "step" else []), x, "value"]
    named = [rows[columns].assign(curve=name) for name, rows in parts.items() if len(rows)]
    return pd.concat(named, ignore_index=True) if named else pd.DataFrame(columns=[*columns, "curve"])


def _valued(rows: pd.DataFrame, column: str, positive: bool = False) -> pd.DataFrame:
    """The rows where a column is known (and positive), with it as `value`."""
    known = rows[rows[column] > 0] if positive else rows[rows[column].notna()]
    return known.assign(value=known[column])


def _losses(gathered: Gathered) -> pd.DataFrame:
    """Phi at each logged step; the loss that H(0) predicts, and (1 - eta lambda_0/2)^step Phi(0)."""
    measured = _valued(gathered.loss, "loss", positive=True)
    most = FAR_ABOVE * float(measured["value"].max()) if len(measured) else 0.0
    others = {
        PREDICTED: _valued(gathered.prediction, "loss", positive=True),
        BOUND: _bounds(gathered),
    }
    seen = {name: rows[rows["value"] <= most] for name, rows in others.items()}
    return _stacked(gathered, {MEASURED: measured, **seen})


def _bounds(gathered: Gathered) -> pd.DataFrame:
    """What conclusion (iii) says of the loss at the steps of loss.csv."""
    import pandas as pd

    known = dict(iter(gathered.spectral.groupby("run_id", sort=False)))
    parts = [
        rows.assign(bound=bounds_at(known[run], rows["step"].to_numpy()))
        for run, rows in gathered.loss.groupby("run_id", sort=False)
        if run in known
    ]
    return _valued(pd.concat(parts) if parts else gathered.loss.assign(bound=None), "bound", positive=True)


def _spectral_norms(gathered: Gathered) -> pd.DataFrame:
    """||W||_2, and its proved upper bound."""
    rows = gathered.spectral
    return _stacked(
        gathered,
        {MEASURED: _valued(rows, "spectral_norm"), "upper bound": _valued(rows, "spectral_norm_upper")},
    )


def _column(gathered: Gathered, column: str) -> pd.DataFrame:
    return _stacked(gathered, {MEASURED: _valued(gathered.spectral, column)})


def _both_solves(gathered: Gathered, column: str, positive: bool = False) -> pd.DataFrame:
    """A number of the equilibrium and of the adjoint."""
    rows = gathered.loss
    names = {"equilibrium": column, "adjoint": f"adjoint_{column}"}
    return _stacked(gathered, {name: _valued(rows, each, positive) for name, each in names.items()})


def _spectra(gathered: Gathered) -> pd.DataFrame:
    """The eigenvalues of `sweep.spectra.KERNELS` above rounding, of one run of each width and combination."""
    import pandas as pd

    alike = gathered.runs.drop_duplicates(["width", *gathered.axes])
    firsts = set(alike["run_id"].head(MOST_SPECTRA))
    rows = []
    for run in gathered.stored:
        if run.manifest.id in firsts:
            own = alike[alike["run_id"] == run.manifest.id][gathered.keys]
            for kernel, values in final_spectra(run).items():
                points = pd.DataFrame({"index": range(len(values)), "value": values, "curve": kernel})
                rounding = len(values) * EPSILON * values[-1]
                rows.append(own.merge(points[points["value"] > rounding], how="cross"))
    return pd.concat(rows, ignore_index=True) if rows else _stacked(gathered, {}, "index")


_BOTH: dict[str, Style] = {"equilibrium": "thick", "adjoint": "dotted"}
LOSS = Quantity("loss", "loss", log=True, natural=True)

_CURVES_OF_LOSS: dict[str, Style] = {MEASURED: "thick", PREDICTED: "thin", BOUND: "dotted"}

_ALL = (
    Panel(
        "loss", "Loss", "The loss Phi, a sum over samples, beside what the tangent kernel of the draw predicts.",
        LOSS, _losses, _CURVES_OF_LOSS,
    ),
    Panel(
        "loss_rescaled", "Loss in rescaled time",
        "The same against eta m step: what still differs is the finite width.",
        LOSS, _losses, _CURVES_OF_LOSS, "time", TIME,
    ),
    Panel(
        "spectral_norm", "Spectral norm of W", "||W||_2; below 1 there is one equilibrium (conclusion (i)).",
        Quantity("||W||_2", r"$\|W\|_2$"), _spectral_norms, {MEASURED: "thick", "upper bound": "thin"},
        reference=1.0, meaning="below 1: well posed",
    ),
    Panel(
        "lambda_ratio", "Least eigenvalue of G",
        "lambda_tau over lambda_0; conclusion (ii) says that it stays above 1/2.",
        Quantity("lambda_tau/lambda_0", r"$\lambda_\tau/\lambda_0$"), partial(_column, column="lambda_ratio"),
        {MEASURED: "thick"}, reference=0.5, meaning="above 1/2: conclusion (ii)",
    ),
    Panel(
        "iterations", "Solver iterations", "Products with W that the equilibrium and the adjoint of a step took.",
        Quantity("iterations", "iterations"), partial(_both_solves, column="iterations"), _BOTH,
    ),
    Panel(
        "residual", "Residual", "Relative fixed-point residual of the equilibrium and of the adjoint.",
        Quantity("residual", "relative residual", log=True),
        partial(_both_solves, column="residual", positive=True), _BOTH,
    ),
    Panel(
        "spectra", "Spectra of G, H and K", "Eigenvalues at the start, at the last step T, and of the wide limits.",
        Quantity("eigenvalue", "eigenvalue", log=True),
        _spectra, dict(zip(KERNELS, ("thick", "dotted", "dotted", "thin", "thin"), strict=True)),
        "index", Quantity("index of the eigenvalue", "index"),
    ),
)  # fmt: skip
PANELS = {panel.name: panel for panel in _ALL}
"""Every figure by name."""
