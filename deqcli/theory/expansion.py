"""Why K is positive definite for an activation: its Hermite coefficients, and a lower bound of lambda_* from them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from deqcli.deq.activations import Activation
from deqcli.theory.population import Population
from deqcli.theory.rounding import cosines

LISTED, MOST_ORDERS = 10, 512
"""Orders that are listed at least, and looked at at most."""

COEFFICIENT_ERROR, CORRELATION_ERROR = 1e-10, 1e-9
"""Of a coefficient, relative to the root of E[phi^2], and of a correlation: more than both are computed with."""

SETTLED = 1e-6
"""Row sums of |rho|^r below it are taken for those of every higher order: they only fall."""


@dataclass(frozen=True)
class Expansion:
    """phi(sqrt(p) x) = sum_r a_r h_r(x), p the variance of the pre-activations in the limit, and what follows for K.

    `bound` <= lambda_*, and `order` is the r that adds most to it, None where none does; `bound` is None where K does
    not exist or is not the limit. `antipodal` is a pair of samples with x_j = -x_i; `rank` is that of K,
    d, where phi is linear and there are more samples than that.
    """

    name: str
    curvature: float | None
    odd: bool
    antipodal: tuple[int, int] | None
    rank: int | None
    coefficients: tuple[float, ...] = ()
    order: int | None = None
    bound: float | None = None

    @classmethod
    def of(cls, X: Float64[Tensor, "d n"], population: Population, K: Float64[Tensor, "n n"] | None) -> Expansion:
        """The expansion of an activation on the samples in the columns of X, at the limit K where there is one."""
        phi = population.activation
        d, n = X.shape
        rank = d if phi.curvature == 0 and phi.at_zero == 0 and n > d else None
        own = (phi.name, phi.curvature, phi.odd, antipodal_pair(X), rank)
        return cls(*own) if K is None else cls(*own, *_lower_bound(population, K))

    @property
    def vanishes(self) -> bool:
        """Whether lambda_* = lambda_0 = 0 exactly: two samples are antipodal and phi odd, or n > d and phi linear."""
        return (self.odd and self.antipodal is not None) or self.rank is not None

    @property
    def listed(self) -> tuple[float, ...]:
        """The coefficients up to the order that decides, and at least up to order 10."""
        return self.coefficients[: max(LISTED, self.order or 0) + 1]


def _lower_bound(population: Population, K: Tensor) -> tuple[tuple[float, ...], int | None, float]:
    """Coefficients, deciding order, and the sum over r of (|a_r| - error)_+^2 (1 - max_i sum_(j != i) |rho_ij|^r)_+.

    K = sum_r D_r rho^(r) D_r with D_r = diag(a_r(p_i)) and rho^(r) the Hadamard power of the correlations, which is
    positive semi-definite (Schur) and by Gershgorin's theorem at least 1 minus its largest sum of a row. The error
    covers min_i |a_r(p_i)|: |d a_r/dp| <= (r + 2) sqrt(E phi^2)/p. Source: Truong 2023, for the expansion;
    docs/certificates.md.
    """
    variances = 2 * (population.sigma_w_sq * K.diagonal() + population.C.diagonal())
    p, spread = float(variances.mean()), float((variances.max() - variances.min()) / variances.min())
    a = _coefficients(population.activation, p)
    size, terms = math.sqrt(float(K.diagonal().max())), []
    sums = _row_sums(2 * (population.sigma_w_sq * K + population.C), variances, len(a))
    for r, (coefficient, row_sum) in enumerate(zip(a, sums, strict=True)):
        error = (COEFFICIENT_ERROR + (r + 2) * spread) * size
        terms.append(max(abs(coefficient) - error, 0.0) ** 2 * max(1 - row_sum, 0.0))
    best = max(range(len(terms)), key=terms.__getitem__)
    return a, best if terms[best] > 0 else None, sum(terms) * (1 - COEFFICIENT_ERROR)


def _coefficients(phi: Activation, variance: float) -> tuple[float, ...]:
    """Those of even order are exactly 0 where phi is odd."""
    found = phi.coefficients(variance, MOST_ORDERS).tolist()
    return tuple(0.0 if phi.odd and r % 2 == 0 else a for r, a in enumerate(found))


def _row_sums(covariance: Tensor, variances: Tensor, orders: int) -> list[float]:
    """The largest sum of a row of |rho|^r without its diagonal, for r = 0, 1, ...; never below the exact one."""
    scale = variances.rsqrt()
    rho = (covariance * scale[:, None] * scale).abs_().add_(CORRELATION_ERROR).clamp_max_(1.0).fill_diagonal_(0.0)
    power, found = torch.ones_like(rho).fill_diagonal_(0.0), list[float]()
    while len(found) < orders and (not found or found[-1] > SETTLED):
        found.append(float(power.sum(1).max()) * (1 + COEFFICIENT_ERROR))
        power.mul_(rho)
    return found + found[-1:] * (orders - len(found))


def antipodal_pair(X: Float64[Tensor, "d n"]) -> tuple[int, int] | None:
    """The first pair i < j of samples with x_j = -x_i to the last bit; None where there is none."""
    opposite = cosines(X / torch.linalg.vector_norm(X, dim=0)) < -0.5
    for i, j in opposite.triu().nonzero().tolist():
        if torch.equal(X[:, i], -X[:, j]):
            return int(i), int(j)
    return None
