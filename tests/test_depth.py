"""Finite depth: layers against plain loops, Theorems 3, 4 and 5 with their bounds, and the rates fitted to them."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from deqcli.deq import initialisation, layers
from deqcli.deq.activations import ACTIVATIONS
from deqcli.deq.initialisation import INITIALISATIONS, Draw
from deqcli.deq.layers import tied_layers, untied_layers
from deqcli.deq.model import Params
from deqcli.theory.depth import (
    POPULATION,
    SOURCES,
    TIED,
    TRUNCATION,
    UNTIED,
    DepthRow,
    Rate,
    bounds,
    depth_rows,
    rates_over_depth,
    rates_over_width,
)
from deqcli.theory.draw import SolvedDraw
from deqcli.theory.initial import Initial, Scales, measure_initial
from deqcli.theory.population import Population
from tests.dense import Problem, draw_problem, equilibrium, population_limit, relu_dual, solved_draw

RELU = ACTIVATIONS["relu"]
S = 0.08
Shape = tuple[int, int, int]
"""(n, d, m)."""


@cache
def measured(shape: Shape, s: float = S, seed: int = 0) -> tuple[Draw, SolvedDraw, Initial]:
    drawn, solved = solved_draw(shape, s, seed=seed)
    return drawn, solved, measure_initial(solved, Scales(s, 1.0))


@cache
def levels(shape: Shape, depth: int, s: float = S, seed: int = 0) -> tuple[DepthRow, ...]:
    drawn, solved, initial = measured(shape, s, seed)
    return tuple(depth_rows(solved, drawn, initial, depth))


def of(rows: tuple[DepthRow, ...], quantity: str) -> list[DepthRow]:
    """The rows of a quantity, by depth."""
    return [row for row in rows if row.quantity == quantity]


def draw_of(m: int, d: int, s: float = S, seed: int = 0) -> Draw:
    return Draw(m, d, s, 1.0, seed, torch.float64, torch.device("cpu"))


def plain_layers(weights: list[np.ndarray], inputs: list[np.ndarray], X: np.ndarray) -> Iterator[np.ndarray]:
    """Z^(l) = max(W^(l) Z^(l-1) + U^(l) X, 0)."""
    Z = np.zeros((len(weights[0]), X.shape[1]))
    for W, U in zip(weights, inputs, strict=True):
        Z = np.maximum(W @ Z + U @ X, 0.0)
        yield Z


@pytest.fixture
def drawn_blocks(monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Every matrix that the weight-untied layers draw, by the name of its random stream."""
    found: dict[str, np.ndarray] = {}
    original = layers.gaussian_blocks

    def recorded(seed: int, name: str, rows: int, columns: int, deviation: float) -> Iterator[tuple[int, torch.Tensor]]:
        assert name not in found
        found[name] = np.empty((rows, columns))
        for first, block in original(seed, name, rows, columns, deviation):
            found[name][first : first + len(block)] = block.numpy()
            yield first, block

    monkeypatch.setattr(layers, "gaussian_blocks", recorded)
    return found


def by_letter(found: dict[str, np.ndarray], letter: str) -> list[np.ndarray]:
    return [matrix for name, matrix in found.items() if name.startswith(letter)]


def small_blocks(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    for module in (initialisation, layers):
        monkeypatch.setattr(module, "ROWS_PER_BLOCK", rows)


@pytest.mark.parametrize("rows", [1, 7, 512])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_tied_layers_are_a_plain_loop(dtype: torch.dtype, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64 whatever W is stored in, and in blocks of any size."""
    small_blocks(monkeypatch, rows)
    p = draw_problem(5, 4, 30)
    W = torch.tensor(p.W, dtype=dtype)
    wanted = plain_layers([W.double().numpy()] * 9, [p.U] * 9, p.X)
    found = tied_layers(Params(W, torch.tensor(p.U), torch.tensor(p.a)), torch.tensor(p.X), RELU, 9)
    pairs = [(Z.numpy().copy(), plain) for Z, plain in zip(found, wanted, strict=True)]
    assert len(pairs) == 9
    for Z, plain in pairs:
        np.testing.assert_allclose(Z, plain, rtol=1e-13, atol=1e-14)


def test_a_layer_outlives_the_next_one() -> None:
    p = draw_problem(5, 4, 30)
    W, U, a, X = (torch.tensor(array) for array in (p.W, p.U, p.a, p.X))
    for found in (tied_layers(Params(W, U, a), X, RELU, 6), untied_layers(draw_of(30, 4), X, RELU, 6)):
        for before, after in itertools.pairwise((Z, Z.clone()) for Z in found):
            assert torch.equal(*before)
            assert not torch.equal(before[0], after[0])


def test_tied_layers_converge_to_the_equilibrium_no_slower_than_the_norm_of_w() -> None:
    """||Z - Z^(l)||_F <= ||W||_2^l ||Z||_F, and to rounding in the end."""
    p = draw_problem(5, 4, 30, norm=0.7)
    Z, params = equilibrium(p), Params(*(torch.tensor(array) for array in (p.W, p.U, p.a)))
    found = tied_layers(params, torch.tensor(p.X), RELU, 60)
    errors = [float(np.linalg.norm(Z - each.numpy()) / np.linalg.norm(Z)) for each in found]
    assert len(errors) == 60
    assert all(error <= 0.7**depth + 1e-14 for depth, error in enumerate(errors, start=1))
    assert errors[2] > 1e-4 > 1e-14 > errors[-1]


def test_every_untied_layer_has_gaussian_weights_of_its_own(drawn_blocks: dict[str, np.ndarray]) -> None:
    """Mean 0, variance 2 sigma_w^2/m or 2/d, kurtosis 3, and no correlation with another layer or the tied weights.

    Each within 5 standard deviations.
    """
    m, d = 400, 30
    draw = draw_of(m, d, seed=3)
    tied = INITIALISATIONS["gaussian"](draw)
    for _ in untied_layers(draw, torch.tensor(draw_problem(2, d, 1).X), RELU, 4):
        pass
    assert len(drawn_blocks) == 8
    for letter, own, variance in (("W", tied.W, 2 * S / m), ("U", tied.U, 2 / d)):
        matrices = [own.numpy(), *by_letter(drawn_blocks, letter)]
        z = np.array([matrix.flatten() for matrix in matrices]) / math.sqrt(variance)
        assert z.shape == (5, own.numel())
        for power, wanted, spread in ((1, 0, 1), (2, 1, 2), (4, 3, 96)):
            assert np.abs(np.mean(z**power, axis=1) - wanted).max() <= 5 * math.sqrt(spread / own.numel())
        assert np.abs(np.corrcoef(z) - np.eye(5)).max() <= 5 / math.sqrt(own.numel())


def untied(seed: int, depth: int = 4) -> list[np.ndarray]:
    X = torch.tensor(draw_problem(5, 4, 1).X)
    return [Z.numpy().copy() for Z in untied_layers(draw_of(70, 4, seed=seed), X, RELU, depth)]


def test_untied_layers_depend_on_the_seed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not on how many follow, nor on the size of the blocks they are drawn in."""
    found = untied(1)
    assert np.array_equal(found, untied(1))
    assert np.array_equal(found[:2], untied(1, depth=2))
    assert np.abs(found[0] - untied(2)[0]).max() > 0.1
    small_blocks(monkeypatch, 16)
    np.testing.assert_allclose(untied(1), found, rtol=1e-13, atol=1e-14)


def test_the_rows_from_scratch(drawn_blocks: dict[str, np.ndarray]) -> None:
    """Every value and every bound by numpy, from the arrays of the draw."""
    (n, d, m), depth = (6, 5, 90), 5
    drawn, solved, initial = measured((n, d, m), 0.1)
    rows = list(depth_rows(solved, drawn, initial, depth))
    p = Problem(*(x.numpy() for x in (solved.params.W, solved.params.U, solved.params.a, solved.X, solved.y)))
    K, Z, C = population_limit(p.X, 0.1), equilibrium(p), p.X.T @ p.X / d
    w, size, norm_z = np.linalg.norm(p.W, 2), np.linalg.norm(Z), np.linalg.norm(Z, 2)
    own = plain_layers(by_letter(drawn_blocks, "W"), by_letter(drawn_blocks, "U"), p.X)
    K_l, wanted = np.zeros((n, n)), []
    for level, (tied, fresh) in enumerate(zip(plain_layers([p.W] * depth, [p.U] * depth, p.X), own, strict=True), 1):
        scale = (1 - 0.1**level) / (1 - 0.1)
        K_l = scale * relu_dual((0.1 * K_l + C) / scale)
        wide = n * (2 * math.sqrt(2 * 0.1)) ** level
        cut = w**level * size
        wanted += [
            (level, POPULATION, np.linalg.norm(K - K_l), n * 0.1**level * (1 + level / math.pi) / 0.9),
            (level, TRUNCATION, np.linalg.norm(Z.T @ Z - tied.T @ tied) / m, cut * (2 * norm_z + cut) / m),
            (level, TIED, np.linalg.norm(tied.T @ tied / m - K_l), wide),
            (level, UNTIED, np.linalg.norm(fresh.T @ fresh / m - K_l), wide),
        ]
    assert len(rows) == len(wanted) == 4 * depth
    for row, (level, quantity, value, bound) in zip(rows, wanted, strict=True):
        assert (row.depth, row.quantity) == (level, quantity)
        assert row.value == pytest.approx(value, rel=1e-9, abs=1e-12)
        assert row.bound == pytest.approx(bound, rel=1e-8)


def test_a_row_names_its_theorem() -> None:
    theorem = {POPULATION: "3", TRUNCATION: "4", TIED: "5", UNTIED: "5"}
    assert list(SOURCES) == list(theorem)
    for row in levels((6, 5, 40), 2):
        cells = row.row()
        assert list(cells) == ["depth", "quantity", "source", "value", "bound"]
        assert f"Theorem {theorem[row.quantity]}" in cells["source"]


def half_dual(q: torch.Tensor, p: torch.Tensor) -> np.ndarray:
    """f(q, p) = q Q(p/q) of every pair: E[phi(u) phi(v)] at variances 2 q and covariance 2 p."""
    rows = [RELU.dual(2 * c[None, :], 2 * v[None], (2 * v).expand(len(c))) for v, c in zip(q, p, strict=True)]
    return torch.cat(rows).numpy()


def test_how_much_the_dual_moves_with_its_variance_and_its_covariance() -> None:
    """f(q, p + h) - f(q, p) in [0, h], f(q + h, p) - f(q, p) in [0, h/pi]: what Theorem 3's bound is made of."""
    q = torch.linspace(1.0, 3.0, 21, dtype=torch.float64)
    p = q[:, None] * torch.linspace(-1.0, 1.0, 201, dtype=torch.float64)
    for h in (1e-3, 0.1):
        below = torch.minimum(p, q[:, None] - h)
        by_p = (half_dual(q, below + h) - half_dual(q, below)) / h
        by_q = (half_dual(q + h, p) - half_dual(q, p)) / h
        for slope, most in ((by_p, 1.0), (by_q, 1 / math.pi)):
            assert slope.min() >= -1e-11
            assert 0.9 * most <= slope.max() <= most + 1e-11


def hard_samples(n: int, d: int, seed: int) -> torch.Tensor:
    """Samples on the sphere with an opposite, a nearly parallel, a nearly opposite and an orthogonal pair."""
    X, rng = draw_problem(n, d, 1, seed=seed).X, np.random.default_rng(seed)
    X[:, 1] = -X[:, 0]
    X[:, 2] = X[:, 0] + 10.0 ** rng.uniform(-9, -1) * X[:, 3]
    X[:, 4] = -X[:, 3] + 10.0 ** rng.uniform(-9, -1) * X[:, 5]
    X[:, 6] = X[:, 5] - X[:, 0] * (X[:, 0] @ X[:, 5]) / d
    return torch.tensor(X * math.sqrt(d) / np.linalg.norm(X, axis=0))


@pytest.mark.parametrize("s", np.geomspace(0.001, 0.9, 8).round(4))
def test_the_bound_of_theorem_3_is_never_exceeded_but_by_rounding(s: float) -> None:
    """At depth 1 it is less than twice what it bounds."""
    initial, shares = replace(measured((3, 4, 20))[2], scales=Scales(s, 1.0)), []
    for seed in range(25):
        n, d = 8 + seed % 5, 2 + seed
        limit = Population.of(hard_samples(n, d, seed), s, RELU)
        K, rounding = limit.gram(), 1e-14 * n / (1 - s)
        for depth, K_l in enumerate(limit.grams(40), start=1):
            bound = bounds(replace(initial, num_samples=n), depth)[POPULATION]
            shares.append(float((K - K_l).norm()) / (bound + rounding))
    assert len(shares) == 25 * 40
    assert 0.5 < max(shares) <= 1


@pytest.mark.parametrize("s", [0.001, 0.02, 0.08, 0.1, 0.12, 0.2])
def test_the_bound_of_theorem_4_is_never_exceeded_but_by_rounding(s: float) -> None:
    norms = []
    for seed in range(12):
        shape = (2 + seed % 7, 3 + seed % 5, 20 + 5 * seed)
        initial = measured(shape, s, seed)[2]
        rounding = 1e-13 * float(initial.spectra.gram.norm()) / initial.width
        rows = of(levels(shape, 20, s, seed), TRUNCATION)
        assert len(rows) == 20
        assert all(row.value <= row.bound + rounding for row in rows)
        norms.append(initial.safe.spectral_norm)
    assert {0.1: any(0.85 < norm < 1 for norm in norms), 0.2: all(norm > 1 for norm in norms)}.get(s, True)


def test_theorem_5_holds_at_every_depth_that_its_width_is_large_enough_for() -> None:
    """Deep layers of narrow networks break it: both deviations end at a multiple of m^(-1/2), their bound at 0."""
    broad, narrow = levels((8, 10, 1200), 10), levels((8, 10, 75), 30)
    for quantity in (TIED, UNTIED):
        assert all(row.value <= row.bound for row in of(broad, quantity))
        deep = of(narrow, quantity)[15:]
        assert all(row.value > row.bound for row in deep)
        plateau = [row.value for row in deep]
        assert min(plateau) > 8 / (8 * 75**0.5)
    tied = [row.value for row in of(narrow, TIED)[15:]]
    assert max(tied) - min(tied) <= 1e-3 * max(tied)


@pytest.mark.parametrize("s", [0.01, 0.08, 0.12])
def test_the_rates_over_depth_of_networks(s: float) -> None:
    """sigma_w^2 within 3 %; at most 2 sqrt2 sigma_w, and near sigma_w as half of the units are off."""
    shape = (8, 10, 400)
    for depth in (8, 40):
        first, second = rates_over_depth(levels(shape, depth, s), measured(shape, s)[2])
        assert first == Rate(POPULATION, "depth", first.rate, "near", s)
        assert second == Rate(TRUNCATION, "depth", second.rate, "at most", 2 * math.sqrt(2 * s))
        assert first.rate == pytest.approx(s, rel=0.03)
        assert 0.8 * math.sqrt(s) <= second.rate <= 2 * math.sqrt(2 * s)


def geometric(quantity: str, factor: float, depth: int, least: float = 0.0) -> list[DepthRow]:
    return [DepthRow(level, quantity, max(3 * factor**level, least), math.inf) for level in range(1, depth + 1)]


def fitted(rows: list[DepthRow]) -> dict[str, float | None]:
    return {rate.quantity: rate.rate for rate in rates_over_depth(rows, measured((6, 5, 40))[2])}


@pytest.mark.parametrize("factor", [0.9, 0.3, 1e-3])
def test_a_geometric_sequence_has_its_factor_whatever_rounding_follows_it(factor: float) -> None:
    """A plateau of 1e-16 is left out, and so are zeros."""
    for least in (1e-16, 0.0):
        rows = geometric(POPULATION, factor, 60, least) + geometric(TRUNCATION, factor**0.5, 60, least)
        assert fitted(rows) == pytest.approx({POPULATION: factor, TRUNCATION: factor**0.5}, rel=1e-10)


def test_the_deeper_half_of_the_depths_makes_the_rate() -> None:
    """Four depths fall by 0.1, five by 0.5: the rate is 0.5. Other quantities have no part in it."""
    rows = geometric(POPULATION, 0.1, 4)
    rows += [DepthRow(4 + k, POPULATION, rows[-1].value * 0.5**k, math.inf) for k in range(1, 6)]
    assert fitted(rows + geometric(TIED, 0.7, 9))[POPULATION] == pytest.approx(0.5, rel=1e-12)


@pytest.mark.parametrize("depth", [0, 1])
def test_fewer_than_two_depths_have_no_rate(depth: int) -> None:
    rounding_follows = geometric(TRUNCATION, 1e-16, 30, 1e-17)
    assert fitted(geometric(POPULATION, 0.3, depth) + rounding_follows) == {POPULATION: None, TRUNCATION: None}


def test_the_rate_over_width_of_made_up_values() -> None:
    """c m^(-1/2) has the exponent -1/2; one width has none."""
    values = {TIED: [(m, 7 / m**0.5) for m in (50, 50, 200, 900)], UNTIED: [(100, 0.3), (100, 0.2)]}
    (rate,) = rates_over_width(values)
    assert rate == Rate(TIED, "width", rate.rate, "near", -0.5)
    assert rate.rate == pytest.approx(-0.5, rel=1e-12)


@pytest.mark.parametrize("depth", [1, 2, 12])
def test_the_rate_over_width_of_networks(depth: int) -> None:
    """-1/2 within 0.1, of three widths with ten draws each."""
    values: dict[str, list[tuple[int, float]]] = {TIED: [], UNTIED: []}
    for m, seed in itertools.product((40, 160, 640), range(10)):
        for row in levels((8, 10, m), 12, S, seed)[4 * depth - 2 : 4 * depth]:
            assert row.depth == depth
            values[row.quantity].append((m, row.value))
    rates = rates_over_width(values)
    assert [rate.quantity for rate in rates] == [TIED, UNTIED]
    assert all(abs(rate.rate + 0.5) <= 0.1 for rate in rates)
