"""Independent routes to what deqcli computes, all slow: dense formulas, plain loops, autograd, and exact integers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import mpmath
import numpy as np
import torch

from deqcli.deq.activations import ACTIVATIONS
from deqcli.deq.initialisation import INITIALISATIONS, Draw
from deqcli.deq.model import Component, Params
from deqcli.deq.network import Network
from deqcli.deq.solvers import Picard, Solver, Status
from deqcli.theory.draw import SolvedDraw
from deqcli.theory.initial import Sizes

Gradient = tuple[np.ndarray, np.ndarray, np.ndarray]
"""By W (m, m), by U (m, d), by a (m,)."""


@dataclass(frozen=True)
class Problem:
    """A network and its data, as numpy arrays."""

    W: np.ndarray  # (m, m)
    U: np.ndarray  # (m, d)
    a: np.ndarray  # (m,)
    X: np.ndarray  # (d, n)
    y: np.ndarray  # (n,)


def draw_problem(n: int, d: int, m: int, norm: float = 0.7, seed: int = 0) -> Problem:
    """Gaussian W with ||W||_2 = `norm`, U and a as in Assumption 1, samples of norm sqrt(d), normal labels."""
    rng = np.random.default_rng((seed, n, d, m))
    W = rng.standard_normal((m, m))
    X = rng.standard_normal((d, n))
    return Problem(
        W=W * norm / np.linalg.norm(W, 2),
        U=rng.standard_normal((m, d)) * math.sqrt(2 / d),
        a=rng.standard_normal(m) / math.sqrt(m),
        X=X * math.sqrt(d) / np.linalg.norm(X, axis=0),
        y=rng.standard_normal(n),
    )


def assumption_1_problem(
    shape: tuple[int, int, int], s: float, alpha: float = 1.0, beta: float = 1.0, seed: int = 0
) -> Problem:
    """A draw (n, d, m) of Assumption 1 with sigma_w^2 = s, the readout times alpha and the labels times beta."""
    n, d, m = shape
    data = draw_problem(n, d, 1, seed=seed)
    params = INITIALISATIONS["gaussian"](Draw(m, d, s, alpha, seed, torch.float64, torch.device("cpu")))
    return Problem(params.W.numpy(), params.U.numpy(), params.a.numpy(), data.X, beta * data.y)


def network_with(solver: Solver, p: Problem, dtype: torch.dtype = torch.float64) -> Network:
    """The deqcli network on copies of the arrays, with this solver."""
    W, U, a, X = (torch.tensor(array, dtype=dtype) for array in (p.W, p.U, p.a, p.X))
    return Network(Params(W, U, a), X, Component(ACTIVATIONS["relu"], solver))


def network_of(p: Problem, dtype: torch.dtype = torch.float64, **options: object) -> Network:
    """The same with a Picard solver of these options."""
    return network_with(Picard(**options), p, dtype)


def solved_network(p: Problem, tolerance: float = 1e-14) -> Network:
    """The same, with its equilibrium and adjoint solved."""
    network = network_of(p, tolerance=tolerance, max_iterations=5000)
    solutions = network.solve_equilibrium(), network.solve_adjoint()
    assert [solution.status for solution in solutions] == [Status.CONVERGED] * 2
    return network


def solved_problem(p: Problem) -> SolvedDraw:
    """The problem as the theory measures it."""
    W, U, a, X, y = (torch.tensor(array) for array in (p.W, p.U, p.a, p.X, p.y))
    return SolvedDraw.of(Params(W, U, a), X, y, Component(ACTIVATIONS["relu"], Picard()))


def implicit_gradient(p: Problem, learning_rate: float = 0.5) -> Gradient:
    """The step of `Network.descend`, divided by -eta."""
    network = solved_network(p)
    network.descend(network.prediction_error(torch.tensor(p.y)), learning_rate)
    after = network.params
    pairs = ((p.W, after.W), (p.U, after.U), (p.a, after.a))
    return tuple((before - now.numpy()) / learning_rate for before, now in pairs)


def equilibrium(p: Problem) -> np.ndarray:
    """Z (m, n) by Z <- max(W Z + U X, 0) from 0, until nothing but rounding changes."""
    UX = p.U @ p.X
    Z = np.zeros_like(UX)
    for _ in range(5000):
        previous, Z = Z, np.maximum(p.W @ Z + UX, 0.0)
        if np.linalg.norm(Z - previous) <= 1e-15 * np.linalg.norm(Z):
            return Z
    raise AssertionError("the reference iteration did not converge")


def preactivation(p: Problem) -> np.ndarray:
    """W Z + U X at the equilibrium, (m, n)."""
    return p.W @ equilibrium(p) + p.U @ p.X


def loss_of(p: Problem) -> float:
    """1/2 sum (a^T Z - y)^2."""
    return 0.5 * float(np.sum((p.a @ equilibrium(p) - p.y) ** 2))


def central_differences(p: Problem, h: float = 1e-4) -> Gradient:
    """The gradient of the loss by fourth-order central differences, an entry at a time."""
    return tuple(_differences(p, name, h) for name in ("W", "U", "a"))


def _differences(p: Problem, name: str, h: float) -> np.ndarray:
    array = getattr(p, name)
    gradient = np.empty_like(array)
    for index in np.ndindex(array.shape):

        def shifted(steps: int, index: tuple[int, ...] = index) -> float:
            moved = array.copy()
            moved[index] += steps * h
            return loss_of(replace(p, **{name: moved}))

        gradient[index] = (8 * (shifted(1) - shifted(-1)) - (shifted(2) - shifted(-2))) / (12 * h)
    return gradient


def unrolled_prediction(X: torch.Tensor, depth: int) -> Callable[..., torch.Tensor]:
    """Predictions a^T Z^(depth) as a function of (W, U, a) that autograd can follow."""

    def predict(W: torch.Tensor, U: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        UX = U @ X
        Z = torch.zeros_like(UX)
        for _ in range(depth):
            Z = torch.relu(W @ Z + UX)
        return a @ Z

    return predict


def unrolled_jacobian(p: Problem, depth: int = 150) -> np.ndarray:
    """d y_hat / d (W, U, a), (n, m m + m d + m), by autograd through `depth` layers."""
    params = tuple(torch.tensor(array) for array in (p.W, p.U, p.a))
    parts = torch.autograd.functional.jacobian(unrolled_prediction(torch.tensor(p.X), depth), params)
    return np.concatenate([part.reshape(len(p.y), -1).numpy() for part in parts], axis=1)


def unrolled_gradient(p: Problem) -> Gradient:
    """J^T e with J from autograd through the unrolled iteration."""
    flat = unrolled_jacobian(p).T @ (p.a @ equilibrium(p) - p.y)
    W, U, a = np.split(flat, [p.W.size, p.W.size + p.U.size])
    return W.reshape(p.W.shape), U.reshape(p.U.shape), a


def kronecker_jacobian(p: Problem) -> Gradient:
    """d y_hat / d vec W, vec U, a, from the mn x mn matrix J = I - D (I_n (x) W), vec stacking columns.

    With R = (I_n (x) a^T) J^-1 D: R (Z^T (x) I_m), R (X^T (x) I_m), Z^T. Source: Ling et al. 2023, Lemma 2.
    """
    Z = equilibrium(p)
    m, n = Z.shape
    D = np.diag((preactivation(p) >= 0).astype(float).flatten(order="F"))
    J = np.eye(m * n) - D @ np.kron(np.eye(n), p.W)
    R = np.kron(np.eye(n), p.a[None, :]) @ np.linalg.solve(J, D)  # (n, mn)
    return R @ np.kron(Z.T, np.eye(m)), R @ np.kron(p.X.T, np.eye(m)), Z.T


def kronecker_gradient(p: Problem, error: np.ndarray | None = None) -> Gradient:
    """J^T e with J from the dense Kronecker formula; e = y_hat - y unless given."""
    e = p.a @ equilibrium(p) - p.y if error is None else error
    by_W, by_U, by_a = (J.T @ e for J in kronecker_jacobian(p))
    return by_W.reshape(p.W.shape, order="F"), by_U.reshape(p.U.shape, order="F"), by_a


def dense_adjoint(p: Problem) -> np.ndarray:
    """V (m, n), column by column: (I - D_j W^T) v_j = D_j a."""
    slope = (preactivation(p) >= 0).astype(float)
    columns = [np.linalg.solve(np.eye(len(p.a)) - D[:, None] * p.W.T, D * p.a) for D in slope.T]
    return np.stack(columns, axis=1)


FIXED_POINT_BITS = 200


def fixed_point(array: np.ndarray) -> np.ndarray:
    """The numbers times 2^200 as Python integers: exact for every float64 of at least 1e-44, truncated below."""
    mantissa, exponent = np.frexp(array)
    shift = (exponent + FIXED_POINT_BITS - 53).astype(object)
    return ((mantissa * 2.0**53).astype(np.int64).astype(object) << np.maximum(shift, 0)) >> np.maximum(-shift, 0)


def fixed_product(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """A @ B for fixed-point numbers, off by less than 2^-200."""
    return (A @ B) >> FIXED_POINT_BITS


def floating(array: np.ndarray) -> np.ndarray:
    """Fixed-point numbers, rounded to float64."""
    return (array / 2**FIXED_POINT_BITS).astype(float)


def solve_fixed(M: np.ndarray, constant: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Y = D * (M Y + C) to 1e-40 as fixed-point numbers, C given as such, for slopes D of 0 and 1: all (m, n).

    LAPACK column by column, refined three times with the residual in integer arithmetic.
    """
    M_fixed, D, eye = fixed_point(M), slope.astype(int).astype(object), np.eye(len(M))
    Y = fixed_point(np.zeros(constant.shape))
    for _ in range(4):
        residual = D * (fixed_product(M_fixed, Y) + constant) - Y
        columns = [np.linalg.solve(eye - d[:, None] * M, r) for d, r in zip(slope.T, floating(residual).T, strict=True)]
        Y = Y + fixed_point(np.stack(columns, axis=1))
    assert np.abs(floating(residual)).max() <= 1e-40
    return Y


def equilibrium_fixed(p: Problem) -> np.ndarray:
    """Z to 1e-40 as fixed-point numbers, (m, n): the active units are those of float64, and proved to be."""
    UX, active = fixed_product(fixed_point(p.U), fixed_point(p.X)), preactivation(p) > 0
    Z = solve_fixed(p.W, UX, active)
    assert np.array_equal(fixed_product(fixed_point(p.W), Z) + UX > 0, active)
    return Z


def adjoint_fixed(p: Problem) -> np.ndarray:
    """V to 1e-40 as fixed-point numbers, (m, n), for the active units of `equilibrium_fixed`."""
    constant = np.repeat(fixed_point(p.a)[:, None], p.X.shape[1], axis=1)
    return solve_fixed(p.W.T, constant, preactivation(p) > 0)


def norm_fixed(A: np.ndarray) -> mpmath.mpf:
    """||A||_F of fixed-point numbers."""
    with mpmath.workdps(60):
        return mpmath.sqrt(int((A * A).sum())) / 2**FIXED_POINT_BITS


def spectral_norm_fixed(A: np.ndarray) -> mpmath.mpf:
    """||A||_2 of fixed-point numbers, below it by some 1e-30: ||A v||, v of LAPACK, whose error enters squared."""
    v = fixed_point(np.linalg.svd(floating(A))[2][0])
    with mpmath.workdps(60):
        return norm_fixed(fixed_product(A, v)) / norm_fixed(v)


def least_eigenvalue_fixed(Z: np.ndarray) -> mpmath.mpf:
    """lambda_min(Z^T Z) to 50 digits, the Gram matrix exact; Z of fixed-point numbers, (m, n), n small."""
    with mpmath.workdps(60):
        G = mpmath.matrix((Z.T @ Z).tolist()) / mpmath.mpf(2) ** (2 * FIXED_POINT_BITS)
        return min(mpmath.eigsy(G, eigvals_only=True))


def population_least_fixed(X: np.ndarray, s: float) -> mpmath.mpf:
    """lambda_min(K) to 30 digits: K_ii = C_ii/(1 - s), K_ij = r Q(c), c = (s K_ij + C_ij)/r, r = sqrt(K_ii K_jj)."""
    d, n = X.shape
    with mpmath.workdps(50):
        C = mpmath.matrix(fixed_product(fixed_point(X.T), fixed_point(X)).tolist()) / (d * mpmath.mpf(2) ** 200)
        K = C / (1 - mpmath.mpf(s))
        for i, j in itertools.combinations(range(n), 2):
            r, c = mpmath.sqrt(K[i, i] * K[j, j]), mpmath.mpf(0)
            for _ in range(int(75 / -math.log(max(s, 1e-9)))):
                t = mpmath.acos(c)
                c = min(max((s * r * (mpmath.sin(t) + (mpmath.pi - t) * c) / mpmath.pi + C[i, j]) / r, -1), 1)
            K[i, j] = K[j, i] = (c * r - C[i, j]) / s
        return min(mpmath.eigsy(K, eigvals_only=True))


def exact_sizes(p: Problem, s: float) -> dict[str, mpmath.mpf]:
    """Every number that the theory's inequalities are made of, to 25 digits, under the names of `initial.Sizes`."""
    Z, X = equilibrium_fixed(p), fixed_point(p.X)
    d, n = p.X.shape
    with mpmath.workdps(50):
        lengths = [norm_fixed(column) for column in X.T]
        products, pairs = fixed_product(X.T, X), list(itertools.combinations(range(n), 2))
        cosines = [abs(mpmath.mpf(products[i, j])) / 2**200 / (lengths[i] * lengths[j]) for i, j in pairs]
        return {
            "spectral_norm": spectral_norm_fixed(fixed_point(p.W)),
            "spectral_norm_u": spectral_norm_fixed(fixed_point(p.U)),
            "spectral_norm_x": spectral_norm_fixed(X),
            "spectral_norm_z": spectral_norm_fixed(Z),
            "norm_a": norm_fixed(fixed_point(p.a)),
            "norm_x": norm_fixed(X),
            "norm_e": norm_fixed(fixed_product(fixed_point(p.a), Z) - fixed_point(p.y)),
            "norm_deviation": max(abs(length / mpmath.sqrt(d) - 1) for length in lengths),
            "largest_cosine": max(cosines, default=mpmath.mpf(0)),
            "lambda_0": max(least_eigenvalue_fixed(Z), mpmath.mpf(0)) if n <= len(Z) else mpmath.mpf(0),
            "lambda_star": population_least_fixed(p.X, s),
        }


def random_sizes(seed: int) -> Sizes:
    """A draw whose numbers span many decades, so that each inequality is the tightest somewhere."""
    rng = np.random.default_rng(seed)

    def decades(least: float, most: float) -> float:
        return float(10 ** rng.uniform(least, most))

    lambda_0, norm_x = decades(-6, 6), decades(0, 3)
    return Sizes(
        spectral_norm=1 - decades(-6, -0.01),
        spectral_norm_u=decades(-2, 2),
        spectral_norm_x=norm_x * decades(-1, 0),
        spectral_norm_z=math.sqrt(lambda_0) * decades(0, 3),
        norm_a=decades(-4, 2),
        norm_x=norm_x,
        norm_e=decades(-8, 3),
        norm_deviation=0.0,
        largest_cosine=0.5,
        lambda_0=lambda_0,
        lambda_star=0.1,
    )


def relu_dual(c: np.ndarray) -> np.ndarray:
    """Q(c) = (sin t + (pi - t) cos t)/pi with c = cos t; Ling et al. 2023, Lemma 3."""
    t = np.arccos(np.clip(c, -1.0, 1.0))
    return (np.sin(t) + (math.pi - t) * np.cos(t)) / math.pi


def population_limit(X: np.ndarray, s: float) -> np.ndarray:
    """K = Q(c)/(1 - s), each entry by its own scalar iteration c = s Q(c) + (1 - s) C."""
    C = X.T @ X / X.shape[0]
    K = np.empty_like(C)
    for index, target in np.ndenumerate(C):
        c = target
        for _ in range(200):
            c = s * float(relu_dual(c)) + (1 - s) * target
        K[index] = float(relu_dual(c)) / (1 - s)
    return K


def solved_draw(shape: tuple[int, int, int], s: float, scale: float = 1.0, seed: int = 0) -> tuple[Draw, SolvedDraw]:
    """A network (n, d, m) drawn as in Assumption 1, `scale` on its readout, solved; its samples are always the same."""
    n, d, m = shape
    drawn, data = Draw(m, d, s, scale, seed, torch.float64, torch.device("cpu")), draw_problem(n, d, 1)
    component = Component(ACTIVATIONS["relu"], Picard())
    params = INITIALISATIONS["gaussian"](drawn)
    return drawn, SolvedDraw.of(params, torch.tensor(data.X), torch.tensor(data.y), component)
