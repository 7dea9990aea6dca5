"""How far a run is, told to whoever watches it. Nothing that is computed depends on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from deqcli.recipe.schema import RunSpec

DRAWING, TRAINING = "drawing W, U and a", "training"
"""The first phase of a run, and the last."""


@dataclass(frozen=True)
class Spectrum:
    """What the last row of spectral.csv says, and of which step; `lambda_ratio` = lambda_tau/lambda_0.

    The ratio is None where lambda_0 = 0.
    """

    step: int
    spectral_norm: float | None
    spectral_norm_upper: float | None
    lambda_ratio: float | None


class Standing(NamedTuple):
    """A run at one moment: the phase that it is in, and in the phase `training` its last solved step.

    `shape` is (n, d). `fraction` of a phase before the first step is None where it is not known. Residuals and
    iterations are those of the row of loss.csv; `spectrum` is that of the last row of spectral.csv. A tuple, which even
    steps of a fraction of a millisecond can afford.
    """

    spec: RunSpec
    shape: tuple[int, int]
    phase: str
    fraction: float | None = None
    step: int | None = None
    loss: float | None = None
    residual: float | None = None
    iterations: int | None = None
    adjoint_residual: float | None = None
    adjoint_iterations: int | None = None
    spectrum: Spectrum | None = None


Report = Callable[[Standing], None]
"""Hears of every phase as it begins, of the draw as it proceeds, and of every solved step; never decides a number."""
