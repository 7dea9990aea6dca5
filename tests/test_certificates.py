"""Every inequality derived again from the arrays; where Condition 1 holds, Theorem 1 watched along a training run."""

import itertools
import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from deqcli.deq.activations import ACTIVATIONS
from deqcli.deq.initialisation import Draw, draw_gaussian
from deqcli.deq.network import Component, Params, loss
from deqcli.deq.solvers import Picard
from deqcli.errors import NumericalFailure
from deqcli.theory.certificates import (
    CERTIFICATES,
    Certificate,
    Constants,
    Statement,
    best_delta,
    certify,
    rhs_9,
    theorem_rate,
)
from deqcli.theory.initial import Initial, Scales, measure_initial
from deqcli.theory.prediction import loss_bound
from tests.dense import (
    Problem,
    draw_problem,
    equilibrium,
    equilibrium_fixed,
    least_eigenvalue_fixed,
    network_of,
    population_limit,
    unrolled_jacobian,
)

RELU = Component(ACTIVATIONS["relu"], Picard())
EQUATIONS = ("7", "8", "9", "9_with_8")


def assumption_1_problem(
    shape: tuple[int, int, int], scales: Scales, label_scale: float = 1.0, seed: int = 0
) -> Problem:
    """A draw (n, d, m) of Assumption 1, readout and labels scaled."""
    n, d, m = shape
    data = draw_problem(n, d, 1, seed=seed)
    device = torch.device("cpu")
    params = draw_gaussian(Draw(m, d, scales.sigma_w_sq, scales.readout_scale, seed, torch.float64, device))
    return Problem(params.W.numpy(), params.U.numpy(), params.a.numpy(), data.X, label_scale * data.y)


def measure(p: Problem, scales: Scales) -> Initial:
    W, U, a, X, y = (torch.tensor(array) for array in (p.W, p.U, p.a, p.X, p.y))
    return measure_initial(Params(W, U, a), X, y, RELU, scales)


@cache
def measured(shape: tuple[int, int, int], scales: Scales, label_scale: float = 1.0, seed: int = 0) -> Initial:
    return measure(assumption_1_problem(shape, scales, label_scale, seed), scales)


def by_name(initial: Initial, rate: float = 1e-3) -> dict[str, Certificate]:
    return {certificate.name: certificate for certificate in certify(initial, rate)}


def condition_1(certificates: dict[str, Certificate]) -> list[Certificate]:
    return [certificates[f"condition_1_eq_{equation}"] for equation in EQUATIONS]


def sides(p: Problem, delta: float) -> dict[str, tuple[float, float]]:
    """(lhs, rhs) of (7), (8), (9), (9 with 8) and the bound of (10) with 0, from the arrays alone; Ling et al. 3.1."""
    Z = equilibrium(p)
    lam = float(np.linalg.svd(Z, compute_uv=False)[-1] ** 2) if Z.shape[1] <= Z.shape[0] else 0.0
    rho_w, rho_u = np.linalg.norm(p.W, 2) + delta, np.linalg.norm(p.U, 2) + delta
    rho_a = np.linalg.norm(p.a) + delta
    cw, cu, ca = rho_u * rho_a / (1 - rho_w) ** 2, rho_a / (1 - rho_w), rho_u / (1 - rho_w)
    F, e0 = np.linalg.norm(p.X), np.linalg.norm(p.a @ Z - p.y)
    rate = 2 * (cw**2 + cu**2) / ((cw**2 + cu**2 + ca**2) ** 2 * F**2)
    return {
        "condition_1_eq_7": (lam, 4 / delta * max(cw, cu, ca) * F * e0),
        "condition_1_eq_8": (lam**1.5, 4 * (2 + math.sqrt(2)) / rho_a * (cw**2 + cu**2) * F**2 * e0),
        "condition_1_eq_9": (lam, 4 * (cw**2 + cu**2) * F**2),
        "condition_1_eq_9_with_8": (lam, 8 * (cw**2 + cu**2) * F**2),
        "theorem_1_eq_10": (min(2 / lam, rate) if lam else 0.0, 0.0),
    }


INSTANCES = [((4, 5, 60), 0.08), ((2, 3, 40), 0.005), ((1, 1, 30), 0.02), ((6, 6, 50), 0.05)]


@pytest.mark.parametrize(("shape", "s"), INSTANCES, ids=str)
def test_both_sides_of_condition_1_derived_again(shape: tuple[int, int, int], s: float) -> None:
    scales = Scales(s, 0.5)
    p, initial = assumption_1_problem(shape, scales), measured(shape, scales)
    for delta in (1e-4, 0.03, best_delta(initial)):
        statement = Statement(initial, delta, 1e-3)
        found = {c.name: c for c in (make(statement) for make in CERTIFICATES)}
        wanted = sides(p, delta)
        for equation in EQUATIONS:
            name = f"condition_1_eq_{equation}"
            assert (found[name].lhs, found[name].rhs) == pytest.approx(wanted[name], rel=1e-7)
        assert found["theorem_1_eq_10"].lhs == pytest.approx(wanted["theorem_1_eq_10"][0], rel=1e-7)
        assert found["theorem_1_eq_10"].rhs == 1e-3


@pytest.mark.parametrize(("shape", "s"), INSTANCES, ids=str)
def test_what_is_measured_of_a_draw(shape: tuple[int, int, int], s: float) -> None:
    scales = Scales(s, 0.5)
    p, initial = assumption_1_problem(shape, scales), measured(shape, scales)
    Z, cosines = equilibrium(p), np.abs(p.X.T @ p.X) / shape[1] - np.eye(shape[0])
    J = unrolled_jacobian(p)
    wanted = {
        "spectral_norm": np.linalg.norm(p.W, 2),
        "spectral_norm_upper": np.linalg.norm(p.W, 2),
        "spectral_norm_upper_u": np.linalg.norm(p.U, 2),
        "norm_a": np.linalg.norm(p.a),
        "norm_x": math.sqrt(shape[0] * shape[1]),
        "largest_cosine": cosines.max(),
        "norm_e": np.linalg.norm(p.a @ Z - p.y),
        "loss": 0.5 * np.sum((p.a @ Z - p.y) ** 2),
        "lambda_0": np.linalg.eigvalsh(Z.T @ Z)[0],
        "lambda_star": np.linalg.eigvalsh(population_limit(p.X, s))[0],
    }
    found = {name: getattr(initial, name) for name in wanted}
    assert found == pytest.approx({k: float(v) for k, v in wanted.items()}, rel=1e-8, abs=1e-13)
    np.testing.assert_allclose(initial.kernel.eigenvalues, np.linalg.eigvalsh(J @ J.T), rtol=1e-8)
    assert np.linalg.norm(p.W, 2) <= initial.spectral_norm_upper
    assert np.linalg.norm(p.U, 2) <= initial.spectral_norm_upper_u
    assert initial.norm_deviation <= 1e-15
    assert (initial.width, initial.num_samples) == (shape[2], shape[0])
    network = network_of(p, tolerance=1e-13)
    residual = network.solve_equilibrium().residual
    layer = np.linalg.norm(np.abs(p.W) @ Z + np.abs(p.U) @ np.abs(p.X)) / np.linalg.norm(Z)
    rounding = (shape[1] + shape[2] + 2) * 2.0**-53 * layer
    least = (residual + rounding) / (1 - np.linalg.norm(p.W, 2))
    assert least <= initial.error_bound <= 10 * least


@pytest.mark.parametrize(("shape", "s"), [*INSTANCES, ((5, 20, 100), 0.1)], ids=str)
def test_lambda_0_from_below_against_50_digits(shape: tuple[int, int, int], s: float) -> None:
    """5 draws: never above lambda_min(Z^T Z) of the exact Z in integer arithmetic, and within 1e-8 of it."""
    checked = 0
    for seed in range(5):
        p = assumption_1_problem(shape, Scales(s, 0.5), 1.0, seed)
        initial, truth = measure(p, Scales(s, 0.5)), least_eigenvalue_fixed(equilibrium_fixed(p))
        if initial.spectral_norm_upper < 1:
            checked += 1
            assert truth * (1 - 1e-8) <= initial.lambda_0_lower <= truth
            assert initial.lambda_0_lower < initial.lambda_0
    assert checked >= 4


def nearly_parallel(gap: float, seed: int) -> Problem:
    """4 samples on the sphere, the last `gap` from the first: lambda_0 is of the order gap^2."""
    p = assumption_1_problem((4, 5, 60), Scales(0.05, 0.5), 1.0, seed)
    X = p.X.copy()
    X[:, 3] = X[:, 0] + gap * X[:, 3]
    return replace(p, X=X * math.sqrt(5) / np.linalg.norm(X, axis=0))


def test_lambda_0_from_below_where_the_floats_lose_it() -> None:
    """4 draws a gap; from 1e-7 on rounding is all there is, and the bound exactly 0. LAPACK alone is often too high."""
    gaps, too_high = [1e-2, 1e-4, 1e-6, 1e-7, 3e-8, 1e-8, 1e-9, 1e-12, 0.0], 0
    for gap, seed in itertools.product(gaps, range(4)):
        p = nearly_parallel(gap, seed)
        initial, truth = measure(p, Scales(0.05, 0.5)), least_eigenvalue_fixed(equilibrium_fixed(p))
        assert truth == pytest.approx(20 * gap**2, rel=0.9, abs=1e-50)
        assert 0 <= initial.lambda_0_lower <= max(truth, 0)
        assert (initial.lambda_0_lower > 0) == (gap > 1e-7)
        too_high += initial.lambda_0 > truth
    assert too_high >= 3


@pytest.mark.parametrize("seed", range(4))
def test_a_lambda_0_of_rounding_certifies_nothing(seed: int) -> None:
    """100 samples on a circle: lambda_min(G) is at most 1e-9 beside a trace of 3e4, and LAPACK finds 1e-9 or 0."""
    scales = Scales(0.08, 1.0)
    p = assumption_1_problem((100, 2, 300), scales, 1.0, seed)
    initial = measure(p, scales)
    assert np.linalg.svd(equilibrium(p), compute_uv=False)[-1] < 1e-4
    assert initial.lambda_0 < 1e-8
    assert initial.lambda_0_lower == 0
    found = by_name(initial)
    named = [found["theorem_2"], *condition_1(found), found["theorem_1_eq_10"]]
    assert [certificate.holds for certificate in named] == [False] * 6


def test_the_other_certificates_by_hand() -> None:
    """The sides are as computed; the verdict rests on bounds: lambda_0 = 8 is only known to be at least 3."""
    initial = replace(
        measured((4, 5, 60), Scales(0.08, 1.0)), spectral_norm_upper=0.79, lambda_0=8.0, lambda_0_lower=3.0,
        lambda_star=0.2, norm_deviation=2e-6, largest_cosine=0.5,
    )  # fmt: skip
    found = by_name(initial)
    expected = {
        "assumption_1": (0.125, 0.08, True, False),
        "assumption_2_norms": (1e-6, 2e-6, False, False),
        "assumption_2_parallel": (1.0, 0.5, True, False),
        "well_posed": (1.0, 0.79, True, True),
        "lemma_1": (0.8, 0.79, True, False),
        "theorem_2": (8.0, 6.0, False, True),
    }
    for name, (lhs, rhs, holds, repaired) in expected.items():
        certificate = found[name]
        assert (certificate.lhs, certificate.rhs) == pytest.approx((lhs, rhs), rel=1e-12)
        assert (certificate.holds, certificate.repaired_by_width) == (holds, repaired)
        assert certificate.slack == pytest.approx(lhs / rhs, rel=1e-12)
    left = [certificate.lhs for certificate in condition_1(found)]
    assert left == pytest.approx([8.0, 8.0**1.5, 8.0, 8.0], rel=1e-12)
    assert set(found) == set(expected) | {f"condition_1_eq_{e}" for e in EQUATIONS} | {"theorem_1_eq_10"}
    assert len(CERTIFICATES) == len(found) == 11


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("assumption_1", {"scales": Scales(0.125, 1.0)}),
        ("assumption_2_parallel", {"largest_cosine": 1.0}),
        ("well_posed", {"spectral_norm_upper": 1.0}),
    ],
)
def test_strict_inequalities_fail_at_equality(name: str, change: dict[str, object]) -> None:
    initial = measured((4, 5, 60), Scales(0.08, 1.0))
    assert by_name(initial)[name].holds
    assert not by_name(replace(initial, **change))[name].holds


def slacks(initial: Initial, delta: np.ndarray) -> np.ndarray:
    """Slacks of (7), (8), (9 with 8) at each delta, (3, count), typed out again."""
    gap, rho_u, rho_a = (
        1 - initial.spectral_norm - delta, initial.spectral_norm_u + delta, initial.norm_a + delta
    )  # fmt: skip
    cw, cu, ca = rho_u * rho_a / gap**2, rho_a / gap, rho_u / gap
    lam, F, e0 = initial.lambda_0, initial.norm_x, initial.norm_e
    return np.array(
        [
            lam * delta / (4 * np.maximum(np.maximum(cw, cu), ca) * F * e0),
            lam**1.5 * rho_a / (4 * (2 + math.sqrt(2)) * (cw**2 + cu**2) * F**2 * e0),
            lam / (8 * (cw**2 + cu**2) * F**2),
        ]
    )


def random_initial(seed: int) -> Initial:
    """A draw whose numbers span many decades, so that each of (7), (8), (9) is the tightest somewhere."""
    rng = np.random.default_rng(seed)
    return replace(
        measured((4, 5, 60), Scales(0.08, 1.0)),
        spectral_norm=float(1 - 10 ** rng.uniform(-6, -0.01)),
        spectral_norm_u=float(10 ** rng.uniform(-2, 2)),
        norm_a=float(10 ** rng.uniform(-4, 2)),
        norm_x=float(10 ** rng.uniform(0, 3)),
        norm_e=float(10 ** rng.uniform(-8, 3)),
        lambda_0=float(10 ** rng.uniform(-6, 6)),
    )


def test_no_delta_on_a_fine_grid_is_better_than_the_best() -> None:
    """60 draws against 20,000 deltas each; the best is never beaten by more than 1e-9, and all cases occur."""
    tightest = set()
    for seed in range(60):
        initial = random_initial(seed)
        room, best = 1 - initial.spectral_norm, best_delta(initial)
        assert 0 < best < room
        at_best = slacks(initial, np.array([best]))[:, 0]
        grid = np.concatenate(
            [np.geomspace(room * 1e-12, room * 0.999999, 10_000), np.geomspace(0.9, 1 / 0.9, 10_001) * best]
        )
        grid = grid[grid < room]
        assert slacks(initial, grid).min(axis=0).max() <= at_best.min() * (1 + 1e-9)
        tightest |= {int(k) for k in np.flatnonzero(at_best <= at_best.min() * (1 + 1e-6))}
    assert tightest == {0, 1, 2}


def test_the_best_delta_may_be_the_peak_of_7_alone() -> None:
    """With a large prediction error (7) is the tightest everywhere, and its own maximum decides."""
    made_up = {"norm_a": 100.0, "norm_e": 1e3, "lambda_0": 1e6, "norm_x": 1.0, "spectral_norm": 0.5}
    initial = replace(random_initial(0), **made_up)
    best = best_delta(initial)
    assert np.argmin(slacks(initial, np.array([best]))[:, 0]) == 0
    moved = slacks(initial, best * np.array([1 - 1e-3, 1, 1 + 1e-3]))[0]
    assert moved.argmax() == 1


@pytest.mark.parametrize(
    "change",
    [
        {"norm_e": 1e-70, "norm_a": 1.0},
        {"norm_e": 1e-300, "norm_a": 1.0},
        {"lambda_0": 1e-130},
        {"lambda_0": 1e-320},
        {"norm_e": 1e-70, "norm_a": 0.0},
        {"norm_e": 1e200},
        {"spectral_norm": 1 - 2.0**-53},
        {"spectral_norm": 0.0},
        {"spectral_norm_u": 0.0},
    ],
    ids=str,
)
def test_no_draw_is_too_odd_for_a_best_delta(change: dict[str, float]) -> None:
    """Where (7) is never the tightest down to a delta of 1e-60, the others only fall, and the least delta is taken."""
    initial = replace(measured((4, 5, 60), Scales(0.08, 1.0)), **change)
    room, best = 1 - initial.spectral_norm, best_delta(initial)
    assert 0 < best < room
    assert len(by_name(initial)) == 11
    if initial.lambda_0 > 1e-200:
        grid = np.geomspace(room * 1e-50, room * 0.999999, 5000)
        at_best = slacks(initial, np.array([best])).min()
        assert slacks(initial, grid).min(axis=0).max() <= at_best * (1 + 1e-9)


FEASIBLE = ((3, 50, 2000), Scales(0.005, 0.03), 0.01, 1)
"""(n, d, m), sigma_w_sq and readout_scale, label_scale, seed: some draws miss the same inequalities by a fifth."""


def test_an_instance_where_condition_1_holds_with_8_for_4() -> None:
    found = condition_1(by_name(measured(*FEASIBLE)))
    assert len(found) == 4
    assert all(certificate.holds and certificate.slack > 1.1 for certificate in found)
    assert found[2].slack == pytest.approx(2 * found[3].slack, rel=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_theorem_1_along_a_training_run_whose_hypotheses_hold(seed: int) -> None:
    """At each of 60 steps (i) ||W|| < 1, (ii) lambda_tau > lambda_0/2, (iii) Phi <= (1 - eta lambda_0/2)^tau Phi(0)."""
    scales = Scales(0.005, 0.005)
    p = assumption_1_problem((3, 50, 400), scales, 0.002, seed)
    initial = measure(p, scales)
    delta = best_delta(initial)
    rate = 0.99 * theorem_rate(initial, delta)
    found = by_name(initial, rate)
    assert all(certificate.holds for certificate in [*condition_1(found), found["theorem_1_eq_10"]])
    network, y, norm = network_of(p, tolerance=1e-13), torch.tensor(p.y), np.linalg.norm(p.W, 2)
    for step in range(61):
        network.solve_equilibrium()
        network.solve_adjoint()
        e = network.prediction_error(y)
        assert norm + np.linalg.norm(network.params.W.numpy() - p.W) < 1
        assert np.linalg.svd(network.Z.numpy(), compute_uv=False)[-1] ** 2 > initial.lambda_0 / 2
        assert loss(e) <= loss_bound(initial.loss, initial.lambda_0, rate, step) * (1 + 1e-12)
        network.descend(e, rate)
    assert loss(e) < 0.99 * initial.loss
    for now, start in ((network.params.W, p.W), (network.params.U, p.U), (network.params.a, p.a)):
        assert 0 < np.linalg.norm(now.numpy() - start) < delta


WIDTHS = (250, 500, 1000)
SEEDS = range(3)


def mean_slack(equation: str, m: int, delta: float) -> float:
    """Geometric mean over seeds of a slack at a fixed delta, readout_scale 1."""
    total = 0.0
    for seed in SEEDS:
        initial = measured((4, 4, m), Scales(0.005, 1.0), 1.0, seed)
        found = {c.name: c for c in (make(Statement(initial, delta, 1e-3)) for make in CERTIFICATES)}
        total += math.log(found[f"condition_1_eq_{equation}"].slack)
    return math.exp(total / len(SEEDS))


@pytest.mark.parametrize(("equation", "growth"), [("7", 2.0), ("8", 2.0), ("9", 1.0), ("9_with_8", 1.0)])
def test_what_width_does_to_condition_1(equation: str, growth: float) -> None:
    """From m = 250 to 1000 at fixed delta: (7), (8) double like sqrt(m), (9) stays flat; within 35 %."""
    narrow, _, wide = (mean_slack(equation, m, 0.01) for m in WIDTHS)
    assert wide / narrow == pytest.approx(growth, rel=0.35)


@pytest.mark.parametrize(("equation", "factor"), [("9", 4.0), ("9_with_8", 8.0)])
def test_the_slack_of_9_approaches_its_limit(equation: str, factor: float) -> None:
    """lambda_* (1 - 2 sqrt2 sigma_w)^4/(2 factor n): at the best delta within 20 %, without one within 10 %."""
    ratios, bare = [], []
    for m in WIDTHS:
        drawn = [measured((4, 4, m), Scales(0.005, 1.0), 1.0, seed) for seed in SEEDS]
        limits = [i.lambda_star * (1 - math.sqrt(8 * 0.005)) ** 4 / (2 * factor * 4) for i in drawn]
        found = [by_name(initial)[f"condition_1_eq_{equation}"] for initial in drawn]
        assert [certificate.limit for certificate in found] == pytest.approx(limits, rel=1e-12)
        assert not any(certificate.holds or certificate.repaired_by_width for certificate in found)
        ratios.append(np.mean([c.slack / limit for c, limit in zip(found, limits, strict=True)]))
        bare.append(np.mean([i.lambda_0 / rhs_9(i, 1e-9, factor) / k for i, k in zip(drawn, limits, strict=True)]))
    assert ratios == sorted(ratios)
    assert 0.8 <= ratios[-1] <= 1.0
    assert bare[-1] == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("alpha", [0.03, 1.0])
def test_the_slack_of_9_has_a_ceiling_at_every_width(alpha: float) -> None:
    """lambda_0 <= rho_u^2 F^2/(n (1 - rho_w)^2), so slack <= (1 - rho_w)^2/(factor n rho_a^2)."""
    checked = 0
    for m in (20, *WIDTHS):
        for delta in (1e-6, 0.01, 0.1):
            initial = measured((4, 4, m), Scales(0.005, alpha))
            c, gap = Constants.at(initial, delta), 1 - initial.spectral_norm - delta
            ceiling = gap**2 / (8.0 * 4 * c.rho_a**2)
            assert 0 < initial.lambda_0 / rhs_9(initial, delta, 8.0) <= ceiling
            checked += 1
    assert checked == 12


@pytest.mark.parametrize("upper", [1.0, 1.3])
def test_without_well_posedness_condition_1_cannot_be_stated(upper: float) -> None:
    initial = replace(measured((4, 5, 60), Scales(0.08, 1.0)), spectral_norm=upper, spectral_norm_upper=upper)
    assert best_delta(initial) is None
    assert theorem_rate(initial, None) is None
    found = by_name(initial)
    for certificate in [*condition_1(found), found["theorem_1_eq_10"]]:
        assert (certificate.rhs, certificate.slack, certificate.holds) == (None, None, False)


def test_a_limit_that_is_not_well_posed_repairs_nothing() -> None:
    """sigma_w_sq = 0.2 has 2 sqrt2 sigma_w > 1, whatever this draw's norm is and however small the readout."""
    found = by_name(replace(measured((4, 5, 60), Scales(0.08, 1.0)), scales=Scales(0.2, 1e-6)))
    names = ["well_posed", "theorem_2", *(f"condition_1_eq_{equation}" for equation in EQUATIONS)]
    assert [found[name].repaired_by_width for name in names] == [False] * 6
    assert [found[name].limit for name in names[1:]] == [0.0] * 5


@pytest.mark.parametrize("seed", range(5))
def test_more_samples_than_units_have_no_lambda_0(seed: int) -> None:
    """Exactly 0, where the eigenvalue solver would find rounding of either sign."""
    initial = measured((9, 3, 6), Scales(0.02, 1.0), 1.0, seed)
    assert (initial.lambda_0, initial.lambda_0_lower) == (0.0, 0.0)
    if initial.spectral_norm_upper < 1:
        assert 0 < best_delta(initial) < 1 - initial.spectral_norm_upper
    found = by_name(initial)
    assert not any(certificate.holds for certificate in condition_1(found))


def test_the_rate_of_10_is_never_above_2_over_lambda_0() -> None:
    """No draw makes 2/lambda_0 the smaller of the two (lambda_0 <= rho_u^2 F^2/(n (1 - rho_w)^2)), so it is made up."""
    initial = measured((4, 5, 60), Scales(0.08, 1.0))
    assert theorem_rate(initial, 0.01) < 2 / initial.lambda_0
    assert theorem_rate(replace(initial, lambda_0=1e12), 0.01) == 2e-12


def test_a_draw_that_cannot_be_solved_is_refused() -> None:
    p = draw_problem(4, 5, 60, norm=5.0)
    with pytest.raises(NumericalFailure, match="the equilibrium of the initial draw was not solved in float64"):
        measure(p, Scales(0.08, 1.0))


def test_float32_parameters_are_measured_in_float64() -> None:
    """The measured error bound is far below what float32 can resolve."""
    p = draw_problem(4, 5, 60)
    single = Params(*(torch.tensor(x, dtype=torch.float32) for x in (p.W, p.U, p.a)))
    initial = measure_initial(single, torch.tensor(p.X), torch.tensor(p.y), RELU, Scales(0.08, 1.0))
    exact = Problem(*(x.double().numpy() for x in (single.W, single.U, single.a)), p.X, p.y)
    assert initial.error_bound < 1e-11
    assert initial.lambda_0 == pytest.approx(np.linalg.eigvalsh(equilibrium(exact).T @ equilibrium(exact))[0], rel=1e-9)
    assert single.W.dtype is torch.float32


def test_a_verdict_on_nan_is_negative_and_equality_holds_unless_strict() -> None:
    pairs = [(math.nan, 2.0), (2.0, math.nan), (2.0, 2.0), (3.0, 2.0)]
    assert [Certificate("", "", *pair, None).holds for pair in pairs] == [False, False, True, True]
    assert [Certificate("", "", *pair, None, strict=True).holds for pair in pairs] == [False, False, False, True]
