"""Which solver, when: products and time of every kind over sigma_w^2, over both limits of W, and near criticality."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from pydantic import TypeAdapter
from torch import Tensor

from benchmarks.problem import trainable_copy
from benchmarks.tables import Row, publish, say
from deqcli.deq.activations import ACTIVATIONS
from deqcli.deq.kinds import SolverOptions
from deqcli.deq.model import Component, Params
from deqcli.deq.network import Network
from deqcli.deq.solvers import Solution, Solver

KINDS = ("picard", "continuation", "anderson", "newton", "auto")
SIGMAS = (0.01, 0.08, 0.125, 0.2, 0.3, 0.4, 0.45)
RADII = (0.9, 0.97, 0.99, 0.999)
M, N, D = 400, 100, 100
STEPS = 4
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}


@dataclass(frozen=True)
class Draw:
    """A network by how it was drawn, in float64."""

    family: str
    parameter: float
    params: Params


def draws() -> Iterator[Draw]:
    """Gaussian W, Haar-orthogonal W of the same entries' variance, and non-negative W of a spectral radius near 1."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    W, U, a = normal(M, M) / math.sqrt(M), normal(M, D) * math.sqrt(2 / D), normal(M) / math.sqrt(M)
    haar = torch.linalg.qr(normal(M, M)).Q
    for family, matrix in (("gaussian", W), ("orthogonal", haar)):
        for sigma_w_sq in SIGMAS:
            yield Draw(family, sigma_w_sq, Params(math.sqrt(2 * sigma_w_sq) * matrix, U, a))
    positive = W.abs() / float(torch.linalg.eigvals(W.abs()).abs().max())
    for radius in RADII:
        yield Draw("non-negative", radius, Params(radius * positive, U, a))


def solved(draw: Draw, kind: str, dtype: torch.dtype, X: Tensor) -> Row:
    """Both equations from 0, then a few gradient steps: products and milliseconds."""
    solver: Solver = TypeAdapter(SolverOptions).validate_python(
        {"kind": kind, "tolerance": TOLERANCE[dtype], "max_iterations": 500}
    )
    params = trainable_copy(draw.params.to(dtype))
    network = Network(params, X.to(dtype), Component(ACTIVATIONS["relu"], solver))
    cold, ms = _timed(network)
    e = network.prediction_error(torch.ones(N, dtype=dtype))
    products, times = 0, []
    for _ in range(STEPS):
        network.descend(e, _rate(network))
        warm, seconds = _timed(network)
        products += sum(solution.iterations for solution in warm)
        times.append(seconds)
    ended = [*cold, *warm]
    return {
        "family": draw.family, "parameter": draw.parameter, "dtype": str(dtype)[6:], "kind": kind,
        "products_equilibrium": cold[0].iterations, "products_adjoint": cold[1].iterations, "ms": ms,
        "products_a_step": products / STEPS, "ms_a_step": sorted(times)[STEPS // 2],
        "status": " ".join(sorted({solution.status.value for solution in ended})),
    }  # fmt: skip


def _timed(network: Network) -> tuple[list[Solution], float]:
    start = time.perf_counter()
    solutions = [network.solve_equilibrium(), network.solve_adjoint()]
    return solutions, 1e3 * (time.perf_counter() - start)


def _rate(network: Network) -> float:
    """Half of what makes the prediction error of the largest sample vanish in a step, by the trace of the kernel."""
    Z, V = network.Z, network.V
    squares = Z.square().sum(0)
    H = squares + V.square().sum(0) * (squares + D)
    return 0.5 / float(H.sum())


def run() -> None:
    """Every draw, kind and precision."""
    X = torch.randn((D, N), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    X *= math.sqrt(D) / torch.linalg.vector_norm(X, dim=0)
    rows = []
    for draw in draws():
        say(f"solvers: {draw.family} {draw.parameter:g}")
        for dtype in TOLERANCE:
            rows += [solved(draw, kind, dtype, X) for kind in KINDS]
    publish("solvers", f"Solvers at m={M}, n={N}, d={D}: from 0, and in a gradient step", rows)
