"""The laws of W(0): spectra and norms against random matrix theory, what a draw promises, and which limits it keeps."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import scipy.stats
import torch

from deqcli.deq.activations import ACTIVATIONS
from deqcli.deq.initialisation import INITIALISATIONS, Draw
from deqcli.deq.model import Component, Params
from deqcli.deq.solvers import Picard
from deqcli.theory.draw import SolvedDraw
from deqcli.theory.population import Population
from tests.dense import draw_problem

M, D, S = 500, 7, 0.08
SIGMA = math.sqrt(2 * S)
"""sqrt2 sigma_w: of a Gaussian W the deviation of an entry times sqrt m."""

BASE = Draw(M, D, S, 1.0, 0, torch.float64, torch.device("cpu"), skip=True)
SEEDS = range(3)
every_law = pytest.mark.parametrize("init", INITIALISATIONS)
every_seed = pytest.mark.parametrize("seed", SEEDS)


@cache
def params_of(init: str, seed: int = 0) -> Params:
    return INITIALISATIONS[init](replace(BASE, seed=seed))


def matrix(init: str, seed: int = 0) -> np.ndarray:
    return params_of(init, seed).W.numpy()


def quarter_circle(x: np.ndarray) -> np.ndarray:
    """P(s <= x), density sqrt(4 - x^2)/pi on [0, 2]: the squares of s follow Marchenko and Pastur's law of squares."""
    x = np.clip(x, 0, 2)
    return (x * np.sqrt(4 - x * x) / 2 + 2 * np.arcsin(x / 2)) / math.pi


def semicircle(x: np.ndarray) -> np.ndarray:
    """P(h <= x), density sqrt(4 - x^2)/(2 pi) on [-2, 2]. Source: Wigner 1958."""
    return (1 + np.sign(x) * quarter_circle(np.abs(x))) / 2


def kolmogorov(values: np.ndarray, law: object) -> float:
    """sup |empirical - law|."""
    return float(scipy.stats.kstest(values, law).statistic)


RIGID = 4 / M
"""Eigenvalues repel each other: Kolmogorov distances are of order log(m)/m; of independent values m^(-1/2) = 0.04."""


@every_seed
def test_gaussian_singular_values_follow_the_quarter_circle(seed: int) -> None:
    assert kolmogorov(np.linalg.svd(matrix("gaussian", seed), compute_uv=False) / SIGMA, quarter_circle) <= RIGID


@every_seed
def test_symmetric_eigenvalues_follow_the_semicircle(seed: int) -> None:
    W = matrix("symmetric", seed)
    assert np.array_equal(W, W.T)
    assert kolmogorov(np.linalg.eigvalsh(W) / SIGMA, semicircle) <= RIGID
    assert np.diag(W).var() == pytest.approx(2 * SIGMA**2 / M, rel=0.35)  # 5 standard errors, twice that beside it
    assert W[np.triu_indices(M, 1)].var() == pytest.approx(SIGMA**2 / M, rel=0.03)


@every_seed
def test_orthogonal_is_a_multiple_of_an_isometry_with_eigenvalues_all_around(seed: int) -> None:
    W = matrix("orthogonal", seed)
    assert np.abs(W @ W.T - 2 * S * np.eye(M)).max() <= 1e-13
    eigenvalues = np.linalg.eigvals(W / SIGMA)
    assert np.abs(np.abs(eigenvalues) - 1).max() <= 1e-12
    assert kolmogorov(np.angle(eigenvalues), scipy.stats.uniform(-math.pi, 2 * math.pi).cdf) <= RIGID


def test_orthogonal_is_uniform_and_the_factor_of_lapack_is_not() -> None:
    """tr O and tr O^2 have means 0 and 1 and variances 1 and 2 (Diaconis and Shahshahani 1994), for m >= 4."""
    draws = [replace(BASE, width=4, seed=seed) for seed in range(400)]
    uniform = [INITIALISATIONS["orthogonal"](draw).W.numpy() / SIGMA for draw in draws]
    first, second = (np.array([np.trace(np.linalg.matrix_power(each, k)) for each in uniform]) for k in (1, 2))
    assert abs(first.mean()) <= 5 / 20
    assert first.var() == pytest.approx(1, abs=5 * math.sqrt(2) / 20)
    assert abs(second.mean() - 1) <= 5 * math.sqrt(2) / 20
    factors = [np.linalg.qr(INITIALISATIONS["gaussian"](draw).W.numpy())[0] for draw in draws]
    assert abs(np.mean([np.trace(Q) for Q in factors])) > 0.5  # ten standard errors


@every_seed
def test_nonnegative_is_nearly_of_rank_one(seed: int) -> None:
    """Perron value and norm exceed m E[W_ij] by some 1/m; what is left has norm 2 sqrt m times the deviation."""
    W, limit = matrix("nonnegative", seed), 2 * SIGMA
    assert W.min() >= 0
    assert abs(np.linalg.eigvals(W)[0]) == pytest.approx(limit, rel=3 / M)
    first, second = np.linalg.svd(W, compute_uv=False)[:2]
    assert first == pytest.approx(limit, rel=3 / M)
    assert second == pytest.approx(4 * math.sqrt(S * (math.pi - 2) / M), rel=0.05)
    scaled = np.abs(matrix("gaussian", seed)) * math.sqrt(2 * math.pi / M)
    np.testing.assert_allclose(W, scaled, rtol=1e-14)


@every_seed
def test_monotone_is_made_of_two_gaussian_matrices(seed: int) -> None:
    """I - W = mu I + A^T A - (B - B^T): symmetric part at least mu, its rest by the quarter circle; i (B - B^T) too."""
    W, mu = matrix("monotone", seed), BASE.monotonicity
    strong = np.linalg.eigvalsh(np.eye(M) - (W + W.T) / 2) - mu
    assert strong.min() >= -1e-13
    assert kolmogorov(np.sqrt(np.maximum(strong, 0)) / SIGMA, quarter_circle) <= RIGID
    assert kolmogorov(np.linalg.eigvalsh(1j * (W - W.T) / 2) / (SIGMA * math.sqrt(2)), semicircle) <= RIGID


def test_a_monotone_layer_may_have_any_norm() -> None:
    W = INITIALISATIONS["monotone"](replace(BASE, sigma_w_sq=2.0, monotonicity=0.1)).W.numpy()
    assert np.linalg.norm(W, 2) > 10
    assert np.linalg.eigvalsh(np.eye(M) - (W + W.T) / 2).min() >= 0.1 - 1e-12


@every_law
def test_the_norm_is_near_the_limit_that_is_stated(init: str) -> None:
    """Edges fluctuate by m^(-2/3) = 1.6 %; the limit scales as sigma_w."""
    limit = INITIALISATIONS[init].norm_limit(S)
    if limit is None:
        assert init == "monotone"
        return
    for seed in SEEDS:
        assert np.linalg.norm(matrix(init, seed), 2) == pytest.approx(limit, rel=0.03)
    assert INITIALISATIONS[init].norm_limit(4 * S) == pytest.approx(2 * limit, rel=1e-15)


@every_law
def test_the_same_draw_has_the_same_bits_and_another_attempt_is_another_draw(init: str) -> None:
    first = params_of(init).given()
    again, attempt = (INITIALISATIONS[init](replace(BASE, attempt=k)).given() for k in (0, 1))
    assert first.keys() == again.keys() == attempt.keys()
    assert len(first) == (6 if init == "monotone" else 4)
    for name, tensor in first.items():
        assert torch.equal(tensor, again[name])
        assert not (tensor == attempt[name]).any() or (init == "monotone" and name == "W")


@pytest.mark.parametrize("name", ["U", "a", "b"])
def test_attempts_are_independent(name: str) -> None:
    """The correlation of two attempts, and of the readouts of one, within 5 standard errors of 0."""
    draws = [INITIALISATIONS["gaussian"](replace(BASE, attempt=k)) for k in range(3)]
    entries = [getattr(draw, name).numpy().ravel() for draw in draws]
    correlations = np.corrcoef(np.stack([*entries, draws[0].a.numpy()]) if name == "b" else np.stack(entries))
    beside = correlations[np.triu_indices(len(correlations), 1)]
    assert np.abs(beside).max() <= 5 / math.sqrt(entries[0].size)


@every_law
def test_a_float32_draw_is_the_rounding(init: str) -> None:
    """Of a monotone layer A and B are, and W is made of them."""
    exact, single = params_of(init).given(), INITIALISATIONS[init](replace(BASE, dtype=torch.float32)).given()
    names = [name for name in exact if not (init == "monotone" and name == "W")]
    assert len(names) >= 4
    for name in names:
        assert single[name].dtype is torch.float32
        assert torch.equal(exact[name].float(), single[name])


@every_law
@pytest.mark.parametrize("skip", [False, True])
def test_every_entry_is_told_of(init: str, skip: bool) -> None:
    counts: list[int] = []
    INITIALISATIONS[init](replace(BASE, width=600, skip=skip, on_entries=counts.append))
    assert sum(counts) == 600 * ((2 if init == "monotone" else 1) * 600 + D + 1 + skip)
    assert len(counts) > 4


def test_a_readout_of_signs_has_the_variance_and_the_signs_of_the_gaussian_one() -> None:
    scaled = replace(BASE, readout_scale=0.3)
    signs, gaussian = (INITIALISATIONS["gaussian"](replace(scaled, signs=each)) for each in (True, False))
    for name in ("a", "b"):
        drawn, usual = getattr(signs, name), getattr(gaussian, name)
        assert torch.equal(drawn.abs(), torch.full_like(drawn, 0.3 / math.sqrt(M)))
        assert torch.equal(drawn.sign(), usual.sign())
        assert float(usual.square().sum()) == pytest.approx(0.09, rel=5 * math.sqrt(2 / M))
    assert torch.equal(signs.W, gaussian.W)
    assert torch.equal(signs.U, gaussian.U)
    assert INITIALISATIONS["gaussian"](replace(BASE, skip=False)).b is None


WIDTHS = (64, 1024)


def deviations(init: str, signs: bool = False, activation: str = "relu") -> list[tuple[float, float]]:
    """||G/m - K||_F/||K||_F and ||H - H_inf||_F/||H_inf||_F at each width, root mean squares over three draws."""
    phi, X = ACTIVATIONS[activation], torch.tensor(draw_problem(8, 10, 1).X)
    component, wide = Component(phi, Picard()), Population.of(X, S, phi)
    K, found = wide.gram(), []
    for m in WIDTHS:
        H, off = wide.ntk(K, m), []
        for seed in SEEDS:
            params = INITIALISATIONS[init](replace(BASE, width=m, input_dim=10, seed=seed, signs=signs, skip=False))
            draw = SolvedDraw.of(params, X, torch.zeros(8, dtype=torch.float64), component)
            off.append([float((draw.G / m - K).norm() / K.norm()), float((draw.H - H).norm() / H.norm())])
        found.append(tuple(np.sqrt(np.mean(np.square(off), axis=0))))
    return found


@pytest.mark.parametrize(("init", "signs"), [("gaussian", False), ("orthogonal", False), ("orthogonal", True)])
def test_where_the_limits_are_gaussian_a_draw_approaches_them(init: str, signs: bool) -> None:
    """Like m^(-1/2): from width 64 to 1024 by a factor of 4, which three draws show as 2 to 9."""
    assert INITIALISATIONS[init].gaussian_limit
    narrow, wide = deviations(init, signs)
    for before, after in zip(narrow, wide, strict=True):
        assert 2 <= before / after <= 9
        assert after <= 0.12


@pytest.mark.parametrize("init", [name for name, law in INITIALISATIONS.items() if not law.gaussian_limit])
def test_other_laws_stay_away_from_them(init: str) -> None:
    """H is off by a quarter at width 1024 and at 2048 (0.28), where draws of a Gaussian layer are off by a tenth."""
    _, (_, by_H) = deviations(init)
    assert by_H >= 0.25


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_finite_networks_of_every_activation_approach_its_kernels(activation: str) -> None:
    """Like m^(-1/2): from width 64 to 1024 by a factor of 4, which three draws show as 2 to 9."""
    narrow, wide = deviations("gaussian", activation=activation)
    for before, after in zip(narrow, wide, strict=True):
        assert 2 <= before / after <= 9
        assert after <= 0.12
