"""Everything that the theory asks of a draw, measured once in float64 whatever the training precision is."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from deqcli.deq.memory import CHOLESKY_UP_TO
from deqcli.deq.network import Component, Network, Params
from deqcli.deq.precision import UNIT_ROUNDOFF, to_float64
from deqcli.deq.solvers import Status, error_bound, frobenius_norms
from deqcli.deq.spectral import (
    gram,
    gram_least_eigenvalue,
    gram_rounding,
    least_eigenvalue,
    spectral_norm,
    spectral_norm_upper,
)  # fmt: skip
from deqcli.errors import NumericalFailure
from deqcli.theory.ntk import empirical_ntk
from deqcli.theory.population import population_gram
from deqcli.theory.prediction import KernelPrediction

TOLERANCE = 1e-13
MAX_ITERATIONS = 20_000
LANCZOS_TOLERANCE = 1e-10


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
class Initial:
    """A draw in numbers: norms (upper bounds where named so), least eigenvalues, kernel, prediction error."""

    scales: Scales
    width: int
    num_samples: int
    spectral_norm: float
    spectral_norm_upper: float
    spectral_norm_u: float
    spectral_norm_upper_u: float
    norm_a: float
    norm_x: float
    norm_deviation: float
    largest_cosine: float
    norm_e: float
    lambda_0: float
    lambda_0_lower: float | None
    lambda_star: float
    error_bound: float | None
    kernel: KernelPrediction

    def on_the_safe_side(self) -> Initial:
        """The same draw with upper bounds for the norms of W and U, and the lower bound of lambda_0, or else 0."""
        return replace(
            self,
            spectral_norm=self.spectral_norm_upper,
            spectral_norm_u=self.spectral_norm_upper_u,
            lambda_0=self.lambda_0_lower or 0.0,
        )

    @property
    def loss(self) -> float:
        """Phi(0) = ||e(0)||^2 / 2."""
        return 0.5 * self.norm_e**2


def measure_initial(
    params: Params, X: Float[Tensor, "d n"], y: Float[Tensor, " n"], component: Component, scales: Scales
) -> Initial:
    """Solve the drawn network in float64 and measure what Assumptions 1 and 2, Theorems 1 and 2 are about.

    G = Z^T Z, lambda_0 = lambda_min(G), lambda_star = lambda_min(K), H(0) from V; norms of W and U with upper bounds.
    Shapes: X (d, n), y (n,). Source: Ling et al. 2023, sections 2 and 3.
    A W of more than 8000 rows stays in its own precision, and is converted block by block as it is multiplied.
    Raises: NumericalFailure where the equilibrium or its adjoint cannot be solved to 1e-13.
    """
    W = params.W if max(params.W.shape) > CHOLESKY_UP_TO else to_float64(params.W)
    params = Params(W, to_float64(params.U), to_float64(params.a))
    X, y = (to_float64(each).to(params.W.device) for each in (X, y))
    network, residual = _solve(params, X, component)
    norm, _ = spectral_norm(params.W, tolerance=LANCZOS_TOLERANCE)
    norm_u, _ = spectral_norm(params.U, tolerance=LANCZOS_TOLERANCE)
    upper = spectral_norm_upper(params.W, norm)
    G, e = gram(network.Z), network.prediction_error(y)
    lengths = torch.linalg.vector_norm(X, dim=0)
    bound = error_bound(residual, component.activation.lipschitz * upper, _worst_rounding(network))
    return Initial(
        scales=scales,
        width=params.W.shape[0],
        num_samples=X.shape[1],
        spectral_norm=norm,
        spectral_norm_upper=upper,
        spectral_norm_u=norm_u,
        spectral_norm_upper_u=spectral_norm_upper(params.U, norm_u),
        norm_a=float(torch.linalg.vector_norm(params.a)),
        norm_x=float(torch.linalg.vector_norm(X)),
        norm_deviation=float((lengths / X.shape[0] ** 0.5 - 1).abs().max()),
        largest_cosine=_largest_cosine(X / lengths),
        norm_e=float(torch.linalg.vector_norm(e)),
        lambda_0=gram_least_eigenvalue(network.Z, G),
        lambda_0_lower=None if bound is None else _least_eigenvalue_lower(network.Z, G, bound),
        lambda_star=least_eigenvalue(population_gram(X, scales.sigma_w_sq, component.activation)),
        error_bound=bound,
        kernel=KernelPrediction.of(empirical_ntk(network, G, gram(X)), e),
    )


def _solve(params: Params, X: Tensor, component: Component) -> tuple[Network, float]:
    """The solved network, and the residual of its equilibrium."""
    patient = component.solver.model_copy(update={"tolerance": TOLERANCE, "max_iterations": MAX_ITERATIONS})
    network = Network(params, X, Component(component.activation, patient))
    solutions = network.solve_equilibrium(), network.solve_adjoint()
    for name, solution in zip(("equilibrium", "adjoint"), solutions, strict=True):
        if solution.status is not Status.CONVERGED:
            raise NumericalFailure(
                f"the {name} of the initial draw was not solved in float64: {solution.status.sentence} "
                f"(residual {solution.residual:.3g}, tolerance {TOLERANCE:g}); a smaller model.sigma_w_sq contracts"
            )
    network.rest()
    return network, solutions[0].residual


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


def _least_eigenvalue_lower(Z: Tensor, G: Tensor, error: float) -> float:
    """A lower bound of lambda_min(Z*^T Z*), from the computed Z (m, n), its G, and error >= ||Z - Z*||_F / ||Z||_F.

    Subtracted: what rounding moves (`gram_rounding`), and 2 sqrt(lambda tr G) error + error^2 tr G for that of Z.
    Source: Weyl's inequality, for eigenvalues and for singular values.
    """
    computed, trace = gram_least_eigenvalue(Z, G), float(G.trace())
    moved = 2 * math.sqrt(computed * trace) * error + error**2 * trace
    return max(computed - gram_rounding(Z, G) - moved, 0.0)


def _largest_cosine(directions: Tensor) -> float:
    """Max over pairs of |cos(x_i, x_j)|; 0 for one sample."""
    cosines = (directions.T @ directions).abs().fill_diagonal_(0.0)
    return float(cosines.max())
