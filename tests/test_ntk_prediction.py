"""The tangent kernel against autograd and the dense formula; predicted dynamics against matrix powers and training."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from deqcli.deq.network import loss
from deqcli.deq.spectral import gram, least_eigenvalue
from deqcli.errors import NumericalFailure
from deqcli.theory.ntk import empirical_ntk
from deqcli.theory.prediction import KernelPrediction, loss_bound
from tests.dense import Problem, draw_problem, kronecker_gradient, kronecker_jacobian, solved_network, unrolled_jacobian

SHAPES = [(4, 5, 6), (7, 3, 4), (1, 4, 5), (1, 1, 6), (3, 2, 2), (6, 6, 15)]
"""(n, d, m)."""


def kernel(p: Problem) -> np.ndarray:
    network = solved_network(p)
    return empirical_ntk(network, gram(network.Z), gram(network.X)).numpy()


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
    assert 0 < least < least_eigenvalue(empirical_ntk(network, G, gram(network.X)))
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
    H = empirical_ntk(network, gram(network.Z), gram(network.X))
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
    predicted = KernelPrediction.of(empirical_ntk(network, gram(network.Z), gram(network.X)), e)
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
    assert loss_bound(3.0, 4.0, 0.25, 0) == 3.0
    assert loss_bound(3.0, 4.0, 0.25, 3) == 0.375
    assert [loss_bound(3.0, 4.0, 1.0, step) for step in (0, 1, 2)] == [3.0, 0.0, 0.0]
    assert loss_bound(3.0, 0.0, 0.25, 1000) == 3.0
