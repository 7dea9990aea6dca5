"""The population Gram matrix K against hand computation, Monte Carlo, a scalar iteration and wide networks."""

import itertools
import math

import numpy as np
import pytest
import scipy.integrate
import torch

from deqcli.deq.activations import ACTIVATIONS
from deqcli.errors import NumericalFailure
from deqcli.theory import population
from deqcli.theory.population import Population
from tests.dense import draw_problem, population_limit, relu_dual

RELU = ACTIVATIONS["relu"]
SAMPLES = 200_000


def samples(n: int, d: int, seed: int = 0) -> np.ndarray:
    """X (d, n) with columns of norm sqrt(d)."""
    return draw_problem(n, d, 1, seed=seed).X


def wide(X: np.ndarray, s: float) -> Population:
    return Population.of(torch.tensor(X), s, RELU)


def population_gram(X: np.ndarray, s: float, depth: int | None = None) -> np.ndarray:
    return wide(X, s).gram(depth).numpy()


def dual(covariance: torch.Tensor) -> torch.Tensor:
    """Of all pairs of a Gaussian vector with this covariance."""
    return RELU.dual(covariance, covariance.diagonal(), covariance.diagonal())


def relu_moment(covariance: np.ndarray, seed: int) -> tuple[float, float]:
    """E[relu(u) relu(v)] with (u, v) ~ N(0, covariance), by Monte Carlo, and its standard error."""
    factor = np.linalg.cholesky(covariance)
    u, v = np.maximum(factor @ np.random.default_rng(seed).standard_normal((2, SAMPLES)), 0.0)
    return float(np.mean(u * v)), float(np.std(u * v) / math.sqrt(SAMPLES))


@pytest.mark.parametrize("c", [-0.999, -0.5, 0.0, 0.3, 0.95, 0.999999])
@pytest.mark.parametrize(("p", "q"), [(1.0, 1.0), (0.3, 4.0)])
def test_the_dual_against_quadrature(c: float, p: float, q: float) -> None:
    """E[relu(u) relu(v)] = sqrt(p q) E[r^2]/(2 pi) times an integral over the angle where both are positive."""
    theta = math.acos(c)
    integral, _ = scipy.integrate.quad(lambda t: math.cos(t) * math.cos(t - theta), theta - math.pi / 2, math.pi / 2)
    covariance = torch.tensor([[p, c * math.sqrt(p * q)], [c * math.sqrt(p * q), q]], dtype=torch.float64)
    wanted = math.sqrt(p * q) * 2 / (2 * math.pi) * integral
    assert float(dual(covariance)[0, 1]) == pytest.approx(wanted, rel=1e-9, abs=1e-14)


def test_the_dual_at_its_ends() -> None:
    """Parallel: E[relu(u)^2] = q/2. Opposite: 0. Independent: sqrt(p q)/(2 pi). Scale 1e-200 and 1e200 alike."""
    for q in (1.0, 1e-200, 1e200):
        covariance = q * torch.tensor([[1.0, 1, -1], [1, 1, -1], [-1, -1, 1]], dtype=torch.float64)
        wanted = q * torch.tensor([[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 0.5]], dtype=torch.float64)
        torch.testing.assert_close(dual(covariance), wanted, rtol=1e-14, atol=1e-15 * q)
    independent = dual(torch.diag(torch.tensor([4.0, 9.0], dtype=torch.float64)))
    assert float(independent[0, 1]) == pytest.approx(6 / (2 * math.pi), rel=1e-14)


def test_depth_zero_is_zero_and_depth_one_is_q_of_c() -> None:
    X = samples(5, 4)
    assert not population_gram(X, 0.08, depth=0).any()
    C = X.T @ X / 4
    np.testing.assert_allclose(population_gram(X, 0.08, depth=1), relu_dual(C), rtol=1e-12)
    np.testing.assert_allclose(population_gram(X, 0.5, depth=1).diagonal(), 1.0, rtol=1e-13)


def test_two_samples_by_hand() -> None:
    """Orthogonal samples, depth 1: K = 1 on the diagonal, 1/pi beside it; depth 2, diagonal: 1 + s."""
    X = math.sqrt(2) * np.eye(2)
    np.testing.assert_allclose(population_gram(X, 0.1, depth=1), [[1, 1 / math.pi], [1 / math.pi, 1]], rtol=1e-14)
    np.testing.assert_allclose(population_gram(X, 0.1, depth=2).diagonal(), 1.1, rtol=1e-14)
    np.testing.assert_allclose(population_gram(X, 0.1).diagonal(), 1 / 0.9, rtol=1e-14)


def test_the_dual_of_a_block_has_a_row_for_each_left_and_a_column_for_each_right_variance() -> None:
    left, right = torch.tensor([0.5, 3.0], dtype=torch.float64), torch.tensor([1.0, 0.2, 7.0], dtype=torch.float64)
    c = torch.tensor([[-0.7, 0.1, 0.9], [0.4, -0.2, 1.0]], dtype=torch.float64)
    scale = np.sqrt(np.outer(left, right))
    found = RELU.dual(c * torch.tensor(scale), left, right)
    np.testing.assert_allclose(found, scale * relu_dual(c.numpy()) / 2, rtol=1e-13)


@pytest.mark.parametrize("lengths", [(1, 1, 1, 1), (1, 0.3, 2, 1.1)], ids=["equal", "unequal"])
@pytest.mark.parametrize("s", [0.08, 0.5])
@pytest.mark.parametrize("depth", [1, 2, 3, 6])
def test_every_depth_against_monte_carlo_of_the_definition(depth: int, s: float, lengths: tuple[float, ...]) -> None:
    """K^(l)_ij = E[relu(u) relu(v)], (u, v) ~ N(0, 2 (s K^(l-1) + C)_ij), within 5 standard errors."""
    X = samples(4, 3) * lengths
    covariance = 2 * (s * population_gram(X, s, depth=depth - 1) + X.T @ X / 3)
    K, pairs = population_gram(X, s, depth=depth), [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    for seed, pair in enumerate(pairs):
        mean, error = relu_moment(covariance[np.ix_(pair, pair)], seed)
        assert 0 < error < 0.04
        assert abs(K[pair] - mean) <= 5 * error


@pytest.mark.parametrize("s", [0.005, 0.08, 0.5, 0.9])
@pytest.mark.parametrize(("n", "d"), [(6, 4), (1, 1), (3, 50), (12, 2)])
def test_the_limit_against_the_scalar_fixed_point(n: int, d: int, s: float) -> None:
    X = samples(n, d)
    K = population_gram(X, s)
    np.testing.assert_allclose(K, population_limit(X, s), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(K.diagonal(), 1 / (1 - s), rtol=1e-12)
    np.testing.assert_allclose(K, K.T, rtol=1e-14)


@pytest.mark.parametrize("entries", [1, 20, 40, 10**6], ids=["row", "two rows", "four rows", "all"])
def test_the_size_of_the_blocks_does_not_matter(entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine samples, so that the last of the blocks of two and of four rows has one."""
    X = samples(9, 5)
    whole, deep = population_gram(X, 0.3), population_gram(X, 0.3, depth=3)
    monkeypatch.setattr(population, "ENTRIES_PER_BLOCK", entries)
    np.testing.assert_allclose(population_gram(X, 0.3), whole, rtol=1e-14, atol=1e-15)
    np.testing.assert_allclose(population_gram(X, 0.3, depth=3), deep, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("entries", [20, 10**6], ids=["blocks", "whole"])
def test_the_depths_one_after_another_are_those_one_by_one(entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The very same numbers, all in the place of the first."""
    monkeypatch.setattr(population, "ENTRIES_PER_BLOCK", entries)
    limit, places = wide(samples(9, 5), 0.3), set()
    for depth, K in enumerate(limit.grams(6), start=1):
        assert torch.equal(K, limit.gram(depth))
        places.add(K.data_ptr())
    assert (depth, len(places)) == (6, 1)


def test_the_depths_approach_the_limit_at_the_rate_sigma_w_sq() -> None:
    """Theorem 3: ||K - K^(l)||_F = O(n l s^l), so successive errors shrink by at most s (1 + 1/l) in the end."""
    X, s = samples(6, 4), 0.3
    K = population_gram(X, s)
    errors = [float(np.linalg.norm(K - population_gram(X, s, depth=depth))) for depth in range(1, 16)]
    ratios = [after / before for before, after in itertools.pairwise(errors[4:])]
    assert len(ratios) == 10
    assert all(0.9 * s <= ratio <= s * (1 + 1 / depth) for depth, ratio in enumerate(ratios, start=5))


def tied_gram(X: np.ndarray, s: float, m: int, seed: int, depth: int) -> np.ndarray:
    """G^(depth)/m of a network drawn as in Assumption 1, by plain iteration."""
    rng = np.random.default_rng((seed, m))
    W = rng.standard_normal((m, m)) * math.sqrt(2 * s / m)
    UX = rng.standard_normal((m, X.shape[0])) * math.sqrt(2 / X.shape[0]) @ X
    Z = np.zeros_like(UX)
    for _ in range(depth):
        Z = np.maximum(W @ Z + UX, 0.0)
    return Z.T @ Z / m


def width_error(m: int, depth: int | None) -> float:
    """Root mean square over 8 draws of ||G/m - K||_F / ||K||_F (15 layers, 1e-8 from the limit, stand for it)."""
    X, s = samples(8, 20), 0.08
    K = population_gram(X, s, depth)
    errors = [np.linalg.norm(tied_gram(X, s, m, seed, depth or 15) - K) / np.linalg.norm(K) for seed in range(8)]
    return float(np.sqrt(np.mean(np.square(errors))))


@pytest.mark.parametrize("depth", [None, 2])
def test_wide_networks_approach_the_limit(depth: int | None) -> None:
    """Within 3/sqrt(m), and like 1/sqrt(m): 16 times the width divides the error by about 4.

    A diagonal entry is a mean of m terms relu(u)^2, whose relative deviation is sqrt(5) = 2.24.
    """
    narrow, wide = width_error(64, depth), width_error(1024, depth)
    assert wide <= 3 / 1024**0.5
    assert 2.5 <= narrow / wide <= 6.5


@pytest.mark.parametrize("s", [1.0, 1.5, 1e3, 1e300])
def test_without_a_limit_there_is_no_answer(s: float) -> None:
    with pytest.raises(NumericalFailure, match=rf"no limit at sigma_w_sq = {s}".replace("+", r"\+")):
        population_gram(samples(3, 4), s)


def test_a_finite_depth_exists_for_every_sigma() -> None:
    """Diagonal of K^(l): 1 + s + ... + s^(l-1)."""
    np.testing.assert_allclose(population_gram(samples(3, 4), 2.0, depth=4).diagonal(), 15.0, rtol=1e-12)
