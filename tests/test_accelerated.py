"""What `Anderson`, `Newton` and `Automatic` all promise: the right solution, an honest status, any scale and size."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from deqcli.deq.anderson import Anderson
from deqcli.deq.automatic import Automatic
from deqcli.deq.continuation import Continuation
from deqcli.deq.kinds import SolverOptions
from deqcli.deq.newton import Newton
from deqcli.deq.solvers import Picard, Solver, Status
from tests.dense import dense_adjoint, draw_problem, equilibrium
from tests.solving import (
    DTYPES,
    TIGHT,
    closed_form,
    distance,
    dying,
    honest,
    network_with,
    positive_problem,
    rounded,
)

KINDS: dict[str, type[Solver]] = {"anderson": Anderson, "newton": Newton, "auto": Automatic}
every_kind = pytest.mark.parametrize("kind", KINDS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


@every_kind
@every_dtype
@pytest.mark.parametrize("norm", [0.1, 0.7, 0.99])
def test_equilibrium_and_adjoint_against_dense_references(norm: float, dtype: str, kind: str) -> None:
    p = rounded(draw_problem(6, 5, 30, norm=norm), DTYPES[dtype])
    network = network_with(KINDS[kind](), p, DTYPES[dtype])
    assert [network.solve_equilibrium().status, network.solve_adjoint().status] == [Status.CONVERGED] * 2
    assert distance(network.Z, equilibrium(p)) <= 10 * TIGHT[dtype]
    assert distance(network.V, dense_adjoint(p)) <= 10 * TIGHT[dtype]


@every_kind
def test_warm_solves_along_a_training_stay_right(kind: str) -> None:
    p = draw_problem(6, 5, 30, norm=0.9)
    network = network_with(KINDS[kind](), p)
    for _ in range(12):
        assert [network.solve_equilibrium().status, network.solve_adjoint().status] == [Status.CONVERGED] * 2
        params = network.params
        now = replace(p, W=params.W.numpy(), U=params.U.numpy(), a=params.a.numpy())
        assert distance(network.Z, equilibrium(now)) <= 1e-11
        assert distance(network.V, dense_adjoint(now)) <= 1e-11
        network.descend(network.prediction_error(torch.tensor(p.y)), 0.02)


@every_kind
@every_dtype
@pytest.mark.parametrize("rho", [0.95, 0.99, 0.999])
def test_near_critical_networks_that_exhaust_plain_iteration(rho: float, dtype: str, kind: str) -> None:
    """Against the closed form; the condition number 1/(1 - rho) goes into the error."""
    p, most = rounded(positive_problem(rho), DTYPES[dtype]), {"anderson": 100, "newton": 100, "auto": 350}[kind]
    plain = network_with(Picard(max_iterations=100), p, DTYPES[dtype])
    assert plain.solve_equilibrium().status is Status.EXHAUSTED
    network = network_with(KINDS[kind](max_iterations=most), p, DTYPES[dtype])
    solutions = network.solve_equilibrium(), network.solve_adjoint()
    assert [solution.status for solution in solutions] == [Status.CONVERGED] * 2
    Z, V = closed_form(p)
    assert distance(network.Z, Z) <= 10 * TIGHT[dtype] / (1 - rho)
    assert distance(network.V, V) <= 10 * TIGHT[dtype] / (1 - rho)


@every_kind
@pytest.mark.parametrize("count", [60, pytest.param(180, marks=pytest.mark.slow)])
def test_no_status_is_a_lie(kind: str, count: int) -> None:
    """Random networks with 2 to 400 products; every kind of end that there is for finite input."""
    statuses = [honest(KINDS[kind](), seed) for seed in range(count)]
    assert statuses.count(Status.CONVERGED) >= count // 8
    assert statuses.count(Status.EXHAUSTED) >= count // 6


@every_kind
@every_dtype
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_input_that_is_not_finite_is_a_divergence(value: float, dtype: str, kind: str) -> None:
    p = draw_problem(3, 4, 5)
    p.U[1, 2] = value
    assert network_with(KINDS[kind](), p, DTYPES[dtype]).solve_equilibrium().status is Status.DIVERGED


@every_kind
@every_dtype
def test_a_weight_that_is_not_finite_is_a_divergence(dtype: str, kind: str) -> None:
    p = draw_problem(3, 4, 5)
    p.W[0, 0] = math.nan
    assert network_with(KINDS[kind](), p, DTYPES[dtype]).solve_equilibrium().status is Status.DIVERGED


@every_kind
@every_dtype
def test_dead_units_are_an_equilibrium_with_residual_zero(dtype: str, kind: str) -> None:
    network = network_with(KINDS[kind](), dying(draw_problem(5, 4, 20)), DTYPES[dtype])
    for solution in (network.solve_equilibrium(), network.solve_adjoint()):
        assert (solution.status, solution.residual) == (Status.CONVERGED, 0.0)
    assert not network.Z.any()
    assert not network.V.any()


@every_kind
def test_one_dead_sample_among_living_ones(kind: str) -> None:
    p = draw_problem(5, 4, 20, norm=0.9)
    p = replace(p, U=np.abs(p.U), X=np.abs(p.X) * np.array([1, 1, -1, 1, 1]))
    network = network_with(KINDS[kind](), p)
    assert [network.solve_equilibrium().status, network.solve_adjoint().status] == [Status.CONVERGED] * 2
    assert distance(network.Z, equilibrium(p)) <= 1e-11
    assert distance(network.V, dense_adjoint(p)) <= 1e-11


@every_kind
@every_dtype
def test_units_that_die_between_two_solves_are_found_dead(dtype: str, kind: str) -> None:
    p = draw_problem(5, 4, 20)
    network = network_with(KINDS[kind](), replace(p, X=np.abs(p.X)), DTYPES[dtype])
    network.solve_equilibrium()
    network.solve_adjoint()
    network.injection.value.abs_().neg_()
    for solution in (network.solve_equilibrium(), network.solve_adjoint()):
        assert (solution.status, solution.residual) == (Status.CONVERGED, 0.0)
    assert not network.Z.any()


@every_kind
@every_dtype
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 20), (4, 1), (3, 2)])
def test_the_smallest_sizes(n: int, m: int, dtype: str, kind: str) -> None:
    for seed in range(8):
        p = rounded(draw_problem(n, 3, m, norm=0.6, seed=seed), DTYPES[dtype])
        network = network_with(KINDS[kind](), p, DTYPES[dtype])
        assert [network.solve_equilibrium().status, network.solve_adjoint().status] == [Status.CONVERGED] * 2
        wanted = equilibrium(p)
        assert np.linalg.norm(network.Z.double().numpy() - wanted) <= 20 * TIGHT[dtype] * np.linalg.norm(wanted)


@every_kind
@every_dtype
@pytest.mark.parametrize("exponent", [-100, -83, -40, 40, 100])
def test_the_solution_scales_with_injection_and_readout(exponent: int, dtype: str, kind: str) -> None:
    """By powers of 2, 1e-30 to 1e30, where squares leave float32: Z is homogeneous in U, V in a."""
    p = rounded(draw_problem(5, 4, 20, norm=0.9), DTYPES[dtype])
    scaled = replace(p, U=p.U * 2.0**exponent, a=p.a * 2.0**exponent)
    network = network_with(KINDS[kind](), scaled, DTYPES[dtype])
    assert [network.solve_equilibrium().status, network.solve_adjoint().status] == [Status.CONVERGED] * 2
    assert distance(network.Z, equilibrium(p) * 2.0**exponent) <= 20 * TIGHT[dtype]
    assert distance(network.V, dense_adjoint(p) * 2.0**exponent) <= 20 * TIGHT[dtype]


@every_kind
def test_samples_of_very_different_scales(kind: str) -> None:
    """The tolerance is that of all samples together; the small ones are neither lost nor harmful."""
    p = draw_problem(5, 4, 20, norm=0.9)
    p = replace(p, X=p.X * np.array([1e-25, 1e-12, 1.0, 1e3, 0.0]))
    network = network_with(KINDS[kind](), rounded(p, torch.float32), torch.float32)
    assert [network.solve_equilibrium().status, network.solve_adjoint().status] == [Status.CONVERGED] * 2
    assert distance(network.Z, equilibrium(p)) <= 1e-5


@every_kind
def test_a_solve_is_the_same_twice(kind: str) -> None:
    p = draw_problem(6, 5, 30, norm=2.2)
    networks = [network_with(KINDS[kind](), p) for _ in range(2)]
    solutions = [[network.solve_equilibrium(), network.solve_adjoint()] for network in networks]
    assert solutions[0] == solutions[1]
    assert torch.equal(networks[0].Z, networks[1].Z)


@pytest.mark.parametrize("kind", ["auto", "continuation", "picard", "anderson", "newton"])
def test_a_recipe_can_name_every_kind(kind: str) -> None:
    solver = TypeAdapter(SolverOptions).validate_python({"kind": kind})
    assert solver.kind == kind
    assert isinstance(solver, {**KINDS, "continuation": Continuation, "picard": Picard}[kind])


@pytest.mark.parametrize(
    ("kind", "options"),
    [("anderson", {"memory": k}) for k in (0, 51, 2.5)]
    + [("anderson", {"regularisation": r}) for r in (-1e-9, 1.0, math.nan)]
    + [("anderson", {"mixing": b}) for b in (0.0, 1.1)]
    + [("newton", {"inner_iterations": k}) for k in (0, 201)]
    + [("newton", {"forcing": f}) for f in (0.0, 1.0)]
    + [("auto", {"corrections": "float16"}), ("auto", {"memory": 5})],
    ids=str,
)
def test_options_that_make_no_sense_are_refused(kind: str, options: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(options))):
        KINDS[kind](**options)
