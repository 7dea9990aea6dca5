"""Monotone weights: a proof that I - W is strongly monotone, and how far Z may then be from the equilibrium."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from deqcli.deq.memory import CHOLESKY_UP_TO
from deqcli.deq.precision import UNIT_ROUNDOFF, to_float64

LEAST_GAP, MOST_GAP = 1e-12, 0.5


def monotonicity_lower(W: Float[Tensor, "m m"], monotonicity: float) -> float | None:
    """A number that lambda_min((2 I - W - W^T)/2) is not below, given the `monotonicity` it should be.

    Proved, rounding included, where the Cholesky factorisation of A = I - (W + W^T)/2 - t I runs to its end in float64:
    it is then that of A + E with ||E||_2 <= gamma_(m+1)/(1 - gamma_(m+1)) tr A, and forming A is off by at most
    3 u (||W||_F + (1 + t) sqrt(m)); the bound is t less both. t falls from the monotonicity until it succeeds.
    None where no t above half of it does, and for m > 8000. Shapes: W (m, m). Costs m^3/3 operations.
    Source: Rump 2006, Verification of positive definiteness, BIT 46; Higham 2002, theorem 10.3.
    """
    m = len(W)
    if m > CHOLESKY_UP_TO:
        return None
    W = to_float64(W)
    A = (W + W.T).mul_(-0.5)
    symmetric, size, gap = A.diagonal() + 1, float(torch.linalg.vector_norm(W)), LEAST_GAP
    while gap < MOST_GAP:
        t = monotonicity * (1 - gap)
        A.diagonal().copy_(symmetric - t)
        if int(torch.linalg.cholesky_ex(A.cpu()).info) == 0:
            trace = float(A.diagonal().abs().sum())
            of_A = 3 * UNIT_ROUNDOFF * (size + (1 + abs(t)) * math.sqrt(m))
            return t - 2 * (m + 2) * UNIT_ROUNDOFF * trace - of_A
        gap *= 10
    return None


def monotone_error_bound(residual: float, spectral_norm: float, monotonicity: float) -> float:
    """(1 + ||W||_2/mu) times the residual, a bound on ||Z - Z*||_F where I - W >= mu I, relative as the residual is.

    For a phi that is nondecreasing with L <= 1, and whatever ||W||_2 is. With Y = F(Z) the layer and R = Y - Z,
    ||Y - Z*||^2 <= <Y - Z*, W (Z - Z*)> = <Y - Z*, W (Y - Z*)> - <Y - Z*, W R>, as phi is firmly non-expansive, so
    mu ||Y - Z*|| <= ||W||_2 ||R||. Source: Winston and Kolter 2020, for the one Z*; docs/certificates.md.
    """
    return (1 + spectral_norm / monotonicity) * residual
