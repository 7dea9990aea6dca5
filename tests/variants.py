"""Networks of every variant in plain numpy: what the tests of variants and trainings compare with."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from deqcli.deq.activations import ACTIVATIONS
from deqcli.deq.model import ALL, Component, Params, Rates
from deqcli.deq.network import Network
from deqcli.deq.solvers import Picard, Status
from deqcli.recipe.schema import RunSpec
from deqcli.runs.baseline import draw
from tests import monotone

Theta = dict[str, np.ndarray]
"""What is trained, by name: W (m, m) or A and B, U (m, d), a (m,), and b (m,) where there is one."""

PHI = monotone.ACTIVATIONS | {"sin": (np.sin, np.cos), "identity": (np.positive, np.ones_like)}
"""phi and its slope."""

UNROLLED: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sin": torch.sin,
    "softplus": torch.nn.functional.softplus,
}
"""phi for autograd."""


@dataclass(frozen=True)
class Variant:
    """Z = phi(W Z + F) with F = U X or phi(U X), y_hat = a^T Z + b^T F; W = (1 - mu) I - A^T A + B - B^T with a mu."""

    theta: Theta
    X: np.ndarray  # (d, n)
    y: np.ndarray  # (n,)
    activation: str = "relu"
    rectified: bool = False
    mu: float | None = None

    @property
    def W(self) -> np.ndarray:
        """(m, m)."""
        if self.mu is None:
            return self.theta["W"]
        A, B = self.theta["A"], self.theta["B"]
        return (1 - self.mu) * np.eye(len(A)) - A.T @ A + B - B.T

    @property
    def F(self) -> np.ndarray:
        """The injection, (m, n)."""
        UX = self.theta["U"] @ self.X
        return PHI[self.activation][0](UX) if self.rectified else UX

    def with_theta(self, **changed: np.ndarray) -> Variant:
        """The same network elsewhere."""
        return replace(self, theta=self.theta | changed)

    def equilibrium(self) -> np.ndarray:
        """Z (m, n) by plain iteration from 0, until nothing but rounding changes."""
        phi, W, F = PHI[self.activation][0], self.W, self.F
        Z = np.zeros_like(F)
        for _ in range(5000):
            before, Z = Z, phi(W @ Z + F)
            if np.linalg.norm(Z - before) <= 4e-16 * np.linalg.norm(Z):
                return Z
        raise AssertionError("the reference iteration did not converge")

    def prediction(self) -> np.ndarray:
        """y_hat (n,)."""
        skip = self.theta["b"] @ self.F if "b" in self.theta else 0.0
        return self.theta["a"] @ self.equilibrium() + skip

    def loss(self) -> float:
        """1/2 ||y_hat - y||^2."""
        return 0.5 * float(np.sum((self.prediction() - self.y) ** 2))

    def gradient(self) -> Theta:
        """By the adjoint of the loss itself, P = D * (W^T P + a e^T), solved a sample at a time by LAPACK."""
        Z, F, W, a, slope = self.equilibrium(), self.F, self.W, self.theta["a"], PHI[self.activation][1]
        e = self.prediction() - self.y
        D, eye = slope(W @ Z + F), np.eye(len(W))
        P = np.stack([np.linalg.solve(eye - d[:, None] * W.T, d * a * r) for d, r in zip(D.T, e, strict=True)], axis=1)
        by_F, Q = P + np.outer(self.theta["b"], e) if "b" in self.theta else P, P @ Z.T
        by_UX = by_F * slope(self.theta["U"] @ self.X) if self.rectified else by_F
        found = {"W": Q} if self.mu is None else {"A": -self.theta["A"] @ (Q + Q.T), "B": Q - Q.T}
        return found | {"U": by_UX @ self.X.T, "a": Z @ e} | ({"b": F @ e} if "b" in self.theta else {})

    def jacobian(self, h: float = 2e-4) -> Theta:
        """d y_hat/d theta, (n, entries), by central differences of the fourth order, an entry at a time."""
        return {name: np.stack(list(self._differences(name, h)), axis=1) for name in self.theta}

    def _differences(self, name: str, h: float) -> Iterator[np.ndarray]:
        for index in np.ndindex(self.theta[name].shape):

            def shifted(by: int, index: tuple[int, ...] = index) -> np.ndarray:
                moved = self.theta[name].copy()
                moved[index] += by * h
                return self.with_theta(**{name: moved}).prediction()

            yield (8 * (shifted(1) - shifted(-1)) - (shifted(2) - shifted(-2))) / (12 * h)

    def unrolled_gradient(self, depth: int = 150) -> Theta:
        """By autograd through `depth` layers in torch."""
        leaves = {name: torch.tensor(each, requires_grad=True) for name, each in self.theta.items()}
        phi, UX = UNROLLED[self.activation], leaves["U"] @ torch.tensor(self.X)
        F, W = phi(UX) if self.rectified else UX, leaves.get("W")
        if self.mu is not None:
            A, B = leaves["A"], leaves["B"]
            W = (1 - self.mu) * torch.eye(len(A), dtype=A.dtype) - A.T @ A + B - B.T
        Z = torch.zeros_like(F)
        for _ in range(depth):
            Z = phi(W @ Z + F)
        y_hat = leaves["a"] @ Z + (leaves["b"] @ F if "b" in leaves else 0.0)
        ((y_hat - torch.tensor(self.y)) ** 2).sum().mul(0.5).backward()
        return {name: leaf.grad.numpy() for name, leaf in leaves.items()}

    def network(self, rates: Rates = ALL, momentum: float = 0.0) -> Network:
        """The deqcli network on copies of the arrays, its equilibrium and adjoint solved."""
        given = {name: torch.tensor(each) for name, each in ({"W": self.W} | self.theta).items()}
        solver = Picard(tolerance=1e-14, max_iterations=5000)
        component = Component(ACTIVATIONS[self.activation], solver, self.rectified, self.mu, rates, momentum)
        network = Network(Params(**given), torch.tensor(self.X), component)
        resolve(network)
        return network


def resolve(network: Network) -> None:
    """Solve equilibrium and adjoint."""
    solutions = network.solve_equilibrium(), network.solve_adjoint()
    assert [solution.status for solution in solutions] == [Status.CONVERGED] * 2


def draw_variant(
    shape: tuple[int, int, int], activation: str = "relu", rectified: bool = False, skip: bool = False,
    mu: float | None = None,
) -> Variant:  # fmt: skip
    """The first draw (n, d, m) with active units, and none so near its kink that a difference would cross it."""
    for seed in range(200):
        drawn = _draw(np.random.default_rng((seed, *shape)), shape, skip, mu)
        found = Variant(*drawn, activation, rectified, mu)
        inner = np.stack([found.W @ found.equilibrium() + found.F, found.theta["U"] @ found.X])
        if np.abs(inner).min() > 0.01 and (inner > 0).any(axis=1).all():
            return found
    raise AssertionError("no such draw")


def _draw(
    rng: np.random.Generator, shape: tuple[int, int, int], skip: bool, mu: float | None
) -> tuple[Theta, np.ndarray, np.ndarray]:
    n, d, m = shape
    square = rng.standard_normal((2, m, m))
    layer = {"W": 0.6 * square[0] / np.linalg.norm(square[0], 2)}
    if mu is not None:
        layer = {"A": 0.4 * square[0] / math.sqrt(m), "B": 0.2 * square[1] / math.sqrt(m)}
    theta = layer | {"U": rng.standard_normal((m, d)) * math.sqrt(2 / d), "a": rng.standard_normal(m) / math.sqrt(m)}
    X = rng.standard_normal((d, n))
    b = {"b": rng.standard_normal(m) / math.sqrt(m)} if skip else {}
    return theta | b, X * math.sqrt(d) / np.linalg.norm(X, axis=0), rng.standard_normal(n)


def variant_of(spec: RunSpec) -> Variant:
    """What a run starts from: its draw and its data, as arrays."""
    data, model = spec.data.load(), spec.model
    given = draw(spec, data.X.shape[0], torch.device("cpu")).given()
    mu = model.monotonicity if model.init == "monotone" else None
    theta = {name: each.double().numpy().copy() for name, each in given.items() if name != "W" or mu is None}
    return Variant(theta, data.X, data.y, model.activation, model.injection == "rectified", mu)


def descent(
    p: Variant, rate: Callable[[int], float], steps: int, factors: Mapping[str, float], momentum: float = 0.0
) -> list[float]:
    """Losses of gradient descent on the parameters that have a factor, at rate(t) times that, or of the heavy ball."""
    losses, before = [p.loss()], p.theta
    for t in range(steps):
        gradient = p.gradient()
        moved = {
            name: p.theta[name] - rate(t) * factor * gradient[name] + momentum * (p.theta[name] - before[name])
            for name, factor in factors.items()
        }
        before, p = p.theta, p.with_theta(**moved)
        losses.append(p.loss())
    return losses
