"""What the theory asks of a draw in numbers: as computed, and as bounds on the side that makes a claim safe."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float64
from torch import Tensor

from deqcli.deq.hermite import REQUIRED
from deqcli.deq.precision import UNIT_ROUNDOFF
from deqcli.deq.solvers import error_bound
from deqcli.deq.spectral import gram_rounding, spectral_norm, spectral_norm_upper
from deqcli.errors import NumericalFailure
from deqcli.theory.draw import OnPart, SolvedDraw
from deqcli.theory.expansion import Expansion
from deqcli.theory.features import least_feature_eigenvalue
from deqcli.theory.hypotheses import RELU, missing
from deqcli.theory.monotone import monotone_error_bound, monotonicity_lower
from deqcli.theory.population import Population
from deqcli.theory.prediction import KernelPrediction
from deqcli.theory.rounding import cosines, deviation, norm, worst_rounding
from deqcli.theory.sizes import Scales, Sizes

LANCZOS_TOLERANCE = 1e-10

ENLARGED = 1 + 2.0**-43
"""More than the roundings of evaluating both sides of an inequality, some 50 operations."""


@dataclass(frozen=True)
class Spectra:
    """Ascending eigenvalues of G(0) and H(0), and of their limits m K and H_inf where these exist, by LAPACK.

    `gram_deviation` = ||G/m - K||_F/||K||_F and `ntk_deviation` = ||H - H_inf||_F/||H_inf||_F. Shapes: (n,).
    """

    gram: Float64[Tensor, " n"]
    ntk: Float64[Tensor, " n"]
    population_gram: Float64[Tensor, " n"] | None = None
    population_ntk: Float64[Tensor, " n"] | None = None
    gram_deviation: float | None = None
    ntk_deviation: float | None = None


@dataclass(frozen=True)
class Initial:
    """A draw in numbers: `computed`, and `safe`, with bounds on the safe side of each.

    `safe` has upper bounds of every norm, deviation, cosine and of lambda_star, and a lower bound of lambda_0, 0 where
    there is none. `error_bound` bounds ||Z - Z*||_F/||Z||_F; None where neither L ||W(0)||_2 < 1 nor that I - W is
    monotone is proved. `lambda_largest` is the largest eigenvalue of K. `expansion` is that of any phi but the ReLU,
    which the paper is about. `monotonicity` is a proved lower bound of lambda_min of the symmetric part of I - W, where
    the recipe has a monotone W. `lambda_features` is lambda_0 of Gao et al., of a skip from rectified features.
    """

    scales: Scales
    width: int
    input_dim: int
    num_samples: int
    computed: Sizes
    safe: Sizes
    error_bound: float | None
    lambda_largest: float | None
    spectra: Spectra
    kernel: KernelPrediction
    expansion: Expansion | None = None
    monotonicity: float | None = None
    lambda_features: float | None = None

    @property
    def loss(self) -> float:
        """Phi(0) = ||e(0)||^2 / 2."""
        return 0.5 * self.computed.norm_e**2

    @property
    def outside(self) -> dict[str, str]:
        """The hypotheses that the draw does not meet, by name, in words."""
        return missing(self.scales, self.safe, self.width, self.num_samples, self.expansion)


def measure_initial(
    draw: SolvedDraw, scales: Scales, against_limit: bool = True, on_part: OnPart = lambda _: None
) -> Initial:
    """Measure what Assumptions 1 and 2, Theorems 1 and 2 are about; `against_limit` compares H(0) with H_inf as well.

    G = Z^T Z, lambda_0 = lambda_min(G), lambda_star = lambda_min(K), H(0) from V; norms of W and U with upper bounds.
    Source: Ling et al. 2023, sections 2 and 3.
    """
    return _Measurement(draw, scales, against_limit).initial(on_part)


class _Measurement:
    """The parts of a measurement, each computed once."""

    def __init__(self, draw: SolvedDraw, scales: Scales, against_limit: bool) -> None:
        activation = draw.network.activation
        self.draw, self.against_limit = draw, against_limit
        self.scales = replace(scales, lipschitz=activation.lipschitz, at_zero=activation.at_zero)
        self.population = Population.of(draw.X, scales.sigma_w_sq, activation, scales.readout_scale)
        self.m, self.n = draw.Z.shape
        self.d = draw.X.shape[0]

    def initial(self, on_part: OnPart) -> Initial:
        on_part("tangent kernel H(0)")
        kernel = self.kernel
        on_part("kernel of the limit")
        spectra, population = self.spectra, self.spectra.population_gram
        on_part("norms of W(0) and U(0)")
        computed = self.computed
        on_part("proved bounds of the norms")
        return Initial(
            scales=self.scales,
            width=self.m,
            input_dim=self.d,
            num_samples=self.n,
            computed=computed,
            safe=self.safe(),
            error_bound=self.error_bound,
            lambda_largest=None if population is None else float(population[-1]) / self.m,
            spectra=spectra,
            kernel=kernel,
            expansion=self.expansion,
            monotonicity=self.monotonicity,
            lambda_features=self.lambda_features,
        )

    @cached_property
    def kernel(self) -> KernelPrediction:
        return KernelPrediction.of(self.draw.H, self.draw.prediction_error)

    @cached_property
    def spectra(self) -> Spectra:
        G, H, m = self.draw.G, self.draw.H, self.m
        own = Spectra(eigenvalues(G), torch.from_numpy(self.kernel.eigenvalues))
        if self.K is None:
            return own
        found = replace(own, population_gram=eigenvalues(m * self.K), gram_deviation=deviation(G / m, self.K))
        try:
            rates = self.draw.network.component.rates
            limit = self.population.ntk(self.K, m, rates) if self.against_limit else None
        except NumericalFailure:
            limit = None
        if limit is None:
            return found
        return replace(found, population_ntk=eigenvalues(limit), ntk_deviation=deviation(H, limit))

    @cached_property
    def K(self) -> Tensor | None:
        """The limit of G/m; None where it does not exist, or where this initialisation has another one."""
        try:
            return self.population.gram() if self.scales.gaussian_limit else None
        except NumericalFailure:
            return None

    @cached_property
    def expansion(self) -> Expansion | None:
        is_relu = self.population.activation.name == RELU
        return None if is_relu else Expansion.of(self.draw.X, self.population, self.K)

    @cached_property
    def computed(self) -> Sizes:
        params, X = self.draw.params, self.draw.X
        lengths = torch.linalg.vector_norm(X, dim=0)
        limit, vanishes = self.spectra.population_gram, self.expansion is not None and self.expansion.vanishes
        return Sizes(
            spectral_norm=spectral_norm(params.W, tolerance=LANCZOS_TOLERANCE)[0],
            spectral_norm_u=spectral_norm(params.U, tolerance=LANCZOS_TOLERANCE)[0],
            spectral_norm_x=spectral_norm(X, tolerance=LANCZOS_TOLERANCE)[0],
            spectral_norm_z=math.sqrt(max(float(self.spectra.gram[-1]), 0.0)),
            norm_a=norm(params.a),
            norm_x=norm(X),
            norm_e=norm(self.draw.prediction_error),
            norm_deviation=float((lengths / self.d**0.5 - 1).abs().max()),
            largest_cosine=float(cosines(X / lengths).abs().max()),
            lambda_0=0.0 if self.n > self.m or vanishes else max(float(self.spectra.gram[0]), 0.0),
            lambda_star=None if limit is None else 0.0 if vanishes else max(float(limit[0]), 0.0) / self.m,
            lipschitz=self.scales.lipschitz,
            norm_at_zero=self.norm_at_zero,
        )

    @property
    def norm_at_zero(self) -> float:
        return abs(self.scales.at_zero) * math.sqrt(self.m * self.n)

    def safe(self) -> Sizes:
        """Every number with what rounding, the eigensolver and the residual of Z may hide."""
        c, (params, X) = self.computed, (self.draw.params, self.draw.X)
        u, (m, d, n) = UNIT_ROUNDOFF, (self.m, self.d, self.n)
        return Sizes(
            spectral_norm=self.spectral_norm_upper,
            spectral_norm_u=spectral_norm_upper(params.U, c.spectral_norm_u),
            spectral_norm_x=spectral_norm_upper(X, c.spectral_norm_x) * ENLARGED,
            spectral_norm_z=self._spectral_norm_z_upper() * ENLARGED,
            norm_a=c.norm_a * (1 + (m + 4) * u),
            norm_x=c.norm_x * (1 + (n * d + 4) * u) * ENLARGED,
            norm_e=self._norm_e_upper() * ENLARGED,
            norm_deviation=c.norm_deviation + (d + 4) * u,
            largest_cosine=c.largest_cosine + (2 * d + 8) * u if n > 1 else 0.0,
            lambda_0=0.0 if self.error_bound is None else self._lambda_0_lower(self.error_bound) / ENLARGED,
            lambda_star=self._lambda_star_upper(),
            lipschitz=c.lipschitz,
            norm_at_zero=c.norm_at_zero * ENLARGED,
        )

    @cached_property
    def spectral_norm_upper(self) -> float:
        return spectral_norm_upper(self.draw.params.W, self.computed.spectral_norm)

    @cached_property
    def monotonicity(self) -> float | None:
        mu = self.scales.monotonicity
        return None if mu is None else monotonicity_lower(self.draw.params.W, mu)

    @cached_property
    def lambda_features(self) -> float | None:
        if not self.scales.features:
            return None
        return least_feature_eigenvalue(self.population.C, self.population.activation)

    @cached_property
    def error_bound(self) -> float | None:
        """By contraction or by monotonicity of the weights, whichever is smaller; the second needs a monotone phi."""
        phi, rounding, upper = self.draw.network.activation, worst_rounding(self.draw.network), self.spectral_norm_upper
        found = error_bound(self.draw.residual, replace(self.computed, spectral_norm=upper).contraction, rounding)
        if not self.monotonicity or self.monotonicity <= 0 or not phi.nondecreasing or phi.lipschitz > 1:
            return found
        other = monotone_error_bound(self.draw.residual + rounding, upper, self.monotonicity)
        return other if found is None else min(found, other)

    @cached_property
    def _trace(self) -> float:
        return float(self.draw.G.trace())

    def _lambda_0_lower(self, error: float) -> float:
        """A lower bound of lambda_min(Z*^T Z*), from the computed G and error >= ||Z - Z*||_F / ||Z||_F.

        Subtracted: what rounding moves (`gram_rounding`), and 2 sqrt(lambda tr G) error + error^2 tr G for that of Z.
        Source: Weyl's inequality, for eigenvalues and for singular values.
        """
        least = self.computed.lambda_0
        moved = 2 * math.sqrt(least * self._trace) * error + error**2 * self._trace
        return max(least - gram_rounding(self.draw.Z, self.draw.G) - moved, 0.0)

    def _spectral_norm_z_upper(self) -> float:
        """sqrt(lambda_max(G) + rounding) + ||Z - Z*||_F. Without an error bound nothing rests on it."""
        largest = self.computed.spectral_norm_z**2 + gram_rounding(self.draw.Z, self.draw.G)
        return math.sqrt(largest) + (self.error_bound or 0.0) * math.sqrt(self._trace)

    def _norm_e_upper(self) -> float:
        """||e|| + ||a|| ||Z - Z*||_F + the rounding of a^T Z - y: (m + n + 4) u (||a|| ||Z||_F + ||y||) at most."""
        size, error = self.computed.norm_a * math.sqrt(self._trace), self.error_bound or 0.0
        rounding = (self.m + self.n + 4) * UNIT_ROUNDOFF * (size + norm(self.draw.y))
        return self.computed.norm_e + size * error + rounding

    def _lambda_star_upper(self) -> float | None:
        """lambda_star + (2 n + d + 16) u tr K: the errors of LAPACK, of X^T X/d, and of the dual in each entry.

        And 2e-10 tr K where the dual has no closed form to rely on: an expansion is given to 1e-10.
        """
        if self.computed.lambda_star is None or self.spectra.population_gram is None:
            return None
        trace = float(self.spectra.population_gram.sum()) / self.m
        of_dual = 0.0 if self.draw.network.activation.homogeneous else 2 * REQUIRED
        return self.computed.lambda_star + ((2 * self.n + self.d + 16) * UNIT_ROUNDOFF + of_dual) * trace


def eigenvalues(kernel: Float64[Tensor, "n n"]) -> Float64[Tensor, " n"]:
    """All eigenvalues, ascending, by LAPACK in float64.

    Raises: NumericalFailure where the kernel is not finite (LAPACK would return finite nonsense).
    """
    if not bool(kernel.isfinite().all()):
        raise NumericalFailure(
            "a kernel of the draw overflows; use a smaller model.readout_scale or a smaller model.sigma_w_sq"
        )
    values: Tensor = torch.linalg.eigvalsh(kernel.cpu())
    return values
