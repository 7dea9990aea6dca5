"""The few numbers that sum up a run, read back from its tables so that a resumed run has the same ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from deqcli.deq.activations import ACTIVATIONS
from deqcli.deq.solvers import error_bound, usual_rounding
from deqcli.recipe.schema import RunSpec
from deqcli.runs.baseline import Baseline
from deqcli.runs.files import LOSS, SPECTRAL
from deqcli.runs.records import read_rows
from deqcli.theory.monotone import monotone_error_bound

Results = dict[str, float | int | None]


def results(folder: Path, spec: RunSpec, input_dim: int, baseline: Baseline) -> Results:
    """Final loss, worst norms and ratios, and how the conclusions of Theorem 1 came out.

    L max_spectral_norm_upper < 1 is (i), min_lambda_ratio = min lambda_tau/lambda_0 > 1/2 is (ii), and
    max_loss_over_bound = max Phi(tau)/((1 - eta lambda_0/2)^tau Phi(0)) <= 1 over tau >= 1 is (iii),
    all at logged steps; the step of each worst value stands beside it.
    rate_measured is the mean of -d log(Phi)/d tau over the second half of the steps, rate_kernel the same of the
    predicted losses, and rate_theorem = -log(1 - eta lambda_0/2) what Theorem 1 promises at least.
    max_error_bound bounds ||Z - Z*||_F/||Z||_F, up to unusual rounding, over the rows of spectral.csv where
    L ||W||_2 < 1 is proved, or over all where W is monotone.
    """
    losses = [row for row in read_rows(folder / LOSS) if row["loss"]]
    spectra = read_rows(folder / SPECTRAL)
    rounding = usual_rounding(spec.model.width, input_dim, spec.train.precision)
    residuals = {int(row["step"]): float(row["residual"]) for row in losses}
    uppers = {int(row["step"]): float(row["spectral_norm_upper"]) for row in spectra}
    ratios = {int(row["step"]): _ratio(float(row["lambda_min"]), baseline.lambda_0) for row in spectra}
    return {
        "learning_rate": baseline.learning_rate,
        "largest_stable_learning_rate": baseline.kernel.stable_rate,
        "initial_loss": float(losses[0]["loss"]),
        "final_loss": float(losses[-1]["loss"]),
        "steps": int(losses[-1]["step"]),
        "lambda_0": baseline.lambda_0,
        "max_spectral_norm": max(float(row["spectral_norm"]) for row in spectra),
        **_worst("max_spectral_norm_upper", uppers, max),
        **_worst("min_lambda_ratio", ratios, min),
        **_worst("max_loss_over_bound", _over_bound(losses, baseline), max),
        "max_error_bound": _greatest(
            _error_bound(spec, residuals[step], upper, rounding) for step, upper in uppers.items() if step in residuals
        ),
        **_rates(losses, baseline),
        **_lipschitz(ACTIVATIONS[spec.model.activation].lipschitz),
    }


def _lipschitz(lipschitz: float) -> Results:
    """L of the activation, where it is not 1: (i) is then about L max_spectral_norm_upper."""
    return {} if lipschitz == 1 else {"lipschitz": lipschitz}


def _error_bound(spec: RunSpec, residual: float, upper: float, rounding: float) -> float | None:
    """By contraction, or by monotonicity where phi is proximal; the smaller one."""
    phi, model = ACTIVATIONS[spec.model.activation], spec.model
    found = error_bound(residual, phi.lipschitz * upper, rounding)
    if model.init != "monotone" or not phi.nondecreasing or phi.lipschitz > 1:
        return found
    other = monotone_error_bound(residual + rounding, upper, model.monotonicity)
    return other if found is None else min(found, other)


def _worst(name: str, values: Mapping[int, float | None], choose: Callable[..., int]) -> Results:
    """The worst value over the steps and the first step that has it; None for both where one is missing."""
    known = {step: value for step, value in values.items() if value is not None}
    if not known or len(known) < len(values):
        return {name: None, f"{name}_step": None}
    step = choose(known, key=known.__getitem__)
    return {name: known[step], f"{name}_step": step}


def _over_bound(losses: list[dict[str, str]], baseline: Baseline) -> dict[int, float | None]:
    """Phi(tau)/loss_bound at every logged step after the first; None where the bound is 0 and says nothing."""
    bounds = baseline.loss_bounds([int(row["step"]) for row in losses[1:]])
    rows = zip(losses[1:], bounds, strict=True)
    return {int(row["step"]): None if bound is None else _ratio(float(row["loss"]), bound) for row, bound in rows}


def _rates(losses: list[dict[str, str]], baseline: Baseline) -> Results:
    """Linear rates: what log(Phi) falls by in a step."""
    first, last = losses[len(losses) // 2], losses[-1]
    steps = int(first["step"]), int(last["step"])
    kernel = baseline.kernel.losses(baseline.learning_rate, steps)
    return {
        "rate_measured": _fall(steps, (float(first["loss"]), float(last["loss"]))),
        "rate_kernel": _fall(steps, kernel),
        "rate_theorem": _promised(steps, baseline),
    }


def _promised(steps: tuple[int, int], baseline: Baseline) -> float | None:
    """-log(1 - eta lambda_0/2), or the mean over the steps of a schedule; None where Theorem 1 promises nothing."""
    if not (baseline.bounded and baseline.dynamics.a_power):
        return _fall(steps, baseline.loss_bounds(steps))
    x = baseline.learning_rate * baseline.lambda_0 / 2
    if baseline.dynamics.flow:
        return 2 * x
    return 0.0 - math.log(1 - x) if x < 1 else None


def _fall(steps: tuple[int, int], losses: Sequence[float | None]) -> float | None:
    """(log Phi(first) - log Phi(last))/(last - first); None where a loss has no logarithm, or there is one step."""
    before, after = losses
    if steps[0] == steps[1] or not before or not after:
        return None
    return (math.log(before) - math.log(after)) / (steps[1] - steps[0])


def _ratio(value: float, reference: float) -> float | None:
    return value / reference if reference > 0 else None


def _greatest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)
