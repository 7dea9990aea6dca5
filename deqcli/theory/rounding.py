"""Norms of arrays, and what the rounding of a layer may come to in the worst case."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from deqcli.deq.network import Network
from deqcli.deq.precision import UNIT_ROUNDOFF
from deqcli.deq.solvers import frobenius_norms

SMALL = 1e-100
"""Entries below it are scaled before they are squared."""

ROUNDINGS_OF_PHI = 8
"""Of phi as computed in float64: in units of roundoff, of its value and of its pre-activation."""


def norm(tensor: Tensor) -> float:
    """The Euclidean norm, also of numbers whose squares underflow."""
    largest = float(torch.linalg.vector_norm(tensor, math.inf))
    scale = largest if 0 < largest < SMALL else 1.0
    return scale * float(torch.linalg.vector_norm(tensor / scale))


def deviation(measured: Tensor, limit: Tensor) -> float | None:
    """||measured - limit||_F/||limit||_F; None where the limit is 0."""
    size = norm(limit)
    return norm(measured - limit) / size if size > 0 else None


def worst_rounding(network: Network) -> float:
    """L gamma_(m+d+2) (|| |W| ||_2 + || |U| ||_2 ||X||_F/||Z||_F), a bound on the rounding of a layer over ||Z||_F.

    || |W| ||_2 <= sqrt(||W||_1 ||W||_inf). A phi that is not a choice between two multiples is computed with an error
    of a few roundings of its value and of its pre-activation P: 8 u (1 + L ||P||_F/||Z||_F) is added, and as much for
    an injection phi(U X), whose norm takes the place of that of U X. 0 where Z = 0. Source: Higham 2002, section 3.5.
    """
    params, phi, k = network.params, network.activation, sum(network.params.U.shape) + 2
    size, input_size = frobenius_norms(network.Z, network.X)
    if size == 0:
        return 0.0
    gamma = k * UNIT_ROUNDOFF / (1 - k * UNIT_ROUNDOFF)
    injected, evaluations = absolute_norm(params.U) * input_size / size, 1
    if network.component.rectified:
        injected = phi.lipschitz * injected + abs(phi.at_zero) * math.sqrt(network.Z.numel()) / size
        evaluations = 3
    P = absolute_norm(params.W) + injected  # >= ||P||_F/||Z||_F
    rounding = phi.lipschitz * gamma * P
    if phi.homogeneous:
        return rounding
    return rounding + ROUNDINGS_OF_PHI * UNIT_ROUNDOFF * (1 + evaluations * phi.lipschitz * P)


def absolute_norm(W: Tensor) -> float:
    """sqrt(||W||_1 ||W||_inf), which || |W| ||_2 does not exceed."""
    columns, rows = (float(torch.linalg.vector_norm(W, 1, dim=dim).max()) for dim in (0, 1))
    return math.sqrt(columns) * math.sqrt(rows)


def cosines(directions: Tensor) -> Tensor:
    """cos(x_i, x_j) of unit vectors in the columns, with 0 on the diagonal; shapes (d, n), (n, n)."""
    return (directions.T @ directions).fill_diagonal_(0.0)
