"""Every activation against formulas of its own: value, slope, constants and resolvent."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.special
import torch
from torch.profiler import ProfilerActivity, profile

from deqcli.deq.activation import Activation
from deqcli.deq.activations import ACTIVATIONS

Function = Callable[[np.ndarray], np.ndarray]
sigmoid, normal = scipy.special.expit, scipy.special.ndtr

FORMULAS: dict[str, tuple[Function, Function]] = {
    "relu": (lambda t: t * (t > 0), lambda t: 1.0 * (t >= 0)),
    "leaky_relu": (lambda t: np.where(t > 0, t, t / 100), lambda t: np.where(t >= 0, 1, 0.01)),
    "tanh": (lambda t: 1 - 2 * sigmoid(-2 * t), lambda t: 4 * sigmoid(2 * t) * sigmoid(-2 * t)),
    "sin": (lambda t: np.exp(1j * t).imag, lambda t: np.exp(1j * t).real),
    "erf": (lambda t: 2 * normal(math.sqrt(2) * t) - 1, lambda t: math.sqrt(4 / math.pi) * np.exp(-(t**2))),
    "softplus": (lambda t: np.logaddexp(0, t), sigmoid),
    "gelu": (lambda t: t * normal(t), lambda t: normal(t) + t * np.exp(-(t**2) / 2) / math.sqrt(2 * math.pi)),
    "silu": (lambda t: t * sigmoid(t), lambda t: sigmoid(t) * (1 + t * sigmoid(-t))),
    "sigmoid": (sigmoid, lambda t: sigmoid(t) * sigmoid(-t)),
    "elu": (lambda t: np.where(t > 0, t, np.expm1(np.minimum(t, 0))), lambda t: np.exp(np.minimum(t, 0))),
    "identity": (lambda t: t, np.ones_like),
}
"""Value and slope."""
RELATIVE = {name: formulas[0] for name, formulas in FORMULAS.items()} | {
    "tanh": np.tanh,
    "erf": scipy.special.erf,
    "sin": np.sin,
}
"""Values to a relative accuracy; those above of these three are right to 1e-16 only."""
KINKED = ("relu", "leaky_relu")
DTYPES = (torch.float32, torch.float64, torch.bfloat16)
every = pytest.mark.parametrize("phi", ACTIVATIONS.values(), ids=ACTIVATIONS)
both = pytest.mark.parametrize("part", [0, 1], ids=["value", "slope"])

POINTS = np.concatenate([np.linspace(-45, 45, 3001), [1e-8, -1e-8, 19.9, 20.1, 39.9, 40.1, 800, -800, 1e4, -1e4]])


def written(phi: Activation, part: int, t: np.ndarray, dtype: torch.dtype = torch.float64) -> np.ndarray:
    """phi or phi' of these points."""
    points = torch.tensor(t, dtype=dtype)
    out = torch.full_like(points, math.nan)
    (phi.value, phi.slope)[part](points, out)
    return out.double().numpy()


# Value, slope and constants


def test_all_of_them_are_looked_at() -> None:
    assert len(ACTIVATIONS) >= 11
    assert list(ACTIVATIONS) == [phi.name for phi in ACTIVATIONS.values()]
    assert set(ACTIVATIONS) == set(FORMULAS)


@every
@both
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_values_and_slopes_are_those_of_another_formula(phi: Activation, part: int, dtype: torch.dtype) -> None:
    """To three roundings of the larger of 1 and |t|: what a change of t by as much would do."""
    t = torch.tensor(POINTS, dtype=dtype).double().numpy()
    error = np.abs(written(phi, part, t, dtype) - FORMULAS[phi.name][part](t))
    assert (error <= 3 * torch.finfo(dtype).eps * np.maximum(1, np.abs(t))).all()


@pytest.mark.parametrize("name", ["softplus", "sigmoid", "silu", "elu", "tanh", "erf", "sin"])
def test_tails_keep_their_digits(name: str) -> None:
    t = np.concatenate([-np.geomspace(1e-12, 40, 200), np.geomspace(1e-12, 1, 100)])
    np.testing.assert_allclose(written(ACTIVATIONS[name], 0, t), RELATIVE[name](t), rtol=1e-15)


@every
def test_slopes_are_derivatives(phi: Activation) -> None:
    """By central differences away from 0, where two of them have a kink; their error is h^2 and 1e-16/h."""
    t, h = np.linspace(-9, 9, 1000), 1e-5
    differences = (written(phi, 0, t + h) - written(phi, 0, t - h)) / (2 * h)
    np.testing.assert_allclose(written(phi, 1, t), differences, atol=1e-9)


GRID = np.concatenate([np.linspace(-40, 40, 80_001), np.linspace(-1e-3, 1e-3, 2001)])


@every
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_lipschitz_constant_is_the_largest_slope(phi: Activation, dtype: torch.dtype) -> None:
    largest = float(np.abs(written(phi, 1, GRID, dtype)).max())
    rounding = torch.finfo(dtype).eps
    assert largest <= phi.lipschitz * (1 + rounding)
    assert largest >= phi.lipschitz * (1 - 1e-6 - 2 * rounding)


@every
def test_the_curvature_is_the_largest_second_derivative(phi: Activation) -> None:
    """By central differences of the slope, which reach it to h where it jumps (elu), or find a slope that jumps."""
    h = 1e-5
    largest = np.abs(written(phi, 1, GRID + h) - written(phi, 1, GRID - h)).max() / (2 * h)
    if phi.curvature is None:
        assert phi.name in KINKED
        assert largest >= 1 / (4 * h)
    else:
        assert phi.curvature - 2 * h <= largest <= phi.curvature + 1e-10


@every
def test_what_is_said_of_a_function_is_so(phi: Activation) -> None:
    t = np.arange(-3000, 3001) / 100
    value = written(phi, 0, t)
    assert written(phi, 0, np.zeros(1)) == pytest.approx(phi.at_zero, abs=1e-16)
    assert phi.odd == bool(np.abs(value + value[::-1]).max() <= 1e-15)
    assert phi.nondecreasing == bool((np.diff(value) >= 0).all())
    assert phi.homogeneous == bool(np.abs(written(phi, 0, 4 * t) - 4 * value).max() <= 1e-14)


def views(dtype: torch.dtype) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Points and where to write, contiguous or not, each as the other or not."""
    given = torch.randn(300, 128, generator=torch.Generator().manual_seed(0)).to(dtype)
    return [
        (given, torch.empty_like(given)),
        (given.T, torch.empty_like(given).T),
        (given[:, ::2], torch.empty_like(given)[:, ::2]),
        (given, torch.empty(128, 300, dtype=dtype).T),
        (given.T, torch.empty(128, 300, dtype=dtype)),
    ]


@every
@both
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_layout_does_not_matter_and_points_are_left_alone(
    phi: Activation, part: int, dtype: torch.dtype
) -> None:  # fmt: skip
    """To the three roundings: vectorised and other code may differ by some."""
    for points, out in views(dtype):
        kept = points.clone()
        (phi.value, phi.slope)[part](points, out)
        wanted = FORMULAS[phi.name][part](points.double().numpy())
        allowed = 3 * torch.finfo(dtype).eps * np.maximum(1, points.double().abs().numpy())
        assert (np.abs(out.double().numpy() - wanted) <= allowed).all()
        assert torch.equal(points, kept)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nothing_of_the_size_of_a_point_is_allocated(dtype: torch.dtype) -> None:
    calls = [
        (write, *pair) for phi in ACTIVATIONS.values() for write in (phi.value, phi.slope) for pair in views(dtype)
    ]
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        for write, points, out in calls:
            write(points, out)
    assert len(calls) == 10 * len(ACTIVATIONS)
    most = max(event.self_cpu_memory_usage for event in recorded.events())
    assert 0 < most < calls[0][1].nbytes // 8


# Resolvents


@pytest.mark.parametrize("phi", [phi for phi in ACTIVATIONS.values() if phi.nondecreasing], ids=lambda phi: phi.name)
@pytest.mark.parametrize("alpha", [1e-3, 0.1, 0.5, 0.999, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_resolvents_solve_their_equation(phi: Activation, alpha: float, dtype: torch.dtype) -> None:
    """z = phi(t) at the t that z leaves, (v - (1 - alpha) z)/alpha; rounding of v and z is divided by alpha there."""
    v = torch.tensor(np.r_[-np.geomspace(1e-8, 1e4, 301), 0, np.geomspace(1e-8, 1e4, 300)], dtype=dtype)
    z = torch.empty_like(v)
    phi.resolvent(v, alpha, z)
    t = (v.double() - (1 - alpha) * z.double()).numpy() / alpha
    size = torch.maximum(v.abs(), z.abs()).double().numpy() + abs(phi.at_zero)
    allowed = 4 * torch.finfo(dtype).eps * size / alpha
    low, high = (RELATIVE[phi.name](t + sign * allowed) for sign in (-1, 1))
    slack = 4 * torch.finfo(dtype).eps * size
    assert ((low - slack <= z.double().numpy()) & (z.double().numpy() <= high + slack)).all()


def test_resolvents_go_by_blocks_of_any_layout() -> None:
    """More entries than a block, transposed; and in bfloat16, solved in float32."""
    phi, v = ACTIVATIONS["tanh"], torch.linspace(-5, 5, 3 * 40_000, dtype=torch.float64).reshape(40_000, 3)
    whole, out = torch.empty_like(v), torch.empty(3, 40_000, dtype=torch.float64)
    phi.resolvent(v, 0.3, whole)
    phi.resolvent(v.T, 0.3, out)
    torch.testing.assert_close(out, whole.T, rtol=1e-14, atol=1e-15)
    low = torch.empty(v.shape, dtype=torch.bfloat16)
    phi.resolvent(v.bfloat16(), 0.3, low)
    torch.testing.assert_close(low.double(), whole, rtol=0.01, atol=0.01)
