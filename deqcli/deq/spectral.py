"""Spectra: norms from below and, proved, from above; least eigenvalues in float64."""

from __future__ import annotations

import math

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Float, Float64
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

from deqcli.deq.memory import CHOLESKY_UP_TO
from deqcli.deq.precision import UNIT_ROUNDOFF, to_float64, to_unit
from deqcli.deq.streams import stream
from deqcli.errors import NumericalFailure

DENSE_BELOW = 24
"""Matrices with a side below it go to a dense SVD: Lanczos has nothing to gain there."""

WELL_SCALED = (2.0**-12, 2.0**12)

RANDOM_LANCZOS_STEPS = 250
RANDOM_LANCZOS_FAILURE = 1e-12


def spectral_norm(
    W: Float[Tensor, "p q"], start: np.ndarray | None = None, tolerance: float = 1e-6
) -> tuple[float, np.ndarray]:
    """||W||_2 and its right singular vector, by Lanczos on W^T W started from `start`.

    The value is a Ritz value, so up to rounding it never exceeds ||W||_2; its relative error is about
    tolerance^2 over the relative gap of the two largest eigenvalues of W^T W. For a bound from above see
    `spectral_norm_upper`.
    Shapes: W (p, q), vector (q,). Source: Golub and Kahan 1965; ARPACK through scipy.
    Raises: NumericalFailure where W is not finite.
    """
    if start is None:
        start = stream(0, "lanczos").standard_normal(W.shape[1])
    W, scale = _scaled(W)
    if scale == 0:
        return 0.0, start
    if min(W.shape) < DENSE_BELOW:
        _, singular, right = torch.linalg.svd(to_float64(W).cpu(), full_matrices=False)
        return scale * float(singular[0]), right[0].numpy()
    norm, vector = _lanczos(W, start, steps=12, tolerance=tolerance)
    return scale * norm, vector


def _scaled(W: Tensor) -> tuple[Tensor, float]:
    """(W / s, s) with s a power of 2, so that neither squares nor tolerances lose their meaning; s = 0 for W = 0.

    s is 1, and W not copied, unless its largest entry is far from 1.
    """
    largest = float(torch.linalg.vector_norm(W, math.inf))
    if not math.isfinite(largest):
        raise NumericalFailure("a weight matrix holds NaN or infinity")
    if largest == 0 or WELL_SCALED[0] < largest < WELL_SCALED[1]:
        return W, float(largest > 0)
    return to_unit(W, largest)


def _lanczos(W: Tensor, start: np.ndarray, steps: int, tolerance: float) -> tuple[float, np.ndarray]:
    """Largest singular value of W and its right vector: Krylov spaces of at least `steps` dimensions, restarted."""

    def gram_times(vector: np.ndarray) -> np.ndarray:
        v = torch.from_numpy(vector.reshape(-1)).to(W.dtype, copy=True).to(W.device)  # a copy is aligned: same bits
        return np.asarray(to_float64(torch.mv(W.T, torch.mv(W, v))).cpu())

    q = W.shape[1]
    operator = LinearOperator((q, q), matvec=gram_times, dtype=np.float64)
    values, vectors = eigsh(operator, k=1, which="LA", v0=start, ncv=min(q, steps), tol=tolerance, maxiter=1000)
    return math.sqrt(max(float(values[0]), 0.0)), vectors[:, 0]


def spectral_norm_upper(W: Float[Tensor, "p q"], estimate: float) -> float:
    """A number that ||W||_2 does not exceed, given an `estimate` of it (from `spectral_norm`).

    Where a side of W is at most `CHOLESKY_UP_TO` it is proved, rounding included: see `_verified_upper`. Beyond, it
    holds with probability 1 - 1e-12 over a random start: see `_probable_upper`. The first is within about 1e-8 of the
    estimate if that is right to as much, the second within 1e-2 of the norm.
    Raises: NumericalFailure where W is not finite.
    """
    W, scale = _scaled(W)
    if scale == 0:
        return 0.0
    if min(W.shape) <= CHOLESKY_UP_TO:
        return scale * _verified_upper(W, estimate / scale)
    return scale * _probable_upper(W)


def _verified_upper(W: Tensor, estimate: float) -> float:
    """sqrt(t^2 + c), where the Cholesky factorisation of A = t^2 I - W^T W succeeds in float64.

    With u = 2^-53, gamma_k = k u / (1 - k u), and W (p, q) with q <= p (else transposed):
    the computed Gram matrix is off by at most gamma_p ||W||_F^2, the subtraction by u (t^2 + ||W||_F^2), and a
    factorisation that runs to its end is that of A + E with ||E||_2 <= gamma_(q+1)/(1 - gamma_(q+1)) tr A.
    So W^T W <= t^2 + c with c the sum of the three, and t grows until the factorisation succeeds. The largest entry
    of W is near 1, so what underflows is far below c. LAPACK factorises, on the CPU: the theorem is about substitution.
    Source: Rump 2006, Verification of positive definiteness, BIT 46; Higham 2002, theorem 10.3.
    """
    W = W if W.shape[0] >= W.shape[1] else W.T
    p, q = W.shape
    A = gram(W).neg_()  # -W^T W, (q, q); only its diagonal changes below
    squares = -A.diagonal()
    trace = float(squares.sum()) * (1 + 2 * _gamma(p + q))
    least, gap = math.sqrt(trace / q) * (1 - 1e-12), 1e-10  # ||W||_2 >= ||W||_F / sqrt(q)
    while True:
        t_sq = (max(estimate, least) * (1 + gap)) ** 2
        rounding = _gamma(p) * trace + UNIT_ROUNDOFF * (t_sq + trace) + 2 * _gamma(q + 1) * q * t_sq
        A.diagonal().copy_(t_sq - squares)
        if int(torch.linalg.cholesky_ex(A.cpu()).info) == 0:
            return math.sqrt(t_sq + rounding) * (1 + 4 * UNIT_ROUNDOFF)
        gap *= 10


def _gamma(k: int) -> float:
    return k * UNIT_ROUNDOFF / (1 - k * UNIT_ROUNDOFF)


def _probable_upper(W: Tensor) -> float:
    """Sigma / sqrt(1 - epsilon), sigma the Ritz value after k Lanczos steps from a uniformly random start.

    P(lambda_max - sigma^2 > epsilon lambda_max) <= 1.648 sqrt(q) exp(-sqrt(epsilon) (2 k - 1)) in exact arithmetic,
    solved for epsilon at failure probability 1e-12 and k = 250; the matrix products are taken in W's precision.
    Source: Kuczynski and Wozniakowski 1992, SIAM J. Matrix Anal. Appl. 13, 1094, for the Lanczos algorithm.
    """
    q, k = W.shape[1], RANDOM_LANCZOS_STEPS
    start = stream(1, "lanczos").standard_normal(q)
    norm, _ = _lanczos(W, start, steps=k + 1, tolerance=1e-6)
    epsilon = (math.log(1.648 * math.sqrt(q) / RANDOM_LANCZOS_FAILURE) / (2 * k - 1)) ** 2
    rounding = 1 + 4 * math.sqrt(q) * torch.finfo(W.dtype).eps
    return norm * rounding / math.sqrt(1 - epsilon)


def gram(Z: Float[Tensor, "m n"]) -> Float64[Tensor, "n n"]:
    """G = Z^T Z in float64: a float32 Gram matrix cannot tell a small eigenvalue from rounding."""
    wide = to_float64(Z)
    return wide.T @ wide


def gram_least_eigenvalue(Z: Float[Tensor, "m n"], G: Float64[Tensor, "n n"]) -> float:
    """lambda_min(G) of G = Z^T Z, which is exactly 0 where n > m."""
    m, n = Z.shape
    return least_eigenvalue(G) if n <= m else 0.0


def gram_rounding(Z: Float[Tensor, "m n"], G: Float64[Tensor, "n n"]) -> float:
    """(m + 2 n) u tr G, what rounding moves the least eigenvalue of a computed G = Z^T Z by, at most.

    m u tr G from the product, 2 n u tr G from LAPACK's backward error. Source: Weyl's inequality.
    """
    m, n = Z.shape
    return (m + 2 * n) * UNIT_ROUNDOFF * float(G.trace())


def least_eigenvalue(G: Float64[Tensor, "n n"]) -> float:
    """lambda_min of a positive semi-definite matrix, by LAPACK in float64; rounding below 0 is reported as 0.

    Raises: ValueError where G is not finite (LAPACK would return finite nonsense).
    """
    values = scipy.linalg.eigh(G.cpu().numpy(), eigvals_only=True, subset_by_index=[0, 0], driver="evr")
    return max(float(values[0]), 0.0)
