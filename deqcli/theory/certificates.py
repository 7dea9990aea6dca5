"""The paper's inequalities for a draw, one certificate each: both sides, slack, verdict, and what width can do.

To add one, write a function from `Statement` to `Certificate` and name it in `CERTIFICATES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import brentq, minimize_scalar

from deqcli.theory.initial import Initial

PAPER = "Ling et al. 2023"
NORM_TOLERANCE = 1e-6
SMALLEST_DELTA = 1e-60
PRINTED_FACTOR, PROVED_FACTOR = 4.0, 8.0


@dataclass(frozen=True)
class Certificate:
    """One inequality, always read lhs >= rhs (or lhs > rhs where `strict`).

    The sides are as computed; `safe` is the same inequality with bounds on the safe side, on which the verdict rests.
    `limit` is what slack tends to as the width grows, None where width does not enter; a side is None where it does
    not exist.
    `about_a_limit` marks a comparison with an infinite-width limit, which finite widths may miss on either side.
    """

    name: str
    source: str
    lhs: float | None
    rhs: float | None
    limit: float | None
    strict: bool = False
    about_a_limit: bool = False
    safe: Certificate | None = None

    @property
    def slack(self) -> float | None:
        """Lhs / rhs: at least 1 where the inequality holds."""
        return self.lhs / self.rhs if self.lhs is not None and self.rhs else None

    @property
    def holds(self) -> bool:
        """The verdict, proved up to the roundings bounded; an inequality with a side missing does not hold."""
        if self.safe is not None:
            return self.safe.holds
        if self.lhs is None or self.rhs is None:
            return False
        return self.lhs > self.rhs if self.strict else self.lhs >= self.rhs

    @property
    def repaired_by_width(self) -> bool:
        """Whether a large enough width makes the inequality hold, all else fixed."""
        return self.limit is not None and self.limit > 1

    def row(self) -> dict[str, object]:
        """The columns of certificates.csv that are about the inequality."""
        return {
            "certificate": self.name,
            "source": self.source,
            "lhs": self.lhs,
            "rhs": self.rhs,
            "slack": self.slack,
            "holds": self.holds,
            "repaired_by_width": self.repaired_by_width,
        }


@dataclass(frozen=True)
class Constants:
    """c_w = rho_u rho_a/(1 - rho_w)^2, c_u = rho_a/(1 - rho_w), c_a = rho_u/(1 - rho_w) at a radius delta.

    rho_. = ||.(0)|| + delta. Source: Ling et al. 2023, section 3.1.
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
    def at(cls, initial: Initial, delta: float) -> Constants:
        """The constants at radius delta, 0 < delta < 1 - ||W(0)||."""
        gap = 1 - initial.spectral_norm - delta
        rho_u, rho_a = initial.spectral_norm_u + delta, initial.norm_a + delta
        return cls(rho_a, rho_u * rho_a / gap / gap, rho_a / gap, rho_u / gap)


@dataclass(frozen=True)
class Statement:
    """A draw, the radius at which Condition 1 is stated for it (None where ||W(0)|| >= 1), and its learning rate."""

    initial: Initial
    delta: float | None
    learning_rate: float | None

    @property
    def limit_gap(self) -> float:
        """1 - 2 sqrt2 sigma_w, the limit of 1 - ||W(0)||_2."""
        return 1 - self.initial.scales.spectral_norm_limit

    @property
    def limit_well_posed(self) -> bool:
        """Whether the infinitely wide network is well-posed, with lambda_* > 0."""
        return self.limit_gap > 0 and self.initial.lambda_star > 0

    @property
    def limit_of_growing(self) -> float:
        """The limit of a slack that grows like sqrt(m) where the limit is well-posed."""
        return math.inf if self.limit_well_posed else 0.0


def rhs_7(initial: Initial, delta: float) -> float:
    """(4/delta) max(c_w, c_u, c_a) ||X||_F ||e(0)||, the right side of (7)."""
    c = Constants.at(initial, delta)
    return 4 / delta * max(c.c_w, c.c_u, c.c_a) * initial.norm_x * initial.norm_e


def rhs_8(initial: Initial, delta: float) -> float:
    """4 (2 + sqrt2)/rho_a (c_w^2 + c_u^2) ||X||_F^2 ||e(0)||, the right side of (8)."""
    c = Constants.at(initial, delta)
    return 4 * (2 + math.sqrt(2)) / c.rho_a * c.hidden * initial.norm_x**2 * initial.norm_e


def rhs_9(initial: Initial, delta: float, factor: float) -> float:
    """Factor (c_w^2 + c_u^2) ||X||_F^2, the right side of (9): 4 as printed, 8 as the proof of Theorem 1 needs it."""
    c = Constants.at(initial, delta)
    return factor * c.hidden * initial.norm_x**2


def best_delta(initial: Initial) -> float | None:
    """The delta that maximises the least slack of (7), (8) and (9 with 8); None where ||W(0)|| >= 1.

    The slack of (7) rises to one maximum and falls; those of (8) and (9) fall. So the best delta is where the first
    meets the lower of the others, or at its own maximum if it has not met them by then.
    """
    room = 1 - initial.spectral_norm
    if room <= 0:
        return None
    if initial.lambda_0 == 0 or initial.norm_e == 0:
        return room / 2

    def log_slack_7(log_delta: float) -> float:
        return math.log(initial.lambda_0) - math.log(rhs_7(initial, math.exp(log_delta)))

    def excess(log_delta: float) -> float:
        delta = math.exp(log_delta)
        slack_8 = 1.5 * math.log(initial.lambda_0) - math.log(rhs_8(initial, delta))
        slack_9 = math.log(initial.lambda_0) - math.log(rhs_9(initial, delta, PROVED_FACTOR))
        return log_slack_7(log_delta) - min(slack_8, slack_9)

    lowest, highest = math.log(room * SMALLEST_DELTA), math.log(room) - 1e-9
    with np.errstate(invalid="ignore"):  # infinite slacks, at the edge of the floats
        peak = minimize_scalar(
            lambda x: -log_slack_7(x), bounds=(highest - 20, highest), method="bounded", options={"xatol": 1e-12}
        )
    if excess(float(peak.x)) <= 0:
        return math.exp(float(peak.x))
    if not excess(lowest) < 0:
        return math.exp(lowest)
    return math.exp(float(brentq(excess, lowest, float(peak.x), xtol=1e-14, rtol=1e-14)))


def theorem_rate(initial: Initial, delta: float | None) -> float | None:
    """The bound of (10): min(2/lambda_0, 2 (c_w^2 + c_u^2)/((c_w^2 + c_u^2 + c_a^2)^2 ||X||_F^2)) at radius delta.

    A learning rate must stay below it. None where ||W(0)|| >= 1. The second term decides: with
    lambda_0 <= rho_u^2 ||X||_F^2 / (n (1 - rho_w)^2) it is at most 1/(2 n lambda_0).
    Source: Ling et al. 2023, eq. 10.
    """
    if delta is None:
        return None
    c = Constants.at(initial, delta)
    total = c.hidden + c.c_a * c.c_a
    first = 2 / initial.lambda_0 if initial.lambda_0 > 0 else math.inf
    return min(first, 2 * (c.hidden / total) / total / initial.norm_x**2)


def _on_the_safe_side(initial: Initial) -> tuple[Initial, float | None]:
    """The draw by its bounds, and the delta of its values, None where the bounds leave no room for it."""
    safe, delta = initial.on_the_safe_side(), best_delta(initial)
    return safe, delta if delta is not None and safe.spectral_norm + delta < 1 else None


def safe_theorem_rate(initial: Initial) -> float | None:
    """The bound of (10) on the safe side; None where ||W(0)|| >= 1 or lambda_0 > 0 is not sure."""
    safe, delta = _on_the_safe_side(initial)
    return theorem_rate(safe, delta) if safe.lambda_0 > 0 else None


def assumption_1(s: Statement) -> Certificate:
    """1/8 > sigma_w^2."""
    sigma_w_sq = s.initial.scales.sigma_w_sq
    return Certificate("assumption_1", f"{PAPER}, Assumption 1", 0.125, sigma_w_sq, None, strict=True)


def assumption_2_norms(s: Statement) -> Certificate:
    """1e-6 >= max_i | ||x_i||/sqrt(d) - 1 |: every sample has norm sqrt(d), to float32."""
    return Certificate("assumption_2_norms", f"{PAPER}, Assumption 2", NORM_TOLERANCE, s.initial.norm_deviation, None)


def assumption_2_parallel(s: Statement) -> Certificate:
    """1 > max |cos(x_i, x_j)| over pairs: no two samples are parallel."""
    cosine = s.initial.largest_cosine
    return Certificate("assumption_2_parallel", f"{PAPER}, Assumption 2", 1.0, cosine, None, strict=True)


def well_posed(s: Statement) -> Certificate:
    """1 > ||W(0)||_2, by its upper bound: the layer contracts, and there is one equilibrium."""
    limit = 1 / s.initial.scales.spectral_norm_limit
    upper = s.initial.spectral_norm_upper
    return Certificate("well_posed", f"{PAPER}, section 3.1", 1.0, upper, limit, strict=True)


def lemma_1(s: Statement) -> Certificate:
    """2 sqrt2 sigma_w >= ||W(0)||_2, by its upper bound: the limit of the norm, which draws lie on either side of.

    Its excess shrinks with width and its sign stays a matter of chance, so width does not repair it.
    """
    limit, upper = s.initial.scales.spectral_norm_limit, s.initial.spectral_norm_upper
    return Certificate("lemma_1", f"{PAPER}, Lemma 1", limit, upper, 1.0, about_a_limit=True)


def theorem_2(s: Statement) -> Certificate:
    """lambda_0 >= m lambda_*/2; strict, so that nothing is claimed where both are 0.

    lambda_0/m tends to lambda_*, so the slack tends to 2.
    """
    rhs = s.initial.width * s.initial.lambda_star / 2
    limit = 2.0 if s.limit_well_posed else 0.0
    return Certificate("theorem_2", f"{PAPER}, Theorem 2", s.initial.lambda_0, rhs, limit, strict=True)


def condition_1_eq_7(s: Statement) -> Certificate:
    """lambda_0 >= (4/delta) max(c_w, c_u, c_a) ||X||_F ||e(0)||."""
    rhs = None if s.delta is None else rhs_7(s.initial, s.delta)
    return Certificate("condition_1_eq_7", f"{PAPER}, eq. 7", s.initial.lambda_0, rhs, s.limit_of_growing)


def condition_1_eq_8(s: Statement) -> Certificate:
    """lambda_0^(3/2) >= 4 (2 + sqrt2)/rho_a (c_w^2 + c_u^2) ||X||_F^2 ||e(0)||."""
    rhs, lambda_0 = None if s.delta is None else rhs_8(s.initial, s.delta), s.initial.lambda_0
    return Certificate(
        "condition_1_eq_8",
        f"{PAPER}, eq. 8",
        lambda_0 * math.sqrt(lambda_0),
        rhs,
        s.limit_of_growing,
    )


def _eq_9(s: Statement, name: str, source: str, factor: float) -> Certificate:
    """(9) with either factor.

    As m grows, delta -> 0, ||a|| -> alpha, ||U||^2 ~ 2m/d and lambda_0 ~ m lambda_*, so the slack tends to
    lambda_* (1 - 2 sqrt2 sigma_w)^4 / (2 factor n alpha^2). Without a limit: lambda_0 <= tr G / n and
    ||Z||_F <= ||U|| ||X||_F / (1 - ||W||) give slack <= (1 - rho_w)^2 / (factor n rho_a^2) at every width.
    """
    rhs = None if s.delta is None else rhs_9(s.initial, s.delta, factor)
    ratio = max(s.limit_gap, 0.0) ** 2 / s.initial.scales.readout_scale
    limit = s.initial.lambda_star / (2 * factor * s.initial.num_samples) * ratio * ratio
    return Certificate(name, source, s.initial.lambda_0, rhs, limit)


def condition_1_eq_9(s: Statement) -> Certificate:
    """lambda_0 >= 4 (c_w^2 + c_u^2) ||X||_F^2, as printed."""
    return _eq_9(s, "condition_1_eq_9", f"{PAPER}, eq. 9 as printed", PRINTED_FACTOR)


def condition_1_eq_9_with_8(s: Statement) -> Certificate:
    """lambda_0 >= 8 (c_w^2 + c_u^2) ||X||_F^2, as the last line of the proof of Theorem 1 needs it."""
    return _eq_9(s, "condition_1_eq_9_with_8", f"{PAPER}, eq. 9 with the 8 of the proof", PROVED_FACTOR)


def theorem_1_eq_10(s: Statement) -> Certificate:
    """The bound of (10) > eta. The learning rate repairs it, width does not."""
    bound = theorem_rate(s.initial, s.delta)
    rhs = None if bound is None else s.learning_rate
    return Certificate("theorem_1_eq_10", f"{PAPER}, eq. 10", bound or 0.0, rhs, None, strict=True)


CERTIFICATES: tuple[Callable[[Statement], Certificate], ...] = (
    assumption_1,
    assumption_2_norms,
    assumption_2_parallel,
    well_posed,
    lemma_1,
    theorem_2,
    condition_1_eq_7,
    condition_1_eq_8,
    condition_1_eq_9,
    condition_1_eq_9_with_8,
    theorem_1_eq_10,
)


def certify(initial: Initial, learning_rate: float | None) -> list[Certificate]:
    """Every certificate of a draw, Condition 1 at its best delta; (10) has no right side without a learning rate."""
    plain = Statement(initial, best_delta(initial), learning_rate)
    careful = Statement(*_on_the_safe_side(initial), learning_rate)
    return [replace(certificate(plain), safe=certificate(careful)) for certificate in CERTIFICATES]
