"""What the tests of training share: steps of one network or of a stack, and the problem that it has at each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import config

from deqcli.deq.activations import ACTIVATIONS
from deqcli.deq.model import Component, Params
from deqcli.deq.network import Network
from deqcli.deq.solvers import Solution, Solver
from tests.dense import Problem

Confirm = Callable[[int], bool]


@contextmanager
def shapes_unchecked() -> Iterator[None]:
    """Without the checks of shapes at every call, which take most of the time of many small steps."""
    before = config.jaxtyping_disable
    config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        config.update("jaxtyping_disable", before)


def stack_of(solver: Solver, problems: Sequence[Problem], dtype: torch.dtype = torch.float64) -> Network:
    """The networks of several problems of one shape, in one stack."""
    W, U, a, X = (torch.stack([torch.tensor(getattr(p, name), dtype=dtype) for p in problems]) for name in "WUaX")
    return Network(Params(W, U, a), X, Component(ACTIVATIONS["relu"], solver))


def labels(problems: Sequence[Problem], dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """The labels of a stack, (c, n)."""
    return torch.stack([torch.tensor(p.y, dtype=dtype) for p in problems])


def problem_now(p: Problem, network: Network) -> Problem:
    """The problem with the weights that a network has by now."""
    params = network.params
    return replace(p, **{name: getattr(params, name).double().numpy().copy() for name in ("W", "U", "a")})


def weights_of(network: Network) -> Params:
    """Copies of W, U and a."""
    params = network.params
    return Params(params.W.clone(), params.U.clone(), params.a.clone())


def auto_rate(network: Network) -> float:
    """1/lambda_max(H) of a solved network, H = (Z^T Z + X^T X) * (V^T V) + Z^T Z; 1 where H = 0."""
    Z, V, X = (tensor.double().numpy() for tensor in (network.Z, network.V, network.X))
    largest = np.linalg.eigvalsh((Z.T @ Z + X.T @ X) * (V.T @ V) + Z.T @ Z)[-1]
    return float(1 / largest) if largest > 0 else 1.0


def steps(
    network: Network, y: torch.Tensor, rate: float | torch.Tensor | None, count: int, confirm: Confirm = lambda _: True
) -> Iterator[tuple[list[Solution], list[Solution]]]:
    """Solve, hand out the solutions of equilibrium and adjoint, descend: so many times, and solve once more.

    Without a rate it is `auto_rate` of the first step.
    """
    for step in range(count + 1):
        confirmed = [confirm(step)] * network.size
        yield network.solve_equilibria(confirmed), network.solve_adjoints(confirmed)
        rate = auto_rate(network) if rate is None else rate
        if step < count:
            network.descend(network.prediction_error(y), rate)
