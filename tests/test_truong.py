"""The certificates of any activation: constants derived again, Theorem 1 along runs, lambda_* by its expansion."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import erf, expit

from deqcli.deq.activations import ACTIVATIONS
from deqcli.deq.model import Component, Params
from deqcli.deq.network import Network
from deqcli.deq.solvers import Picard
from deqcli.theory.certificates import CERTIFICATES, certificates_of, certify
from deqcli.theory.condition import Constants, best_delta, rhs_7, rhs_8, rhs_9, safe_theorem_rate, theorem_rate
from deqcli.theory.draw import SolvedDraw
from deqcli.theory.expansion import Expansion, antipodal_pair
from deqcli.theory.expected import Expected
from deqcli.theory.initial import Initial, measure_initial
from deqcli.theory.monotone import monotonicity_lower
from deqcli.theory.population import Population
from deqcli.theory.sharper import MOVES, Sharp, best_radii, rhs_7_a, rhs_7_w, rhs_flow_7, rhs_flow_8
from deqcli.theory.sizes import Scales, Sizes
from deqcli.theory.statement import Certificate
from tests.dense import Problem, assumption_1_problem, draw_problem, random_sizes
from tests.training import shapes_unchecked, steps

Shape = tuple[int, int, int]
"""(n, d, m)."""

TRUONG = ("truong_sigma_w_sq", "truong_derivatives", "truong_coefficients", "truong_population")
PRINTED = tuple(f"condition_1_eq_{equation}" for equation in ("7", "8", "9_with_8"))
SHARPER = tuple(f"sharper_eq_{equation}" for equation in ("7_w", "7_a", "8", "9"))
FLOW = tuple(f"gradient_flow_{equation}" for equation in ("eq_7", "eq_8", "sharper_eq_7", "sharper_eq_8"))
ABOUT_TRAINING = (
    "condition_1_eq_9", *PRINTED, *SHARPER, *FLOW, "theorem_1_eq_10", "sharper_eq_10",
)  # fmt: skip
OTHERS = [name for name in ACTIVATIONS if name != "relu"]

PHI = {
    "tanh": np.tanh,
    "sigmoid": expit,
    "gelu": lambda t: t * (1 + erf(t / math.sqrt(2))) / 2,
    "softplus": lambda t: np.logaddexp(0, t),
    "leaky_relu": lambda t: np.where(t > 0, t, 0.01 * t),
    "erf": erf,
    "sin": np.sin,
}
"""A second time, by numpy and scipy."""


def solved(name: str, p: Problem, tolerance: float = 1e-14) -> SolvedDraw:
    W, U, a, X, y = (torch.tensor(each) for each in (p.W, p.U, p.a, p.X, p.y))
    return SolvedDraw.of(Params(W, U, a), X, y, Component(ACTIVATIONS[name], Picard(tolerance=tolerance)))


def measure(name: str, p: Problem, s: float, alpha: float = 1.0, **scales: object) -> Initial:
    return measure_initial(solved(name, p), Scales(s, alpha, **scales))


def measured(name: str, shape: Shape, s: float, alpha: float = 1.0, beta: float = 1.0, seed: int = 0) -> Initial:
    return measure(name, assumption_1_problem(shape, s, alpha, beta, seed), s, alpha)


def by_name(initial: Initial, rate: float | None = 1e-3) -> dict[str, Certificate]:
    return {certificate.name: certificate for certificate in certify(initial, rate)}


def fixed_point(name: str, p: Problem) -> np.ndarray:
    """Z by plain iteration, (m, n)."""
    Z = np.zeros((len(p.W), p.X.shape[1]))
    for _ in range(2000):
        previous, Z = Z, PHI[name](p.W @ Z + p.U @ p.X)
        if np.linalg.norm(Z - previous) <= 1e-15 * np.linalg.norm(Z):
            return Z
    raise AssertionError("the reference iteration did not converge")


def steepest(name: str) -> float:
    """L by differences on a fine grid: below it by 1e-6 at most."""
    t = np.linspace(-30, 30, 1_200_001)
    return float(np.abs(np.diff(PHI[name](t)) / np.diff(t)).max())


def printed_again(name: str, p: Problem, delta: float) -> dict[str, float]:
    """Right sides of (7), (8), (9 with 8) and the bound of (10), written out with L rho_w in place of rho_w."""
    (m, n), root = (len(p.W), p.X.shape[1]), math.sqrt
    L, start, Z = steepest(name), abs(float(PHI[name](np.zeros(1))[0])), fixed_point(name, p)
    rho_w, rho_u, rho_a = (np.linalg.norm(each, 2) + delta for each in (p.W, p.U, p.a))
    F, e0, q = np.linalg.norm(p.X), np.linalg.norm(p.a @ Z - p.y), 1 - L * rho_w
    cu, ca = L * rho_a / q, (L * rho_u + start * root(m * n) / F) / q
    cw = cu * ca
    return {
        "7": 4 / delta * max(cw, cu, ca) * F * e0,
        "8": 4 * (2 + root(2)) / rho_a * (cw**2 + cu**2) * F**2 * e0,
        "9": 8 * (cw**2 + cu**2) * F**2,
        "10": 2 * (cw**2 + cu**2) / ((cw**2 + cu**2 + ca**2) ** 2 * F**2),
    }


def sharper_again(name: str, p: Problem, w: float, a: float) -> dict[str, float]:
    """The same of the sharper rows and of gradient flow at the radius w, from the measured Z(0)."""
    L, Z = steepest(name), fixed_point(name, p)
    norm, x, z0, e0 = (np.linalg.norm(each, 2) for each in (p.W, p.X, Z, p.a @ Z - p.y))
    lam, q = np.linalg.eigvalsh(Z.T @ Z)[0], 1 - L * (norm + w)
    c, z = L * (np.linalg.norm(p.a) + a) / q, z0 + (1 - math.sqrt(0.5)) * math.sqrt(lam)
    A = c**2 * (z**2 + x**2)
    return {
        "7_w": 4 / w * c * z * e0,
        "7_a": 4 / a * z * e0,
        "8": 4 * (2 + math.sqrt(2)) * (L * c / q) * (z * z0 + x**2) * e0,
        "9": A,
        "10": 2 * (lam / 4 - A) / (A + z**2) ** 2 if lam / 4 > A else 0.0,
        "flow_7": 2 * e0**2 / w**2,
        "flow_8": 2 * (1 + math.sqrt(2)) * L * math.hypot(z0, x) / q * e0,
    }


@pytest.mark.parametrize("alpha", [0.5, 1e-3])
@pytest.mark.parametrize("name", ["tanh", "sigmoid", "gelu", "softplus", "leaky_relu", "erf"])
def test_every_right_side_derived_again(name: str, alpha: float) -> None:
    """Right to 1e-5, which is what L by differences allows, and on the safe side."""
    p = assumption_1_problem((4, 6, 60), 0.03, alpha, alpha)
    safe = measure(name, p, 0.03, alpha).safe
    for delta in (1e-4, 0.02):
        radii = replace(best_radii(safe), w=delta, a=delta / 2)
        sharp = Sharp.at(safe, radii)
        found = {"7": rhs_7(safe, delta), "8": rhs_8(safe, delta), "9": rhs_9(safe, delta, 8.0)}
        found["10"] = 1 / theorem_rate(safe, delta)
        wanted = printed_again(name, p, delta)
        wanted["10"] = 1 / wanted["10"]
        sharper = sharper_again(name, p, radii.w, radii.a)
        found |= {"7_w": rhs_7_w(safe, radii), "7_a": rhs_7_a(safe, radii), "s8": sharp.rhs_8, "s9": sharp.hidden}
        found |= {"flow_7": rhs_flow_7(safe, delta), "flow_8": rhs_flow_8(safe, delta)}
        wanted |= {"s8": sharper.pop("8"), "s9": sharper.pop("9")}
        assert sharp.rate == pytest.approx(sharper.pop("10"), rel=1e-5)
        wanted |= sharper
        assert found.keys() == wanted.keys()
        for key, value in found.items():
            assert value == pytest.approx(wanted[key], rel=1e-5)
            assert value >= wanted[key] * (1 - 1e-8)


@pytest.mark.parametrize("name", PHI)
def test_what_the_constants_bound(name: str) -> None:
    """||Z||_F <= c_a ||X||_F, ||adjoint||_F <= c_u ||e||, and the move of Z: at weights anywhere within delta."""
    rng, compared = np.random.default_rng(3), 0
    p = assumption_1_problem((5, 7, 40), 0.02, 0.5)
    sizes = measure(name, p, 0.02, 0.5).safe
    delta = 0.6 * sizes.room
    c, Z = Constants.at(sizes, delta), fixed_point(name, p)
    for _ in range(20):
        moves = [rng.standard_normal(each.shape) for each in (p.W, p.U, p.a)]
        if compared % 2:
            moves = [np.outer(each @ np.ones(each.shape[-1]), np.ones(each.shape[1])) if each.ndim == 2 else each
                     for each in moves]  # fmt: skip
        dW, dU, da = (delta * each / np.linalg.norm(each) for each in moves)
        moved = replace(p, W=p.W + dW, U=p.U + dU, a=p.a + da)
        now = solved(name, moved)
        e, V = now.prediction_error.numpy(), now.network.V.numpy()
        assert np.linalg.norm(now.Z.numpy()) <= c.c_a * sizes.norm_x
        assert np.linalg.norm(V * e) <= c.c_u * np.linalg.norm(e)
        gap = sizes.room - delta
        bound = (delta * np.linalg.norm(Z, 2) + delta * np.linalg.norm(p.X, 2)) / gap
        assert np.linalg.norm(now.Z.numpy() - Z) <= bound
        compared += 1
    assert compared == 20


@pytest.mark.parametrize("name", ["sigmoid", "gelu", "tanh"])
def test_no_delta_on_a_grid_is_better_than_the_best(name: str) -> None:
    phi, looked = ACTIVATIONS[name], 0
    for seed in range(12):
        made_up = random_sizes(seed)
        norm = made_up.spectral_norm / phi.lipschitz
        sizes = replace(made_up, spectral_norm=norm, lipschitz=phi.lipschitz, norm_at_zero=3.0 * abs(phi.at_zero))
        best = best_delta(sizes)
        assert 0 < best < sizes.room
        grid = np.geomspace(1e-12, 0.999999, 400) * sizes.room
        assert max(least(sizes, float(delta)) for delta in grid) <= least(sizes, best) * (1 + 1e-9)
        looked += 1
    assert looked == 12


def least(sizes: Sizes, delta: float) -> float:
    lam = sizes.lambda_0
    return min(
        lam / rhs_7(sizes, delta), lam**1.5 / rhs_8(sizes, delta), lam / rhs_9(sizes, delta, 8.0)
    )  # fmt: skip


RUNS = [
    ("sigmoid", (3, 50, 300), 0.02, 0.005, 0.002, 0),
    ("sigmoid", (4, 10, 200), 0.3, 0.001, 0.0001, 1),
    ("sigmoid", (2, 10, 300), 1.5, 0.0005, 0.00002, 1),
    ("softplus", (3, 50, 400), 0.01, 0.002, 0.0007, 0),
    ("gelu", (3, 50, 400), 0.005, 0.003, 0.001, 0),
    ("gelu", (2, 20, 200), 0.05, 0.001, 0.0002, 1),
    ("tanh", (3, 50, 400), 0.005, 0.003, 0.001, 0),
    ("leaky_relu", (3, 50, 400), 0.005, 0.004, 0.0015, 2),
]
"""Activation, (n, d, m), sigma_w_sq, readout scale, ||e(0)||, seed: draws of which everything printed holds.

The third has ||W(0)||_2 = 3.4, which is less than 1/L = 4.
"""


def outputs_corrected(name: str, p: Problem, e: float) -> Problem:
    """The same with labels `e` away from the outputs: of a phi with phi(0) > 0 these are large."""
    Z = fixed_point(name, p)
    return replace(p, y=p.a @ Z - e * p.y / np.linalg.norm(p.y))


@pytest.mark.parametrize("run", RUNS, ids=str)
def test_theorem_1_along_runs_of_other_activations(run: tuple) -> None:
    """At 0.99 of the rates of (10) and of the sharper one, 40 steps: (i), (ii), (iii), and the bounds of the proof."""
    name, shape, s, alpha, error, seed = run
    p = outputs_corrected(name, assumption_1_problem(shape, s, alpha, 1.0, seed), error)
    initial = measure(name, p, s, alpha)
    for rate in (0.99 * safe_theorem_rate(initial.safe), 0.99 * by_name(initial)["sharper_eq_10"].lhs):
        found = by_name(initial, rate)
        assert all(found[each].holds for each in ("well_posed", *PRINTED, *SHARPER, "sharper_eq_10", "theorem_2"))
        assert not any("outside" in found[each].source for each in ABOUT_TRAINING)
        with shapes_unchecked():
            watch(name, p, initial, rate, 40)


@pytest.mark.parametrize("name", ["sigmoid", "softplus", "gelu", "sin"])
def test_small_networks_at_the_very_edge_of_the_sharper_condition(name: str) -> None:
    """3 draws of 1 to 4 units, an error along a singular vector of Z at which a slack is 1: nothing is false."""
    rng, looked = np.random.default_rng(1), 0
    while looked < 3:
        m = int(rng.integers(1, 5))
        norm = rng.uniform(0, 0.9) / ACTIVATIONS[name].lipschitz
        p = draw_problem(int(rng.integers(1, m + 1)), 3, m, float(norm), seed=int(rng.integers(10**6)))
        p = replace(p, a=p.a / np.linalg.norm(p.a) * 10 ** rng.uniform(-5, -2))
        edge, e = largest_error(measure(name, p, 0.05)), np.linalg.svd(fixed_point(name, p))[2][-1]
        if edge is None:  # (9) fails for every error
            continue
        p = replace(p, y=p.a @ fixed_point(name, p) - edge * e)
        initial = measure(name, p, 0.05)
        found = by_name(initial)
        assert 1 <= min(found[each].slack for each in SHARPER) < 1 + 1e-4
        with shapes_unchecked():
            watch(name, p, initial, math.nextafter(found["sharper_eq_10"].lhs, 0), 25)
        looked += 1


def largest_error(initial: Initial) -> float | None:
    """The largest ||e(0)|| at which the sharper condition holds by 1e-6; None where it does at none."""
    low, high = 1e-9, 1e3

    def holds(error: float) -> bool:
        sizes = replace(initial.safe, norm_e=error)
        radii = best_radii(sizes)
        sharp = Sharp.at(sizes, radii)
        right = max(rhs_7_w(sizes, radii), rhs_7_a(sizes, radii), 4 * sharp.hidden)
        return min(sizes.lambda_0 / right, sizes.lambda_0**1.5 / sharp.rhs_8) > 1 + 1e-6

    if not holds(low):
        return None
    for _ in range(24):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def watch(name: str, p: Problem, initial: Initial, rate: float, count: int) -> None:
    radii, lambda_0, L = best_radii(initial.safe), initial.computed.lambda_0, initial.safe.lipschitz
    sharp, Z_0, y = Sharp.at(initial.safe, radii), fixed_point(name, p), torch.tensor(p.y)
    W, U, a, X = (torch.tensor(each) for each in (p.W, p.U, p.a, p.X))
    network = Network(Params(W, U, a), X, Component(ACTIVATIONS[name], Picard(tolerance=1e-14)))
    rounding = 1e-12 * (np.linalg.norm(p.a) * sharp.z + np.linalg.norm(p.y))
    for step, _ in enumerate(steps(network, y, rate, count)):
        W, a, Z, V = (each.numpy() for each in (network.params.W, network.params.a, network.Z, network.V))
        e = network.prediction_error(y).numpy()
        assert np.linalg.norm(W - p.W) <= radii.w
        assert L * np.linalg.norm(W, 2) < 1
        assert np.linalg.norm(a - p.a) <= radii.a
        assert np.linalg.norm(Z, 2) <= sharp.z
        assert np.linalg.norm(Z - Z_0) <= MOVES * math.sqrt(lambda_0)
        assert np.linalg.svd(Z, compute_uv=False)[-1] ** 2 > lambda_0 / 2
        assert np.linalg.norm(V * e) <= sharp.c * np.linalg.norm(e) + rounding
        bound = math.sqrt(2 * initial.loss * (1 - rate * lambda_0 / 2) ** step)
        assert np.linalg.norm(e) <= bound + rounding
    assert step == count


@pytest.mark.parametrize("name", OTHERS)
def test_the_error_bound_bounds_the_error(name: str) -> None:
    """Against a solution to the last bit, at residuals from 1e-4 to rounding; the error is at most 1 of the bound."""
    p = assumption_1_problem((3, 4, 30), 0.05)
    exact = solved(name, p).Z.numpy()
    for tolerance in (1e-4, 1e-8, 1e-12):
        W, U, a, X = (torch.tensor(each) for each in (p.W, p.U, p.a, p.X))
        network = Network(Params(W, U, a), X, Component(ACTIVATIONS[name], Picard(tolerance=tolerance)))
        residual = network.solve_equilibrium().residual
        network.solve_adjoint()
        loose = SolvedDraw(network, X, torch.tensor(p.y), residual)
        bound = measure_initial(loose, Scales(0.05, 1.0)).error_bound
        error = np.linalg.norm(network.Z.numpy() - exact) / np.linalg.norm(exact)
        assert error <= bound * (1 + 1e-3) + 1e-14
        assert residual <= bound <= 10 * residual + 1e-10


def kernel(name: str, X: np.ndarray, s: float) -> tuple[Population, torch.Tensor]:
    population = Population.of(torch.tensor(X), s, ACTIVATIONS[name])
    return population, population.gram()


def near(n: int, d: int, gap: float, seed: int) -> np.ndarray:
    """Samples on the sphere, the last one `gap` from the first."""
    X = draw_problem(n, d, 1, seed=seed).X.copy()
    X[:, -1] = X[:, 0] + gap * X[:, -1]
    return X * math.sqrt(d) / np.linalg.norm(X, axis=0)


@pytest.mark.parametrize("name", OTHERS)
def test_the_bound_by_coefficients_is_below_lambda_star(name: str) -> None:
    """Random and nearly parallel samples, of any dimension and number: never above; above 0 in most of the first."""
    positive, compared = 0, 0
    for seed, (n, d) in enumerate([(1, 3), (2, 2), (5, 40), (12, 12), (20, 6), (9, 4)]):
        for gap in (1.0, 0.1, 1e-2):
            X = near(n, d, gap, seed) if n > 1 else draw_problem(n, d, 1).X
            population, K = kernel(name, X, 0.05)
            found = Expansion.of(torch.tensor(X), population, K)
            least_eigenvalue = float(np.linalg.eigvalsh(K.numpy())[0])
            assert 0 <= found.bound <= least_eigenvalue + 1e-13
            assert (found.order is None) == (found.bound == 0)
            positive += gap == 1.0 and found.bound > 0
            compared += 1
    assert compared == 18
    assert positive >= (2 if name == "identity" else 4)


def test_the_bound_by_hand() -> None:
    """sum_r a_r^2 (1 - max_i sum_j |rho_ij|^r)_+ for sin, whose coefficients are e^(-p/2) p^(r/2)/sqrt(r!) at odd r."""
    X = draw_problem(6, 5, 1, seed=2).X
    population, K = kernel("sin", X, 0.1)
    Sigma = 2 * (0.1 * K.numpy() + X.T @ X / 5)
    p = Sigma[0, 0]
    rho = np.abs(Sigma) / p - np.eye(6)
    terms = {
        r: math.exp(-p) * p**r / math.factorial(r) * max(1 - (rho**r).sum(1).max(), 0) for r in range(1, 60, 2)
    }  # fmt: skip
    found = Expansion.of(torch.tensor(X), population, K)
    assert found.bound == pytest.approx(sum(terms.values()), rel=1e-6)
    assert found.order == max(terms, key=terms.get)
    signs = [math.sin(math.pi * r / 2) * math.exp(-p / 2) * p ** (r / 2) / math.sqrt(math.factorial(r))
             for r in range(11)]  # fmt: skip
    assert found.listed[:11] == pytest.approx(signs, abs=1e-12)


def test_norms_that_differ_make_the_bound_smaller_and_keep_it_a_bound() -> None:
    X = draw_problem(6, 30, 1, seed=2).X
    bounds = []
    for spread in (0.0, 1e-7, 1e-3, 0.05):
        moved = X * (1 + spread * np.linspace(-1, 1, 6))
        population, K = kernel("tanh", moved, 0.05)
        bounds.append(Expansion.of(torch.tensor(moved), population, K).bound)
        assert bounds[-1] <= np.linalg.eigvalsh(K.numpy())[0]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] > bounds[1] > 0


def antipodal(n: int, d: int) -> np.ndarray:
    X = draw_problem(n, d, 1, seed=5).X.copy()
    X[:, 3] = -X[:, 1]
    return X


@pytest.mark.parametrize("name", OTHERS)
def test_an_odd_activation_with_antipodal_samples_has_no_lambda_star(name: str) -> None:
    X = antipodal(5, 8)
    assert antipodal_pair(torch.tensor(X)) == (1, 3)
    assert antipodal_pair(torch.tensor(near(5, 8, 1e-9, 0))) is None
    initial = measure(name, replace(assumption_1_problem((5, 8, 60), 0.02), X=X), 0.02)
    found, odd = by_name(initial), ACTIVATIONS[name].odd
    assert ("antipodal" in initial.outside) == odd
    assert odd == (name in ("tanh", "sin", "erf", "identity"))
    if not odd:
        assert initial.computed.lambda_0 > 1e-9
        return
    assert initial.computed.lambda_star == initial.computed.lambda_0 == initial.safe.lambda_0 == 0
    assert initial.expansion.bound == 0
    sentence = initial.outside["antipodal"]
    assert sentence.startswith(f"samples 1 and 3 are antipodal and {name} is odd")
    assert not any(found[each].holds for each in ("theorem_2", "truong_coefficients", "truong_population", *PRINTED))
    assert all(sentence in found[each].source for each in ("theorem_2", *TRUONG[2:]))


def test_the_rows_that_each_recipe_has() -> None:
    relu, tanh = measured("relu", (3, 4, 30), 0.02), measured("tanh", (3, 4, 30), 0.02)
    assert certificates_of(relu) == CERTIFICATES
    assert [each.__name__ for each in certificates_of(tanh)[len(CERTIFICATES) :]] == list(TRUONG)
    assert relu.expansion is None
    monotone = replace(relu, scales=replace(relu.scales, monotonicity=0.5), monotonicity=0.4)
    assert [each.__name__ for each in certificates_of(monotone)[len(CERTIFICATES) :]] == ["monotone"]
    row = by_name(monotone)["monotone"]
    assert (row.lhs, row.rhs, row.holds, row.slack) == (0.4, 0.0, True, None)
    assert not by_name(replace(monotone, monotonicity=None))["monotone"].holds


@pytest.mark.parametrize("name", OTHERS)
def test_truong_s_rows(name: str) -> None:
    phi, initial = ACTIVATIONS[name], measured(name, (4, 30, 60), 0.02)
    found = by_name(initial)
    assert found["truong_sigma_w_sq"].lhs == pytest.approx(1 / (8 * phi.lipschitz**2), rel=1e-15)
    assert found["truong_sigma_w_sq"].lhs == found["assumption_1"].lhs
    derivatives = found["truong_derivatives"]
    assert (derivatives.lhs, derivatives.rhs, derivatives.slack) == (None, None, None)
    assert derivatives.holds == (phi.curvature is not None) == (name != "leaky_relu")
    coefficients = found["truong_coefficients"]
    assert (coefficients.lhs, coefficients.rhs) == (initial.expansion.bound, 0.0)
    assert coefficients.holds
    assert f"order {initial.expansion.order} decides" in coefficients.source
    population = found["truong_population"]
    assert 0 < coefficients.lhs < population.lhs < initial.computed.lambda_star < initial.safe.lambda_star
    assert list(initial.outside) == (["derivatives"] if name == "leaky_relu" else [])
    marked = {each for each, row in found.items() if "outside" in row.source}
    assert marked == ({"theorem_2", *TRUONG[2:]} if name == "leaky_relu" else set())


def test_gelu_outside_the_theory_says_so_in_every_row_that_assumes_it() -> None:
    initial = measured("gelu", (4, 5, 60), 0.2)
    found = by_name(initial)
    assert list(initial.outside) == ["assumption_1", "well_posed"]
    assert "1/(8 L^2) = 0.0980835" in initial.outside["assumption_1"]
    assert "L = 1.1289" in initial.outside["well_posed"]
    hypotheses = {"assumption_1", "assumption_2_norms", "assumption_2_parallel", "well_posed", *TRUONG[:2]}
    assert {each for each, row in found.items() if "outside its hypotheses" not in row.source} == hypotheses
    assert not any(found[each].holds for each in ("assumption_1", "well_posed", *ABOUT_TRAINING, TRUONG[0]))
    assert initial.error_bound is None
    assert best_delta(initial.safe) is None


def test_an_initialisation_of_another_law_claims_nothing_of_the_limit() -> None:
    departures = {"model": "A and B are trained, not W", "training": "train.momentum is 0.9"}
    p = assumption_1_problem((4, 5, 60), 0.02, 0.001, 0.001)
    for name in ("relu", "tanh"):
        initial = measure(
            name, p, 0.02, 0.001, gaussian_limit=False, spectral_norm_limit=None, departures=departures
        )  # fmt: skip
        found, spectra = by_name(initial), initial.spectra
        assert (initial.computed.lambda_star, initial.safe.lambda_star, initial.lambda_largest) == (None, None, None)
        assert (spectra.population_gram, spectra.population_ntk) == (None, None)
        assert (spectra.gram_deviation, spectra.ntk_deviation) == (None, None)
        assert (found["lemma_1"].lhs, found["lemma_1"].rhs) == (None, None)
        assert (found["theorem_2"].rhs, found["theorem_2"].holds) == (None, False)
        assert not any(row.repaired_by_width for row in found.values())
        assert initial.outside.keys() == {"limit", "model", "training"}
        marked = {each for each, row in found.items() if all(text in row.source for text in departures.values())}
        assert marked == set(ABOUT_TRAINING)
        assert initial.outside["limit"] in found["theorem_2"].source
    assert initial.expansion.listed == ()
    assert (found["truong_coefficients"].lhs, found["truong_population"].lhs) == (None, None)
    assert found["well_posed"].holds


def test_an_orthogonal_w_has_a_limit_of_its_own() -> None:
    limit = math.sqrt(2 * 0.02)
    scales = Scales(0.02, 1.0, spectral_norm_limit=limit)
    p = assumption_1_problem((4, 5, 60), 0.02)
    p = replace(p, W=np.linalg.qr(p.W)[0] * limit)
    found = by_name(measure_initial(solved("relu", p), scales))
    assert found["well_posed"].limit == pytest.approx(1 / limit, rel=1e-15)
    assert found["lemma_1"].lhs == limit
    gaussian = by_name(measure_initial(solved("relu", p), Scales(0.02, 1.0)))
    ratio = ((1 - limit) / (1 - 2 * limit)) ** 4
    assert found["condition_1_eq_9"].limit == pytest.approx(ratio * gaussian["condition_1_eq_9"].limit, rel=1e-12)


def test_scales_are_those_of_gaussian_weights_unless_given() -> None:
    assert Scales(0.08, 1.0).spectral_norm_limit == 2 * math.sqrt(2 * 0.08)
    assert Scales(0.08, 1.0, spectral_norm_limit=None).spectral_norm_limit is None
    assert replace(Scales(0.08, 1.0, spectral_norm_limit=0.4), readout_scale=2.0).spectral_norm_limit == 0.4
    assert Scales(0.08, 1.0) == Scales(0.08, 1.0, 1.0, 0.0)


@pytest.mark.parametrize("name", ["sigmoid", "gelu", "tanh"])
def test_the_slack_of_9_approaches_its_limit(name: str) -> None:
    """With L and phi(0) in it: within 15 % at m = 1500, at a radius of 1e-9; and `Expected` has the same limit."""
    p = assumption_1_problem((4, 4, 1500), 0.005)
    initial = measure(name, p, 0.005)
    limit = by_name(initial)["condition_1_eq_9_with_8"].limit
    assert initial.safe.lambda_0 / rhs_9(initial.safe, 1e-9, 8.0) == pytest.approx(limit, rel=0.15)
    expected = Expected.of(kernel(name, p.X, 0.005)[0], torch.tensor(p.X), torch.tensor(p.y))
    assert expected.limit_of_9 == pytest.approx(limit, rel=1e-9)
    sizes = expected.sizes(10**10)
    assert sizes.lambda_0 / rhs_9(sizes, 1e-9, 8.0) == pytest.approx(limit, rel=1e-3)


def monotone_problem(m: int, mu: float, size: float, seed: int = 0) -> Problem:
    """W = (1 - mu) I - A^T A + B - B^T, of a norm that grows with the size."""
    rng = np.random.default_rng(seed)
    A, B = (size * rng.standard_normal((m, m)) / math.sqrt(m) for _ in range(2))
    return replace(draw_problem(4, 5, m, seed=seed), W=(1 - mu) * np.eye(m) - A.T @ A + B - B.T)


@pytest.mark.parametrize("size", [0.0, 0.1, 1.0, 30.0])
@pytest.mark.parametrize("mu", [1e-3, 0.5, 2.0])
def test_a_lower_bound_of_the_monotonicity(mu: float, size: float) -> None:
    """Never above the eigenvalue, near mu; of a W that is not monotone there is none."""
    p = monotone_problem(40, mu, size)
    least_eigenvalue = np.linalg.eigvalsh(np.eye(40) - (p.W + p.W.T) / 2)[0]
    lower = monotonicity_lower(torch.tensor(p.W), mu)
    assert mu * (1 - 1e-6) - 1e-9 <= lower <= min(mu, least_eigenvalue + 1e-13)
    assert monotonicity_lower(torch.tensor(p.W) + (mu + size**2 * 5 + 1) * torch.eye(40), mu) is None


@pytest.mark.parametrize("name", ["relu", "tanh", "sigmoid", "softplus"])
def test_the_error_bound_of_monotone_weights(name: str) -> None:
    """||W||_2 > 1 and no contraction: the equilibrium by damped steps, stopped early, is within the bound."""
    p, phi, bounds = monotone_problem(30, 0.5, 0.7), ACTIVATIONS[name], []
    assert np.linalg.norm(p.W, 2) > 1.2
    W, U, a, X = (torch.tensor(each) for each in (p.W, p.U, p.a, p.X))
    points, Z = [], torch.zeros(30, 4, dtype=torch.float64)
    for _ in range(3000):
        image = torch.empty_like(Z)
        phi.value(W @ Z + U @ X, out=image)
        points.append((Z, image))
        Z = Z + 0.1 * (image - Z)
    for Z_now, image in points[5:200:5]:
        network = Network(Params(W, U, a), X, Component(phi, Picard()))
        network.equilibrium.point.copy_(Z_now.mT)
        residual = float((image - Z_now).norm() / Z_now.norm())
        scales = Scales(0.1, 1.0, gaussian_limit=False, spectral_norm_limit=None, monotonicity=0.5)
        initial = measure_initial(SolvedDraw(network, X, torch.tensor(p.y), residual), scales)
        bounds.append(initial.error_bound)
        assert float((Z_now - Z).norm() / Z_now.norm()) <= bounds[-1]
        assert (best_delta(initial.safe) is None) == (phi.lipschitz == 1)
    assert len(bounds) == 39
    assert max(bounds) > 100 * min(bounds)


def test_gelu_has_no_error_bound_by_monotonicity() -> None:
    """It is neither nondecreasing nor has it L <= 1."""
    p = monotone_problem(30, 0.5, 0.2)
    p = replace(p, W=p.W / np.linalg.norm(p.W, 2) * 0.95)
    initial = measure("gelu", p, 0.1, monotonicity=0.04)
    assert initial.safe.contraction > 1
    assert initial.error_bound is None


def test_every_extra_row_has_a_docstring_that_reads_lhs_over_rhs() -> None:
    rows = [each for each in certificates_of(measured("tanh", (3, 4, 30), 0.02)) if each not in CERTIFICATES]
    assert len(rows) == 4
    assert all(each.__doc__ for each in rows)
