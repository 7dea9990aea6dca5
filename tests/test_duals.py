"""Duals and coefficients of every activation against quadrature, Monte Carlo and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.special
import torch

from deqcli.deq import hermite
from deqcli.deq.activation import Activation
from deqcli.deq.activations import ACTIVATIONS
from deqcli.errors import NumericalFailure
from tests.test_activations import FORMULAS, Function, both, every


def tensor(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def dual(phi: Activation, part: int, p: float, q: float, c: float) -> float:
    function = (phi.dual, phi.dual_slope)[part]
    return float(function(tensor(c * math.sqrt(p * q))[None], tensor(p), tensor(q)))


def panels(edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre with 20 nodes between any two neighbours along the last axis of the edges."""
    inner, weights = np.polynomial.legendre.leggauss(20)
    width = np.diff(edges)[..., None]
    nodes, scaled = edges[..., :-1, None] + width * (inner + 1) / 2, width / 2 * weights
    flat = (*edges.shape[:-1], -1)
    return nodes.reshape(flat), scaled.reshape(flat)


GRADED = np.concatenate([[0], 2.0 ** -np.arange(9, 0, -1), np.arange(1, 10)])


def by_quadrature(f: Function, p: float, q: float, c: float) -> float:
    """E[f(u) f(v)], u = sqrt(p) x and v = sqrt(q)(c x + s y), in panels that end where u or v is 0."""
    x, weights = panels(np.concatenate([-GRADED[:0:-1], GRADED]))
    density, s = weights * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi), math.sqrt((1 - c) * (1 + c))
    if s == 0:
        return float(density @ (f(math.sqrt(p) * x) * f(c * math.sqrt(q) * x)))
    kink, inner = np.clip(-c * x / s, -9, 9)[:, None], np.zeros_like(x)
    for end in (-9, 9):
        y, scaled = panels(kink + (end - kink) * np.linspace(0, 1, 10))
        normal_y = np.abs(scaled) * np.exp(-(y**2) / 2) / math.sqrt(2 * math.pi)
        inner += (f(math.sqrt(q) * (c * x[:, None] + s * y)) * normal_y).sum(1)
    return float(density @ (f(math.sqrt(p) * x) * inner))


CASES = [(1, 1, 0.0), (2.2, 2.2, 0.2), (2.2, 0.3, -0.6), (0.05, 4, 0.89), (2, 1, 0.95), (3, 3, -0.999), (2, 2, 0.9999)]
ENDS = [(2.2, 2.2, 1.0), (2.2, 2.2, -1.0), (0.3, 4, 1.0), (0.3, 4, -1.0)]


@every
@both
def test_duals_against_quadrature(phi: Activation, part: int) -> None:
    f = FORMULAS[phi.name][part]
    for p, q, c in (*CASES, *ENDS):
        size = math.sqrt(by_quadrature(f, p, p, 1.0) * by_quadrature(f, q, q, 1.0))
        assert dual(phi, part, p, q, c) == pytest.approx(by_quadrature(f, p, q, c), abs=1e-12 * size, rel=0)


@every
@both
def test_a_block_is_its_entries(phi: Activation, part: int) -> None:
    """Parallel directions among them, of equal and of unequal variances."""
    left, right = tensor(0.5, 2.0), tensor(2.0, 0.5, 3.0)
    c = torch.tensor([[-0.7, 1.0, 0.95], [-1.0, -0.2, 1.0]], dtype=torch.float64)
    found = (phi.dual, phi.dual_slope)[part](c * (left[:, None] * right).sqrt(), left, right)
    wanted = [[dual(phi, part, float(p), float(q), float(c[i, j])) for j, q in enumerate(right)]
              for i, p in enumerate(left)]  # fmt: skip
    np.testing.assert_allclose(found, wanted, rtol=1e-13, atol=1e-14)


@every
@both
def test_duals_against_monte_carlo(phi: Activation, part: int) -> None:
    """Within 5 standard errors of 100,000 draws."""
    p, q, c = 1.5, 0.8, 0.6
    x, y = np.random.default_rng(0).standard_normal((2, 100_000))
    u, v = math.sqrt(p) * x, math.sqrt(q) * (c * x + math.sqrt(1 - c * c) * y)
    products = FORMULAS[phi.name][part](u) * FORMULAS[phi.name][part](v)
    assert abs(dual(phi, part, p, q, c) - products.mean()) <= 5 * products.std() / math.sqrt(1e5) + 1e-15


@every
def test_the_dual_of_the_slope_is_the_slope_of_the_dual(phi: Activation) -> None:
    """Price 1958: d/dr E[phi(u) phi(v)] = E[phi'(u) phi'(v)], by central differences."""
    for p, q, c in ((2.2, 2.2, 0.3), (1.0, 3.0, -0.8), (2.0, 2.0, 0.97)):
        h = 1e-4
        above, below = (dual(phi, 0, p, q, c + sign * h) for sign in (1, -1))
        derivative = (above - below) / (2 * h * math.sqrt(p * q))
        assert dual(phi, 1, p, q, c) == pytest.approx(derivative, rel=1e-5)


@pytest.mark.parametrize("name", ["tanh", "softplus", "gelu", "silu", "sigmoid", "elu"])
@both
def test_finer_expansions_say_the_same(name: str, part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [(20.0, 20.0, 0.3), (20.0, 5.0, 0.8), (0.05, 2.0, -0.89)]
    first = [dual(ACTIVATIONS[name], part, *case) for case in cases]
    monkeypatch.setattr(hermite, "WIDTH", 0.125)
    monkeypatch.setattr(hermite, "FEWEST_TERMS", 512)
    monkeypatch.setattr(hermite, "NEGLIGIBLE", 1e-25)
    monkeypatch.setattr(hermite, "_expansion", hermite._expansion.__wrapped__)
    assert [dual(ACTIVATIONS[name], part, *case) for case in cases] == pytest.approx(first, rel=1e-12)


@pytest.mark.parametrize("size", [1e-6, 1e3, 1e6])
def test_closed_forms_hold_at_every_size(size: float) -> None:
    """Small variances: phi(t) = t. Large: erf is the sign, and the square of sin is 1/2 on average."""
    for name in ("sin", "erf", "relu", "leaky_relu", "identity"):
        found = [dual(ACTIVATIONS[name], part, size, size, c) for part in (0, 1) for c in (1, 0.5, -1)]
        assert np.isfinite(found).all()
    wanted = size if size < 1 else 0.5
    assert dual(ACTIVATIONS["sin"], 0, size, size, 1.0) == pytest.approx(wanted, rel=2e-6)
    assert dual(ACTIVATIONS["erf"], 0, 1e12, 1e12, 0.5) == pytest.approx(1 / 3, rel=1e-6)


# Expansions


def closed_coefficients(name: str, p: float, count: int) -> np.ndarray:
    """Of relu, sin and erf, from their known series."""
    k = np.arange(count)
    log_factorial, j = scipy.special.gammaln(k + 1) / 2, k // 2
    if name == "sin":
        return np.where(k % 2, (-1.0) ** j * np.exp(k / 2 * math.log(p) - p / 2 - log_factorial), 0)
    binomial = scipy.special.binom(2 * j, j) / 4.0**j
    if name == "erf":
        return np.where(
            k % 2, (-1.0) ** j * np.sqrt(2 / math.pi * binomial / k.clip(1) * (2 * p / (1 + 2 * p)) ** k), 0
        )
    even = np.where(k % 2, 0, (-1.0) ** (j + 1) * np.sqrt(binomial) / (2 * j - 1) / math.sqrt(2 * math.pi))
    return math.sqrt(p) * np.where(k == 1, 0.5, even)


@pytest.mark.parametrize("name", ["relu", "sin", "erf"])
@pytest.mark.parametrize("p", [0.05, 2.2, 20.0])
def test_coefficients_in_closed_form(name: str, p: float) -> None:
    found = ACTIVATIONS[name].coefficients(p, 100)
    assert found.dtype == torch.float64
    assert found.shape == (100,)
    np.testing.assert_allclose(found, closed_coefficients(name, p, 100), atol=1e-14 * math.sqrt(max(p, 1)))


@every
@pytest.mark.parametrize("p", [0.05, 1.0, 2.2])
def test_squares_of_coefficients_add_up(phi: Activation, p: float) -> None:
    """Parseval: to E[phi^2], and with c^k to the dual; slowly where phi has a kink, or elu's where phi'' jumps."""
    a, k = phi.coefficients(p, 512).numpy(), np.arange(512)
    left_out = {"relu": 1e-4, "leaky_relu": 1e-4, "elu": 1e-6}.get(phi.name, 1e-13)
    whole = dual(phi, 0, p, p, 1.0)
    assert -1e-14 * whole <= whole - float(np.sum(a**2)) <= left_out * whole
    assert float(np.sum(a**2 * 0.9**k)) == pytest.approx(dual(phi, 0, p, p, 0.9), rel=1e-12)


class Kinked(Activation):
    """A ReLU with its kink elsewhere, that says nothing of its duals."""

    name, lipschitz, curvature, nondecreasing = "kinked", 1.0, None, True

    def __init__(self, kink: float) -> None:
        self.kink = kink

    def value(self, preactivation: torch.Tensor, out: torch.Tensor) -> None:
        torch.clamp_min(preactivation, self.kink, out=out)

    def slope(self, preactivation: torch.Tensor, out: torch.Tensor) -> None:
        torch.ge(preactivation, self.kink, out=out)


def test_a_kink_without_a_closed_form_is_refused() -> None:
    """Unless it is at 0, where panels end, and the correlation so small that the terms left out do not matter."""
    for c in (0.5, -0.97):
        wanted = dual(ACTIVATIONS["relu"], 0, 2.0, 2.0, c)
        assert dual(Kinked(0.0), 0, 2.0, 2.0, c) == pytest.approx(wanted, abs=1e-12)
    with pytest.raises(NumericalFailure, match=r"kinked is exact to 3e-07 only at correlation 0.99999 and variance 2,"):
        dual(Kinked(0.0), 0, 2.0, 2.0, 0.99999)
    with pytest.raises(NumericalFailure, match=r"kinked is exact to .* only at correlation 0.5 and"):
        dual(Kinked(1.0), 0, 2.0, 2.0, 0.5)
