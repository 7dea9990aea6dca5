"""The few numbers that sum up a run, read back from its tables so that a resumed run has the same ones."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from deqcli.deq.solvers import error_bound, usual_rounding
from deqcli.recipe.schema import RunSpec
from deqcli.runs.baseline import Baseline, component
from deqcli.runs.files import LOSS, SPECTRAL
from deqcli.runs.records import read_rows
from deqcli.theory.prediction import loss_bound

Results = dict[str, float | int | None]


def results(folder: Path, spec: RunSpec, input_dim: int, baseline: Baseline) -> Results:
    """Final loss, worst norms and ratios, and how the conclusions of Theorem 1 came out.

    max_spectral_norm_upper < 1 is (i), min_lambda_ratio = min lambda_tau/lambda_0 > 1/2 is (ii), and
    max_loss_over_bound = max Phi(tau)/((1 - eta lambda_0/2)^tau Phi(0)) <= 1 over tau >= 1 is (iii),
    all at logged steps.
    max_error_bound bounds ||Z - Z*||_F/||Z||_F, up to unusual rounding, over the rows of spectral.csv where
    ||W||_2 < 1 is proved.
    """
    losses = [row for row in read_rows(folder / LOSS) if row["loss"]]
    spectra = read_rows(folder / SPECTRAL)
    lipschitz = component(spec).activation.lipschitz
    rounding = usual_rounding(spec.model.width, input_dim, spec.train.precision)
    residuals = {row["step"]: float(row["residual"]) for row in losses}
    uppers = {row["step"]: float(row["spectral_norm_upper"]) for row in spectra}
    return {
        "learning_rate": baseline.learning_rate,
        "largest_stable_learning_rate": baseline.kernel.stable_rate,
        "initial_loss": float(losses[0]["loss"]),
        "final_loss": float(losses[-1]["loss"]),
        "steps": int(losses[-1]["step"]),
        "lambda_0": baseline.lambda_0,
        "max_spectral_norm": max(float(row["spectral_norm"]) for row in spectra),
        "max_spectral_norm_upper": max(uppers.values()),
        "min_lambda_ratio": _least(_ratio(float(row["lambda_min"]), baseline.lambda_0) for row in spectra),
        "max_loss_over_bound": _max_loss_over_bound(losses, baseline),
        "max_error_bound": _greatest(
            error_bound(residuals[step], lipschitz * upper, rounding)
            for step, upper in uppers.items()
            if step in residuals
        ),
    }


def _max_loss_over_bound(losses: list[dict[str, str]], baseline: Baseline) -> float | None:
    """None where the bound says nothing: it is 0, or there is no step after the first."""
    ratios = []
    for row in losses[1:]:
        b, step = baseline, int(row["step"])
        ratios.append(_ratio(float(row["loss"]), loss_bound(b.initial_loss, b.lambda_0, b.learning_rate, step)))
    return None if None in ratios else _greatest(ratios)


def _ratio(value: float, reference: float) -> float | None:
    return value / reference if reference > 0 else None


def _least(values: Iterable[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)


def _greatest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)
