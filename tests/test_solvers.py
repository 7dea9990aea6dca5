"""Solvers: what their status, residual and error bound promise, and the numbers that used to fool such promises."""

import math
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from deqcli.deq.activations import ACTIVATIONS
from deqcli.deq.continuation import Continuation
from deqcli.deq.equations import Equation
from deqcli.deq.solvers import (
    Picard,
    Solution,
    Solver,
    Status,
    error_bound,
    frobenius_norms,
    ratio_of_norms,
    usual_rounding,
)  # fmt: skip
from tests.dense import (
    Problem,
    adjoint_fixed,
    dense_adjoint,
    draw_problem,
    equilibrium,
    equilibrium_fixed,
    fixed_point,
    floating,
    network_of,
    network_with,
)
from tests.solving import DTYPES, TIGHT, closed_form, distance, dying, honest, positive_problem, residual_at, rounded

both_plain = pytest.mark.parametrize("kind", [Picard, Continuation])
"""Solvers that do nothing but iterate, from wherever."""
EPS = {"float32": 2.0**-23, "float64": 2.0**-52}


@dataclass(frozen=True)
class Recorder(Equation):
    """An equation that remembers where it was evaluated."""

    points: list[Tensor] = field(default_factory=list)

    def preactivation(self, point: Tensor, out: Tensor) -> None:
        self.points.append(point.clone())
        super().preactivation(point, out)


def solve_recorded(p: Problem, **options: object) -> tuple[Solution, list[Tensor], Tensor, Tensor]:
    """Solve from 0; where the layer was evaluated, and the point and pre-activation that were handed in: all (n, m)."""
    equation = Recorder(torch.tensor(p.W).mT, torch.tensor((p.U @ p.X).T), ACTIVATIONS["relu"])
    point, preactivation = torch.zeros_like(equation.offset), torch.empty_like(equation.offset)
    solution = Picard(**options).plainly(equation, point, preactivation, torch.empty_like(point))
    return solution, equation.points, point, preactivation


@pytest.mark.parametrize("iterations", [1, 2, 3, 4, 500])
def test_residual_and_last_evaluation_belong_to_the_tensors_handed_in(iterations: int) -> None:
    """At either parity of the swaps, and after convergence."""
    p = draw_problem(5, 4, 20)
    solution, points, point, preactivation = solve_recorded(p, max_iterations=iterations)
    assert solution.status is (Status.CONVERGED if iterations == 500 else Status.EXHAUSTED)
    assert torch.equal(points[-1], point)
    assert preactivation.numpy() == pytest.approx((p.W @ point.T.numpy() + p.U @ p.X).T, rel=1e-13, abs=1e-13)
    assert not points[0].any()
    assert len(points) == solution.iterations
    assert solution.residual == pytest.approx(residual_at(p, point.T.numpy()), rel=1e-10, abs=1e-15)


@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-8, 1e-12])
def test_convergence_means_the_tolerance_and_not_an_iteration_more(tolerance: float) -> None:
    p = draw_problem(5, 4, 20)
    solution, points, _, _ = solve_recorded(p, tolerance=tolerance)
    assert solution.status is Status.CONVERGED
    assert solution.residual <= tolerance
    assert residual_at(p, points[-2].T.numpy()) > tolerance


@pytest.mark.parametrize("tolerance", [1e-1, 1e-3, 1e-6])
@pytest.mark.parametrize("norm", [0.1, 0.5, 0.8, 0.99])
def test_the_error_bound_bounds_the_error(norm: float, tolerance: float) -> None:
    p = draw_problem(5, 4, 20, norm=norm)
    network = network_of(p, tolerance=tolerance)
    solution = network.solve_equilibrium()
    image = np.maximum(p.W @ network.Z.numpy() + p.U @ p.X, 0.0)
    error = np.linalg.norm(network.Z.numpy() - equilibrium(p)) / np.linalg.norm(image)
    assert 0 < error <= error_bound(solution.residual, norm, usual_rounding(20, 4, "float64"))


def references(p: Problem, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Z* and V* (m, n) in fixed point: float64 routes for a float32 network, integers for a float64 one."""
    if dtype == "float32":
        return fixed_point(equilibrium(p)), fixed_point(dense_adjoint(p))
    return equilibrium_fixed(p), adjoint_fixed(p)


@pytest.mark.parametrize("norm", [0.1, 0.5, 0.8])
@pytest.mark.parametrize(("dtype", "seeds"), [("float32", 16), ("float64", 5)])
def test_the_error_bound_allows_for_rounding(dtype: str, seeds: int, norm: float) -> None:
    """Equilibrium and adjoint, at the usual tolerance and iterated until only rounding is left.

    There, the residual alone, often exactly 0, would be no bound; at 0.8 an endless cycle keeps it large enough.
    """
    beyond_residual = 0
    for seed in range(seeds):
        p = rounded(draw_problem(5, 20, 100, norm, seed), DTYPES[dtype])
        q, wanted = float(np.linalg.norm(p.W, 2)), references(p, dtype)
        for tolerance in ("auto", 1e-30):
            network = network_of(p, DTYPES[dtype], tolerance=tolerance, max_iterations=150)
            solutions = network.solve_equilibrium(), network.solve_adjoint()
            for solution, point, exact in zip(solutions, (network.Z, network.V), wanted, strict=True):
                distance = floating(fixed_point(point.double().numpy()) - exact)
                error = np.linalg.norm(distance) / np.linalg.norm(floating(exact))
                assert 0 < error <= error_bound(solution.residual, q, usual_rounding(100, 20, dtype))
                beyond_residual += error > solution.residual / (1 - q)
    assert norm == 0.8 or beyond_residual > seeds / 2


@pytest.mark.parametrize("q", [0.25, 0.5, 0.875])
def test_the_error_bound_is_attained(q: float) -> None:
    """F(z) = q z + 1 with z* = 1/(1 - q): |z - z*| is exactly |F(z) - z|/(1 - q), and rounding comes on top."""
    point = torch.zeros(1, dtype=torch.float64)
    solution = Picard(max_iterations=3).iterate(lambda z, out: out.copy_(q * z + 1), point, torch.empty_like(point))
    z = float(point)
    wanted = abs(z - 1 / (1 - q)) / (q * z + 1)
    assert error_bound(solution.residual, q, 0.0) == pytest.approx(wanted, rel=1e-13)
    assert error_bound(solution.residual, q, 0.25) == pytest.approx(wanted + 0.25 / (1 - q), rel=1e-13)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_usual_rounding_is_eps_times_the_root_of_the_number_of_terms(dtype: str) -> None:
    assert usual_rounding(1, 0, dtype) == torch.finfo(DTYPES[dtype]).eps
    assert usual_rounding(300, 100, dtype) == pytest.approx(20 * EPS[dtype], rel=1e-14)


def test_an_endless_residual_has_an_endless_bound() -> None:
    assert error_bound(math.inf, 0.5, 0.0) == math.inf


@pytest.mark.parametrize("contraction", [1.0, 1.5, math.inf, math.nan])
def test_without_contraction_there_is_no_error_bound(contraction: float) -> None:
    assert error_bound(1e-9, contraction, 0.0) is None


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_expanding_network_is_never_called_converged(dtype: str) -> None:
    """||W||_2 = 3.75: float32 overflows on the way; the norms' ratio must not turn that into a 0."""
    p = draw_problem(10, 20, 200, norm=3.75)
    network = network_of(p, DTYPES[dtype], max_iterations=5000)
    solution = network.solve_equilibrium()
    assert solution.status is Status.DIVERGED
    assert not math.isfinite(solution.residual)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_input_that_is_not_finite_is_a_divergence(value: float, dtype: str) -> None:
    p = draw_problem(3, 4, 5)
    p.X[1, 2] = value
    solution = network_of(p, DTYPES[dtype]).solve_equilibrium()
    assert (solution.status, solution.iterations) == (Status.DIVERGED, 1)


SCALES = [("float32", 2.0**-83), ("float32", 2.0**-110), ("float32", 2.0**100), ("float32", 2.0**120)]
SCALES += [("float64", 2.0**k) for k in (-900, -565, -400, 400, 565, 1000)]
"""Powers of two, which change no rounding: about 1e-25, 1e-33, 1e30, 1e36; 1e-271, 1e-170, 1e-120 and inversely."""


@pytest.mark.parametrize(("dtype", "scale"), SCALES)
def test_the_residual_does_not_depend_on_the_scale(dtype: str, scale: float) -> None:
    p, solutions = draw_problem(5, 4, 20), []
    for factor in (1.0, scale):
        network = network_of(replace(p, X=p.X * factor), DTYPES[dtype])
        solutions.append(network.solve_equilibrium())
    one, scaled = solutions
    assert (scaled.status, scaled.iterations) == (one.status, one.iterations) == (Status.CONVERGED, one.iterations)
    assert scaled.residual == pytest.approx(one.residual, rel=1e-3)


@pytest.mark.parametrize(("dtype", "scale"), SCALES)
def test_no_scale_hides_a_failure(dtype: str, scale: float) -> None:
    """F(z) = -z has residual 2 at every z but 0."""
    point = torch.full((4, 3), scale, dtype=DTYPES[dtype])
    solution = Picard(max_iterations=10).iterate(lambda z, out: out.copy_(-z), point, torch.empty_like(point))
    assert solution.status is Status.EXHAUSTED
    assert solution.residual == pytest.approx(2.0, rel=1e-6)


@pytest.mark.parametrize(("dtype", "scale"), [*SCALES, ("float32", 1.0), ("float64", 1.0), ("float32", 2.0**-140)])
def test_frobenius_norms_against_exact_arithmetic(dtype: str, scale: float) -> None:
    numbers = torch.tensor([[3.0, -4.0], [12.0, 84.0]], dtype=DTYPES[dtype])  # norm 85 = sqrt(9 + 16 + 144 + 7056)
    got = frobenius_norms(numbers * scale, numbers / 4 * scale, torch.zeros_like(numbers))
    assert got == pytest.approx([85 * scale, 85 / 4 * scale, 0.0], rel=1e-6, abs=0)


def test_a_norm_is_not_made_of_squares_that_lost_their_digits() -> None:
    """1.7e-22 squared is a subnormal float32 with 4 bits; the sum of a thousand is off by per cents."""
    small = torch.full((1000,), 1.7e-22)
    assert frobenius_norms(small) == pytest.approx([math.sqrt(1000) * float(small[0])], rel=1e-6, abs=0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_norms_of_numbers_that_are_none_are_not_finite(dtype: str) -> None:
    nan, inf = (torch.tensor([[value, 1.0]], dtype=DTYPES[dtype]) for value in (math.nan, -math.inf))
    found = frobenius_norms(nan, inf, torch.ones(4, 1, dtype=DTYPES[dtype]))
    assert math.isnan(found[0])
    assert found[1:] == [math.inf, 2.0]


def relative_residual(point: torch.Tensor, image: torch.Tensor) -> float:
    """As the solvers have it."""
    size, distance = frobenius_norms(image, image - point)
    return ratio_of_norms(distance, size)


@pytest.mark.parametrize("dtype", DTYPES)
def test_relative_residuals_of_zero_and_of_nonsense(dtype: str) -> None:
    zero, one = torch.zeros(2, 3, dtype=DTYPES[dtype]), torch.ones(2, 3, dtype=DTYPES[dtype])
    assert relative_residual(zero, zero) == 0
    assert relative_residual(one, zero) == math.inf
    assert relative_residual(zero, one) == 1
    for value in (math.nan, math.inf):
        assert math.isnan(relative_residual(one, value * one))
        assert math.isnan(relative_residual(value * one, zero))


@pytest.mark.parametrize("scale", [1e-170, 1e170])
def test_the_adjoint_of_a_readout_at_the_edge_of_the_floats(scale: float) -> None:
    """V is linear in a, and no square of an entry is a float."""
    p = draw_problem(5, 4, 20)
    network = network_of(replace(p, a=p.a * scale), tolerance=1e-14)
    assert [network.solve_equilibrium().status, network.solve_adjoint().status] == [Status.CONVERGED] * 2
    wanted = dense_adjoint(p)
    assert np.linalg.norm(network.V.numpy() / scale - wanted) <= 1e-12 * np.linalg.norm(wanted)


@pytest.mark.parametrize("scale", [1e-170, 1e170])
def test_the_equilibrium_of_an_injection_at_the_edge_of_the_floats(scale: float) -> None:
    """Z is positively homogeneous in U."""
    p = draw_problem(5, 4, 20)
    network = network_of(replace(p, U=p.U * scale), tolerance=1e-14)
    assert network.solve_equilibrium().status is Status.CONVERGED
    wanted = equilibrium(p)
    assert np.linalg.norm(network.Z.numpy() / scale - wanted) <= 1e-12 * np.linalg.norm(wanted)


def test_dead_units_are_an_equilibrium_with_residual_zero() -> None:
    network = network_of(dying(draw_problem(5, 4, 20)))
    for solution in (network.solve_equilibrium(), network.solve_adjoint()):
        assert (solution.status, solution.residual, solution.iterations) == (Status.CONVERGED, 0.0, 1)
    assert not any(tensor.any() for tensor in (network.Z, network.V, network.slope))


@both_plain
@pytest.mark.parametrize("dtype", DTYPES)
def test_units_that_die_between_two_solves_are_found_dead(dtype: str, kind: type[Solver]) -> None:
    """From the Z and V of living units. On the way an image is exactly 0 and the point is not: no divergence."""
    p = draw_problem(5, 4, 20)
    network = network_with(kind(), replace(p, X=np.abs(p.X)), DTYPES[dtype])
    network.solve_equilibrium()
    network.solve_adjoint()
    assert network.Z.any()
    assert network.V.any()
    network.injection.value.abs_().neg_()
    for solution in (network.solve_equilibrium(), network.solve_adjoint()):
        assert (solution.status, solution.residual) == (Status.CONVERGED, 0.0)
        assert solution.iterations >= 2
    assert not any(tensor.any() for tensor in (network.Z, network.V, network.slope))


@pytest.mark.parametrize(("iterations", "point", "residual"), [(7, 0.0, 1.0), (8, 1.0, math.inf), (500, 1.0, math.inf)])
@pytest.mark.parametrize("dtype", DTYPES)
@both_plain
def test_an_orbit_through_zero_is_no_divergence(
    kind: type[Solver], dtype: str, iterations: int, point: float, residual: float
) -> None:
    """z = relu(-2 z + 1) goes 0, 1, 0, 1, ... for ever, though 1/3 is its equilibrium."""
    one = np.ones((1, 1))
    p = Problem(-2 * one, one, np.ones(1), one, np.ones(1))
    network = network_with(kind(max_iterations=iterations), p, DTYPES[dtype])
    solution = network.solve_equilibrium()
    assert (solution.status, solution.iterations) == (Status.EXHAUSTED, iterations)
    assert (network.Z.item(), solution.residual) == (point, residual)


@both_plain
@pytest.mark.parametrize(("dtype", "exponents"), [("float32", range(50, 68)), ("float64", range(496, 516))])
def test_an_equilibrium_that_outgrows_the_range_of_squares_is_found(
    dtype: str, exponents: range, kind: type[Solver]
) -> None:
    """Squares of the first image are floats, those of the solution are not: that is no overflow."""
    p = rounded(positive_problem(0.9), DTYPES[dtype])
    for exponent in exponents:
        scaled = replace(p, U=p.U * 2.0**exponent, a=p.a * 2.0**exponent)
        network = network_with(kind(), scaled, DTYPES[dtype])
        assert [network.solve_equilibrium().status, network.solve_adjoint().status] == [Status.CONVERGED] * 2
        for found, wanted in zip((network.Z, network.V), closed_form(p), strict=True):
            assert distance(found.double() / 2.0**exponent, wanted) <= 100 * TIGHT[dtype]


@both_plain
def test_no_status_is_a_lie(kind: type[Solver]) -> None:
    """120 random networks, ||W||_2 from 0.1 to 6: converged exactly where the float64 residual says so."""
    statuses = [honest(kind(), seed) for seed in range(120)]
    counts = [statuses.count(status) for status in Status]
    assert sum(counts) == 120
    assert min(counts) >= 10


@pytest.mark.parametrize(
    "options",
    [{"tolerance": t} for t in (0.0, 1.0, -1e-6, math.nan, math.inf, "tight")]
    + [{"max_iterations": k} for k in (0, -1, 1.5)]
    + [{"kind": "newton"}, {"tolerence": 1e-6}],
    ids=str,
)
def test_options_that_make_no_sense_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(options))):
        Picard(**options)


def test_the_automatic_tolerance_follows_the_precision() -> None:
    assert [Picard().tolerance_for(dtype) for dtype in DTYPES] == [1e-6, 1e-12]
    assert Picard(tolerance=1e-3).tolerance_for("float64") == 1e-3


def test_every_status_has_a_sentence_of_its_own() -> None:
    assert len({status.sentence for status in Status}) == 3
