"""`ForwardBackward` and `PeacemanRachford`: monotone networks of any norm, against Newton's method and dense solves."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from deqcli.deq.activations import ACTIVATIONS
from deqcli.deq.equations import Equation
from deqcli.deq.kinds import SolverOptions
from deqcli.deq.solvers import Picard, Solution, Solver, Status
from deqcli.deq.splitting import ForwardBackward, PeacemanRachford, Reflections, Splitting
from deqcli.deq.track import Track, Workspace
from tests import monotone
from tests.monotone import MonotoneProblem, dense_adjoint, dense_equilibrium, dense_preactivation, draw_monotone
from tests.solving import honest

KINDS: dict[str, type[Splitting]] = {"forward_backward": ForwardBackward, "peaceman_rachford": PeacemanRachford}
every_kind = pytest.mark.parametrize("kind", KINDS)
every_activation = pytest.mark.parametrize("activation", monotone.ACTIVATIONS)


def equilibrium_of(p: MonotoneProblem, dtype: torch.dtype = torch.float64) -> Equation:
    W, UX = (torch.tensor(array, dtype=dtype) for array in (p.W, p.UX))
    return Equation(W.mT, UX.mT.contiguous(), ACTIVATIONS[p.activation])


def adjoint_of(p: MonotoneProblem, dtype: torch.dtype = torch.float64) -> Equation:
    D = monotone.ACTIVATIONS[p.activation][1](dense_preactivation(p)).T.copy()
    W, a, D = (torch.tensor(array, dtype=dtype) for array in (p.W, p.a, D))
    return Equation(W, a[None], ACTIVATIONS[p.activation], D)


def solve(solver: Solver, equation: Equation, n: int, start: Tensor | None = None) -> tuple[Solution, Track]:
    """From P = 0, or from `start`."""
    like = equation.matrix.new_zeros((n, equation.matrix.shape[-1]))
    track = Track(like, solver.equilibrium_order, Workspace(like))
    if start is not None:
        track.preactivation.copy_(start)
    (solution,) = solver.solve(equation, track, [True])
    return solution, track


def distance(found: Tensor, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found.mT.double().numpy() - wanted) / np.linalg.norm(wanted))


def residual_of(equation: Equation, track: Track) -> float:
    """||F(z) - z||/||F(z)|| in numpy, of the very point that was left."""
    z, A, B = (tensor.double().numpy() for tensor in (track.point, equation.matrix, equation.offset))
    P = z @ A + B
    assert np.linalg.norm(track.preactivation.double().numpy() - P) <= 1e-6 * np.linalg.norm(P)
    phi = monotone.ACTIVATIONS[equation.activation.name][0]
    image = phi(P) if equation.slope is None else equation.slope.double().numpy() * P
    return float(np.linalg.norm(image - z) / np.linalg.norm(image))


@every_kind
@every_activation
@pytest.mark.parametrize(("scale", "least", "most"), [(1.0, 1.2, 2.0), (2.0, 3.0, 5.0)])
def test_random_starts_meet_the_one_equilibrium(
    kind: str, activation: str, scale: float, least: float, most: float
) -> None:
    p = draw_monotone(6, 5, 30, scale=scale, activation=activation)
    assert least < np.linalg.norm(p.W, 2) < most
    wanted, generator = dense_equilibrium(p), torch.Generator().manual_seed(0)
    for size in (0.0, 1.0, 100.0):
        start = size * torch.randn(6, 30, generator=generator, dtype=torch.float64)
        solution, track = solve(KINDS[kind](max_iterations=2000), equilibrium_of(p), 6, start)
        assert (solution.status, solution.confirmed) == (Status.CONVERGED, True)
        assert distance(track.point, wanted) <= 1e-10
        assert distance(track.preactivation, dense_preactivation(p)) <= 1e-10


@every_kind
@every_activation
def test_the_adjoint_against_a_dense_solve(kind: str, activation: str) -> None:
    p = draw_monotone(6, 5, 30, scale=2.0, activation=activation)
    solution, track = solve(KINDS[kind](max_iterations=2000), adjoint_of(p), 6)
    assert solution.status is Status.CONVERGED
    assert distance(track.point, dense_adjoint(p)) <= 1e-10


def test_plain_iteration_diverges_there() -> None:
    p = draw_monotone(6, 5, 60, scale=3.0)
    solution, _ = solve(Picard(max_iterations=2000), equilibrium_of(p), 6)
    assert solution.status is Status.DIVERGED
    for kind in KINDS.values():
        assert solve(kind(max_iterations=1000), equilibrium_of(p), 6)[0].status is Status.CONVERGED


@pytest.mark.parametrize("equation_of", [equilibrium_of, adjoint_of])
def test_peaceman_rachford_converges_for_every_alpha_and_forward_backward_for_small_ones(equation_of) -> None:
    """Winston and Kolter 2020: any alpha > 0 will do, and it takes fewer iterations at the best of each."""
    equation = equation_of(draw_monotone(6, 5, 40, scale=3.0))
    iterations: dict[str, dict[float, int]] = {"forward_backward": {}, "peaceman_rachford": {}}
    for alpha in (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0):
        solution, track = solve(PeacemanRachford(alpha=alpha, max_iterations=4000), equation, 6)
        assert solution.status is Status.CONVERGED
        assert residual_of(equation, track) <= 1.1e-12
        iterations["peaceman_rachford"][alpha] = solution.iterations
    for alpha in (0.03, 0.1, 0.5, 1.0):
        solution, track = solve(ForwardBackward(alpha=alpha, max_iterations=1500), equation, 6)
        assert (solution.status is Status.CONVERGED) == (alpha <= 0.1)
        iterations["forward_backward"][alpha] = solution.iterations
    assert min(iterations["peaceman_rachford"].values()) < 0.7 * min(iterations["forward_backward"].values())


def test_forward_backward_converges_below_its_bound() -> None:
    """2 mu/||I - W||^2, and by the contraction that the theory gives."""
    for seed in range(3):
        p = draw_monotone(5, 4, 20, mu=0.5, scale=1.5, seed=seed)
        size = np.linalg.norm(np.eye(20) - p.W, 2)
        for share in (0.5, 0.95):
            alpha = min(share * 2 * p.mu / size**2, 1.0)
            contraction = math.sqrt(1 - 2 * alpha * p.mu + alpha**2 * size**2)
            most = math.ceil(math.log(1e-13 * alpha) / math.log(contraction))
            solution, _ = solve(ForwardBackward(alpha=alpha, max_iterations=most), equilibrium_of(p), 5)
            assert solution.status is Status.CONVERGED


def test_forward_backward_with_alpha_1_is_plain_iteration() -> None:
    p = draw_monotone(6, 5, 30, scale=0.5)
    (plain, wanted), (found, track) = (solve(s, equilibrium_of(p), 6) for s in (Picard(), ForwardBackward(alpha=1)))
    assert found == plain
    assert torch.equal(track.point, wanted.point)


@pytest.mark.parametrize(("mu", "scale"), [(0.5, 0.5), (0.5, 1.0), (0.5, 1.5), (0.5, 2.0), (0.5, 3.0), (0.1, 2.0)])
def test_the_automatic_step_is_nearly_the_best_power_of_2(mu: float, scale: float) -> None:
    """At most a third more products than the best, and 10 for finding it."""
    equation = equilibrium_of(draw_monotone(6, 10, 40, mu, scale))
    fixed = [solve(ForwardBackward(alpha=2.0**-k, max_iterations=600), equation, 6)[0] for k in range(6)]
    best = min(solution.iterations for solution in fixed if solution.status is Status.CONVERGED)
    found, _ = solve(ForwardBackward(max_iterations=600), equation, 6)
    assert found.status is Status.CONVERGED
    assert found.iterations <= 4 / 3 * best + 10


@dataclass(frozen=True)
class Recorder(Equation):
    """An equation that counts its products."""

    products: list[int] = field(default_factory=list)

    def preactivation(self, point: Tensor, out: Tensor) -> None:
        self.products.append(1)
        super().preactivation(point, out)


@pytest.mark.parametrize("solver", [ForwardBackward(), PeacemanRachford(), PeacemanRachford(alpha=0.1)], ids=str)
@pytest.mark.parametrize("most", [1, 2, 3, 4, 7, 30, 2000])
def test_products_are_counted_and_the_residual_is_that_of_the_point_left(
    solver: Splitting, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    p, linear_solves, lu_solve = draw_monotone(6, 5, 30, scale=1.5), [], torch.linalg.lu_solve
    monkeypatch.setattr(torch.linalg, "lu_solve", lambda *a, **k: linear_solves.append(1) or lu_solve(*a, **k))
    solver = solver.model_copy(update={"max_iterations": most})
    for plain in (equilibrium_of(p), adjoint_of(p)):
        equation = Recorder(plain.matrix, plain.offset, plain.activation, plain.slope)
        linear_solves.clear()
        solution, track = solve(solver, equation, 6)
        assert solution.iterations == len(equation.products) + len(linear_solves)
        assert max(1, most - 1) <= solution.iterations <= most or solution.status is Status.CONVERGED
        assert solution.residual == pytest.approx(residual_of(equation, track), rel=1e-6, abs=1e-15)
        assert solution.status is (Status.CONVERGED if solution.residual <= 1e-12 else Status.EXHAUSTED)
        assert (solution.status is Status.CONVERGED) == (most == 2000)
        assert bool(linear_solves) == (isinstance(solver, PeacemanRachford) and most > 2)


@every_kind
@every_activation
def test_float32_reaches_its_tolerance(kind: str, activation: str) -> None:
    p = draw_monotone(6, 5, 30, scale=1.5, activation=activation)
    for equation in (equilibrium_of(p, torch.float32), adjoint_of(p, torch.float32)):
        solution, track = solve(KINDS[kind](), equation, 6)
        assert solution.status is Status.CONVERGED
        assert residual_of(equation, track) <= 1.2e-6


@pytest.mark.parametrize("alpha", [0.1, 0.3, 1.0, 3.0])
def test_refined_linear_solves_take_float32_to_its_tolerance(alpha: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """||W||_2 = 8; without refinement, rounding that piles up keeps the smallest alpha from it."""
    p = draw_monotone(6, 5, 100, scale=3.0)
    equation, solver = equilibrium_of(p, torch.float32), PeacemanRachford(alpha=alpha)
    solution, track = solve(solver, equation, 6)
    assert solution.status is Status.CONVERGED
    assert distance(track.point, dense_equilibrium(p)) <= 1e-5
    monkeypatch.setattr(Reflections, "refine", lambda reflections: None)
    without, _ = solve(solver, equation, 6)
    assert (without.status is Status.CONVERGED) == (alpha > 0.1)


@every_kind
def test_a_matrix_in_lower_precision_than_the_point(kind: str) -> None:
    """As a float32 network is measured in float64."""
    p = draw_monotone(6, 5, 30, scale=1.5)
    exact = equilibrium_of(p)
    lower = replace(exact, matrix=exact.matrix.float())
    like = torch.zeros_like(exact.offset)
    track = Track(like, 1, Workspace(like))
    (solution,) = KINDS[kind]().solve(lower, track, [True])
    assert solution.status is Status.CONVERGED
    assert residual_of(lower, track) <= 1.1e-12


@every_kind
@pytest.mark.parametrize("exponent", [-100, 100])
def test_the_solution_scales_with_injection_and_readout(kind: str, exponent: int) -> None:
    """By 1e-30 and 1e30 in float32, whose squares are no floats; no fallback to plain iteration, which diverges."""
    p = draw_monotone(6, 5, 30, scale=2.0)
    scaled = replace(p, UX=p.UX * 2.0**exponent, a=p.a * 2.0**exponent)
    for equation, wanted in ((equilibrium_of, dense_equilibrium(p)), (adjoint_of, dense_adjoint(p))):
        solution, track = solve(KINDS[kind](), equation(scaled, torch.float32), 6)
        assert solution.status is Status.CONVERGED
        assert distance(track.point.double() / 2.0**exponent, wanted) <= 1e-4


@every_kind
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_input_that_is_not_finite_is_a_divergence(kind: str, value: float) -> None:
    p = draw_monotone(3, 4, 5)
    p.UX[1, 2] = value
    assert solve(KINDS[kind](), equilibrium_of(p), 3)[0].status is Status.DIVERGED
    p = draw_monotone(3, 4, 5)
    p.A[1, 2] = value
    assert solve(KINDS[kind](), equilibrium_of(p), 3)[0].status is Status.DIVERGED


def test_a_linear_system_that_is_singular_is_a_divergence() -> None:
    """I + alpha (I - W) = 0 for W = 2 I and alpha = 1, and z = relu(2 z + 1) has no solution at all."""
    equation = Equation(2 * torch.eye(3), torch.ones(2, 3), ACTIVATIONS["relu"])
    assert solve(PeacemanRachford(alpha=1.0), equation, 2)[0].status is Status.DIVERGED


@every_kind
def test_networks_without_an_equilibrium_are_not_said_to_have_one(kind: str) -> None:
    equation = Equation(2 * torch.eye(3), torch.ones(2, 3), ACTIVATIONS["relu"])
    for alpha in (0.3, 0.7):
        solution, _ = solve(KINDS[kind](alpha=alpha), equation, 2)
        assert solution.status is not Status.CONVERGED
    assert solve(ForwardBackward(max_iterations=3000), equation, 2)[0].status is not Status.CONVERGED


@every_kind
def test_no_status_is_a_lie(kind: str) -> None:
    """Random networks, ||W||_2 from 0.1 to 6, most of them not monotone: converged where float64 residuals say so."""
    with np.errstate(over="ignore", invalid="ignore"):
        statuses = [honest(KINDS[kind](), seed) for seed in range(40)]
    assert statuses.count(Status.CONVERGED) >= 5
    assert statuses.count(Status.EXHAUSTED) >= 7


@every_kind
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_units_that_die_between_two_solves_are_found_dead(kind: str, dtype: torch.dtype) -> None:
    """On the way an image is exactly 0 and the point is not: a residual that is infinite, and no divergence."""
    p = draw_monotone(5, 4, 20, scale=2.0)
    equation, dead = equilibrium_of(p, dtype), equilibrium_of(replace(p, UX=-np.abs(p.UX)), dtype)
    _, living = solve(KINDS[kind](), equation, 5)
    assert living.point.any()
    (solution,) = KINDS[kind](max_iterations=2000).solve(dead, living, [True])
    assert (solution.status, solution.residual) == (Status.CONVERGED, 0.0)
    assert not living.point.any()
    no_slope = replace(adjoint_of(p, dtype), slope=torch.zeros_like(living.point))
    solution, track = solve(KINDS[kind](), no_slope, 5, torch.ones_like(living.point))
    assert (solution.status, solution.residual) == (Status.CONVERGED, 0.0)
    assert not track.point.any()


def test_an_orbit_through_zero_is_left() -> None:
    """z = relu(-2 z + 1) goes 0, 1, 0, 1, ... under plain iteration; 1/3 is its equilibrium."""
    equation = Equation(torch.tensor([[-2.0]]).double(), torch.ones(1, 1).double(), ACTIVATIONS["relu"])
    assert solve(Picard(), equation, 1)[0].status is Status.EXHAUSTED
    for kind in KINDS.values():
        solution, track = solve(kind(), equation, 1)
        assert solution.status is Status.CONVERGED
        assert track.point.item() == pytest.approx(1 / 3, rel=1e-12)


@pytest.mark.parametrize("alpha", [0.01, 0.3, 1.0, 3.0, 100.0])
@every_activation
def test_resolvents_against_their_definition(activation: str, alpha: float) -> None:
    """z = g(t) and alpha t + (1 - alpha) z = v, of both equations; `v` is left alone."""
    phi, p = monotone.ACTIVATIONS[activation][0], draw_monotone(6, 5, 30, activation=activation)
    t = np.linspace(-9, 9, 180).reshape(6, 30)
    adjoint = adjoint_of(p)
    for equation, z in ((equilibrium_of(p), phi(t)), (adjoint, adjoint.slope.numpy() * t)):
        v = torch.tensor(alpha * t + (1 - alpha) * z)
        kept, out = v.clone(), torch.full_like(v, math.nan)
        equation.resolvent(v, alpha, out=out)
        assert torch.equal(v, kept)
        assert np.abs(out.numpy() - z).max() <= 1e-13 * max(1.0, alpha)


@every_kind
def test_a_recipe_can_name_both(kind: str) -> None:
    solver = TypeAdapter(SolverOptions).validate_python({"kind": kind, "alpha": 0.5})
    assert isinstance(solver, KINDS[kind])
    assert (solver.alpha, solver.stacks) == (0.5, False)


@pytest.mark.parametrize(
    ("kind", "alpha"),
    [(kind, value) for kind in KINDS for value in (0.0, -1.0, math.nan, math.inf, "largest")]
    + [("forward_backward", 1.5), ("peaceman_rachford", "auto")],
    ids=str,
)
def test_steps_that_make_no_sense_are_refused(kind: str, alpha: object) -> None:
    with pytest.raises(ValidationError, match="alpha"):
        KINDS[kind](alpha=alpha)
