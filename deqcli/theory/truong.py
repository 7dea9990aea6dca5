"""The hypotheses under which K is positive definite for another activation than the ReLU, one certificate each."""

from __future__ import annotations

from collections.abc import Callable

from deqcli.theory.hypotheses import OF_THE_LIMIT
from deqcli.theory.statement import Certificate, Statement

PAPER = "Truong 2023"


def truong_sigma_w_sq(s: Statement) -> Certificate:
    """1/(8 L^2) > sigma_w^2."""
    scales = s.initial.scales
    return Certificate("truong_sigma_w_sq", PAPER, scales.largest_sigma_w_sq, scales.sigma_w_sq, None, strict=True)


def truong_derivatives(s: Statement) -> Certificate:
    """phi' and phi'' are bounded: a property of phi, so there are no sides; the source says what bounds them."""
    expansion, lipschitz = s.initial.expansion, s.initial.scales.lipschitz
    curvature = None if expansion is None else expansion.curvature
    second = "phi' jumps" if curvature is None else f"|phi''| <= {curvature:.6g}"
    source = f"{PAPER}, bounded derivatives: |phi'| <= {lipschitz:.6g}, {second}"
    return Certificate("truong_derivatives", source, None, None, None, verdict=curvature is not None)


def truong_coefficients(s: Statement) -> Certificate:
    """sum_r min_i a_r(p_i)^2 (1 - max_i sum_(j != i) |rho_ij|^r)_+ > 0, a lower bound of lambda_* by its coefficients.

    rho are the correlations of the pre-activations in the limit. The source names the order that adds most.
    """
    expansion, source = s.initial.expansion, f"{PAPER}, coefficients of the dual"
    bound = None if expansion is None else expansion.bound
    if expansion is not None and (r := expansion.order) is not None:
        source += f"; order {r} decides, a_{r} = {expansion.coefficients[r]:.6g}"
    elif bound is not None:
        source += "; no order decides"
    return _of_the_limit("truong_coefficients", source, bound)


def truong_population(s: Statement) -> Certificate:
    """lambda_* > 0, its lower bound: K exists, the recursion that defines it has converged."""
    computed, upper = s.initial.computed.lambda_star, s.sizes.lambda_star
    lower = None if computed is None or upper is None else max(computed - (upper - computed), 0.0)
    return _of_the_limit("truong_population", f"{PAPER}, the limit K", lower)


def _of_the_limit(name: str, source: str, lhs: float | None) -> Certificate:
    rhs = None if lhs is None else 0.0
    return Certificate(name, source, lhs, rhs, None, strict=True, assumes=OF_THE_LIMIT)


TRUONG: tuple[Callable[[Statement], Certificate], ...] = (
    truong_sigma_w_sq,
    truong_derivatives,
    truong_coefficients,
    truong_population,
)
