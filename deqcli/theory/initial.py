"""What the theory asks of a draw in numbers: as computed, and as bounds on the side that makes a claim safe."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float64
from torch import Tensor

from deqcli.deq.network import Network
from deqcli.deq.precision import UNIT_ROUNDOFF
from deqcli.deq.solvers import error_bound, frobenius_norms
from deqcli.deq.spectral import gram_rounding, spectral_norm, spectral_norm_upper
from deqcli.errors import NumericalFailure
from deqcli.theory.draw import OnPart, SolvedDraw
from deqcli.theory.population import Population
from deqcli.theory.prediction import KernelPrediction

LANCZOS_TOLERANCE = 1e-10
SMALL = 1e-100
"""Entries below it are scaled before they are squared."""

ENLARGED = 1 + 2.0**-43
"""More than the roundings of evaluating both sides of an inequality, some 50 operations."""


@dataclass(frozen=True)
class Scales:
    """The scales of the initialisation that the theory refers to."""

    sigma_w_sq: float
    readout_scale: float

    @property
    def spectral_norm_limit(self) -> float:
        """2 sqrt2 sigma_w, the limit of ||W(0)||_2 as the width grows (Ling et al. 2023, Lemma 1)."""
        return 2 * math.sqrt(2 * self.sigma_w_sq)


@dataclass(frozen=True)
class Sizes:
    """The numbers that inequalities are made of: ||.||_2 where named spectral, else Euclidean or Frobenius norms.

    `lambda_star` is None where K does not exist.
    """

    spectral_norm: float
    spectral_norm_u: float
    spectral_norm_x: float
    spectral_norm_z: float
    norm_a: float
    norm_x: float
    norm_e: float
    norm_deviation: float
    largest_cosine: float
    lambda_0: float
    lambda_star: float | None


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
    there is none. `error_bound` bounds ||Z - Z*||_F/||Z||_F; None where ||W(0)||_2 < 1 is not proved.
    `lambda_largest` is the largest eigenvalue of K.
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

    @property
    def loss(self) -> float:
        """Phi(0) = ||e(0)||^2 / 2."""
        return 0.5 * self.computed.norm_e**2

    @property
    def outside(self) -> dict[str, str]:
        """The hypotheses that the draw does not meet, by name, in words."""
        s, upper, n, m = self.scales.sigma_w_sq, self.safe.spectral_norm, self.num_samples, self.width
        found = {
            "assumption_1": (s >= 0.125, f"sigma_w_sq = {s:g} is not below 1/8 (Assumption 1)"),
            "well_posed": (upper >= 1, f"||W(0)||_2 <= {upper:.6g} is not below 1, so Condition 1 has no delta"),
            "enough_width": (
                n > m,
                f"num_samples {n} > width {m}: lambda_0 is exactly 0, and no width below {n} can pass",
            ),
        }
        return {name: sentence for name, (fails, sentence) in found.items() if fails}


def measure_initial(
    draw: SolvedDraw, scales: Scales, against_limit: bool = True, on_part: OnPart = lambda _: None
) -> Initial:
    """Measure what Assumptions 1 and 2, Theorems 1 and 2 are about; `against_limit` compares H(0) with H_inf as well.

    G = Z^T Z, lambda_0 = lambda_min(G), lambda_star = lambda_min(K), H(0) from V; norms of W and U with upper bounds.
    Source: Ling et al. 2023, sections 2 and 3.
    """
    return _Measurement(draw, scales, against_limit).initial(on_part)


def marked(source: str, missing: Sequence[str]) -> str:
    """The source of a statement, with the hypotheses that the draw does not meet."""
    return f"{source}; outside its hypotheses: {', '.join(missing)}" if missing else source


class _Measurement:
    """The parts of a measurement, each computed once."""

    def __init__(self, draw: SolvedDraw, scales: Scales, against_limit: bool) -> None:
        self.draw, self.scales, self.against_limit = draw, scales, against_limit
        activation = draw.network.activation
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
        )

    @cached_property
    def kernel(self) -> KernelPrediction:
        return KernelPrediction.of(self.draw.H, self.draw.prediction_error)

    @cached_property
    def spectra(self) -> Spectra:
        G, H, m = self.draw.G, self.draw.H, self.m
        own = Spectra(eigenvalues(G), torch.from_numpy(self.kernel.eigenvalues))
        try:
            K = self.population.gram()
            limit = self.population.ntk(K, m) if self.against_limit else None
        except NumericalFailure:
            return own
        found = replace(own, population_gram=eigenvalues(m * K), gram_deviation=_deviation(G / m, K))
        if limit is None:
            return found
        return replace(found, population_ntk=eigenvalues(limit), ntk_deviation=_deviation(H, limit))

    @cached_property
    def computed(self) -> Sizes:
        params, X = self.draw.params, self.draw.X
        lengths = torch.linalg.vector_norm(X, dim=0)
        limit = self.spectra.population_gram
        return Sizes(
            spectral_norm=spectral_norm(params.W, tolerance=LANCZOS_TOLERANCE)[0],
            spectral_norm_u=spectral_norm(params.U, tolerance=LANCZOS_TOLERANCE)[0],
            spectral_norm_x=spectral_norm(X, tolerance=LANCZOS_TOLERANCE)[0],
            spectral_norm_z=math.sqrt(max(float(self.spectra.gram[-1]), 0.0)),
            norm_a=_norm(params.a),
            norm_x=_norm(X),
            norm_e=_norm(self.draw.prediction_error),
            norm_deviation=float((lengths / self.d**0.5 - 1).abs().max()),
            largest_cosine=_largest_cosine(X / lengths),
            lambda_0=0.0 if self.n > self.m else max(float(self.spectra.gram[0]), 0.0),
            lambda_star=None if limit is None else max(float(limit[0]), 0.0) / self.m,
        )

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
        )

    @cached_property
    def spectral_norm_upper(self) -> float:
        return spectral_norm_upper(self.draw.params.W, self.computed.spectral_norm)

    @cached_property
    def error_bound(self) -> float | None:
        lipschitz = self.draw.network.activation.lipschitz
        return error_bound(self.draw.residual, lipschitz * self.spectral_norm_upper, _worst_rounding(self.draw.network))

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
        rounding = (self.m + self.n + 4) * UNIT_ROUNDOFF * (size + _norm(self.draw.y))
        return self.computed.norm_e + size * error + rounding

    def _lambda_star_upper(self) -> float | None:
        """lambda_star + (2 n + d + 16) u tr K: the errors of LAPACK, of X^T X/d, and of the dual in each entry."""
        if self.computed.lambda_star is None or self.spectra.population_gram is None:
            return None
        trace = float(self.spectra.population_gram.sum()) / self.m
        return self.computed.lambda_star + (2 * self.n + self.d + 16) * UNIT_ROUNDOFF * trace


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


def _deviation(measured: Tensor, limit: Tensor) -> float | None:
    size = _norm(limit)
    return _norm(measured - limit) / size if size > 0 else None


def _norm(tensor: Tensor) -> float:
    """The Euclidean norm, also of numbers whose squares underflow."""
    largest = float(torch.linalg.vector_norm(tensor, math.inf))
    scale = largest if 0 < largest < SMALL else 1.0
    return scale * float(torch.linalg.vector_norm(tensor / scale))


def _worst_rounding(network: Network) -> float:
    """gamma_(m+d+2) (|| |W| ||_2 + || |U| ||_2 ||X||_F/||Z||_F), a bound on the rounding of W Z + U X over ||Z||_F.

    || |W| ||_2 <= sqrt(||W||_1 ||W||_inf). 0 where Z = 0. Source: Higham 2002, section 3.5.
    """
    params, k = network.params, sum(network.params.U.shape) + 2
    size, input_size = frobenius_norms(network.Z, network.X)
    gamma = k * UNIT_ROUNDOFF / (1 - k * UNIT_ROUNDOFF)
    return gamma * (_absolute_norm(params.W) + _absolute_norm(params.U) * input_size / size) if size > 0 else 0.0


def _absolute_norm(W: Tensor) -> float:
    """sqrt(||W||_1 ||W||_inf), which || |W| ||_2 does not exceed."""
    columns, rows = (float(torch.linalg.vector_norm(W, 1, dim=dim).max()) for dim in (0, 1))
    return math.sqrt(columns) * math.sqrt(rows)


def _largest_cosine(directions: Tensor) -> float:
    """Max over pairs of |cos(x_i, x_j)|; 0 for one sample."""
    cosines = (directions.T @ directions).abs().fill_diagonal_(0.0)
    return float(cosines.max())
