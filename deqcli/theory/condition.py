"""Condition 1 and the learning rate of Theorem 1 as functions of a draw's numbers and of the radius delta."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq, minimize_scalar

from deqcli.theory.sizes import Sizes

PRINTED_FACTOR, PROVED_FACTOR = 4.0, 8.0
SMALLEST_DELTA = 1e-60


@dataclass(frozen=True)
class Constants:
    """c_w = c_u c_a, c_u = rho_a/g, c_a = (rho_u + |phi(0)| sqrt(m n)/(L ||X||_F))/g at a radius delta.

    rho_. = ||.(0)|| + delta and g = 1/L - rho_w. Then ||Z||_F <= c_a ||X||_F and ||adjoint||_F <= c_u ||e||.
    For L = 1 and phi(0) = 0 they are the printed ones. Source: Ling et al. 2023, section 3.1; docs/certificates.md.
    """

    rho_a: float
    c_w: float
    c_u: float
    c_a: float

    @property
    def hidden(self) -> float:
        """c_w^2 + c_u^2."""
        return self.c_w * self.c_w + self.c_u * self.c_u  # a product overflows to infinity, a power raises

    @classmethod
    def at(cls, sizes: Sizes, delta: float) -> Constants:
        """The constants at radius delta, 0 < delta < 1/L - ||W(0)||."""
        gap = sizes.room - delta
        rho_u, rho_a = sizes.spectral_norm_u + delta, sizes.norm_a + delta
        fed = rho_u + sizes.norm_at_zero / (sizes.lipschitz * sizes.norm_x) if sizes.norm_at_zero else rho_u
        return cls(rho_a, fed * rho_a / gap / gap, rho_a / gap, fed / gap)


def rhs_7(sizes: Sizes, delta: float) -> float:
    """(4/delta) max(c_w, c_u, c_a) ||X||_F ||e(0)||, the right side of (7)."""
    c = Constants.at(sizes, delta)
    return 4 / delta * max(c.c_w, c.c_u, c.c_a) * sizes.norm_x * sizes.norm_e


def rhs_8(sizes: Sizes, delta: float) -> float:
    """4 (2 + sqrt2)/rho_a (c_w^2 + c_u^2) ||X||_F^2 ||e(0)||, the right side of (8)."""
    c = Constants.at(sizes, delta)
    return 4 * (2 + math.sqrt(2)) / c.rho_a * c.hidden * sizes.norm_x**2 * sizes.norm_e


def rhs_9(sizes: Sizes, delta: float, factor: float) -> float:
    """Factor (c_w^2 + c_u^2) ||X||_F^2, the right side of (9): 4 as printed, 8 as the proof of Theorem 1 needs it."""
    c = Constants.at(sizes, delta)
    return factor * c.hidden * sizes.norm_x**2


def _log(value: float) -> float:
    """The logarithm, of 0 as well."""
    return math.log(value) if value > 0 else -math.inf


def log_slack_7(sizes: Sizes, delta: float) -> float:
    """Log of lhs/rhs of (7)."""
    return _log(sizes.lambda_0) - _log(rhs_7(sizes, delta))


def log_slack_8(sizes: Sizes, delta: float) -> float:
    """Log of lhs/rhs of (8)."""
    return 1.5 * _log(sizes.lambda_0) - _log(rhs_8(sizes, delta))


def log_slack_9(sizes: Sizes, delta: float) -> float:
    """Log of lhs/rhs of (9) with 8."""
    return _log(sizes.lambda_0) - _log(rhs_9(sizes, delta, PROVED_FACTOR))


LogSlack = Callable[[Sizes, float], float]
CONDITION_1: tuple[LogSlack, ...] = (log_slack_8, log_slack_9)
GRADIENT_FLOW: tuple[LogSlack, ...] = (log_slack_8,)
"""What falls as delta grows, beside (7): gradient flow does not need (9)."""


def best_delta(sizes: Sizes, falling: Sequence[LogSlack] = CONDITION_1) -> float | None:
    """The delta that maximises the least slack of (7) and of those that fall; None where L ||W(0)|| >= 1.

    The slack of (7) rises to one maximum and falls; those of (8) and (9) fall. So the best delta is where the first
    meets the lower of the others, or at its own maximum if it has not met them by then.
    """
    room = sizes.room
    if room <= 0:
        return None
    if sizes.lambda_0 == 0 or sizes.norm_e == 0:
        return room / 2

    def excess(log_delta: float) -> float:
        delta = math.exp(log_delta)
        return log_slack_7(sizes, delta) - min(slack(sizes, delta) for slack in falling)

    lowest, highest = math.log(room * SMALLEST_DELTA), math.log(room) - 1e-9
    with np.errstate(invalid="ignore"):  # infinite slacks, at the edge of the floats
        peak = minimize_scalar(
            lambda x: -log_slack_7(sizes, math.exp(x)), bounds=(highest - 20, highest), method="bounded",
            options={"xatol": 1e-12},
        )  # fmt: skip
    if excess(float(peak.x)) <= 0:
        return math.exp(float(peak.x))
    if not excess(lowest) < 0:
        return math.exp(lowest)
    return math.exp(float(brentq(excess, lowest, float(peak.x), xtol=1e-14, rtol=1e-14)))


def least_slack(sizes: Sizes) -> float:
    """The least slack of (7), (8) and (9 with 8) at the best delta; 0 where there is none."""
    delta = best_delta(sizes)
    if delta is None or sizes.lambda_0 == 0:
        return 0.0
    slacks = [slack(sizes, delta) for slack in ((log_slack_7, *CONDITION_1) if sizes.norm_e > 0 else (log_slack_9,))]
    return math.exp(min(*slacks, 700.0))


def theorem_rate(sizes: Sizes, delta: float | None) -> float | None:
    """The bound of (10): min(2/lambda_0, 2 (c_w^2 + c_u^2)/((c_w^2 + c_u^2 + c_a^2)^2 ||X||_F^2)) at radius delta.

    A learning rate must stay below it. None where L ||W(0)|| >= 1. The second term decides: with
    lambda_0 <= ||Z||_F^2/n <= c_a^2 ||X||_F^2/n it is at most 1/(2 n lambda_0).
    Source: Ling et al. 2023, eq. 10.
    """
    if delta is None:
        return None
    c = Constants.at(sizes, delta)
    total = c.hidden + c.c_a * c.c_a
    first = 2 / sizes.lambda_0 if sizes.lambda_0 > 0 else math.inf
    return min(first, 2 * (c.hidden / total) / total / sizes.norm_x**2)


def safe_theorem_rate(sizes: Sizes) -> float | None:
    """The bound of (10) at the best delta of these bounds; None where L ||W(0)|| < 1 or lambda_0 > 0 is not sure."""
    return theorem_rate(sizes, best_delta(sizes)) if sizes.lambda_0 > 0 else None
