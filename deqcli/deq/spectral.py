"""Spectra: norms from below and, proved, from above; least eigenvalues in float64."""

from __future__ import annotations

import math

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from deqcli.deq.krylov import BLOCK, ROOM, Basis, Products, Ritz, Tolerance, Top, largest, orthonormal
from deqcli.deq.memory import CHOLESKY_UP_TO
from deqcli.deq.precision import UNIT_ROUNDOFF, exact_device, to_float64, to_unit
from deqcli.deq.streams import stream
from deqcli.errors import NumericalFailure

DENSE_BELOW = 64
"""Matrices with a side below it go to dense LAPACK: Lanczos has nothing to gain there."""

WELL_SCALED = (2.0**-12, 2.0**12)
"""Norms, or largest entries, whose squares are far from the ends of float32."""

FLOAT32_TOLERANCE = 5e-8
"""Norms of float32 matrices that need be no more precise than this are computed with float32 products."""

FLOAT32_RESIDUAL = 1e-5
"""Residuals that float32 products reach for sure, relative to the norm."""

COLD_PRODUCTS, QUICK_PRODUCTS, MOST_PRODUCTS = 40, 400, 8000
"""Vectors multiplied at least, from a cold start; at most, before the products are taken in float64; at most at all."""

BLOCK_ELEMENTS = 2**20
"""Entries converted to float64 at a time (8 MiB): no second matrix is ever made."""

RANDOM_LANCZOS_STEPS = 250
RANDOM_LANCZOS_FAILURE = 1e-12

GRAM_COLUMNS = 12
"""Block columns of a Gram matrix, of which only the lower halves are computed."""

THINNEST_COLUMN = 96

LEAST_FROM, LEAST_TOLERANCE, LEAST_PRODUCTS = 400, 5e-10, 80
"""Side from which lambda_min is found by Lanczos, tolerance of 1/sqrt(lambda_min), steps: LAPACK is cheaper beyond."""

TRACES = (1e-50, 1e50)
"""Of Gram matrices whose inverses and their squares are far from the ends of float64."""


def spectral_norm(
    W: Float[Tensor, "p q"], start: np.ndarray | None = None, tolerance: float = 1e-10
) -> tuple[float, np.ndarray]:
    """||W||_2 to a relative `tolerance`, and the leading right singular vectors in rows, to `start` from next time.

    The value is ||W v|| of a unit vector v, so up to rounding it never exceeds ||W||_2; how far below it may be is
    estimated from residuals, see `krylov.Ritz.error`. For a bound from above see `spectral_norm_upper`. The products
    are taken in W's precision where that is enough for the tolerance, else in float64.
    Shapes: W (p, q), vectors (k, q) with k <= 6. Source: Golub and Kahan 1965.
    Raises: NumericalFailure where W is not finite, or where the norm does not converge.
    """
    if min(W.shape) < DENSE_BELOW:
        return _dense_norm(W)
    if multiplies_exactly(W) and (W.dtype == torch.float64 or tolerance >= FLOAT32_TOLERANCE):
        asked = _tolerance(tolerance, start, W.dtype)
        top = _attempt(_plain_products(W), orthonormal(start, W.shape[1], W), asked, QUICK_PRODUCTS)
        if top is not None and WELL_SCALED[0] < top.value < WELL_SCALED[1]:
            return top.value, top.vectors
    exact = torch.empty(0, dtype=torch.float64, device=exact_device(W.device))
    vectors = orthonormal(start, W.shape[1], exact)
    products, scale = _exact_products(W)
    if scale == 0:
        return 0.0, vectors.cpu().numpy()
    top = _attempt(products, vectors, _tolerance(tolerance, start, exact.dtype), MOST_PRODUCTS)
    if top is None:
        raise NumericalFailure(f"the spectral norm of a weight matrix did not converge to {tolerance:g}")
    return scale * top.value, top.vectors


def _tolerance(tolerance: float, start: np.ndarray | None, dtype: torch.dtype) -> Tolerance:
    """Little is asked of a warm start for a coarse tolerance; residuals as small as the products allow of others."""
    if start is not None and tolerance >= FLOAT32_TOLERANCE:
        return Tolerance(tolerance)
    residual = tolerance if dtype == torch.float64 else max(tolerance, FLOAT32_RESIDUAL)
    return Tolerance(tolerance, residual, COLD_PRODUCTS)


def _attempt(products: Products, start: Tensor, tolerance: Tolerance, limit: int, room: int = ROOM) -> Top | None:
    """The largest singular value of an operator; None where it is not known to the tolerance."""
    try:
        top = largest(products, start, tolerance, limit, room)
    except FloatingPointError:
        return None
    return top if tolerance.met(top) else None


def _dense_norm(W: Tensor) -> tuple[float, np.ndarray]:
    W, scale = _scaled(W)
    _, singular, right = torch.linalg.svd(to_float64(W).cpu(), full_matrices=False)
    return scale * float(singular[0]), right[:BLOCK].numpy()


def multiplies_exactly(tensor: Tensor) -> bool:
    """Whether products are rounded in the tensor's own precision only: not so in CUDA's tf32, which has 11 bits."""
    return tensor.dtype == torch.float64 or not (tensor.is_cuda and torch.backends.cuda.matmul.allow_tf32)


def _plain_products(W: Tensor) -> Products:
    """X -> (X W^T, X W^T W) in the precision of W."""

    def products(X: Tensor) -> tuple[Tensor, Tensor]:
        Y = X @ W.T  # (k, p)
        return Y, Y @ W

    return products


def _exact_products(W: Tensor) -> tuple[Products, float]:
    """X -> (X W^T, X W^T W)/(s, s^2) in float64, and s (see `_power`), a block of rows at a time."""
    entry = _largest_entry(W)
    scale = _power(entry)
    blocks = torch.split(W, max(1, BLOCK_ELEMENTS // W.shape[1]))

    def products(X: Tensor) -> tuple[Tensor, Tensor]:
        A, Y = torch.zeros_like(X), []
        for block in blocks:
            exact = to_float64(block) if scale == 1 else to_unit(to_float64(block), entry)[0]
            Y.append(X @ exact.T)
            A.addmm_(Y[-1], exact)
        return torch.cat(Y, dim=1), A

    return products, scale


def _scaled(W: Tensor) -> tuple[Tensor, float]:
    """(W / s, s) with s a power of 2, so that neither squares nor tolerances lose their meaning; s = 0 for W = 0.

    s is 1, and W not copied, unless its largest entry is far from 1.
    """
    entry = _largest_entry(W)
    return (W, _power(entry)) if _power(entry) in (0.0, 1.0) else to_unit(W, entry)


def _largest_entry(W: Tensor) -> float:
    entry = float(torch.linalg.vector_norm(W, math.inf))
    if not math.isfinite(entry):
        raise NumericalFailure("a weight matrix holds NaN or infinity")
    return entry


def _power(entry: float) -> float:
    """The power of 2 to divide by: 1 unless the largest entry is far from 1, and 0 where that is 0."""
    if entry == 0 or WELL_SCALED[0] < entry < WELL_SCALED[1]:
        return float(entry > 0)
    return to_unit(torch.empty(0), entry)[1]


def spectral_norm_upper(W: Float[Tensor, "p q"], estimate: float) -> float:
    """A number that ||W||_2 does not exceed, given an `estimate` of it (from `spectral_norm`).

    Where a side of W is at most `CHOLESKY_UP_TO` it is proved, rounding included: see `_verified_upper`. Beyond, it
    holds with probability 1 - 1e-12 over a random start: see `_probable_upper`. The first is within about 1e-8 of the
    estimate if that is right to as much, the second within 1e-2 of the norm.
    Raises: NumericalFailure where W is not finite.
    """
    if min(W.shape) > CHOLESKY_UP_TO:
        return _probable_upper(W)
    W, scale = _scaled(W)
    return scale * _verified_upper(W, estimate / scale) if scale > 0 else 0.0


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
    solved for epsilon at failure probability 1e-12 and k = 250. Products and vectors are in float64, whose rounding a
    margin of 4 sqrt(q) eps covers; W is converted by blocks of rows, and 3 k vectors of its length are held.
    Source: Kuczynski and Wozniakowski 1992, SIAM J. Matrix Anal. Appl. 13, 1094, for the Lanczos algorithm.
    """
    products, scale = _exact_products(W)
    if scale == 0:
        return 0.0
    q, k = W.shape[1], RANDOM_LANCZOS_STEPS
    start = stream(1, "lanczos").standard_normal((1, q))
    unit = torch.from_numpy(start / np.linalg.norm(start)).to(exact_device(W.device))
    basis = Basis(products, unit, min(k, q))
    basis.lanczos(min(k, q) - 1)
    epsilon = (math.log(1.648 * math.sqrt(q) / RANDOM_LANCZOS_FAILURE) / (2 * k - 1)) ** 2
    rounding = 1 + 8 * math.sqrt(q) * UNIT_ROUNDOFF
    return scale * Ritz(basis).top(1).value * rounding / math.sqrt(1 - epsilon)


def gram(Z: Float[Tensor, "m n"]) -> Float64[Tensor, "n n"]:
    """G = Z^T Z in float64: a float32 Gram matrix cannot tell a small eigenvalue from rounding."""
    n = Z.shape[1]
    G = torch.zeros((n, n), dtype=torch.float64, device=exact_device(Z.device))
    for rows in torch.split(Z, max(1, BLOCK_ELEMENTS // n)):
        add_gram(G, to_float64(rows))
    return G


def add_gram(G: Float[Tensor, "n n"], Z: Float[Tensor, "m n"]) -> None:
    """G += Z^T Z in the precision of both, with G symmetric: little more than half of it is computed, then mirrored."""
    n = len(G)
    width = max(THINNEST_COLUMN, -(-n // GRAM_COLUMNS))
    for first in range(0, n, width):
        end = min(first + width, n)
        G[first:end, :end].addmm_(Z[:, first:end].T, Z[:, :end])
        G[:first, first:end] = G[first:end, :first].T


def gram_least_eigenvalue(Z: Float[Tensor, "m n"], G: Float64[Tensor, "n n"]) -> float:
    """lambda_min(G) of G = Z^T Z, which is exactly 0 where n > m; else right to 1e-9 beside `gram_rounding`.

    By Lanczos on the inverse of the Cholesky factor; by LAPACK's eigenvalues where G is small, or singular up to
    rounding, or does not converge.
    """
    m, n = Z.shape
    if n > m:
        return 0.0
    value = _inverse_lanczos(G) if n >= LEAST_FROM else None
    return least_eigenvalue(G) if value is None or value <= gram_rounding(Z, G) else value


def _inverse_lanczos(G: Tensor) -> float | None:
    """||L^-1||_2^-2 = lambda_min(G) with G = L L^T; None where there is no such L, or where it does not converge.

    From a fixed random vector, so that it depends on nothing but G. Source: Ericsson and Ruhe 1980, Math. Comp. 35.
    """
    L, info = torch.linalg.cholesky_ex(G)
    if int(info) != 0 or not TRACES[0] < float(G.trace()) < TRACES[1]:
        return None

    def products(X: Tensor) -> tuple[Tensor, Tensor]:
        Y = torch.linalg.solve_triangular(L, X.T, upper=False)  # (n, k)
        return Y.T, torch.linalg.solve_triangular(L.T, Y, upper=True).T

    start, solves = orthonormal(None, len(G), G), min(LEAST_PRODUCTS, len(G))
    top = _attempt(products, start, Tolerance(LEAST_TOLERANCE, LEAST_TOLERANCE), solves, room=solves)
    return None if top is None else top.value**-2


def gram_rounding(Z: Float[Tensor, "m n"], G: Float64[Tensor, "n n"]) -> float:
    """(m + 2 n) u tr G, what rounding moves the least eigenvalue of a computed G = Z^T Z by, at most.

    m u tr G from the product, 2 n u tr G from LAPACK's backward error. Source: Weyl's inequality.
    """
    m, n = Z.shape
    return (m + 2 * n) * UNIT_ROUNDOFF * float(G.trace())


def least_eigenvalue(G: Float64[Tensor, "n n"]) -> float:
    """lambda_min of a positive semi-definite matrix, by LAPACK in float64; rounding below 0 is reported as 0.

    Small ones go to torch's LAPACK: scipy's has threads of its own, which wait for those of torch for longer than that
    takes. Of large ones scipy computes the one eigenvalue, and not all.
    Raises: ValueError where G is not finite (LAPACK would return finite nonsense).
    """
    G = G.cpu()
    if not bool(torch.isfinite(G).all()):
        raise ValueError("a Gram matrix must not contain infs or NaNs")
    if len(G) < LEAST_FROM:
        return max(float(torch.linalg.eigvalsh(G)[0]), 0.0)
    values = scipy.linalg.eigh(G.numpy(), eigvals_only=True, subset_by_index=[0, 0], driver="evr", check_finite=False)
    return max(float(values[0]), 0.0)
