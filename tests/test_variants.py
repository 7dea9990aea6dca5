"""Networks with another injection, readout or layer: closed forms, gradients and kernels by independent routes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from deqcli.deq.activations import ACTIVATIONS
from deqcli.deq.initialisation import INITIALISATIONS, Draw
from deqcli.deq.model import ALL, Component, Params, Rates
from deqcli.deq.network import Network
from deqcli.deq.precision import to_float64
from deqcli.deq.solvers import Picard, Status
from deqcli.deq.spectral import gram
from deqcli.theory.ntk import empirical_ntk
from tests.test_network import assert_close
from tests.variants import UNROLLED, Theta, Variant, draw_variant, resolve

SUMMED, KEPT = (3, 2, 5), (4, 2, 5)
"""(n, d, m) with n < 2 d, where the change of U is kept as a sum, and with n >= 2 d, where U itself is."""

CHOICES = list(itertools.product(UNROLLED, [SUMMED, KEPT], [False, True], [False, True], [None, 0.5]))
every_variant = pytest.mark.parametrize(("activation", "shape", "rectified", "skip", "mu"), CHOICES, ids=str)
RATES = Rates(W=0.3, U=2.0, a=0.7)


def rate_of(rates: Rates, name: str) -> float:
    """A and B are trained at the rate of W, b at that of a."""
    return {"W": rates.W, "A": rates.W, "B": rates.W, "U": rates.U, "a": rates.a, "b": rates.a}[name]


def step(p: Variant, rates: Rates = ALL, eta: float = 0.5) -> Theta:
    """What `Network.descend` takes from each parameter, divided by eta."""
    network = p.network(rates)
    network.descend(network.prediction_error(torch.tensor(p.y)), eta)
    after = network.params.given()
    return {name: (before - after[name].numpy()) / eta for name, before in p.theta.items()}


@every_variant
def test_step_and_kernel_are_those_of_the_dense_network(
    activation: str, shape: tuple[int, int, int], rectified: bool, skip: bool, mu: float | None
) -> None:
    """Against central differences (their error is about 1e-11), autograd, and the adjoint of the loss by LAPACK."""
    p = draw_variant(shape, activation, rectified, skip, mu)
    J, e, found = p.jacobian(), p.prediction() - p.y, step(p)
    autograd, adjoint = p.unrolled_gradient(), p.gradient()
    assert found.keys() == autograd.keys() == adjoint.keys() == J.keys()
    assert len(found) == 3 + skip + (mu is not None)
    for name, got in found.items():
        assert_close(got, (J[name].T @ e).reshape(got.shape), 1e-8)
        assert_close(got, autograd[name], 1e-11)
        assert_close(got, adjoint[name], 1e-11)
    network = p.network(RATES)
    H = empirical_ntk(network.cell(0), gram(network.Z), network.X).numpy()
    assert_close(H, sum(rate_of(RATES, name) * j @ j.T for name, j in J.items()), 1e-8)


@pytest.mark.parametrize("shape", [SUMMED, KEPT], ids=str)
@pytest.mark.parametrize("zero", ["W", "U", "a", "WU", "Wa", "Ua"])
@pytest.mark.parametrize(("skip", "mu"), [(False, None), (True, None), (True, 0.5)])
def test_a_rate_of_zero_leaves_every_bit_and_others_are_factors(
    zero: str, skip: bool, mu: float | None, shape: tuple[int, int, int]
) -> None:
    p = draw_variant(shape, "relu", True, skip, mu)
    rates = Rates(**{name: 0.0 if name in zero else getattr(RATES, name) for name in "WUa"})
    found, whole = step(p, rates), p.gradient()
    moved = 0
    for name, got in found.items():
        if rate_of(rates, name) == 0:
            assert not got.any()
        else:
            assert_close(got, rate_of(rates, name) * whole[name], 1e-11)
            moved += 1
    assert 0 < moved < len(found)


@every_variant
def test_several_steps_with_momentum_are_the_dense_recursion(
    activation: str, shape: tuple[int, int, int], rectified: bool, skip: bool, mu: float | None
) -> None:
    """velocity <- beta velocity + eta grad, theta <- theta - velocity: four steps."""
    p, beta, eta = draw_variant(shape, activation, rectified, skip, mu), 0.8, 0.01
    network, velocity = p.network(RATES, beta), {name: np.zeros_like(each) for name, each in p.theta.items()}
    for _ in range(4):
        network.descend(network.prediction_error(torch.tensor(p.y)), eta)
        resolve(network)
        gradient = p.gradient()
        velocity = {name: beta * velocity[name] + eta * rate_of(RATES, name) * gradient[name] for name in velocity}
        p = p.with_theta(**{name: p.theta[name] - velocity[name] for name in velocity})
    now = network.params.given()
    for name, wanted in p.theta.items():
        assert_close(now[name].numpy(), wanted, 1e-10)
    assert_close(network.Z.numpy(), p.equilibrium(), 1e-10)
    assert_close(network.W.numpy(), p.W, 1e-10)


def drawn_network(init: str, activation: str, rectified: bool) -> tuple[Params, torch.Tensor, Network]:
    """A draw of width 60 on 12 Gaussian samples, solved to 1e-14."""
    params = INITIALISATIONS[init](Draw(60, 5, 0.06, 1.0, 3, torch.float64, torch.device("cpu")))
    X = torch.tensor(np.random.default_rng(4).standard_normal((5, 12)))
    component = Component(ACTIVATIONS[activation], Picard(tolerance=1e-14, max_iterations=5000), rectified)
    network = Network(Params(params.W.clone(), params.U, params.a), X, component)
    assert network.solve_equilibrium().status is Status.CONVERGED
    return params, X, network


def test_no_unit_of_a_nonnegative_layer_is_switched_off() -> None:
    """Z = (I - W)^-1 phi(U X) exactly, by LAPACK; and it is nonnegative, half of U X negative."""
    params, X, network = drawn_network("nonnegative", "relu", True)
    inner = (params.U @ X).numpy()
    wanted = np.linalg.solve(np.eye(60) - params.W.numpy(), np.maximum(inner, 0.0))
    assert_close(network.Z.numpy(), wanted, 1e-13)
    assert float(network.Z.min()) >= 0
    assert 0.4 < (inner < 0).mean() < 0.6


def test_with_the_linear_injection_the_closed_form_is_another() -> None:
    """Of a nonnegative layer (I - W)^-1 U X has negative entries, which no Z of a ReLU has."""
    params, X, network = drawn_network("nonnegative", "relu", False)
    linear = np.linalg.solve(np.eye(60) - params.W.numpy(), (params.U @ X).numpy())
    assert np.linalg.norm(network.Z.numpy() - linear) > 0.1 * np.linalg.norm(linear)


@pytest.mark.parametrize("init", [name for name in INITIALISATIONS if name != "monotone"])
@pytest.mark.parametrize("rectified", [False, True])
def test_a_linear_network_is_an_inverse(init: str, rectified: bool) -> None:
    """The identity: Z = (I - W)^-1 U X and V = (I - W^T)^-1 a 1^T, whatever the law of W."""
    params, X, network = drawn_network(init, "identity", rectified)
    network.solve_adjoint()
    W, eye = params.W.numpy(), np.eye(60)
    assert_close(network.Z.numpy(), np.linalg.solve(eye - W, (params.U @ X).numpy()), 1e-13)
    assert_close(network.V.numpy(), np.linalg.solve(eye - W.T, np.outer(params.a, np.ones(12))), 1e-13)


def test_the_injection_is_rounded_once_whichever_form_it_has() -> None:
    """After 50 steps U X of both forms is that of U by a product in float64, to a few hundred roundings."""
    for shape in (SUMMED, KEPT):
        p = draw_variant(shape)
        network = p.network()
        assert network.injection.summed == (shape is SUMMED)
        for _ in range(50):
            network.descend(network.prediction_error(torch.tensor(p.y)), 0.01)
            resolve(network)
        wanted = to_float64(network.params.U) @ network.X
        assert_close(network.injection.value.mT.numpy(), wanted.numpy(), 1e-13)
