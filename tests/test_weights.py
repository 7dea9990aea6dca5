"""Weights of the implicit layer: gradients, kernels and monotonicity against autograd, differences and dense solves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from deqcli.deq.equations import subtract_product
from deqcli.deq.weights import Free, Monotone, Weights, monotone_kernel, monotone_matrix
from tests.monotone import MonotoneProblem, dense_adjoint, dense_equilibrium, draw_monotone

M, N, MU = 7, 4, 0.3


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.tensor(np.random.default_rng((seed, *shape)).standard_normal(shape))


def drawn(kind: str, momentum: float = 0.0) -> Weights:
    if kind == "free":
        return Free(normal(M, M), momentum)
    return Monotone(normal(M, M, seed=1), normal(M, M, seed=2), MU, momentum)


def trained(weights: Weights) -> list[Tensor]:
    return [weights.A, weights.B] if isinstance(weights, Monotone) else [weights.W]


def dense_W(*matrices: Tensor) -> Tensor:
    """W as a function that autograd can follow."""
    if len(matrices) == 1:
        return matrices[0]
    A, B = matrices
    return (1 - MU) * torch.eye(M, dtype=A.dtype) - A.T @ A + B - B.T


def autograd(matrices: list[Tensor], S: Tensor, Z: Tensor) -> tuple[Tensor, ...]:
    """The gradient of <S^T Z, W(matrices)>."""
    leaves = [matrix.clone().requires_grad_() for matrix in matrices]
    return torch.autograd.grad((S.mT @ Z * dense_W(*leaves)).sum(), leaves)


both = pytest.mark.parametrize("kind", ["free", "monotone"])


@both
def test_a_step_is_the_gradient_of_a_dense_function(kind: str) -> None:
    weights, S, Z = drawn(kind), normal(N, M, seed=3), normal(N, M, seed=4)
    before = [matrix.clone() for matrix in trained(weights)]
    memory = weights.W.data_ptr()
    weights.descend(S, Z)
    for was, now, gradient in zip(before, trained(weights), autograd(before, S, Z), strict=True):
        torch.testing.assert_close(was - now, gradient, rtol=1e-12, atol=1e-12)
        assert gradient.norm() > 1
    torch.testing.assert_close(weights.W, dense_W(*trained(weights)), rtol=1e-14, atol=1e-14)
    assert weights.W.data_ptr() == memory


@both
def test_momentum_is_the_recursion_by_hand(kind: str) -> None:
    weights, beta = drawn(kind, momentum=0.7), 0.7
    theta = [matrix.clone() for matrix in trained(weights)]
    velocity = [torch.zeros_like(matrix) for matrix in theta]
    for step in range(5):
        S, Z = 0.01 * normal(N, M, seed=10 + step), normal(N, M, seed=20 + step)
        gradients = autograd(theta, S, Z)
        velocity = [beta * v + g for v, g in zip(velocity, gradients, strict=True)]
        theta = [t - v for t, v in zip(theta, velocity, strict=True)]
        weights.descend(S, Z)
        for found, wanted in zip(trained(weights), theta, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("c", [None, 3])
def test_free_weights_without_momentum_have_the_bits_of_one_product(c: int | None, dtype: torch.dtype) -> None:
    stack = () if c is None else (c,)
    W, S, Z = (normal(*stack, *shape).to(dtype) for shape in ((40, 40), (9, 40), (9, 40)))
    weights, wanted = Free(W), W.clone()
    subtract_product(wanted, S.mT, Z)
    weights.descend(S, Z)
    assert torch.equal(weights.W, wanted)
    assert weights.W is W


@both
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_stack_descends_as_its_networks_do(kind: str, momentum: float) -> None:
    alone = [drawn(kind, momentum), drawn(kind, momentum)]
    for matrix in trained(alone[1]):
        matrix.mul_(0.5)
    alone[1].restore(alone[1].state())
    stacked = [torch.stack(pair) for pair in zip(*(trained(weights) for weights in alone), strict=True)]
    stack = Free(*stacked, momentum) if kind == "free" else Monotone(*stacked, MU, momentum)
    for step in range(3):
        S, Z = 0.1 * normal(2, N, M, seed=step), normal(2, N, M, seed=9 + step)
        stack.descend(S, Z)
        for k, weights in enumerate(alone):
            weights.descend(S[k].contiguous(), Z[k].contiguous())
            torch.testing.assert_close(stack.W[k], weights.W, rtol=1e-13, atol=1e-13)


@both
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_what_a_state_restores_goes_on_in_the_same_way(kind: str, momentum: float) -> None:
    first, second = drawn(kind, momentum), drawn(kind, momentum)
    S, Z = 0.1 * normal(N, M, seed=3), normal(N, M, seed=4)
    first.descend(S, Z)
    names = {"free": {"W"}, "monotone": {"A", "B"}}[kind]
    assert first.state().keys() == (names if not momentum else names | {f"velocity_{name}" for name in names})
    second.restore({name: tensor.clone() for name, tensor in first.state().items()})
    assert torch.equal(second.W, first.W)
    for weights in (first, second):
        weights.descend(S, Z)
    assert torch.equal(second.W, first.W)


@pytest.mark.parametrize("mu", [0.01, 0.5, 2.0])
def test_the_symmetric_part_of_i_minus_w_is_at_least_mu(mu: float) -> None:
    """Also where A has no full rank, and mu is attained; the norm of W is no part of it."""
    for A in (normal(30, 30), normal(30, 2) @ normal(2, 30), torch.zeros(30, 30, dtype=torch.float64)):
        for scale in (0.1, 1.0, 30.0):
            W = monotone_matrix(scale * A, scale * normal(30, 30, seed=1), mu)
            symmetric = torch.eye(30, dtype=W.dtype) - (W + W.T) / 2
            least, size = torch.linalg.eigvalsh(symmetric)[0], torch.linalg.matrix_norm(symmetric, 2)
            assert least >= mu - 1e-14 * size
            if torch.linalg.matrix_rank(A) < 30:
                assert least == pytest.approx(mu, abs=1e-13 * float(size))


def outputs_jacobian(p: MonotoneProblem, h: float = 1e-3) -> np.ndarray:
    """d y_hat/d(A, B), (n, 2 m^2), by fourth-order central differences of dense Newton solves."""
    columns = []
    for name in ("A", "B"):
        for index in np.ndindex(p.A.shape):
            values = {k: p.a @ dense_equilibrium(p.moved(name, index, k * h)) for k in (-2, -1, 1, 2)}
            columns.append((8 * (values[1] - values[-1]) - (values[2] - values[-2])) / (12 * h))
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("activation", ["tanh", "softplus"])
def test_gradient_and_kernel_of_a_monotone_network_against_central_differences(activation: str) -> None:
    """1e-7 of their norm: rounding and h^4; e is any prediction error."""
    p = draw_monotone(N, 3, M, mu=MU, activation=activation)
    J, e = outputs_jacobian(p), np.random.default_rng(0).standard_normal(N)
    assert J.shape == (N, 2 * M * M)
    Z, V = dense_equilibrium(p), dense_adjoint(p)
    weights = Monotone(torch.tensor(p.A), torch.tensor(p.B), MU)
    weights.descend(torch.tensor((V * e).T), torch.tensor(Z.T))
    step = np.concatenate([(p.A - weights.A.numpy()).ravel(), (p.B - weights.B.numpy()).ravel()])
    assert np.linalg.norm(step - J.T @ e) <= 1e-7 * np.linalg.norm(step)
    H = monotone_kernel(*(torch.tensor(array) for array in (p.A, V, Z))).numpy()
    assert np.linalg.norm(H - J @ J.T) <= 1e-7 * np.linalg.norm(H)
    assert np.array_equal(H, H.T) or np.abs(H - H.T).max() <= 1e-13 * np.abs(H).max()
