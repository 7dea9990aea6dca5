"""Whole training steps of the fast solvers against plain iteration and dense formulas; what they keep and allocate."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from deqcli.deq import correction
from deqcli.deq.automatic import Automatic
from deqcli.deq.continuation import Continuation
from deqcli.deq.injection import Injection
from deqcli.deq.network import Network, loss
from deqcli.deq.solvers import Picard, Solver, Status
from deqcli.runs.run import run
from tests.dense import Gradient, Problem, draw_problem, kronecker_gradient, network_with, solved_network
from tests.runs import small, tables
from tests.solving import DTYPES, positive_problem, rounded
from tests.test_resume import CPU, interrupted
from tests.training import auto_rate, labels, problem_now, shapes_unchecked, stack_of, steps, weights_of

SOLVERS: dict[str, Solver] = {
    **{name: Continuation(corrections=name) for name in ("auto", "full", "float32", "bfloat16")},
    "automatic": Automatic(),
}
every_solver = pytest.mark.parametrize("name", SOLVERS)
pytestmark = pytest.mark.usefixtures("fast")
every_dtype = pytest.mark.parametrize("dtype", DTYPES)

REFERENCE = {
    "float32": Picard(tolerance=3e-7, max_iterations=5000),
    "float64": Picard(tolerance=1e-14, max_iterations=5000),
}


@pytest.fixture(autouse=True)
def low_precision_at_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what is meant for large networks is tried on small ones."""
    monkeypatch.setattr(correction, "LEAST_SIZE", 1)


@pytest.fixture
def fast() -> Iterator[None]:
    """Shapes are checked by the other tests of stacks, and of solvers."""
    with shapes_unchecked():
        yield


# Gradients


def gradient(network: Network, y: torch.Tensor, rate: float) -> Gradient:
    """What `Network.descend` takes away from W, U and a, divided by eta."""
    before = weights_of(network)
    network.descend(network.prediction_error(y), rate)
    after = network.params
    pairs = ((before.W, after.W), (before.U, after.U), (before.a, after.a))
    return tuple(((old.double() - new.double()) / rate).numpy() for old, new in pairs)


def gradient_along_a_training(solver: Solver, p: Problem, dtype: torch.dtype) -> tuple[Gradient, Problem]:
    """After five steps whose residuals are only estimated: the gradient, and the problem that it belongs to.

    The last step is so long that what was there before is nothing beside it, and rounds nothing away.
    """
    network, y = network_with(solver, p, dtype), torch.tensor(p.y, dtype=dtype)
    for forward, adjoint in steps(network, y, 0.2 * kernel_rate(p), 5, confirm=lambda step: step == 0):
        assert [each.status for each in forward + adjoint] == [Status.CONVERGED] * 2
    assert network.Z.any()
    assert not (forward[0].confirmed and adjoint[0].confirmed)
    now = problem_now(p, network)
    return gradient(network, y, 1e8 if dtype == torch.float32 else 1.0), now


def kernel_rate(p: Problem) -> float:
    """1/lambda_max(H(0))."""
    return auto_rate(solved_network(p, tolerance=1e-13))


def worst_error(found: Gradient, wanted: Gradient) -> float:
    """The largest relative error of the three parts."""
    return max(float(np.linalg.norm(g - w) / np.linalg.norm(w)) for g, w in zip(found, wanted, strict=True))


SHAPES = [(20, 10, 60, 0.7), (60, 10, 40, 0.8), (1, 3, 30, 0.6), (30, 40, 50, 0.5)]
"""n, d, m, ||W||."""


@every_solver
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradients_are_those_of_tight_plain_iteration(shape: tuple[int, int, int, float], name: str) -> None:
    found, p = gradient_along_a_training(SOLVERS[name], draw_problem(*shape), torch.float64)
    reference = solved_network(p)
    assert worst_error(found, gradient(reference, torch.tensor(p.y), 1.0)) <= 1e-9


@every_solver
@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape[0] > 1], ids=str)
def test_float32_gradients_are_as_good_as_their_tolerance(shape: tuple[int, int, int, float], name: str) -> None:
    """Within 1e-6 where the tolerance is near what float32 can resolve; at 1e-6, within 2e-6/(1 - ||W||).

    Of several samples: the error of a single one, and with it the gradient, vanishes in the rounding of its prediction.
    """
    p, contraction = rounded(draw_problem(*shape), torch.float32), shape[-1]
    for tolerance, allowed in ((1.5e-7, 1e-6), (1e-6, 2e-6 / (1 - contraction))):
        solver = SOLVERS[name].model_copy(update={"tolerance": tolerance})
        found, now = gradient_along_a_training(solver, p, torch.float32)
        reference = solved_network(now)
        assert worst_error(found, gradient(reference, torch.tensor(p.y), 1.0)) <= allowed


@every_solver
@pytest.mark.parametrize("shape", [(4, 5, 6), (7, 3, 4), (1, 4, 5), (2, 9, 3)], ids=str)
def test_gradients_are_those_of_the_dense_kronecker_formula(shape: tuple[int, int, int], name: str) -> None:
    p = draw_problem(*shape, seed=1)
    found, now = gradient_along_a_training(SOLVERS[name], p, torch.float64)
    assert worst_error(found, kronecker_gradient(now)) <= 1e-9


def test_gradients_of_a_stack_are_those_of_its_networks() -> None:
    """With a learning rate of its own for each."""
    problems = [draw_problem(8, 5, 30, norm=norm, seed=k) for k, norm in enumerate((0.3, 0.7, 0.9))]
    stack, y = stack_of(Continuation(), problems), labels(problems)
    for _ in steps(stack, y, torch.tensor([[1e-3], [1e-2], [2e-3]], dtype=torch.float64), 5, lambda step: step == 0):
        pass
    before, rates = weights_of(stack), torch.tensor([[0.5], [1.0], [2.0]], dtype=torch.float64)
    stack.descend(stack.prediction_error(y), rates)
    after = stack.params
    for k, p in enumerate(problems):
        weights = {name: getattr(before, name)[k].numpy() for name in ("W", "U", "a")}
        reference = solved_network(Problem(**weights, X=p.X, y=p.y))
        wanted = gradient(reference, torch.tensor(p.y), 1.0)
        found = tuple(
            ((getattr(before, name) - getattr(after, name))[k] / rates[k]).numpy() for name in ("W", "U", "a")
        )
        assert worst_error(found, wanted) <= 1e-9


# Loss curves

RATES = (0.1, 1.0, 1.95)
"""In units of 1/lambda_max(H(0)); at 2 gradient descent on the kernel of the start would not converge."""


def losses(solver: Solver, p: Problem, dtype: str, rate: float) -> np.ndarray:
    """The losses of 100 steps at a rate in units of 1/lambda_max(H(0)), every twentieth confirmed."""
    network, y = network_with(solver, p, DTYPES[dtype]), torch.tensor(p.y, dtype=DTYPES[dtype])
    found = []
    for forward, adjoint in steps(network, y, rate * kernel_rate(p), 100, lambda step: step % 20 == 0):
        assert [each.status for each in forward + adjoint] == [Status.CONVERGED] * 2
        found.append(loss(network.prediction_error(y)))
    return np.array(found)


KNOWN: dict[tuple[bytes, str, float], np.ndarray] = {}


def reference_losses(p: Problem, dtype: str, rate: float) -> np.ndarray:
    """Those of plain iteration, at 1e-14 in float64 and 3e-7 in float32; computed once."""
    key = p.W.tobytes(), dtype, rate
    if key not in KNOWN:
        KNOWN[key] = losses(REFERENCE[dtype], p, dtype, rate)
    return KNOWN[key]


def deviation(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest relative deviation of any step."""
    return float(np.max(np.abs(found - wanted) / wanted))


def kinked_problem(seed: int) -> Problem:
    """Some of its units cross their kinks at nearly every step."""
    return rounded(draw_problem(30, 5, 24, norm=0.4, seed=seed), torch.float32)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("name", ["full", "float32", "bfloat16", "automatic"])
def test_float64_loss_curves_are_those_of_plain_iteration(name: str, rate: float) -> None:
    p = kinked_problem(0)
    assert deviation(losses(SOLVERS[name], p, "float64", rate), reference_losses(p, "float64", rate)) <= 1e-8


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("name", ["full", "bfloat16", "automatic"])
def test_float32_loss_curves_without_kinks_are_those_of_plain_iteration(name: str, rate: float) -> None:
    """All units stay active: nothing magnifies rounding, and 1e-5 holds at every learning rate."""
    p = rounded(positive_problem(0.2, m=30, n=20, seed=2), torch.float32)
    found = losses(SOLVERS[name], p, "float32", rate)
    for dtype in DTYPES:
        assert deviation(found, reference_losses(p, dtype, rate)) <= 1e-5


@pytest.mark.parametrize("name", ["full", "bfloat16", "automatic"])
@pytest.mark.parametrize("seed", range(2))
def test_float32_loss_curves_are_those_of_plain_iteration_while_kinks_do_not_matter(seed: int, name: str) -> None:
    """At a tenth of the automatic learning rate a unit that crosses its kink a step later changes next to nothing."""
    p = kinked_problem(seed)
    found = losses(SOLVERS[name], p, "float32", 0.1)
    for dtype in DTYPES:
        assert deviation(found, reference_losses(p, dtype, 0.1)) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("rate", RATES[1:])
def test_float32_loss_curves_deviate_from_float64_no_more_than_those_of_plain_iteration(rate: float) -> None:
    """A kink that rounding has crossed a step earlier or later moves losses by up to 5 percent, whatever the solver.

    The geometric means of the largest deviations of ten networks are compared; single ones differ by decades.
    """
    deviations: dict[str, list[float]] = {"picard": [], "full": [], "bfloat16": [], "automatic": []}
    for seed in range(10):
        p = kinked_problem(seed)
        exact = reference_losses(p, "float64", rate)
        for name, found in deviations.items():
            found.append(deviation(losses(SOLVERS.get(name, Picard(max_iterations=5000)), p, "float32", rate), exact))
    means = {name: float(np.exp(np.mean(np.log(found)))) for name, found in deviations.items()}
    assert max(means.values()) <= 10 * means["picard"]
    assert max(means.values()) <= 1e-3


# Guesses over many steps


def test_adjoints_of_rows_that_jump_at_every_step_stay_cheap() -> None:
    """A quarter of the samples crosses a kink at a step; if their second differences piled up, 23 were needed here."""
    rng, (n, d, m) = np.random.default_rng(0), (100, 25, 250)
    p = draw_problem(n, d, m)
    p = Problem(rng.standard_normal((m, m)) * np.sqrt(0.16 / m), p.U, p.a, p.X, p.y)
    network, y = network_with(Continuation(), p, torch.float32), torch.tensor(p.y, dtype=torch.float32)
    taken, jumped = [], []
    for _, adjoint in steps(network, y, None, 200, lambda step: step == 0):
        taken.append(adjoint[0].iterations)
        jumped.append(float(network.adjoint.jumped.float().mean()))
    assert np.mean(jumped[1:]) > 0.1
    assert max(taken[1:]) <= 15


# The injection


def random_steps(n: int, d: int, m: int, dtype: torch.dtype, networks: tuple[int, ...] = ()) -> list[torch.Tensor]:
    """U_0, X, and 50 steps S."""
    rng = np.random.default_rng(n)
    shapes = [(*networks, m, d), (*networks, d, n)] + [(*networks, n, m)] * 50
    return [torch.tensor(rng.standard_normal(shape) * scale, dtype=dtype) for shape, scale in _scaled(shapes)]


def _scaled(shapes: list[tuple[int, ...]]) -> list[tuple[tuple[int, ...], float]]:
    return [(shape, 1.0 if k < 2 else 0.1) for k, shape in enumerate(shapes)]


@every_dtype
@pytest.mark.parametrize("networks", [(), (3,)])
@pytest.mark.parametrize(
    ("n", "d", "summed"), [(5, 4, True), (7, 4, True), (8, 4, False), (30, 4, False), (1, 1, True)]
)
def test_both_forms_of_the_injection_are_plain_updates(
    n: int, d: int, summed: bool, networks: tuple[int, ...], dtype: str
) -> None:
    U, X, *moves = random_steps(n, d, 6, DTYPES[dtype], networks)
    plain, exact_X = U.double().numpy().copy(), X.double().numpy()
    injection = Injection(U.clone(), X)
    assert injection.summed == summed
    rtol = 2e-6 if dtype == "float32" else 1e-14
    for S in moves:
        injection.descend(S)
        plain -= np.swapaxes(S.double().numpy(), -1, -2) @ np.swapaxes(exact_X, -1, -2)
        value = np.swapaxes(injection.value.double().numpy(), -1, -2)
        assert np.linalg.norm(value - plain @ exact_X) <= rtol * np.linalg.norm(plain @ exact_X)
        assert np.linalg.norm(injection.U.double().numpy() - plain) <= rtol * np.linalg.norm(plain)


@every_dtype
@pytest.mark.parametrize("networks", [(), (3,)])
@pytest.mark.parametrize("n", [5, 30])
def test_an_injection_is_restored_byte_for_byte(n: int, networks: tuple[int, ...], dtype: str) -> None:
    U, X, *moves = random_steps(n, 4, 6, DTYPES[dtype], networks)
    first, second = Injection(U.clone(), X), Injection(U.clone(), X)
    for S in moves[:25]:
        first.descend(S)
    second.restore({name: tensor.clone() for name, tensor in first.state().items()})
    for S in moves[25:]:
        assert torch.equal(first.value, second.value)
        first.descend(S)
        second.descend(S)
    assert torch.equal(first.value, second.value)
    assert torch.equal(first.U, second.U)


def test_asking_for_u_changes_nothing() -> None:
    """It is made on demand where A is kept, and the U that was given is left alone."""
    U, X, *moves = random_steps(5, 4, 6, torch.float64)
    given = U.clone()
    asked, silent = Injection(given, X), Injection(U.clone(), X)
    for S in moves:
        asked.descend(S)
        silent.descend(S)
        assert asked.U is asked.U
    assert torch.equal(given, U)
    assert torch.equal(asked.value, silent.value)
    assert torch.equal(asked.U, silent.U)


def test_rounding_does_not_pile_up_where_the_sum_is_kept() -> None:
    """Five thousand float32 steps there and back: U X returns to its start as exactly as the sum of the steps does."""
    U, X, S, *_ = random_steps(5, 4, 6, torch.float32)
    injection = Injection(U, X)
    start = injection.value.clone()
    for step in range(5000):
        injection.descend(S if step % 2 == 0 else -S)
    assert torch.equal(injection.value, start)


# Memory


def largest_allocation(network: Network, y: torch.Tensor, rate: float | torch.Tensor) -> int:
    """Bytes of the largest tensor made, inside of operations too, in three unlogged steps of a network on its way."""
    unlogged = [False] * network.size

    def step() -> None:
        network.descend(network.prediction_error(y), rate)
        solutions = network.solve_equilibria(unlogged) + network.solve_adjoints(unlogged)
        assert [each.status for each in solutions] == [Status.CONVERGED] * 2 * network.size

    for _ in range(12):
        step()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        for _ in range(3):
            step()
    return max(event.self_cpu_memory_usage for event in recorded.events())


@every_dtype
@pytest.mark.parametrize(("name", "d"), [*((name, 20) for name in SOLVERS), ("full", 120)])
def test_unlogged_steps_allocate_nothing_of_the_size_of_a_point(name: str, d: int, dtype: str) -> None:
    """Nor of W, which is larger here. All that is made are numbers of each sample or unit, and oneDNN's own scratch."""
    n, m = 200, 250
    p = draw_problem(n, d, m, norm=0.8)
    network, y = network_with(SOLVERS[name], p, DTYPES[dtype]), torch.tensor(p.y, dtype=DTYPES[dtype])
    network.solve_equilibrium()
    network.solve_adjoint()
    most = largest_allocation(network, y, auto_rate(network))
    assert 0 < most < n * m * network.params.W.itemsize // 2


@every_dtype
def test_unlogged_steps_of_a_stack_allocate_nothing_of_the_size_of_a_network(dtype: str) -> None:
    """Although the networks that have converged are left out of the product, W and all."""
    problems = [draw_problem(20, 10, 64, norm=0.2 + 0.2 * k, seed=k) for k in range(4)]
    stack = stack_of(Continuation(), problems, DTYPES[dtype])
    stack.solve_equilibria([True] * 4)
    stack.solve_adjoints([True] * 4)
    rates = torch.full((4, 1), 1e-4, dtype=DTYPES[dtype])
    most = largest_allocation(stack, labels(problems, DTYPES[dtype]), rates)
    assert 0 < most < 20 * 64 * stack.params.W.itemsize // 2


def test_the_memory_of_an_operation_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The counterpart: an activation that makes a tensor and drops it is found."""
    p = draw_problem(200, 20, 250)
    network, y = network_with(SOLVERS["full"], p), torch.tensor(p.y)
    network.solve_equilibrium()
    network.solve_adjoint()
    value = type(network.activation).value
    monkeypatch.setattr(type(network.activation), "value", lambda self, at, out: value(self, at + 0.0, out))
    assert largest_allocation(network, y, 1e-4) >= 200 * 250 * 8


# Resumption of networks too wide for a stack


@pytest.mark.parametrize(
    "overrides",
    [
        ("solver.kind=continuation", "solver.corrections=float32", "train.dtype=float64"),
        ("solver.kind=continuation", "solver.corrections=bfloat16", "train.dtype=float32"),
        ("solver.kind=auto", "solver.corrections=bfloat16", "train.dtype=float64"),
        ("solver.kind=auto", "train.dtype=float32", "data.num_samples=40"),
    ],
    ids=" ".join,
)
def test_a_run_that_was_stopped_again_and_again_ends_with_the_same_bytes(
    tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    spec = small(tmp_path, "model.width=140", "train.steps=16", *overrides)
    assert not spec.stackable
    whole = tables(run(spec, tmp_path / "whole", CPU).folder)
    for step in (1, 6, 7, 13):
        interrupted(spec, tmp_path / "parts", step)
    done = run(spec, tmp_path / "parts", CPU)
    assert done.computed
    assert tables(done.folder) == whole
