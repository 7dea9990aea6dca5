"""The papers' inequalities for a draw, one certificate each: both sides, slack, verdict, and what width can do.

To add one, write a function from `Statement` to `Certificate` and name it in `CERTIFICATES`.
L is the Lipschitz constant of the activation, 1 for the ReLU.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from deqcli.theory import condition, sharper
from deqcli.theory.hypotheses import marked
from deqcli.theory.initial import Initial
from deqcli.theory.statement import Certificate, Statement, of_lambda_0, of_the_rate, row, to_three_halves
from deqcli.theory.truong import TRUONG

PAPER = "Ling et al. 2023"
SHARPER = f"{PAPER}, proof of Theorem 1 made sharper"
FLOW = f"{PAPER}, Theorem 1 for gradient flow"
NORM_TOLERANCE = 1e-6


def assumption_1(s: Statement) -> Certificate:
    """1/(8 L^2) > sigma_w^2."""
    scales, source = s.initial.scales, f"{PAPER}, Assumption 1"
    return Certificate("assumption_1", source, scales.largest_sigma_w_sq, scales.sigma_w_sq, None, strict=True)


def assumption_2_norms(s: Statement) -> Certificate:
    """1e-6 >= max_i | ||x_i||/sqrt(d) - 1 |: every sample has norm sqrt(d), to float32."""
    return Certificate("assumption_2_norms", f"{PAPER}, Assumption 2", NORM_TOLERANCE, s.sizes.norm_deviation, None)


def assumption_2_parallel(s: Statement) -> Certificate:
    """1 > max |cos(x_i, x_j)| over pairs: no two samples are parallel."""
    cosine = s.sizes.largest_cosine
    return Certificate("assumption_2_parallel", f"{PAPER}, Assumption 2", 1.0, cosine, None, strict=True)


def well_posed(s: Statement) -> Certificate:
    """1 > L ||W(0)||_2: the layer contracts, and there is one equilibrium."""
    scales = s.initial.scales
    limit = scales.spectral_norm_limit and 1 / (scales.lipschitz * scales.spectral_norm_limit)
    return Certificate("well_posed", f"{PAPER}, section 3.1", 1.0, s.sizes.contraction, limit, strict=True)


def lemma_1(s: Statement) -> Certificate:
    """2 sqrt2 sigma_w >= ||W(0)||_2: the limit of the norm, which draws lie on either side of.

    Its excess shrinks with width and its sign stays a matter of chance, so width does not repair it. Of another
    initialisation the limit is its own; where that is not known the sides are missing.
    """
    limit = s.initial.scales.spectral_norm_limit
    upper = None if limit is None else s.sizes.spectral_norm
    assumes = ("assumption_1",)
    return Certificate("lemma_1", f"{PAPER}, Lemma 1", limit, upper, 1.0, about_a_limit=True, assumes=assumes)


def theorem_2(s: Statement) -> Certificate:
    """lambda_0 >= m lambda_*/2; strict, so that nothing is claimed where both are 0.

    lambda_0/m tends to lambda_*, so the slack tends to 2.
    """
    star = s.sizes.lambda_star
    rhs = None if star is None else s.initial.width * star / 2
    return of_lambda_0(s, "theorem_2", f"{PAPER}, Theorem 2", rhs, 2.0 if s.limit_well_posed else 0.0)


def condition_1_eq_7(s: Statement) -> Certificate:
    """lambda_0 >= (4/delta) max(c_w, c_u, c_a) ||X||_F ||e(0)||."""
    rhs = None if s.delta is None else condition.rhs_7(s.sizes, s.delta)
    return row(s, "condition_1_eq_7", f"{PAPER}, eq. 7", rhs, s.limit_of_growing)


def condition_1_eq_8(s: Statement) -> Certificate:
    """lambda_0^(3/2) >= 4 (2 + sqrt2)/rho_a (c_w^2 + c_u^2) ||X||_F^2 ||e(0)||."""
    rhs = None if s.delta is None else condition.rhs_8(s.sizes, s.delta)
    return to_three_halves(row(s, "condition_1_eq_8", f"{PAPER}, eq. 8", rhs, s.limit_of_growing))


def _eq_9(s: Statement, name: str, source: str, factor: float) -> Certificate:
    """(9) with either factor.

    As m grows, delta -> 0, ||a|| -> alpha, ||U||^2 ~ 2m/d and lambda_0 ~ m lambda_*, so the slack tends to
    lambda_* (1 - 2 sqrt2 sigma_w)^4 / (2 factor n alpha^2). Without a limit: lambda_0 <= tr G / n and
    ||Z||_F <= c_a ||X||_F give slack <= (1/L - rho_w)^2 / (factor n rho_a^2) at every width.
    `Scales.ratio_of_9` is the square root of the limit, but for its first factors, for every phi.
    """
    rhs = None if s.delta is None else condition.rhs_9(s.sizes, s.delta, factor)
    ratio = s.initial.scales.ratio_of_9
    star = s.initial.computed.lambda_star or 0.0
    return row(s, name, source, rhs, star / (2 * factor * s.initial.num_samples) * ratio * ratio)


def condition_1_eq_9(s: Statement) -> Certificate:
    """lambda_0 >= 4 (c_w^2 + c_u^2) ||X||_F^2, as printed."""
    return _eq_9(s, "condition_1_eq_9", f"{PAPER}, eq. 9 as printed", condition.PRINTED_FACTOR)


def condition_1_eq_9_with_8(s: Statement) -> Certificate:
    """lambda_0 >= 8 (c_w^2 + c_u^2) ||X||_F^2, as the last line of the proof of Theorem 1 needs it."""
    return _eq_9(s, "condition_1_eq_9_with_8", f"{PAPER}, eq. 9 with the 8 of the proof", condition.PROVED_FACTOR)


def theorem_1_eq_10(s: Statement) -> Certificate:
    """The bound of (10) > eta. The learning rate repairs it, width does not."""
    bound = condition.theorem_rate(s.sizes, s.delta)
    return of_the_rate(s, "theorem_1_eq_10", f"{PAPER}, eq. 10", bound)


def sharper_eq_7_w(s: Statement) -> Certificate:
    """lambda_0 >= (4/w) c z ||e(0)||, with w the radius of W, c = rho_a/(1/L - rho_w), z >= ||Z(tau)||_2."""
    rhs = None if s.radii is None else sharper.rhs_7_w(s.sizes, s.radii)
    return row(s, "sharper_eq_7_w", SHARPER, rhs, s.limit_of_growing)


def sharper_eq_7_a(s: Statement) -> Certificate:
    """lambda_0 >= (4/a) z ||e(0)||, with a the radius of a."""
    rhs = None if s.radii is None else sharper.rhs_7_a(s.sizes, s.radii)
    return row(s, "sharper_eq_7_a", SHARPER, rhs, s.limit_of_growing)


def sharper_eq_8(s: Statement) -> Certificate:
    """lambda_0^(3/2) >= 4 (2 + sqrt2) c/(1/L - rho_w) (z ||Z(0)||_2 + ||X||_2^2) ||e(0)||."""
    rhs = None if s.radii is None else sharper.Sharp.at(s.sizes, s.radii).rhs_8
    return to_three_halves(row(s, "sharper_eq_8", SHARPER, rhs, s.limit_of_growing))


def sharper_eq_9(s: Statement) -> Certificate:
    """lambda_0 > 4 c^2 (z^2 + ||X||_2^2): the printed 4, since the learning rate of `sharper_eq_10` makes up for it.

    As m grows the radii -> 0 and z^2 ~ m (sqrt(lambda_max(K)) + (2 - sqrt2)/2 sqrt(lambda_*))^2, so the slack tends to
    lambda_* (1/L - lim ||W||)^2 / (4 alpha^2 (...)^2).
    """
    rhs = None if s.radii is None else 4 * sharper.Sharp.at(s.sizes, s.radii).hidden
    star, largest = s.initial.computed.lambda_star or 0.0, s.initial.lambda_largest or math.inf
    reach = s.initial.scales.readout_scale * (math.sqrt(largest) + sharper.MOVES * math.sqrt(star))
    ratio = max(s.initial.scales.limit_gap, 0.0) / (2 * reach)
    limit = star * ratio * ratio
    return replace(row(s, "sharper_eq_9", SHARPER, rhs, limit), strict=True)


def sharper_eq_10(s: Statement) -> Certificate:
    """2 (lambda_0/4 - A)/(A + z^2)^2 > eta, with A = c^2 (z^2 + ||X||_2^2). The learning rate repairs it."""
    bound = None if s.radii is None else sharper.Sharp.at(s.sizes, s.radii).rate
    return of_the_rate(s, "sharper_eq_10", SHARPER, bound)


def gradient_flow_eq_7(s: Statement) -> Certificate:
    """(7) at the delta that is best without (9)."""
    rhs = None if s.delta_without_9 is None else condition.rhs_7(s.sizes, s.delta_without_9)
    return row(s, "gradient_flow_eq_7", f"{FLOW}, eq. 7", rhs, s.limit_of_growing)


def gradient_flow_eq_8(s: Statement) -> Certificate:
    """(8) at the delta that is best without (9)."""
    rhs = None if s.delta_without_9 is None else condition.rhs_8(s.sizes, s.delta_without_9)
    return to_three_halves(row(s, "gradient_flow_eq_8", f"{FLOW}, eq. 8", rhs, s.limit_of_growing))


def gradient_flow_sharper_eq_7(s: Statement) -> Certificate:
    """lambda_0 >= 2 ||e(0)||^2/delta^2: the path of gradient flow is no longer than sqrt(2/lambda_0) ||e(0)||."""
    rhs = None if s.flow_delta is None else sharper.rhs_flow_7(s.sizes, s.flow_delta)
    return row(s, "gradient_flow_sharper_eq_7", f"{FLOW}, by the length of its path", rhs, s.limit_of_growing)


def gradient_flow_sharper_eq_8(s: Statement) -> Certificate:
    """lambda_0 >= 2 (1 + sqrt2) sqrt(||Z(0)||_2^2 + ||X||_2^2)/(1/L - ||W(0)||_2 - delta) ||e(0)||."""
    rhs = None if s.flow_delta is None else sharper.rhs_flow_8(s.sizes, s.flow_delta)
    return row(s, "gradient_flow_sharper_eq_8", f"{FLOW}, by the length of its path", rhs, s.limit_of_growing)


def monotone(s: Statement) -> Certificate:
    """lambda_min of the symmetric part of I - W(0) > 0: there is one equilibrium, whatever ||W||_2 is.

    Of a parametrisation that keeps it above 0 at every step, for a phi that is nondecreasing with L <= 1.
    """
    source = "Winston and Kolter 2020"
    return Certificate("monotone", source, s.initial.monotonicity, 0.0, None, strict=True, assumes=("proximal",))


def gao_learning_rate(s: Statement) -> Certificate:
    """lambda_0/n^2 > eta, with lambda_0 of the features: the order of the paper's bound, its constant taken as 1.

    gamma = sqrt2 sigma_w < 1/2 there, which is Assumption 1.
    """
    least, source = s.initial.lambda_features, "Gao et al. 2022, eta = O(lambda_0/n^2), with the constant 1"
    bound = None if least is None else least / s.initial.num_samples**2
    return Certificate(
        "gao_learning_rate", source, bound, s.learning_rate, None, strict=True, assumes=("assumption_1",)
    )  # fmt: skip


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
    sharper_eq_7_w,
    sharper_eq_7_a,
    sharper_eq_8,
    sharper_eq_9,
    sharper_eq_10,
    gradient_flow_eq_7,
    gradient_flow_eq_8,
    gradient_flow_sharper_eq_7,
    gradient_flow_sharper_eq_8,
)


def certificates_of(initial: Initial) -> tuple[Callable[[Statement], Certificate], ...]:
    """Those that a draw has: `CERTIFICATES`, and what is about its activation, its W or its skip alone."""
    general = () if initial.expansion is None else TRUONG
    splitting = () if initial.scales.monotonicity is None else (monotone,)
    features = () if initial.lambda_features is None else (gao_learning_rate,)
    return CERTIFICATES + general + splitting + features


def certify(initial: Initial, learning_rate: float | None) -> list[Certificate]:
    """Every certificate of a draw, each condition at its best radii; rates have no right side without a learning rate.

    The source of a statement whose hypotheses the draw does not meet says so.
    """
    statement, outside = Statement(initial, learning_rate), initial.outside
    return [_marked(certificate(statement), outside) for certificate in certificates_of(initial)]


def _marked(certificate: Certificate, outside: dict[str, str]) -> Certificate:
    missing = [outside[name] for name in certificate.assumes if name in outside]
    return replace(certificate, source=marked(certificate.source, missing))
