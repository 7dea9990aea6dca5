"""The tangent kernel against autograd and the dense formula; predicted dynamics against matrix powers and training."""

import math
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
import torch

from deqcli.deq.activations import ACTIVATIONS
from deqcli.deq.model import ALL
from deqcli.deq.network import loss
from deqcli.deq.spectral import gram, least_eigenvalue
from deqcli.errors import NumericalFailure
from deqcli.theory.ensemble import Ensemble, cholesky, ensembles, random_kernels
from deqcli.theory.ntk import empirical_ntk
from deqcli.theory.population import Population
from deqcli.theory.prediction import MOST_ROWS, KernelPrediction, loss_bounds, step_grid
from tests.dense import (
    Problem,
    draw_problem,
    kronecker_gradient,
    kronecker_jacobian,
    population_limit,
    solved_draw,
    solved_network,
    unrolled_jacobian,
)

SHAPES = [(4, 5, 6), (7, 3, 4), (1, 4, 5), (1, 1, 6), (3, 2, 2), (6, 6, 15)]
"""(n, d, m)."""


def kernel(p: Problem) -> np.ndarray:
    network = solved_network(p)
    return empirical_ntk(network.cell(0), gram(network.Z), network.X).numpy()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_kernel_is_the_jacobian_times_its_transpose(shape: tuple[int, int, int]) -> None:
    p = draw_problem(*shape)
    dense, unrolled = np.concatenate(kronecker_jacobian(p), axis=1), unrolled_jacobian(p)
    H = kernel(p)
    assert np.linalg.norm(H) > 0
    np.testing.assert_allclose(H, dense @ dense.T, rtol=1e-9, atol=1e-10 * np.linalg.norm(H))
    np.testing.assert_allclose(H, unrolled @ unrolled.T, rtol=1e-9, atol=1e-10 * np.linalg.norm(H))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_kernel_gives_the_gradient_norm_of_every_error(shape: tuple[int, int, int]) -> None:
    p = draw_problem(*shape)
    H = kernel(p)
    for e in np.random.default_rng(0).standard_normal((5, shape[0])):
        squared = sum(float(np.sum(g**2)) for g in kronecker_gradient(p, e))
        assert e @ H @ e == pytest.approx(squared, rel=1e-10)


@pytest.mark.parametrize("seed", range(10))
def test_the_kernel_is_at_least_the_gram_matrix(seed: int) -> None:
    """lambda_min(H) >= lambda_min(G), strictly where H2 + H3 is definite; so ||grad||^2 >= 2 lambda_min(G) Phi."""
    p = draw_problem(5, 6, 30, seed=seed)
    network = solved_network(p)
    G = gram(network.Z)
    least = least_eigenvalue(G)
    assert 0 < least < least_eigenvalue(empirical_ntk(network.cell(0), G, network.X))
    e = network.prediction_error(torch.tensor(p.y))
    squared = sum(float(np.sum(g**2)) for g in kronecker_gradient(p))
    assert squared >= 2 * least * loss(e)


def prediction_of(H: np.ndarray, e: np.ndarray) -> KernelPrediction:
    return KernelPrediction.of(torch.tensor(H), torch.tensor(e))


@pytest.mark.parametrize("relative_rate", [0.1, 1.0, 1.9, 2.1])
@pytest.mark.parametrize("step", [0, 1, 2, 7, 50])
def test_the_prediction_is_the_linear_recursion(step: int, relative_rate: float) -> None:
    """1/2 ||(I - eta H)^tau e||^2 with the product taken step by step, stable or not."""
    p = draw_problem(5, 6, 30)
    H, e = kernel(p), p.y.copy()
    predicted = prediction_of(H, e)
    rate = relative_rate / np.linalg.eigvalsh(H)[-1]
    for _ in range(step):
        e = e - rate * H @ e
    assert predicted.loss(rate, step) == pytest.approx(0.5 * float(e @ e), rel=1e-10)


def test_rates_come_from_the_largest_eigenvalue() -> None:
    predicted = prediction_of(np.diag([1.0, 8.0, 2.0]), np.array([1.0, 1.0, 1.0]))
    assert np.array_equal(predicted.eigenvalues, [1.0, 2.0, 8.0])
    assert (predicted.largest_eigenvalue, predicted.auto_rate, predicted.stable_rate) == (8.0, 0.125, 0.25)
    assert predicted.loss(0.99 * predicted.stable_rate, 2000) < 1e-10
    assert predicted.loss(1.01 * predicted.stable_rate, 2000) > 1e10


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_kernel_or_an_error_that_is_not_finite_is_refused(value: float) -> None:
    H, e = np.diag([1.0, 2.0]), np.ones(2)
    bad_H, bad_e = H.copy(), e.copy()
    bad_H[0, 1] = bad_H[1, 0] = bad_e[1] = value
    assert prediction_of(H, e).loss(0.5, 0) == 1.0
    for case in ((bad_H, e), (H, bad_e), (bad_H, bad_e)):
        with pytest.raises(NumericalFailure, match="overflows"):
            prediction_of(*case)


def test_an_error_whose_square_overflows_is_refused() -> None:
    with pytest.raises(NumericalFailure, match="overflows"):
        prediction_of(np.eye(2), np.array([1.0, -1e155]))


def test_dead_units_have_no_rate() -> None:
    """U X < 0: Z = 0, V = 0, H = 0. Nothing can train, at whatever rate, and the prediction says so."""
    p = draw_problem(4, 5, 20)
    network = solved_network(replace(p, U=-np.abs(p.U), X=np.abs(p.X)))
    H = empirical_ntk(network.cell(0), gram(network.Z), network.X)
    assert not H.any()
    predicted = KernelPrediction.of(H, network.prediction_error(torch.tensor(p.y)))
    assert predicted.stable_rate is None
    with pytest.raises(NumericalFailure, match=r"H\(0\) = 0"):
        _ = predicted.auto_rate
    assert predicted.loss(0.1, 1000) == pytest.approx(0.5 * float(p.y @ p.y), rel=1e-14)


def test_a_prediction_that_overflows_is_missing() -> None:
    predicted = prediction_of(np.diag([1.0, 2.0]), np.array([1.0, 1.0]))
    assert predicted.loss(100.0, 10) is not None
    assert predicted.loss(100.0, 100) is None
    assert predicted.loss(100.0, 10**9) is None
    assert KernelPrediction(np.array([1.0, 2.0]), np.array([1e200, 1.0])).loss(0.5, 0) is None


def worst_decades(m: int) -> float:
    """max over 100 steps of |log10 loss - log10 predicted|, at the automatic rate."""
    p = draw_problem(8, 20, m, norm=0.6)
    y, network = torch.tensor(p.y), solved_network(p, tolerance=1e-12)
    e = network.prediction_error(y)
    predicted = KernelPrediction.of(empirical_ntk(network.cell(0), gram(network.Z), network.X), e)
    worst, start = 0.0, loss(e)
    for step in range(1, 101):
        network.descend(e, predicted.auto_rate)
        network.solve_equilibrium()
        network.solve_adjoint()
        e = network.prediction_error(y)
        worst = max(worst, abs(np.log10(loss(e)) - np.log10(predicted.loss(predicted.auto_rate, step))))
    assert loss(e) < start / 10
    return worst


def test_wide_networks_train_as_predicted() -> None:
    """Within 0.2 decades over 100 steps at m = 400, and several times better than at m = 50."""
    narrow, wide = worst_decades(50), worst_decades(400)
    assert wide <= 0.2
    assert wide < narrow / 3


def test_the_bound_of_theorem_1() -> None:
    """(1 - eta lambda_0/2)^tau Phi(0); beyond eta lambda_0 = 2 it says 0 after the first step, never a negative."""
    assert loss_bounds(3.0, 4.0, 0.25, [0, 3]) == [3.0, 0.375]
    assert loss_bounds(3.0, 4.0, 1.0, [0, 1, 2]) == [3.0, 0.0, 0.0]
    assert loss_bounds(3.0, 0.0, 0.25, [1000]) == [3.0]


def random_kernel(seed: int, n: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """H = A A^T + 1, and an error."""
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((n, n))
    return A @ A.T + np.eye(n), rng.standard_normal(n)


@pytest.mark.parametrize("step", [0, 1, 9])
@pytest.mark.parametrize("relative_rate", [0.5, 1.5, 2.5])
def test_the_parts_are_what_each_direction_alone_would_lose(relative_rate: float, step: int) -> None:
    """1/2 ||v v^T (I - eta H)^tau e||^2 for each eigenvector v of numpy; together the loss."""
    H, e = random_kernel(0)
    predicted, rate = prediction_of(H, e), relative_rate / np.linalg.eigvalsh(H)[-1]
    after = np.linalg.matrix_power(np.eye(6) - rate * H, step) @ e
    wanted = [0.5 * float(v @ after) ** 2 for v in np.linalg.eigh(H)[1].T]
    parts = predicted.parts(rate, step)
    assert parts == pytest.approx(wanted, rel=1e-9, abs=1e-12 * sum(wanted))
    assert parts.sum() == pytest.approx(predicted.loss(rate, step), rel=1e-14)


@pytest.mark.parametrize("fraction", [2.0, 0.9, 0.1, 1e-3, 1e-7])
@pytest.mark.parametrize("relative_rate", [0.2, 1.0, 1.9])
@pytest.mark.parametrize("seed", range(3))
def test_the_first_step_of_a_loss_is_that_of_a_plain_loop(seed: int, relative_rate: float, fraction: float) -> None:
    H, e = random_kernel(seed)
    rate = relative_rate / np.linalg.eigvalsh(H)[-1]
    wanted, step, target = e.copy(), 0, fraction * 0.5 * float(e @ e)
    while 0.5 * float(wanted @ wanted) > target:
        wanted, step = wanted - rate * H @ wanted, step + 1
    assert prediction_of(H, e).steps_to(target, rate) == step
    assert (step == 0) == (fraction >= 1)


@pytest.mark.parametrize("decades", [1, 6, 11])
def test_the_first_step_of_one_direction_by_its_logarithm(decades: int) -> None:
    """Phi(tau) = Phi(0) (1 - eta h)^(2 tau) reaches a share of Phi(0) at log(share)/(2 log(1 - eta h)), rounded up."""
    predicted, relative_rate = prediction_of(np.array([[3.0]]), np.array([2.0])), 10.0**-decades
    wanted = math.log(1e-3) / (2 * math.log1p(-relative_rate))
    found = predicted.steps_to(1e-3 * 2.0, relative_rate / 3)
    assert found == pytest.approx(wanted, rel=1e-5 if decades > 6 else 1e-9, abs=1)  # 1 - 1e-11 has five digits
    assert found >= wanted * (1 - 1e-5)
    assert predicted.loss(relative_rate / 3, found) <= 2e-3 < predicted.loss(relative_rate / 3, found - 1)


def test_a_loss_that_is_there_already_takes_no_step() -> None:
    predicted = prediction_of(np.diag([1.0, 2.0]), np.array([1.0, 1.0]))
    assert [predicted.steps_to(target, 0.5) for target in (1.0, 1.5, math.inf)] == [0, 0, 0]
    assert predicted.steps_to(1.0, 100.0) == 0
    assert predicted.steps_to(0.125, 0.5) == 1  # equality counts


def test_a_loss_that_is_never_reached_has_no_step() -> None:
    predicted = prediction_of(np.diag([1.0, 2.0]), np.array([1.0, 1.0]))
    assert [predicted.steps_to(0.5, rate) for rate in (1.1, 5.0)] == [None, None]
    assert [predicted.steps_to(target, 0.5) for target in (-1.0, math.nan)] == [None, None]
    singular = prediction_of(np.diag([0.0, 2.0]), np.array([1.0, 1.0]))
    assert singular.steps_to(0.499, 0.5) is None
    assert singular.steps_to(0.501, 0.1) is not None
    assert prediction_of(np.zeros((2, 2)), np.ones(2)).steps_to(0.5, 1.0) is None


@pytest.mark.parametrize("steps", [0, 1, 2, 398, 399, 400, 401, 2000, 10**6, 2**53])
def test_the_steps_with_a_row(steps: int) -> None:
    grid = step_grid(steps)
    assert (grid[0], grid[-1]) == (0, steps)
    assert len(grid) <= MOST_ROWS
    assert grid == sorted(set(grid))
    if steps < MOST_ROWS:
        assert grid == list(range(steps + 1))
    else:
        assert {1, 2, 3} <= set(grid)
        assert max(np.diff(grid)) <= steps / 199 * (1 + 1e-12) + 1


ENSEMBLE = (10, 15, 400, 0.08)
"""n, d, m, sigma_w_sq."""
STEPS = (0, 1, 2, 5, 10, 20, 50)


@dataclass(frozen=True)
class Limit:
    """The limit of ENSEMBLE by other means than the code's: K, M, the covariances of p and b, H_inf."""

    K: np.ndarray
    M: np.ndarray
    p: np.ndarray
    b: np.ndarray
    H: np.ndarray


def samples_and_labels() -> tuple[np.ndarray, np.ndarray]:
    n, d, *_ = ENSEMBLE
    p = draw_problem(n, d, 1)
    return p.X, p.y


@cache
def dense_limit(alpha: float, m: int = ENSEMBLE[2]) -> Limit:
    """H_inf = m K * (1 + M) + X^T X * M, M = alpha^2 (k0/2)/(1 - s k0), k0 = 1 - arccos(c)/pi."""
    (X, _), s = samples_and_labels(), ENSEMBLE[3]
    K = population_limit(X, s)
    c = (1 - s) * (s * K + X.T @ X / len(X))
    np.fill_diagonal(c, 1.0)
    k0 = 1 - np.arccos(np.clip(c, -1, 1)) / math.pi
    M = alpha**2 * (k0 / 2) / (1 - s * k0)
    return Limit(K, M, 2 * c / (1 - s), alpha**2 + 2 * s * M, m * K * (1 + M) + X.T @ X * M)


def population_of(alpha: float) -> Population:
    return Population.of(torch.tensor(samples_and_labels()[0]), ENSEMBLE[3], ACTIVATIONS["relu"], alpha)


@cache
def ensemble(alpha: float = 1.0, m: int = ENSEMBLE[2]) -> Ensemble:
    return ensembles(population_of(alpha), torch.tensor(samples_and_labels()[1]), {m: ALL})[m]


@pytest.mark.parametrize("alpha", [1.0, 0.1, 1e-200])
def test_the_mean_over_initialisations_is_a_trace(alpha: float) -> None:
    """E Phi(tau) = 1/2 tr (I - eta H)^(2 tau) (alpha^2 K + y y^T), with E e e^T = alpha^2 K + y y^T."""
    found, limit, y = ensemble(alpha), dense_limit(alpha), samples_and_labels()[1]
    rate = found.mean.auto_rate
    assert rate == pytest.approx(1 / np.linalg.eigvalsh(limit.H)[-1], rel=1e-9)
    for step in (0, 1, 7, 60):
        power = np.linalg.matrix_power(np.eye(len(y)) - rate * limit.H, 2 * step)
        wanted = 0.5 * np.trace(power @ (alpha * alpha * limit.K + np.outer(y, y)))
        assert found.mean.loss(rate, step) == pytest.approx(wanted, rel=1e-8)


@pytest.mark.parametrize(("alpha", "m"), [(1.0, 400), (0.1, 400), (1.0, 10**5)])
def test_random_kernels_scatter_around_the_limit_as_means_of_independent_units(alpha: float, m: int) -> None:
    """Means of 400 are K and M within 5 standard errors, their variances those of a unit over m, beyond 1000 units too.

    A unit of numpy: p ~ N(0, 2 (s K + C)), b ~ N(0, alpha^2 + 2 s M); G/m is the mean of phi(p) phi(p)^T, V^T V that of
    (phi'(p) b)(phi'(p) b)^T.
    """
    limit = dense_limit(alpha)
    K, M = torch.tensor(limit.K), torch.tensor(limit.M)
    drawn = [next(iter(random_kernels(population_of(alpha), K, M, [m], index))) for index in range(400)]
    rng = np.random.default_rng(0)
    p, b = (rng.multivariate_normal(np.zeros(len(K)), each, 20_000) for each in (limit.p, limit.b))
    for position, wanted, rows in ((1, limit.K, np.maximum(p, 0)), (2, limit.M, (p >= 0) * b)):
        kernels = np.array([each[position].numpy() for each in drawn])
        assert [each[0] for each in drawn] == [m] * 400
        assert (np.abs(kernels.mean(axis=0) - wanted) <= 5 * kernels.std(axis=0) / math.sqrt(400)).all()
        units = np.einsum("ri,rj->rij", rows, rows).var(axis=0)
        np.testing.assert_allclose(kernels.var(axis=0), units / m, rtol=0.4)
        assert kernels.var(axis=0).sum() == pytest.approx(units.sum() / m, rel=0.1)


def share_in(found: Ensemble, losses: np.ndarray) -> list[float]:
    """Of losses at STEPS, a row each, the share within the band."""
    bands = found.band(found.mean.auto_rate, STEPS)
    assert all(low < middle < high for low, middle, high in bands)
    return [float(np.mean((low <= own) & (own <= high))) for (low, _, high), own in zip(bands, losses.T, strict=True)]


def losses_of(H: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """1/2 ||(I - eta H)^tau e||^2 at STEPS for each column of errors, by matrix powers, (columns, steps)."""
    factor = np.eye(len(H)) - ensemble().mean.auto_rate * H
    return np.array([0.5 * np.sum((np.linalg.matrix_power(factor, step) @ errors) ** 2, axis=0) for step in STEPS]).T


def test_the_band_holds_nine_tenths_of_networks_of_independent_units() -> None:
    """90 % of 4 outputs of each of 400 kernels made by numpy, to 3 deviations of quantiles over 100 kernels (6 %)."""
    limit, (X, y), m = dense_limit(1.0), samples_and_labels(), ENSEMBLE[2]
    rng, losses = np.random.default_rng(7), []
    for _ in range(400):
        p, b = (rng.multivariate_normal(np.zeros(len(y)), each, m) for each in (limit.p, limit.b))
        mG = np.maximum(p, 0).T @ np.maximum(p, 0)
        B = ((p >= 0) * b).T @ ((p >= 0) * b) / m
        outputs = rng.multivariate_normal(np.zeros(len(y)), mG / m, 4).T
        losses.append(losses_of(mG + B * (mG + X.T @ X), outputs - y[:, None]))
    assert share_in(ensemble(), np.concatenate(losses)) == pytest.approx([0.9] * len(STEPS), abs=0.06)


@cache
def losses_of_networks() -> np.ndarray:
    """Losses of 100 networks at STEPS on their own H(0), (100, steps)."""
    n, d, m, s = ENSEMBLE
    solved = [solved_draw((n, d, m), s, seed=seed)[1] for seed in range(100)]
    return np.concatenate([losses_of(each.H.numpy(), each.prediction_error.numpy()[:, None]) for each in solved])


def test_the_band_holds_nine_tenths_of_networks() -> None:
    """90 % of 100 networks, to 3 deviations (9 %)."""
    assert share_in(ensemble(), losses_of_networks()) == pytest.approx([0.9] * len(STEPS), abs=0.09)


def test_the_mean_over_networks_is_that_of_the_limit() -> None:
    """Within 4 standard errors at m = 400 in the first 10 steps, where the kernel's fluctuation does not show yet."""
    mean, losses = ensemble().mean, losses_of_networks()
    for step, own in zip(STEPS[:5], losses.T, strict=False):
        error = own.std() / math.sqrt(len(own))
        assert mean.loss(mean.auto_rate, step) == pytest.approx(own.mean(), abs=4 * error)


@pytest.mark.parametrize("alpha", [1.0, 0.1])
def test_where_kernels_do_not_scatter_the_band_is_of_outputs_alone(alpha: float) -> None:
    """At m = 10^12: 90 % of 4000 e(0) = y_hat - y, y_hat ~ N(0, alpha^2 K) of numpy, to 3 deviations of 400 draws."""
    m = 10**12
    found, limit, y = ensemble(alpha, m), dense_limit(alpha, m), samples_and_labels()[1]
    normal = np.random.default_rng(5).multivariate_normal(np.zeros(len(y)), limit.K, 4000).T
    factor = np.eye(len(y)) - found.mean.auto_rate * limit.H
    powers = [np.linalg.matrix_power(factor, step) for step in STEPS]
    losses = np.array([0.5 * np.sum((power @ (alpha * normal - y[:, None])) ** 2, axis=0) for power in powers]).T
    assert share_in(found, losses) == pytest.approx([0.9] * len(STEPS), abs=0.05)
    for step, own in zip(STEPS, losses.T, strict=True):
        error = own.std() / math.sqrt(len(own))
        assert found.mean.loss(found.mean.auto_rate, step) == pytest.approx(own.mean(), abs=4 * error)


def test_an_ensemble_does_not_depend_on_what_was_drawn_before() -> None:
    y, m, rate = torch.tensor(samples_and_labels()[1]), ENSEMBLE[2], ensemble().mean.auto_rate
    torch.manual_seed(1)
    torch.randn(3)
    ensembles(population_of(1.0), 2 * y, {7: ALL})
    again = ensembles(population_of(1.0), y, {m: ALL})[m]
    assert again.band(rate, STEPS) == ensemble().band(rate, STEPS)
    assert sum(each.parts.shape[1] for each in again.members) == 400


@pytest.mark.parametrize("others", [[100], [1000, 5000], [37, 100, 700]])
def test_an_ensemble_does_not_depend_on_the_other_widths(others: list[int]) -> None:
    y, m, rate = torch.tensor(samples_and_labels()[1]), ENSEMBLE[2], ensemble().mean.auto_rate
    found = ensembles(population_of(1.0), y, dict.fromkeys([*others, m], ALL))[m]
    np.testing.assert_allclose(found.band(rate, STEPS), ensemble().band(rate, STEPS), rtol=1e-9)


def test_a_band_that_overflows_is_missing() -> None:
    found = ensemble()
    (low, middle, high), missing = found.band(100 * found.mean.stable_rate, [1, 10**4])
    assert 0 < low < middle < high
    assert missing == (None, None, None)


CIRCLE = np.linspace(0, 3.1, 100)


@pytest.mark.parametrize("angles", [np.array([0.0, 2e-6, 1.0]), np.tile(CIRCLE, 2)], ids=["close", "twice"])
def test_a_singular_limit_has_an_ensemble(angles: np.ndarray) -> None:
    """Samples on a circle, two of them all but parallel, or all there twice: the least eigenvalue is mere rounding."""
    X, y = math.sqrt(2) * torch.tensor(np.array([np.cos(angles), np.sin(angles)])), torch.tensor(np.sin(3 * angles))
    population = Population.of(X, 0.08, ACTIVATIONS["relu"], 1.0)
    assert float(torch.linalg.eigvalsh(population.gram())[0]) < 1e-11
    found = ensembles(population, y, {100: ALL})[100]
    losses = [found.mean.loss(found.mean.auto_rate, step) for step in (0, 1, 10, 1000, 10**6)]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] == pytest.approx(0.5 * float(population.gram().trace() + y.square().sum()), rel=1e-9)
    ((low, _, high),) = found.band(found.mean.auto_rate, [0])
    assert low < losses[0] < high


@pytest.mark.parametrize("rank", [0, 1, 3, 8])
@pytest.mark.parametrize("size", [1e-100, 1.0, 1e100])
def test_a_singular_matrix_has_a_factor(size: float, rank: int) -> None:
    A = torch.from_numpy(np.random.default_rng(rank).standard_normal((8, rank)))
    K = size * (A @ A.T)
    L = cholesky(K)
    assert torch.equal(L, L.tril())
    assert float((L @ L.T - K).abs().max()) <= 1e-12 * float(K.trace()) + 1e-300
