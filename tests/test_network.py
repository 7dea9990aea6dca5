"""Equilibrium and gradient against closed forms and three independent routes."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

from deqcli.deq.network import loss
from deqcli.deq.solvers import Status
from tests.dense import (
    Problem,
    central_differences,
    dense_adjoint,
    draw_problem,
    equilibrium,
    implicit_gradient,
    kronecker_gradient,
    network_of,
    preactivation,
    solved_network,
    unrolled_gradient,
)

SHAPES = [(4, 5, 6), (6, 6, 6), (7, 3, 4), (1, 4, 5), (1, 1, 6), (3, 2, 1), (1, 1, 1), (2, 9, 3)]
"""(n, d, m)."""
ROUTES = {"differences": central_differences, "unrolled": unrolled_gradient, "kronecker": kronecker_gradient}


def alive_problem(n: int, d: int, m: int) -> Problem:
    """The first draw with active units, none of them so near its kink that a difference would cross it."""
    for seed in range(100):
        p = draw_problem(n, d, m, seed=seed)
        inner = preactivation(p)
        if np.abs(inner).min() > 0.01 and (inner > 0).any():
            return p
    raise AssertionError("no such draw")


def assert_close(got: np.ndarray, wanted: np.ndarray, relative: float = 1e-9) -> None:
    """||got - wanted||_F <= relative ||wanted||_F, NaN failing, with a shape and something to compare."""
    assert got.shape == wanted.shape
    assert np.linalg.norm(wanted) > 0
    assert np.linalg.norm(got - wanted) <= relative * np.linalg.norm(wanted)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_step_is_minus_eta_times_the_gradient(shape: tuple[int, int, int], route: str) -> None:
    p = alive_problem(*shape)
    for got, wanted in zip(implicit_gradient(p), ROUTES[route](p), strict=True):
        assert_close(got, wanted)


def test_the_three_routes_can_tell_a_wrong_gradient() -> None:
    """Lemma 2 with W instead of W^T in the adjoint is off by far more than the tolerance."""
    p = alive_problem(4, 5, 6)
    wrong = kronecker_gradient(replace(p, W=p.W.T))
    assert np.linalg.norm(wrong[0] - kronecker_gradient(p)[0]) > 1e-2 * np.linalg.norm(wrong[0])


def test_two_steps_are_two_gradients_each_at_its_own_point() -> None:
    p, rate = alive_problem(4, 5, 6), 1e-2
    network = solved_network(p)
    network.descend(network.prediction_error(torch.tensor(p.y)), rate)
    first = [x - rate * g for x, g in zip((p.W, p.U, p.a), kronecker_gradient(p), strict=True)]
    network.solve_equilibrium()
    network.solve_adjoint()
    network.descend(network.prediction_error(torch.tensor(p.y)), rate)
    moved = replace(p, W=first[0], U=first[1], a=first[2])
    after = (network.params.W, network.params.U, network.params.a)
    for x, g, now in zip(first, kronecker_gradient(moved), after, strict=True):
        assert_close(now.numpy(), x - rate * g, 1e-12)


def test_a_step_leaves_equilibrium_adjoint_and_data_alone() -> None:
    p = alive_problem(4, 5, 6)
    network = solved_network(p)
    before = [tensor.clone() for tensor in (network.Z, network.V, network.X, network.slope)]
    network.descend(network.prediction_error(torch.tensor(p.y)), 0.1)
    after = (network.Z, network.V, network.X, network.slope)
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_adjoint_solves_its_linear_system(shape: tuple[int, int, int]) -> None:
    p = alive_problem(*shape)
    assert_close(solved_network(p).V.numpy(), dense_adjoint(p), 1e-12)


def test_the_adjoint_depends_on_no_label() -> None:
    p = alive_problem(4, 5, 6)
    assert torch.equal(solved_network(p).V, solved_network(replace(p, y=p.y + 1)).V)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equilibrium_and_slope_against_a_plain_loop(shape: tuple[int, int, int]) -> None:
    p = alive_problem(*shape)
    network = solved_network(p)
    assert_close(network.Z.numpy(), equilibrium(p), 1e-12)
    assert np.array_equal(network.slope.numpy(), preactivation(p) >= 0)


@pytest.mark.parametrize(("n", "d", "m"), [(5, 3, 8), (1, 1, 1), (9, 4, 2)])
def test_positive_networks_are_linear(n: int, d: int, m: int) -> None:
    """W >= 0 and U X >= 0 entrywise: Z = (I - W)^-1 U X."""
    p = draw_problem(n, d, m, norm=0.9)
    p = replace(p, W=np.abs(p.W) * 0.9 / np.linalg.norm(np.abs(p.W), 2), U=np.abs(p.U), X=np.abs(p.X))
    assert_close(solved_network(p).Z.numpy(), np.linalg.solve(np.eye(m) - p.W, p.U @ p.X), 1e-12)


def test_without_hidden_weights_the_equilibrium_is_one_layer() -> None:
    p = draw_problem(5, 3, 8)
    p = replace(p, W=np.zeros((8, 8)))
    assert_close(solved_network(p).Z.numpy(), np.maximum(p.U @ p.X, 0.0), 1e-15)


def scalar_problem(w: float, u: float, a: float = 3.0, y: float = 1.0) -> Problem:
    """m = n = d = 1 and x = 1."""
    return Problem(np.array([[w]]), np.array([[u]]), np.array([a]), np.array([[1.0]]), np.array([y]))


@pytest.mark.parametrize(
    ("w", "u", "z"), [(0.5, 2.0, 4.0), (-0.5, 3.0, 2.0), (0.5, -2.0, 0.0), (-2.0 / 3, 5.0, 3.0), (0.0, 7.0, 7.0)]
)
def test_one_unit_by_hand(w: float, u: float, z: float) -> None:
    """Z = u/(1 - w) for u > 0, else 0."""
    assert float(solved_network(scalar_problem(w, u)).Z) == pytest.approx(z, rel=1e-13, abs=0)


def test_the_gradient_of_one_unit_by_hand() -> None:
    """W = 1/2, u = 2, a = 3, y = 1: z = 4, e = 11, v = a/(1 - w) = 6, so the gradient is (264, 66, 44)."""
    by_W, by_U, by_a = implicit_gradient(scalar_problem(0.5, 2.0))
    assert [float(g.item()) for g in (by_W, by_U, by_a)] == pytest.approx([264, 66, 44], rel=1e-12)


def test_the_slope_is_one_at_zero() -> None:
    """U X = 0 exactly: Z = 0, D = 1, v = a/(1 - w) = 6, e = -1, so only grad_U = v e x = -6 is not 0."""
    p = scalar_problem(0.5, 0.0)
    network = solved_network(p)
    assert network.Z.item() == 0
    assert network.slope.item() == 1
    assert [float(g.item()) for g in implicit_gradient(p)] == pytest.approx([0, -6, 0], rel=1e-12)


def test_a_warm_start_from_afar_still_reaches_the_equilibrium() -> None:
    p = draw_problem(6, 4, 30, norm=0.9)
    network = network_of(p, tolerance=1e-14)
    network.Z.fill_(1e6)
    network.V.fill_(-1e6)
    assert network.solve_equilibrium().status is Status.CONVERGED
    assert network.solve_adjoint().status is Status.CONVERGED
    assert_close(network.Z.numpy(), equilibrium(p), 1e-12)
    assert_close(network.V.numpy(), dense_adjoint(p), 1e-12)


def test_float32_gives_the_float64_gradient_to_its_own_precision() -> None:
    p, rate = draw_problem(6, 5, 40), 0.5
    network = network_of(p, torch.float32)
    network.solve_equilibrium()
    network.solve_adjoint()
    before = deepcopy(network.params)
    network.descend(network.prediction_error(torch.tensor(p.y, dtype=torch.float32)), rate)
    for name, wanted in zip(("W", "U", "a"), kronecker_gradient(p), strict=True):
        step = getattr(before, name) - getattr(network.params, name)
        assert_close(step.double().numpy() / rate, wanted, 1e-5)


def test_the_loss_is_half_the_sum_of_squares_accumulated_in_float64() -> None:
    assert loss(torch.tensor([3.0, -4.0])) == 12.5
    e = torch.cat([torch.tensor([1e4]), torch.full((1000,), 1e-2)])  # float32 drops 1e-4 beside 1e8
    assert loss(e) == pytest.approx(0.5 * (1e8 + 1000 * float(e[1]) ** 2), rel=1e-14)
