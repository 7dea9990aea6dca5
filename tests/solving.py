"""What the tests of solvers share: random and extreme networks, and residuals that torch had no part in."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from deqcli.deq.network import Network
from deqcli.deq.solvers import Solution, Solver, Status
from tests.dense import Problem, draw_problem, network_with

DTYPES = {"float32": torch.float32, "float64": torch.float64}
TIGHT = {"float32": 1e-6, "float64": 1e-12}


def rounded(p: Problem, dtype: torch.dtype) -> Problem:
    """The problem that a network of this precision really has."""
    return Problem(*(torch.tensor(x, dtype=dtype).double().numpy() for x in (p.W, p.U, p.a, p.X, p.y)))


def relative(image: np.ndarray, point: np.ndarray) -> float:
    """||image - point|| / ||image||, the larger of the two scaled to 1; 0 where both are 0."""
    largest = max(np.abs(image).max(), np.abs(point).max())
    if largest == 0:
        return 0.0
    with np.errstate(divide="ignore"):
        return float(np.linalg.norm((image - point) / largest) / np.linalg.norm(image / largest))


def residual_at(p: Problem, Z: np.ndarray) -> float:
    """||phi(W Z + U X) - Z|| / ||phi(W Z + U X)|| in numpy float64."""
    return relative(np.maximum(p.W @ Z + p.U @ p.X, 0.0), Z)


def equilibrium_residual(p: Problem, network: Network) -> float:
    """The same at the Z of a network."""
    return residual_at(p, network.Z.double().numpy())


def adjoint_residual(p: Problem, network: Network) -> float:
    """||D * (W^T V + a 1^T) - V|| / ||D * (W^T V + a 1^T)|| in numpy float64, with the D that the network has."""
    V, D = network.V.double().numpy(), network.slope.double().numpy()
    return relative(D * (p.W.T @ V + p.a[:, None]), V)


def belongs(network: Network, tolerance: float) -> bool:
    """Whether the pre-activation of the equilibrium is that of its point, up to rounding and the tolerance."""
    W, track = network.params.W, network.equilibrium
    missed = track.point @ W.mT + network.injection.value - track.preactivation
    allowed = tolerance + 100 * torch.finfo(W.dtype).eps
    return bool(torch.linalg.norm(missed) <= allowed * max(track.preactivation.norm(), track.point.norm()) * W.norm())


def assert_honest(solution: Solution, residual: float, tolerance: float, dtype: torch.dtype) -> None:
    """The residual reported is the true one, and the status follows from it."""
    if solution.status is Status.DIVERGED:
        assert not math.isfinite(solution.residual)
        return
    assert solution.residual == pytest.approx(residual, rel=0.05, abs=30 * torch.finfo(dtype).eps)
    assert (solution.status is Status.CONVERGED) == (solution.residual <= tolerance)


def honest(solver: Solver, seed: int) -> Status:
    """One random network, ||W||_2 from 0.1 to 6, of random shape and precision; its status, which is checked."""
    rng = np.random.default_rng(seed)
    norm, dtype = rng.uniform(0.1, 6.0), list(DTYPES.values())[seed % 2]
    n, d, m = (int(k) for k in rng.integers((1, 1, 1), (9, 9, 60)))
    p = rounded(draw_problem(n, d, m, norm=norm, seed=seed), dtype)
    most = int(rng.choice([2, 3, 30, 200, 400]))
    network = network_with(solver.model_copy(update={"max_iterations": most}), p, dtype)
    tolerance = TIGHT[str(dtype)[6:]]
    solution = network.solve_equilibrium()
    assert 1 <= solution.iterations <= most
    assert_honest(solution, equilibrium_residual(p, network), tolerance, dtype)
    if solution.status is Status.DIVERGED:
        assert not network.Z.abs().max() <= 1e15
    if solution.status is Status.CONVERGED:
        assert belongs(network, tolerance)
        adjoint = network.solve_adjoint()
        assert 1 <= adjoint.iterations <= most
        assert_honest(adjoint, adjoint_residual(p, network), tolerance, dtype)
    return solution.status


def positive_problem(rho: float, m: int = 40, n: int = 7, seed: int = 0) -> Problem:
    """Non-negative W of spectral radius `rho` and positive U X, so that Z = (I - W)^-1 U X; rank one and some noise."""
    p, rng = draw_problem(n, 5, m, seed=seed), np.random.default_rng(seed)
    W = np.ones((m, m)) / m + 0.3 * np.abs(p.W) / np.abs(p.W).sum(axis=1).max() * rng.uniform(0.5, 1, (m, 1))
    return replace(p, W=W * rho / np.abs(np.linalg.eigvals(W)).max(), U=np.abs(p.U), X=np.abs(p.X))


def closed_form(p: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Z = (I - W)^-1 U X and V = (I - W^T)^-1 a 1^T of a positive problem."""
    eye = np.eye(len(p.W))
    V = np.linalg.solve(eye - p.W.T, p.a)
    return np.linalg.solve(eye - p.W, p.U @ p.X), np.repeat(V[:, None], p.X.shape[1], axis=1)


def distance(found: torch.Tensor, wanted: np.ndarray) -> float:
    """The relative error in the Frobenius norm."""
    return float(np.linalg.norm(found.double().numpy() - wanted) / np.linalg.norm(wanted))


def dying(p: Problem) -> Problem:
    """The same hidden layer with U X < 0 in every entry: its only equilibrium is Z = 0, and D = 0 there."""
    return replace(p, U=-np.abs(p.U), X=np.abs(p.X))
