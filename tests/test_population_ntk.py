"""The tangent kernel of the limit against quadrature, recursions written the other way round, and finite networks."""

import itertools
import math

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch

from deqcli.deq.activations import ACTIVATIONS
from deqcli.errors import NumericalFailure
from deqcli.theory import population
from deqcli.theory.population import Population
from tests.dense import draw_problem, population_limit, relu_dual, solved_draw

RELU = ACTIVATIONS["relu"]
DIAGONAL = 3e-8
"""Relative error of arccos c where c is 1 but for rounding; elsewhere the kernel is exact to some 1e-12."""


def samples(n: int, d: int, seed: int = 0) -> np.ndarray:
    return draw_problem(n, d, 1, seed=seed).X


def wide(X: np.ndarray, s: float, scale: float = 1.0) -> Population:
    return Population.of(torch.tensor(X), s, RELU, scale)


def limit(X: np.ndarray, s: float, m: int, scale: float = 1.0) -> np.ndarray:
    """H_inf."""
    of = wide(X, s, scale)
    return of.ntk(of.gram(), m).numpy()


def assert_kernels_close(found: np.ndarray, wanted: np.ndarray, enlarged: float = 1.0) -> None:
    rtol, beside = 1e-11 * enlarged, ~np.eye(len(found), dtype=bool)
    np.testing.assert_allclose(found[beside], wanted[beside], rtol=rtol, atol=rtol * np.abs(wanted).max())
    np.testing.assert_allclose(found.diagonal(), wanted.diagonal(), rtol=DIAGONAL * enlarged)


def slopes_of(K: np.ndarray, X: np.ndarray, s: float) -> np.ndarray:
    """P(u > 0, v > 0) = 1/2 - angle/(2 pi) for (u, v) ~ N(0, 2 (s K + C)_ij); 1/2 on the diagonal."""
    covariance = s * K + X.T @ X / len(X)
    deviations = np.sqrt(covariance.diagonal())
    angle = np.arccos(np.clip(covariance / np.outer(deviations, deviations), -1, 1))
    np.fill_diagonal(angle, 0.0)
    return 0.5 - angle / (2 * math.pi)


def layer_of(K: np.ndarray, X: np.ndarray, s: float) -> np.ndarray:
    """K^(l) of K^(l-1)."""
    covariance = s * K + X.T @ X / len(X)
    size = np.sqrt(np.outer(covariance.diagonal(), covariance.diagonal()))
    return size * relu_dual(covariance / size)


@pytest.mark.parametrize(("p", "q"), [(1.0, 1.0), (0.3, 4.0), (1e-200, 1e200)])
@pytest.mark.parametrize("c", [-0.999, -0.5, 0.0, 0.3, 0.95, 0.9999])
def test_the_dual_slope_is_the_probability_that_both_are_positive(c: float, p: float, q: float) -> None:
    """P(u > 0, v > 0) is the integral over u > 0 of P(v > 0 | u), by quadrature."""
    slant = c / math.sqrt(1 - c * c)
    wanted, _ = scipy.integrate.quad(lambda u: scipy.stats.norm.pdf(u) * scipy.stats.norm.cdf(slant * u), 0, 12)
    left, right = torch.tensor([p], dtype=torch.float64), torch.tensor([q], dtype=torch.float64)
    covariance = torch.tensor([[c * math.sqrt(p) * math.sqrt(q)]], dtype=torch.float64)
    assert float(RELU.dual_slope(covariance, left, right)) == pytest.approx(wanted, rel=1e-8, abs=1e-10)


@pytest.mark.parametrize("q", [1.0, 1e-200, 1e200])
def test_the_dual_slope_of_opposite_independent_and_equal_variables(q: float) -> None:
    """0, 1/4, 1/2: the second moment of ReLU's slope, I{u >= 0}."""
    variance, covariance = torch.tensor([q], dtype=torch.float64), torch.tensor([[-q, 0, q]], dtype=torch.float64)
    found = RELU.dual_slope(covariance, variance, variance.expand(3))
    np.testing.assert_allclose(found, [[0, 0.25, 0.5]], rtol=1e-15, atol=1e-15)


@pytest.mark.parametrize("lengths", [(1, 1, 1, 1), (1, 0.3, 2, 1.1)], ids=["equal", "unequal"])
def test_the_slopes_against_monte_carlo_of_the_definition(lengths: tuple[float, ...]) -> None:
    """S_ij = E[phi'(u) phi'(v)] within 5 standard errors, u and v all entries of one Gaussian vector."""
    X, s, count = samples(4, 3) * lengths, 0.4, 400_000
    of = wide(X, s)
    K = of.gram(2)
    factor = np.linalg.cholesky(2 * (s * K.numpy() + X.T @ X / 3 + 1e-12 * np.eye(4)))
    active = (factor @ np.random.default_rng(0).standard_normal((4, count)) >= 0).astype(float)
    S = of.slopes(K).numpy()
    assert np.abs(S - active @ active.T / count).max() <= 5 * 0.5 / math.sqrt(count)
    np.testing.assert_allclose(S, slopes_of(K.numpy(), X, s), rtol=DIAGONAL)


@pytest.mark.parametrize("entries", [1, 20, 40], ids=["row", "two rows", "four rows"])
def test_the_size_of_the_blocks_does_not_matter(entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine samples, so that the last of the blocks of two and of four rows has one."""
    of = wide(samples(9, 5), 0.3, 0.7)
    K = of.gram()
    wanted = of.ntk(K, 50).numpy(), of.ntk_at_depth(3, 50).numpy(), of.slopes(K).numpy()
    monkeypatch.setattr(population, "ENTRIES_PER_BLOCK", entries)
    found = of.ntk(K, 50).numpy(), of.ntk_at_depth(3, 50).numpy(), of.slopes(K).numpy()
    for one, other in zip(found, wanted, strict=True):
        assert_kernels_close(one, other)


@pytest.mark.parametrize("scale", [1.0, 0.03, 2.0])
@pytest.mark.parametrize("s", [0.005, 0.08, 0.5, 0.9])
def test_the_limit_is_that_of_the_adjoint_iterated(s: float, scale: float) -> None:
    """M <- S * (alpha^2 + 2 s M) from 0, entry by entry in numpy; H_inf = m K + (m K + X^T X) * M."""
    X, m = samples(7, 4), 300
    K = population_limit(X, s)
    S, M = slopes_of(K, X, s), np.zeros_like(K)
    for _ in range(600):
        M = S * (scale**2 + 2 * s * M)
    assert_kernels_close(limit(X, s, m, scale), m * K + (m * K + X.T @ X) * M, enlarged=1 / (1 - s))


def backward_kernel(X: np.ndarray, s: float, scale: float, depth: int, m: int) -> np.ndarray:
    """m K^(L) + sum_l B^(l) * (m K^(l-1) + X^T X), with B^(L) = alpha^2 S^(L) and B^(l) = 2 s S^(l) B^(l+1)."""
    grams = [np.zeros((X.shape[1], X.shape[1]))]
    for _ in range(depth):
        grams.append(layer_of(grams[-1], X, s))
    H, B = m * grams[depth], scale**2 / (2 * s)
    for K in reversed(grams[:depth]):
        B = 2 * s * slopes_of(K, X, s) * B
        H = H + B * (m * K + X.T @ X)
    return H


@pytest.mark.parametrize("scale", [1.0, 0.3])
@pytest.mark.parametrize("s", [0.08, 0.5, 2.0])
@pytest.mark.parametrize("depth", [0, 1, 2, 3, 7])
def test_every_depth_against_the_sum_over_layers_from_the_last_to_the_first(depth: int, s: float, scale: float) -> None:
    """At every sigma_w^2, with samples that are of different lengths."""
    X = samples(6, 4) * np.linspace(0.5, 1.5, 6)
    found = wide(X, s, scale).ntk_at_depth(depth, 70).numpy()
    assert_kernels_close(found, backward_kernel(X, s, scale, depth, 70))


def test_the_depths_approach_the_limit_at_the_rate_sigma_w_sq() -> None:
    """As l s^l, so by at most s (1 + 1/l) per layer in the end, the diagonal's error being s^l."""
    X, s = samples(6, 4), 0.5
    of, H = wide(X, s), limit(X, s, 100)
    errors = [np.linalg.norm(H - of.ntk_at_depth(depth, 100).numpy()) for depth in range(6, 17)]
    ratios = [after / before for before, after in itertools.pairwise(errors)]
    assert len(ratios) == 10
    assert all(0.95 * s <= ratio <= s * (1 + 2 / depth) for depth, ratio in enumerate(ratios, start=6))


def network_kernel(X: np.ndarray, m: int, depth: int, tied: bool, seed: int) -> np.ndarray:
    """J J^T of a network of s = 0.3 and alpha = 0.5, J by autograd through its layers; drawn by numpy."""
    rng, d, s, scale = np.random.default_rng((seed, m)), len(X), 0.3, 0.5

    def leaf(deviation: float, *shape: int) -> torch.Tensor:
        return torch.tensor(rng.standard_normal(shape) * deviation, requires_grad=True)

    count = 1 if tied else depth
    weights = [leaf(math.sqrt(2 * s / m), m, m) for _ in range(count)]
    inputs, a = [leaf(math.sqrt(2 / d), m, d) for _ in range(count)], leaf(scale / math.sqrt(m), m)
    Z = torch.zeros((m, X.shape[1]), dtype=torch.float64)
    for layer in range(depth):
        Z = torch.relu(weights[layer % count] @ Z + inputs[layer % count] @ torch.tensor(X))
    gradients = [torch.autograd.grad(y, [*weights, *inputs, a], retain_graph=True) for y in a @ Z]
    J = torch.stack([torch.cat([part.flatten() for part in gradient]) for gradient in gradients])
    return (J @ J.T).numpy()


def network_error(m: int, depth: int, tied: bool) -> float:
    """Root mean square over 12 draws of ||H - H^(L)||_F / ||H^(L)||_F."""
    X = samples(4, 6)
    wanted = wide(X, 0.3, 0.5).ntk_at_depth(depth, m).numpy()
    errors = [np.linalg.norm(network_kernel(X, m, depth, tied, seed) - wanted) for seed in range(12)]
    return float(np.sqrt(np.mean(np.square(errors)))) / float(np.linalg.norm(wanted))


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_networks_of_finite_depth_approach_the_kernel_of_that_depth(depth: int, tied: bool) -> None:
    """Within 4/sqrt(m), and like 1/sqrt(m): 8 times the width divides the error by about 2.8."""
    narrow, broad = network_error(64, depth, tied), network_error(512, depth, tied)
    assert broad <= 4 / 512**0.5
    assert 1.9 <= narrow / broad <= 4.2


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_the_kernel_of_the_equilibrium_approaches_the_limit(scale: float) -> None:
    """Root mean square over 6 draws within 4/sqrt(m), and like 1/sqrt(m): 4 times the width divides it by about 2."""
    errors = []
    for m in (75, 300, 1200):
        draws = [solved_draw((20, 30, m), 0.08, scale, seed)[1] for seed in range(6)]
        H = limit(draws[0].X.numpy(), 0.08, m, scale)
        found = [np.linalg.norm(draw.H.numpy() - H) / np.linalg.norm(H) for draw in draws]
        errors.append(float(np.sqrt(np.mean(np.square(found)))))
        assert errors[-1] <= 4 / m**0.5
    assert all(1.4 <= before / after <= 2.9 for before, after in itertools.pairwise(errors))
    assert 2.8 <= errors[0] / errors[2] <= 5.7


@pytest.mark.parametrize("s", [0.005, 0.08, 0.9])
@pytest.mark.parametrize(("n", "d"), [(6, 4), (12, 3), (1, 1), (5, 40)])
def test_the_limit_is_symmetric_and_no_less_than_the_gram_matrix(n: int, d: int, s: float) -> None:
    """lambda_min(H_inf) >= m lambda_min(K) > 0, as M and m K + X^T X have no negative eigenvalue."""
    X, m = samples(n, d), 100
    H, K = limit(X, s, m, 0.5), population_limit(X, s)
    np.testing.assert_allclose(H, H.T, rtol=1e-12)
    least = np.linalg.eigvalsh(m * K)[0]
    assert least > 0
    assert np.linalg.eigvalsh(H)[0] >= least - DIAGONAL * H.max()


@pytest.mark.parametrize("s", [1.001, 1.5, 10.0])
def test_without_a_limit_there_is_no_kernel(s: float) -> None:
    """2 s S reaches 1 on the diagonal, S = 1/2."""
    of = wide(samples(3, 4), s)
    with pytest.raises(NumericalFailure, match=rf"^the tangent kernel has no limit at sigma_w_sq = {s}$"):
        of.ntk(of.gram(4), 10)
    assert of.ntk_at_depth(4, 10).isfinite().all()
