"""Monotone networks in numpy, by routes that have nothing in common with the package: what its tests compare with."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

Elementwise = Callable[[np.ndarray], np.ndarray]


def sigmoid(t: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(t / 2))


LEAK = 0.01
ACTIVATIONS: dict[str, tuple[Elementwise, Elementwise]] = {
    "relu": (lambda t: np.maximum(t, 0.0), lambda t: (t >= 0).astype(float)),
    "leaky_relu": (lambda t: np.where(t >= 0, t, LEAK * t), lambda t: np.where(t >= 0, 1.0, LEAK)),
    "tanh": (np.tanh, lambda t: 1 - np.tanh(t) ** 2),
    "sigmoid": (sigmoid, lambda t: sigmoid(t) * sigmoid(-t)),
    "softplus": (lambda t: np.logaddexp(t, 0.0), sigmoid),
}
"""phi and its slope; all nondecreasing with L <= 1."""


@dataclass(frozen=True)
class MonotoneProblem:
    """A monotone network and its injection."""

    A: np.ndarray  # (m, m)
    B: np.ndarray  # (m, m)
    mu: float
    UX: np.ndarray  # (m, n)
    a: np.ndarray  # (m,)
    activation: str

    @property
    def W(self) -> np.ndarray:
        """(1 - mu) I - A^T A + B - B^T."""
        return (1 - self.mu) * np.eye(len(self.A)) - self.A.T @ self.A + self.B - self.B.T

    def moved(self, name: str, index: tuple[int, ...], by: float) -> MonotoneProblem:
        """The same with one entry of A or B moved."""
        matrix = getattr(self, name).copy()
        matrix[index] += by
        return replace(self, **{name: matrix})


def draw_monotone(
    n: int, d: int, m: int, mu: float = 0.5, scale: float = 1.0, activation: str = "relu", seed: int = 0
) -> MonotoneProblem:
    """Gaussian A, B of norm about `scale` each, U X of variance 2, a of norm about 1."""
    rng = np.random.default_rng((seed, n, d, m))
    A, B = (rng.standard_normal((m, m)) * scale / (2 * math.sqrt(m)) for _ in range(2))
    UX = rng.standard_normal((m, d)) @ rng.standard_normal((d, n)) * math.sqrt(2 / d)
    return MonotoneProblem(A, B, mu, UX, rng.standard_normal(m) / math.sqrt(m), activation)


def dense_preactivation(p: MonotoneProblem) -> np.ndarray:
    """P = W phi(P) + U X, (m, n), a sample at a time by Newton's method with dense factors and halved steps."""
    return np.stack([_newton(p.W, column, *ACTIVATIONS[p.activation]) for column in p.UX.T], axis=1)


def _newton(W: np.ndarray, x: np.ndarray, phi: Elementwise, slope: Elementwise) -> np.ndarray:
    P, eye = x.copy(), np.eye(len(x))
    for _ in range(200):
        excess = P - W @ phi(P) - x
        if np.linalg.norm(excess) <= 1e-15 * len(x) * max(np.linalg.norm(P), np.linalg.norm(x)):
            return P
        step, t = np.linalg.solve(eye - W * slope(P), excess), 1.0
        while t > 1e-6 and np.linalg.norm(P - t * step - W @ phi(P - t * step) - x) > np.linalg.norm(excess):
            t /= 2
        P = P - t * step
    raise AssertionError("the reference did not converge")


def dense_equilibrium(p: MonotoneProblem) -> np.ndarray:
    """Z (m, n)."""
    return ACTIVATIONS[p.activation][0](dense_preactivation(p))


def dense_adjoint(p: MonotoneProblem) -> np.ndarray:
    """V (m, n), a sample at a time: (I - D_j W^T) v_j = D_j a."""
    slopes = ACTIVATIONS[p.activation][1](dense_preactivation(p)).T
    return np.stack([np.linalg.solve(np.eye(len(p.a)) - D[:, None] * p.W.T, D * p.a) for D in slopes], axis=1)
