"""`Continuation` and its parts: honest residuals and statuses, what it leaves out, what it extrapolates."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deqcli.deq import correction, ledger
from deqcli.deq.continuation import Continuation
from deqcli.deq.ledger import FAR_SIGHTED, HEADROOM, LEAST_RATIO, MOST_PLANNED, MOST_SPENT, TOO_MUCH_SPENT, Ledger
from deqcli.deq.network import Network
from deqcli.deq.rows import Rows
from deqcli.deq.solvers import Picard, Solution, Status
from deqcli.deq.track import Track, Workspace
from tests.dense import Problem, dense_adjoint, draw_problem, equilibrium, network_with
from tests.solving import DTYPES, TIGHT, adjoint_residual, distance, equilibrium_residual, rounded
from tests.training import auto_rate, problem_now, shapes_unchecked, stack_of, steps

CORRECTIONS = ("auto", "full", "float32", "bfloat16")
ROUNDING = {"float32": 2.0**-22, "float64": 1e-15}
"""What computed and true residuals may differ by, relative to the layer."""
ALLOWANCE = 1.03
"""Times the tolerance: what the rounding of a float32 layer adds to a residual that has just met it."""

every_dtype = pytest.mark.parametrize("dtype", DTYPES)


@dataclass(frozen=True)
class Solve:
    """How one solve of a training ended, and its true residual in units of the tolerance."""

    solution: Solution
    true: float
    dtype: str


@dataclass
class Count:
    """What the corrector did: products in low precision, and the shares of the rows that it worked on."""

    low: int = 0
    shares: list[float] = field(default_factory=list)

    @property
    def narrowed(self) -> int:
        """How often some rows were left out."""
        return sum(share < 1 for share in self.shares)


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Count:
    """A record of what the corrector does from here on."""
    found, corrected, narrow = Count(), Rows.repeat_corrected, Rows.narrow

    def counted(rows: Rows, times: int, low: torch.dtype) -> None:
        found.low += times + 1
        corrected(rows, times, low)

    def watched(rows: Rows, active: np.ndarray) -> None:
        narrow(rows, active)
        found.shares.append(len(rows.ids) / len(rows._homes[0]))

    monkeypatch.setattr(Rows, "repeat_corrected", counted)
    monkeypatch.setattr(Rows, "narrow", watched)
    return found


@pytest.fixture
def fast() -> Iterator[None]:
    """For tests of so many steps that others check the shapes."""
    with shapes_unchecked():
        yield


def solver(**options: object) -> Continuation:
    """A solver that has time to converge at ||W|| = 0.99."""
    return Continuation(**{"max_iterations": 2000, **options})


def solves(p: Problem, network: Network, rate: float, count: int, every: int) -> Iterator[Solve]:
    """The solves of a training up to the first that fails; the rate in units of 1/lambda_max."""
    dtype = str(network.Z.dtype).removeprefix("torch.")
    y, eta = torch.tensor(p.y, dtype=network.Z.dtype), None
    for step in range(count + 1):
        for solve, residual in (
            (network.solve_equilibrium, equilibrium_residual),
            (network.solve_adjoint, adjoint_residual),
        ):
            solution = solve(step % every == 0)
            yield Solve(solution, residual(problem_now(p, network), network) / TIGHT[dtype], dtype)
            if solution.status is not Status.CONVERGED:
                return
        eta = eta or rate * auto_rate(network)
        network.descend(network.prediction_error(y), eta)


def random_training(
    seed: int, low: tuple[int, int, int], high: tuple[int, int, int], count: int, every: int
) -> Iterator[Solve]:
    """A random network, every fifth with n > m, with one sample, with antiparallel samples or with ||W|| = 0.99."""
    rng, corner, dtype = np.random.default_rng(seed), seed % 5, list(DTYPES.values())[seed // 5 % 2]
    n, d, m = (int(k) for k in rng.integers(low, high))
    if corner == 1:
        n, m = max(n, m) + 1, min(n, m)
    norm = 0.99 if corner == 2 else float(rng.uniform(0.05, 0.9))
    p = draw_problem(1 if corner == 3 else n, d, m, norm=norm, seed=seed)
    if corner == 4:
        half = n // 2
        p = replace(p, X=np.concatenate([p.X[:, :half], -p.X[:, :half], p.X[:, 2 * half :]], axis=1))
    rate, corrections = float(rng.choice([0.1, 1.0, 1.95, rng.uniform(0, 2)])), str(rng.choice(CORRECTIONS))
    p = rounded(p, dtype)
    return solves(p, network_with(solver(corrections=corrections), p, dtype), rate, count, every)


def assert_confirmed_are_true(found: list[Solve]) -> None:
    """Computed residuals are the true ones up to rounding, and what is converged meets its tolerance."""
    for each in found:
        if each.solution.confirmed and each.solution.status is not Status.DIVERGED:
            tolerance = TIGHT[each.dtype]
            assert each.solution.residual == pytest.approx(
                each.true * tolerance, rel=1e-3, abs=2 * ROUNDING[each.dtype]
            )
            assert (each.solution.status is Status.CONVERGED) == (each.solution.residual <= tolerance)
            assert each.solution.status is not Status.CONVERGED or each.true <= ALLOWANCE


def estimated(found: list[Solve]) -> np.ndarray:
    """True residuals, in tolerances, of what was called converged by estimate."""
    return np.array([each.true for each in found if not each.solution.confirmed])


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize(("count", "every"), [(3, 3), pytest.param(12, 5, marks=pytest.mark.slow)])
def test_true_residuals_of_500_random_trainings(count: int, every: int) -> None:
    """Within the tolerance, whether computed or estimated; computed ones are what they say."""
    found = [each for seed in range(500) for each in random_training(seed, (1, 1, 1), (12, 9, 60), count, every)]
    assert_confirmed_are_true(found)
    assert sum(each.solution.status is not Status.CONVERGED for each in found) <= 15  # ||W|| = 0.99, or grown beyond
    true = estimated(found)
    assert len(true) > 1900
    assert true.max() <= 1


@pytest.mark.usefixtures("fast")
def test_true_residuals_where_samples_are_left_out_and_corrections_are_low(
    monkeypatch: pytest.MonkeyPatch, count: Count
) -> None:
    """With dozens of samples the estimates are sums of many, and hardly ever too optimistic."""
    monkeypatch.setattr(correction, "LEAST_SIZE", 1)
    found = [each for seed in range(60) for each in random_training(seed, (60, 5, 60), (110, 40, 110), 3, 3)]
    assert_confirmed_are_true(found)
    assert count.low > 1000
    assert count.narrowed > 100
    true = estimated(found)
    assert len(true) == 240
    assert np.mean(true > 1) <= 0.01
    assert true.max() <= 1.25


@pytest.mark.parametrize(("dtype", "low"), [("float32", "bfloat16"), ("float64", "bfloat16"), ("float64", "float32")])
def test_true_residuals_at_a_size_where_low_precision_pays(dtype: str, low: str, count: Count) -> None:
    p = rounded(draw_problem(170, 30, 400, norm=0.8), DTYPES[dtype])
    found = list(solves(p, network_with(solver(corrections=low), p, DTYPES[dtype]), 1.0, count=10, every=3))
    assert_confirmed_are_true(found)
    assert count.low >= 40
    assert count.narrowed >= 4
    assert estimated(found).max() <= 1


@pytest.mark.parametrize("seed", range(3))
def test_samples_are_left_out_only_once_their_error_is_small(seed: int, count: Count) -> None:
    """The same tolerance on easy and hard samples together: the hard ones go on without the others."""
    p = draw_problem(40, 5, 60, norm=0.9, seed=seed)
    p = replace(p, X=p.X * np.where(np.arange(40) < 30, 1e-6, 1.0))
    network = network_with(solver(), p)
    assert network.solve_equilibrium(confirm=False).status is Status.CONVERGED
    assert equilibrium_residual(p, network) <= TIGHT["float64"]
    assert min(count.shares) <= 0.5


def test_only_large_networks_correct_in_low_precision(count: Count) -> None:
    for corrections in CORRECTIONS:
        p = draw_problem(20, 5, 60)
        network_with(solver(corrections=corrections), p).solve_equilibrium()
        assert count.low == 0


@pytest.mark.parametrize(
    ("dtype", "corrections", "low"),
    [
        ("float64", "full", False),
        ("float64", "auto", True),
        ("float64", "bfloat16", True),
        ("float32", "full", False),
        ("float32", "float32", False),
        ("float32", "bfloat16", True),
    ],
)
def test_corrections_are_as_precise_as_asked_for(
    dtype: str, corrections: str, low: bool, monkeypatch: pytest.MonkeyPatch, count: Count
) -> None:
    monkeypatch.setattr(correction, "LEAST_SIZE", 1)
    p = rounded(draw_problem(20, 5, 60, norm=0.8), DTYPES[dtype])
    network = network_with(solver(corrections=corrections), p, DTYPES[dtype])
    assert network.solve_equilibrium().status is Status.CONVERGED
    assert (count.low > 0) == low


@pytest.mark.parametrize("exponent", [-300, -120, -100, -60, 100, 120, 130, 300])
@pytest.mark.parametrize("low", ["float32", "bfloat16"])
def test_low_precision_is_not_used_beyond_its_floats(low: str, exponent: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes that underflow there would look like convergence, and large ones overflow."""
    monkeypatch.setattr(correction, "LEAST_SIZE", 1)
    p = draw_problem(20, 8, 40, norm=0.8)
    p = replace(p, U=p.U * 2.0**exponent, a=p.a * 2.0**exponent)
    network = network_with(solver(corrections=low), p)
    for factor in (1.0, 1.01):
        p = replace(p, U=p.U * factor, a=p.a * factor)
        network.injection.value.mul_(factor)
        network.params.a.mul_(factor)
        assert network.solve_equilibrium(confirm=False).status is Status.CONVERGED
        assert network.solve_adjoint(confirm=False).status is Status.CONVERGED
        assert equilibrium_residual(p, network) <= TIGHT["float64"]
        assert adjoint_residual(p, network) <= TIGHT["float64"]


# Misses


@every_dtype
@pytest.mark.parametrize(("low", "headroom", "margin"), [(False, 0.9, 0.01), (False, 30.0, 1.0), (True, 30.0, 1.0)])
def test_an_optimistic_estimate_is_corrected_and_counted_where_it_is_confirmed(
    low: bool, headroom: float, margin: float, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Estimates that are a hundredth of what they should be, or that may be thirty times the tolerance."""
    monkeypatch.setattr(correction, "LEAST_SIZE", 1 if low else 2**16)
    monkeypatch.setattr(correction, "HEADROOM_SMALL", headroom)
    p = rounded(draw_problem(20, 5, 60, norm=0.8), DTYPES[dtype])
    network = network_with(solver(corrections="bfloat16" if low else "full"), p, DTYPES[dtype])
    network.solve_equilibrium()
    for solve, track, residual in (
        (network.solve_equilibrium, network.equilibrium, equilibrium_residual),
        (network.solve_adjoint, network.adjoint, adjoint_residual),
    ):
        network.injection.value.mul_(1.1)
        p = replace(p, U=p.U * 1.1)
        track.margin[:] = margin
        found = solve(True)
        assert found.status is Status.CONVERGED
        assert found.confirmed
        assert found.misses >= 1
        assert found.residual <= TIGHT[dtype]
        assert found.residual == pytest.approx(
            residual(p, network), rel=1e-3, abs=2e-8 if dtype == "float32" else 1e-15
        )
        assert track.margin[0] >= (0.3 if margin == 0.01 else 1.25)
        if track is network.equilibrium:
            network.solve_equilibrium()


def test_the_margin_that_a_miss_called_for_stays() -> None:
    """The steps that follow are not too optimistic any more, although nobody looks."""
    p = draw_problem(20, 5, 60, norm=0.8)
    network, y = network_with(solver(), p), torch.tensor(p.y)
    for step, (forward, _) in enumerate(steps(network, y, None, 6, confirm=lambda step: step == 1)):
        assert forward[0].misses == (0 if step != 1 else forward[0].misses)
        if step == 0:
            network.equilibrium.margin[:] = 0.01
        else:
            assert equilibrium_residual(problem_now(p, network), network) <= TIGHT["float64"]
    assert network.equilibrium.margin[0] > 0.3


def test_an_optimistic_estimate_that_nobody_confirms_is_an_estimate() -> None:
    """The counterpart: without the computed residual the miss goes unnoticed, so the tests above can fail."""
    p = draw_problem(20, 5, 60, norm=0.8)
    network = network_with(solver(), p)
    network.solve_equilibrium()
    network.injection.value.mul_(1.1)
    network.equilibrium.margin[:] = 0.01
    found = network.solve_equilibrium(confirm=False)
    assert (found.confirmed, found.misses) == (False, 0)
    assert equilibrium_residual(replace(p, U=p.U * 1.1), network) > 2 * TIGHT["float64"]


def test_a_miss_in_a_stack_leaves_the_others_alone() -> None:
    problems = [draw_problem(8, 5, 30, norm=0.8, seed=k) for k in range(3)]
    alone = stack_of(solver(), problems)
    stack = stack_of(solver(), problems)
    stack.equilibrium.margin[1] = 0.01
    wanted, found = alone.solve_equilibria([True] * 3), stack.solve_equilibria([True] * 3)
    assert found[1].misses >= 1
    assert found[1].residual <= TIGHT["float64"]
    for k in (0, 2):
        assert found[k] == wanted[k]
        assert torch.equal(stack.Z[k], alone.Z[k])
    assert stack.equilibrium.margin[1] > 0.3
    assert stack.equilibrium.margin[[0, 2]].tolist() == [1.0, 1.0]


# What is not converged


@every_dtype
@pytest.mark.parametrize("low", [False, True])
@pytest.mark.parametrize("confirm", [False, True])
@pytest.mark.parametrize("most", [2, 3, 5, 8])
def test_running_out_of_iterations_is_told_with_the_true_residual(
    most: int, confirm: bool, low: bool, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(correction, "LEAST_SIZE", 1 if low else 2**16)
    p = rounded(draw_problem(20, 5, 60, norm=0.95), DTYPES[dtype])
    network = network_with(Continuation(max_iterations=most, corrections="bfloat16"), p, DTYPES[dtype])
    for solve, residual in (
        (network.solve_equilibrium, equilibrium_residual),
        (network.solve_adjoint, adjoint_residual),
    ):
        found = solve(confirm)
        assert (found.status, found.confirmed) == (Status.EXHAUSTED, True)
        assert found.iterations <= most
        assert found.residual > TIGHT[dtype]
        assert found.residual == pytest.approx(residual(p, network), rel=1e-2)


@every_dtype
@pytest.mark.parametrize("low", [False, True])
@pytest.mark.parametrize("confirm", [False, True])
def test_an_iteration_that_overflows_has_diverged(
    confirm: bool, low: bool, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(correction, "LEAST_SIZE", 1 if low else 2**16)
    p = draw_problem(10, 20, 60, norm=8.0)
    network = network_with(Continuation(max_iterations=5000, corrections="bfloat16"), p, DTYPES[dtype])
    found = network.solve_equilibrium(confirm)
    assert found.status is Status.DIVERGED
    assert not math.isfinite(found.residual)


@pytest.mark.parametrize(("dtype", "scale"), [("float32", 1e30), ("float64", 1e200)])
@pytest.mark.parametrize("confirm", [False, True])
def test_the_product_that_confirms_may_overflow(confirm: bool, dtype: str, scale: float) -> None:
    """Nothing did before it: phi(U X) is harmless."""
    p = draw_problem(6, 5, 20)
    network = network_with(Continuation(max_iterations=2), replace(p, W=p.W * scale), DTYPES[dtype])
    found = network.solve_equilibrium(confirm)
    assert (found.status, found.iterations) == (Status.DIVERGED, 2)
    assert math.isnan(found.residual)


@every_dtype
@pytest.mark.parametrize("low", [False, True])
@pytest.mark.parametrize("confirm", [False, True])
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["W", "U", "a"])
def test_a_number_that_is_none_is_a_divergence(
    name: str, value: float, confirm: bool, low: bool, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a first solve, and in one that goes on from a good one."""
    monkeypatch.setattr(correction, "LEAST_SIZE", 1 if low else 2**16)
    p = draw_problem(6, 5, 20)
    for warm in (False, True):
        network = network_with(Continuation(corrections="bfloat16"), p, DTYPES[dtype])
        if warm:
            network.solve_equilibrium()
            network.solve_adjoint()
        getattr(network.params, name)[1] = value
        if name == "U":
            network.injection.value[:, 1] = value
        found = network.solve_equilibrium(confirm) if name != "a" else _solved_then_adjoint(network, confirm)
        assert found.status is Status.DIVERGED


def _solved_then_adjoint(network: Network, confirm: bool) -> Solution:
    assert network.solve_equilibrium().status is Status.CONVERGED
    return network.solve_adjoint(confirm)


@every_dtype
@pytest.mark.parametrize("confirm", [False, True])
@pytest.mark.parametrize("bad", ["nan", "overflow", "exhausted", "dead"])
def test_in_a_stack_every_network_has_its_own_end(bad: str, confirm: bool, dtype: str) -> None:
    """One that fails, or dies, leaves the bits of its neighbours alone, before it and after it."""
    problems = [draw_problem(6, 5, 30, norm=0.5, seed=k) for k in range(4)]
    problems[1] = {
        "nan": replace(problems[1], W=problems[1].W * math.nan),
        "overflow": replace(problems[1], W=problems[1].W * 1e9),
        "exhausted": replace(problems[1], W=0.99 * np.eye(30)),
        "dead": replace(problems[1], U=-np.abs(problems[1].U), X=np.abs(problems[1].X)),
    }[bad]
    options = Continuation(max_iterations=60)
    stack = stack_of(options, problems, DTYPES[dtype])
    found = stack.solve_equilibria([confirm] * 4), stack.solve_adjoints([confirm] * 4)
    wanted = {"nan": Status.DIVERGED, "overflow": Status.DIVERGED, "dead": Status.CONVERGED}
    assert found[0][1].status is wanted.get(bad, Status.EXHAUSTED)
    for k in (0, 2, 3):
        alone = stack_of(options, [problems[k]], DTYPES[dtype])
        assert found[0][k] == alone.solve_equilibria([confirm])[0]
        assert found[1][k] == alone.solve_adjoints([confirm])[0]
        assert found[0][k].status is Status.CONVERGED
        assert torch.equal(stack.Z[k], alone.Z[0])
        assert torch.equal(stack.V[k], alone.V[0])


@pytest.mark.parametrize("confirm", [False, True])
@pytest.mark.parametrize("neighbours", [0, 2])
def test_units_that_die_during_a_solve_are_converged_with_residual_zero(neighbours: int, confirm: bool) -> None:
    """F(Z) = Z = 0 exactly: 0/0 is neither a divergence nor an estimate that is no number."""
    problems = [replace(draw_problem(5, 4, 20, seed=k), X=np.abs(draw_problem(5, 4, 20).X)) for k in range(3)]
    stack = stack_of(solver(), problems[: 1 + neighbours])
    assert [each.status for each in stack.solve_equilibria([True] * stack.size)] == [Status.CONVERGED] * stack.size
    stack.injection.value[0].abs_().neg_()
    found = stack.solve_equilibria([confirm] * stack.size)
    assert (found[0].status, found[0].residual) == (Status.CONVERGED, 0.0)
    assert not stack.Z[0].any()
    assert all(each.status is Status.CONVERGED and math.isfinite(each.residual) for each in found)


@every_dtype
def test_equilibrium_and_adjoint_of_a_stack_against_dense_references(dtype: str) -> None:
    """Of very different contraction, which need very different numbers of iterations."""
    norms = (0.05, 0.5, 0.9, 0.99)
    problems = [rounded(draw_problem(6, 5, 30, norm=norm, seed=3), DTYPES[dtype]) for norm in norms]
    stack = stack_of(solver(), problems, DTYPES[dtype])
    found = stack.solve_equilibria([True] * 4), stack.solve_adjoints([True] * 4)
    for k, p in enumerate(problems):
        assert distance(stack.Z[k], equilibrium(p)) <= 10 * TIGHT[dtype] / (1 - norms[k])
        assert distance(stack.V[k], dense_adjoint(p)) <= 10 * TIGHT[dtype] / (1 - norms[k])
    for solutions in found:
        assert len({each.iterations for each in solutions}) == 4


# Tracks


def track_of(order: int, networks: int | None = None) -> Track:
    """A track of 3 rows and 4 columns."""
    like = torch.zeros((3, 4) if networks is None else (networks, 3, 4), dtype=torch.float64)
    return Track(like, order, Workspace(like))


def follow(track: Track, P: torch.Tensor) -> torch.Tensor:
    """The guess, and then the truth."""
    start = track.predict()
    guess = start.clone()
    track.preactivation.copy_(P)
    track.learn(start)
    return guess


def polynomial(degree: int, seed: int = 0) -> list[torch.Tensor]:
    """Values at steps 0 to 9 of a polynomial with whole coefficients: exact in floats, and exactly extrapolated."""
    rng = np.random.default_rng(seed)
    coefficients = [torch.tensor(rng.integers(-9, 10, (3, 4)).astype(float)) for _ in range(degree + 1)]
    return [sum((c * float(step) ** k for k, c in enumerate(coefficients)), torch.zeros(3, 4)) for step in range(10)]


@pytest.mark.parametrize(("order", "degree"), [(0, 0), (1, 0), (1, 1), (2, 1), (2, 2)])
def test_polynomials_up_to_the_order_are_extrapolated_exactly(order: int, degree: int) -> None:
    track, values = track_of(order), polynomial(degree)
    guesses = [follow(track, P) for P in values]
    for step in range(order + 1, 10):
        assert torch.equal(guesses[step], values[step])


@pytest.mark.parametrize("order", [0, 1, 2])
def test_polynomials_beyond_the_order_are_not(order: int) -> None:
    track, values = track_of(order), polynomial(order + 1)
    guesses = [follow(track, P) for P in values]
    assert not any(torch.equal(guess, P) for guess, P in zip(guesses[1:], values[1:], strict=True))


def test_the_first_guesses_use_no_more_differences_than_there_are_steps() -> None:
    """Nothing after no solve, the same again after one, on the line after two."""
    track, (A, B, C, *_) = track_of(2), polynomial(2)
    assert not follow(track, A).any()
    assert torch.equal(follow(track, B), A)
    assert torch.equal(follow(track, C), 2 * B - A)


def test_networks_of_a_stack_that_began_at_different_times_each_have_their_own_differences() -> None:
    stack, values = track_of(2, 2), polynomial(2)
    late, early = track_of(2), track_of(2)
    for P in values[:3]:
        follow(early, P)
    for name, tensor in stack.state("t").items():
        tensor.copy_(torch.stack([early.state("t")[name], late.state("t")[name]]).reshape(tensor.shape))
    for P in values[3:7]:
        guess = follow(stack, torch.stack([P, P]))
        assert torch.equal(guess[0], follow(early, P))
        assert torch.equal(guess[1], follow(late, P))
    assert stack.solved.tolist() == [7, 4]


@pytest.mark.parametrize("order", [1, 2])
def test_a_row_that_jumps_goes_on_as_it_did(order: int) -> None:
    """On a line, whatever the jump; the other rows are not concerned."""
    track, values = track_of(order), polynomial(1)
    jump = torch.tensor([[0.0], [1000.0], [0.0]])
    for step, P in enumerate(values):
        track.jumped = jump > 0 if step == 5 else torch.zeros(3, 1, dtype=torch.bool)
        guess = follow(track, P + (jump if step >= 5 else 0))
        if step > 5:
            assert torch.equal(guess, P + jump)


def test_without_the_mark_a_jump_is_taken_for_a_trend() -> None:
    track, values = track_of(1), polynomial(1)
    guesses = [follow(track, P + (1000.0 if step >= 5 else 0.0)) for step, P in enumerate(values)]
    assert torch.equal(guesses[6], values[6] + 2000.0)


def test_the_second_difference_of_a_row_that_jumps_is_forgotten_and_its_first_one_kept() -> None:
    track, values = track_of(2), polynomial(2)
    for step, P in enumerate(values[:6]):
        track.jumped = torch.tensor([[False], [step == 5], [False]])
        follow(track, P)
    jumped = torch.tensor([[False], [True], [False]])
    curvature = values[2] - 2 * values[1] + values[0]
    assert torch.equal(track.differences[1], torch.where(jumped, 0.0, curvature))
    assert torch.equal(track.differences[0], torch.where(jumped, values[4] - values[3], values[5] - values[4]))


def test_a_row_that_jumps_at_every_step_is_not_thrown_further_and_further() -> None:
    """d1 stays as it was before the first jump."""
    track, values = track_of(2), polynomial(2, seed=1)
    for P in values[:4]:
        follow(track, P)
    before = track.differences[0].clone()
    track.jumped = torch.ones(3, 1, dtype=torch.bool)
    for _ in range(200):
        follow(track, track.preactivation + torch.randn(3, 4, dtype=torch.float64))
        assert torch.equal(track.differences[0], before)


@pytest.mark.parametrize("pattern", ["jjs", "js", "jss", "jjjs", "jjjjss", "sjjsj"])
def test_jumps_that_come_again_and_again_are_not_amplified_where_nothing_moves(pattern: str) -> None:
    """Wrong differences of a row at rest die out, whatever the pattern of jumps (j) and steady steps (s)."""
    track = track_of(2)
    for P in polynomial(2, seed=1)[:4]:
        follow(track, P)
    rest, largest = track.preactivation.clone(), track.differences[0].abs().max()
    for step in range(30 * len(pattern)):
        track.jumped = torch.full((3, 1), pattern[step % len(pattern)] == "j")
        follow(track, rest)
    assert all(difference.abs().max() <= 1e-9 * largest for difference in track.differences)


def test_a_restored_track_makes_the_same_guesses() -> None:
    tracks, values = (track_of(2), track_of(2)), polynomial(3)
    for P in values[:5]:
        follow(tracks[0], P)
    tracks[0].ratio[:], tracks[0].margin[:] = 0.3, 1.7
    tracks[1].restore("t", {name: tensor.clone() for name, tensor in tracks[0].state("t").items()})
    assert (tracks[1].solved[0], tracks[1].ratio[0], tracks[1].margin[0]) == (5, 0.3, 1.7)
    for P in values[5:]:
        assert torch.equal(follow(tracks[0], P), follow(tracks[1], P))


# The ledger


def ledger_of(errors: np.ndarray, allowed: float, ratio: float = 0.5) -> Ledger:
    """The ledger of one network whose samples have these estimated errors."""
    found = Ledger(False, len(errors), np.array([ratio]), np.ones(1), np.array([allowed]))
    found.error = errors.copy()
    return found


def random_errors(seed: int, items: int) -> np.ndarray:
    """Errors over several decades; some are 0."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(items) < 0.1, 0.0, 10.0 ** rng.uniform(-4, 1, items))


property_test = settings(derandomize=True, deadline=None, max_examples=60)
seeds = st.integers(0, 2**32 - 1)


@property_test
@given(seed=seeds, items=st.integers(1, 60), allowed=st.floats(1e-3, 3.0))
def test_left_out_samples_use_up_no_more_than_their_share(seed: int, items: int, allowed: float) -> None:
    """Round after round until all have converged; it is the smallest that are left out, and they stay out."""
    rng = np.random.default_rng(seed)
    found, rows = ledger_of(random_errors(seed, items), allowed), np.arange(items)
    for _ in range(400):
        active = found.active(rows)
        if not len(active):
            break
        assert np.isin(active, rows).all()
        dropped, out = np.setdiff1d(rows, active), np.setdiff1d(np.arange(items), active)
        assert np.sum(found.error[out] ** 2) <= MOST_SPENT * found.goal[0] ** 2 * (1 + 1e-12)
        assert not len(dropped) or found.error[dropped].max() <= found.error[active].min()
        rows = active
        found.error[rows] *= rng.uniform(0.2, 0.9, len(rows))
    assert not len(active)
    assert found.residual[0] <= HEADROOM * allowed


@property_test
@given(seed=seeds, items=st.integers(2, 60))
def test_samples_come_back_where_the_tolerance_comes_down(seed: int, items: int) -> None:
    """Whatever becomes of what is allowed, what is out never uses up more than the largest share."""
    rng = np.random.default_rng(seed)
    found, rows = ledger_of(random_errors(seed, items), 1.0), np.arange(items)
    for _ in range(100):
        found.allowed[:] *= rng.uniform(0.5, 1.1)
        active = found.active(rows)
        if not len(active):
            break
        out = np.setdiff1d(np.arange(items), active)
        assert np.sum(found.error[out] ** 2) <= TOO_MUCH_SPENT * found.goal[0] ** 2 * (1 + 1e-12)
        rows = active
        found.error[rows] *= rng.uniform(0.3, 0.95, len(rows))


def first(holds: Iterator[bool]) -> int:
    """The first of the iterations 1, 2, ... after which something holds, up to the most that are planned."""
    return next((k for k, done in enumerate(holds, start=1) if done or k == MOST_PLANNED), MOST_PLANNED)


@property_test
@given(
    seed=seeds,
    items=st.integers(1, 40),
    allowed=st.floats(1e-3, 3.0),
    ratio=st.floats(0.05, 0.89),
    share=st.sampled_from([0.5, 0.75]),
)
def test_iterations_are_planned_until_it_has_converged_or_few_are_left(
    seed: int, items: int, allowed: float, ratio: float, share: float
) -> None:
    """Against the iterations themselves, each of which makes all errors of the rows smaller by the ratio."""
    found = ledger_of(random_errors(seed, items), allowed, ratio)
    rows = found.active(np.arange(items))
    if not len(rows):
        return
    out = np.sum(found.error[np.setdiff1d(np.arange(items), rows)] ** 2)
    smallest = np.sort(found.error[rows])[: len(rows) - int(share * len(rows))]
    budget = ledger.SPENT * (MOST_SPENT * found.goal[0] ** 2 - out)

    def holds() -> Iterator[bool]:
        for k in range(1, 100):
            converged = out + np.sum((found.error[rows] * ratio**k) ** 2) <= (HEADROOM * allowed) ** 2 * (1 + 1e-12)
            yield bool(converged or np.sum((smallest * ratio**k) ** 2) <= budget * (1 + 1e-12))

    assert found.planned_on(rows, share) == first(holds())


@property_test
@given(seed=seeds, networks=st.integers(1, 6))
def test_every_network_of_a_stack_plans_for_itself(seed: int, networks: int) -> None:
    rng = np.random.default_rng(seed)
    ratio, allowed = rng.uniform(0.05, 1.1, networks), 10.0 ** rng.uniform(-9, 0, networks)
    found = Ledger(True, networks, ratio, np.ones(networks), allowed)
    found.error = 10.0 ** rng.uniform(-9, 0, networks)
    for k, planned in enumerate(found.planned()):
        error, goal = found.error[k], HEADROOM * allowed[k]
        wanted = first(bool(error * ratio[k] ** i <= goal * (1 + 1e-12)) for i in range(1, 100))
        assert planned == (wanted if ratio[k] < FAR_SIGHTED else 1)


@pytest.mark.parametrize("ratio", [0.0, math.nan, 0.95, 1.0, 3.0, math.inf])
def test_nobody_plans_with_a_contraction_that_tells_nothing(ratio: float) -> None:
    found = ledger_of(np.array([1.0, 2.0]), 1e-6, ratio)
    assert found.planned().tolist() == [1]
    assert found.planned_on(np.arange(2), 0.5) == 1


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize("counts", [(1, 1, 1), (1, 3, 2)])
def test_of_a_linear_contraction_the_estimate_is_the_residual(counts: tuple[int, ...], stacked: bool) -> None:
    """z <- q z + b: the residual at a point is q times the change that led there, whatever was skipped between."""
    q, z = 0.6, np.array([3.0, -1.0, 0.5])
    found = Ledger(stacked, 3, np.zeros(3 if stacked else 1), np.ones(3 if stacked else 1), np.full(3, 1e-9))
    for step, count in enumerate(counts):
        for _ in range(count):
            before, z = z, q * z + 1.0
        found.observe(np.arange(3), np.abs(z - before), count)
        if step:
            assert found.error == pytest.approx(np.abs(q * z + 1.0 - z), rel=1e-12)
            assert found.ratio == pytest.approx(q, rel=1e-12)


def test_an_item_that_was_lucky_is_not_believed() -> None:
    found = Ledger(False, 2, np.zeros(1), np.ones(1), np.array([1e-9]))
    found.observe(np.arange(2), np.array([1.0, 1.0]))
    found.observe(np.arange(2), np.array([0.5, 1e-6]))
    contraction = math.sqrt((0.5**2 + 1e-12) / 2)
    assert found.ratio[0] == pytest.approx(contraction, rel=1e-12)
    assert found.error == pytest.approx([0.5 * 0.5, LEAST_RATIO * contraction * 1e-6], rel=1e-12)


def test_the_first_change_of_all_is_taken_for_the_error() -> None:
    found = Ledger(False, 2, np.zeros(1), np.full(1, 1.5), np.array([1e-9]))
    found.observe(np.arange(2), np.array([1.0, 2.0]))
    assert found.error.tolist() == [1.5, 3.0]


def test_margin_and_drift_go_into_the_error() -> None:
    found = Ledger(False, 1, np.array([0.5]), np.array([2.0]), np.array([1e-9]))
    found.drift[:] = 0.25
    found.observe(np.arange(1), np.array([1.0]))
    assert found.error.tolist() == [2.0 * 0.5 * 1.0 + 0.25]


def test_the_drift_bounds_what_low_precision_puts_into_the_point(monkeypatch: pytest.MonkeyPatch) -> None:
    """After bfloat16 corrections of P, z = phi(P) is as far from phi of a full product as noted, at most."""
    monkeypatch.setattr(correction, "LEAST_SIZE", 1)
    noted: list[tuple[float, float]] = []
    iterate = correction.Correction._iterate

    def watched(self: correction.Correction, times: int, full: bool) -> None:
        iterate(self, times, full)
        if not full:
            rows, exact = self.rows, torch.empty_like(self.rows.preactivation)
            rows.equation.preactivation((rows.point - rows.change).contiguous(), exact)
            missed, size = (exact.relu() - rows.point).norm(), rows.preactivation.norm()
            noted.append((float(missed), ledger.norm(self.ledger.drift[rows.ids]) + 1e-15 * float(size)))

    monkeypatch.setattr(correction.Correction, "_iterate", watched)
    for seed in range(5):
        network = network_with(solver(corrections="bfloat16"), draw_problem(40, 10, 80, norm=0.8, seed=seed))
        network.solve_equilibrium()
    assert len(noted) >= 10
    assert all(missed <= drift for missed, drift in noted)


def test_plain_iteration_agrees(count: Count) -> None:
    """To the tolerance over 1 - ||W||, along a training in which samples are left out."""
    p = draw_problem(60, 10, 50, norm=0.8)
    networks = [network_with(kind, p) for kind in (solver(), Picard(tolerance=1e-14, max_iterations=2000))]
    y, rate = torch.tensor(p.y), None
    for _ in range(6):
        for network in networks:
            assert network.solve_equilibrium(confirm=False).status is Status.CONVERGED
            assert network.solve_adjoint(confirm=False).status is Status.CONVERGED
        assert distance(networks[0].Z, networks[1].Z.numpy()) <= 1e-11
        assert distance(networks[0].V, networks[1].V.numpy()) <= 1e-11
        rate = rate or auto_rate(networks[0])
        for network in networks:
            network.descend(network.prediction_error(y), rate)
    assert count.narrowed > 0
