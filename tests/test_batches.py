"""Small networks in one batched product: what a run writes does not depend on which others it shared it with."""

from __future__ import annotations

import csv
import itertools
import json
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from deqcli.deq import correction
from deqcli.deq.automatic import Automatic
from deqcli.deq.continuation import Continuation
from deqcli.deq.network import Network, joined, part
from deqcli.deq.room import ALIGNMENT
from deqcli.deq.solvers import Solution, Solver
from deqcli.errors import Interrupted, NumericalFailure
from deqcli.recipe.schema import RunSpec
from deqcli.runs import batch
from deqcli.runs.attempt import Outcome
from deqcli.runs.folder import read_manifest, run_folder
from deqcli.runs.run import run_batch
from tests.dense import Problem, draw_problem
from tests.runs import small, tables
from tests.solving import DTYPES, rounded
from tests.test_resume import CPU, signal_at
from tests.training import labels, shapes_unchecked, stack_of, steps

pytestmark = pytest.mark.usefixtures("fast")
every_dtype = pytest.mark.parametrize("dtype", DTYPES)

ODD = ("model.width=33", "data.num_samples=7", "data.input_dim=5", "train.steps=8", "log.spectral_every=3")
"""Sizes at which no network after the first would be aligned in memory, if they were stored one after another."""


def seeded(folder: Path, *overrides: str, seeds: Sequence[int] = range(5)) -> list[RunSpec]:
    """Runs that differ in their seed alone."""
    specs = [small(folder, *ODD, *overrides, f"train.seed={seed}") for seed in seeds]
    assert all(spec.stackable for spec in specs)
    return specs


def compute(specs: Sequence[RunSpec], out: Path, sizes: Sequence[int] = ()) -> dict[str, Outcome | Exception]:
    """Compute runs in batches of these sizes, the rest one by one; how each ended."""
    ends: dict[str, Outcome | Exception] = {}
    left = list(specs)
    for size in [*sizes, *[1] * (len(specs) - sum(sizes))]:
        run_batch(left[:size], out, CPU, on_end=lambda spec, end: ends.update({spec.run_id: end}))
        left = left[size:]
    assert set(ends) == {spec.run_id for spec in specs}
    return ends


def written(specs: Sequence[RunSpec], out: Path) -> dict[str, dict[str, bytes]]:
    """The tables of complete runs."""
    return {spec.run_id: tables(run_folder(out, spec)) for spec in specs}


def rows(spec: RunSpec, out: Path) -> list[dict[str, str]]:
    """The rows of loss.csv."""
    with (run_folder(out, spec) / "loss.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def complete(ends: dict[str, Outcome | Exception]) -> bool:
    """Whether no run failed."""
    return all(isinstance(end, Outcome) for end in ends.values())


@pytest.fixture
def team_sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the stacks that there were."""
    found: list[int] = []

    class Watched(batch.Team):
        def __init__(self, members: Sequence[batch.Started]) -> None:
            super().__init__(members)
            found.append(self.network.size)

    monkeypatch.setattr(batch, "Team", Watched)
    return found


@pytest.fixture
def fast() -> Iterator[None]:
    """Shapes are checked by the other tests of stacks, and of solvers."""
    with shapes_unchecked():
        yield


# Runs


@every_dtype
@pytest.mark.parametrize("kind", ["continuation", "auto"])
def test_tables_do_not_depend_on_the_grouping(tmp_path: Path, kind: str, dtype: str, team_sizes: list[int]) -> None:
    specs = seeded(tmp_path, f"solver.kind={kind}", f"train.dtype={dtype}")
    assert complete(compute(specs, tmp_path / "alone"))
    wanted = written(specs, tmp_path / "alone")
    for sizes in ([5], [2, 3]) if kind == "continuation" else ([5],):
        out = tmp_path / str(sizes)
        assert complete(compute(specs, out, sizes))
        assert written(specs, out) == wanted
    assert {1, 5} <= set(team_sizes)


@every_dtype
def test_every_network_needs_its_own_number_of_iterations(tmp_path: Path, dtype: str) -> None:
    """Also in a stack, where the products are those of the one that needs most."""
    specs = seeded(tmp_path, f"train.dtype={dtype}", "model.sigma_w_sq=0.1", seeds=range(4))
    assert complete(compute(specs, tmp_path / "alone"))
    assert complete(compute(specs, tmp_path / "stack", [4]))
    counts = []
    for spec in specs:
        own, stacked = (
            [(row["iterations"], row["adjoint_iterations"], row["residual"]) for row in rows(spec, tmp_path / out)]
            for out in ("alone", "stack")
        )
        assert own == stacked
        counts.append(tuple(row[:2] for row in own))
    assert len(set(counts)) == len(specs)


@every_dtype
def test_losses_of_a_stack_are_those_of_plain_iteration(tmp_path: Path, dtype: str) -> None:
    overrides = (f"train.dtype={dtype}", "train.learning_rate=0.001", "model.sigma_w_sq=0.02", "train.steps=20")
    specs, plain = seeded(tmp_path, *overrides), [
        small(tmp_path, *ODD, *overrides, "solver.kind=picard", f"train.seed={seed}") for seed in range(5)
    ]  # fmt: skip
    assert complete(compute(specs, tmp_path, [5]))
    assert complete(compute(plain, tmp_path))
    for pair in zip(specs, plain, strict=True):
        found, wanted = (np.array([float(row["loss"]) for row in rows(spec, tmp_path)]) for spec in pair)
        assert len(found) == 21
        assert np.max(np.abs(found / wanted - 1)) <= (1e-5 if dtype == "float32" else 1e-11)
        assert wanted[-1] < 0.99 * wanted[0]


@every_dtype
def test_a_run_that_fails_or_ends_early_leaves_the_others_alone(
    tmp_path: Path, dtype: str, team_sizes: list[int]
) -> None:
    """One fails at once, one at its first step, one ends after three, two go on to the end."""
    good = seeded(tmp_path, f"train.dtype={dtype}", seeds=[0, 1])
    (early,) = seeded(tmp_path, f"train.dtype={dtype}", "train.steps=3", seeds=[2])
    (never,) = seeded(tmp_path, f"train.dtype={dtype}", "model.sigma_w_sq=1e9", seeds=[3])
    (soon,) = seeded(tmp_path, f"train.dtype={dtype}", "train.learning_rate=1e9", seeds=[4])
    order = [never, good[0], soon, early, good[1]]
    ends = compute(order, tmp_path / "stack", [5])
    assert isinstance(ends[never.run_id], NumericalFailure)
    assert isinstance(ends[soon.run_id], NumericalFailure)
    assert team_sizes == [4, 3, 2]
    compute(order, tmp_path / "alone")
    for spec in (*good, early):
        assert isinstance(ends[spec.run_id], Outcome)
    assert written([*good, early], tmp_path / "stack") == written([*good, early], tmp_path / "alone")
    for spec in (never, soon):
        folders = [run_folder(tmp_path / out, spec) for out in ("stack", "alone")]
        assert len({(folder / "loss.csv").read_bytes() for folder in folders}) == 1
        assert len({json.loads((folder / "manifest.json").read_text())["error"] for folder in folders}) == 1


def stop(specs: Sequence[RunSpec], out: Path, step: int) -> None:
    """Start, or resume, runs in one batch that a signal stops at a step."""
    with pytest.raises(Interrupted):
        run_batch(specs, out, CPU, report=signal_at(step, signal.SIGTERM))
    for spec in specs:
        manifest = read_manifest(run_folder(out, spec), "run", spec.run_id)
        assert manifest is not None
        assert manifest.status == "interrupted"
        assert (run_folder(out, spec) / "checkpoint.safetensors").exists()


@every_dtype
@pytest.mark.parametrize("kind", ["continuation", "auto"])
def test_stopped_runs_go_on_in_any_grouping_and_at_different_steps(
    tmp_path: Path, kind: str, dtype: str, team_sizes: list[int]
) -> None:
    specs = seeded(tmp_path, f"solver.kind={kind}", f"train.dtype={dtype}", seeds=range(3))
    assert complete(compute(specs, tmp_path / "whole"))
    out = tmp_path / "parts"
    stop(specs[:2], out, 3)
    stop(specs[2:], out, 4)
    stop([specs[2], specs[0]], out, 6)  # where one is at step 4 and the other at step 3
    assert complete(compute(specs[::-1], out, [3]))
    assert written(specs, out) == written(specs, tmp_path / "whole")
    assert {1, 2, 3} <= set(team_sizes)


@every_dtype
@pytest.mark.parametrize("n", [7, 40])
def test_a_small_run_alone_that_was_stopped_again_and_again_ends_with_the_same_bytes(
    tmp_path: Path, n: int, dtype: str
) -> None:
    """With the sum of its steps kept, and with U itself."""
    specs = seeded(tmp_path, f"train.dtype={dtype}", f"data.num_samples={n}", seeds=[3])
    assert complete(compute(specs, tmp_path / "whole"))
    for step in (1, 2, 5):
        stop(specs, tmp_path / "parts", step)
    assert complete(compute(specs, tmp_path / "parts"))
    assert written(specs, tmp_path / "parts") == written(specs, tmp_path / "whole")


def test_misses_are_counted_for_each_run_and_across_interruptions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With estimates that may be thirty times the tolerance; what a logged row says is within it all the same."""
    specs = seeded(tmp_path, "log.spectral_every=1", seeds=range(2))
    compute(specs, tmp_path / "good", [2])
    monkeypatch.setattr(correction, "HEADROOM_SMALL", 30.0)
    compute(specs, tmp_path / "whole", [2])
    stop(specs, tmp_path / "parts", 4)
    compute(specs, tmp_path / "parts", [2])
    counts = []
    for out in ("good", "whole", "parts"):
        manifests = [read_manifest(run_folder(tmp_path / out, spec), "run", spec.run_id) for spec in specs]
        counts.append([manifest.results["residual_misses"] for manifest in manifests if manifest])
    assert max(counts[0]) <= 1
    assert min(counts[1]) >= 3
    assert counts[2] == counts[1]
    for spec in specs:
        for row in rows(spec, tmp_path / "whole"):
            assert max(float(row["residual"]), float(row["adjoint_residual"])) <= 1e-12


def test_a_width_of_one_has_no_stack(tmp_path: Path) -> None:
    """A product of one column is computed otherwise in a batch of one than in a batch of many."""
    assert not small(tmp_path, "model.width=1").stackable
    assert small(tmp_path, "model.width=2").stackable
    assert small(tmp_path, "model.width=128").stackable
    assert not small(tmp_path, "model.width=129").stackable


# Networks


def trained(network: Network, y: torch.Tensor, rates: torch.Tensor) -> list[list[Solution]]:
    """The solutions of four steps, the first and the last confirmed."""
    found = steps(network, y, rates, 4, lambda step: step % 4 == 0)
    return [forward + adjoint for forward, adjoint in found]


def problems_of(n: int, d: int, m: int, count: int, dtype: torch.dtype) -> list[Problem]:
    """Networks of one shape and of contractions from 0.1 to 0.9."""
    norms = np.linspace(0.1, 0.9, count)
    return [rounded(draw_problem(n, d, m, norm=float(norm), seed=k), dtype) for k, norm in enumerate(norms)]


SHAPES = [(16, 11, 128), (7, 1, 76), (20, 17, 30), (5, 18, 113), (1, 4, 9), (36, 14, 3), (1, 1, 2)]
"""n, d, m: most of them sizes at which the networks of a plain stack would not be aligned."""


@every_dtype
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("solver", [Continuation(), Automatic()], ids=["continuation", "auto"])
def test_bits_of_a_network_do_not_depend_on_its_stack(solver: Solver, shape: tuple[int, int, int], dtype: str) -> None:
    problems = problems_of(*shape, 3, DTYPES[dtype])
    y, rates = labels(problems, DTYPES[dtype]), torch.tensor([[1e-4], [1e-3], [2e-4]], dtype=DTYPES[dtype])
    stack = stack_of(solver, problems, DTYPES[dtype])
    together = trained(stack, y, rates)
    for k, p in enumerate(problems):
        alone = stack_of(solver, [p], DTYPES[dtype])
        wanted = trained(alone, y[k : k + 1], rates[k : k + 1])
        assert [[step[k], step[3 + k]] for step in together] == wanted
        assert all(torch.equal(tensor[k], alone.state()[name][0]) for name, tensor in stack.state().items())


@pytest.mark.slow
@every_dtype
def test_bits_of_random_networks_do_not_depend_on_their_stack(dtype: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        n, d, m = (int(k) for k in rng.integers((1, 1, 2), (45, 24, 129)))
        test_bits_of_a_network_do_not_depend_on_its_stack(Continuation(), (n, d, m), dtype)


@every_dtype
def test_every_network_of_a_stack_is_aligned(dtype: str) -> None:
    """What is multiplied begins at the same multiples as a tensor of its own does, at any size."""
    for n, d, m in ((7, 5, 33), (30, 3, 33), (1, 1, 3)):
        stack = stack_of(Continuation(), problems_of(n, d, m, 3, DTYPES[dtype]), DTYPES[dtype])
        y = labels(problems_of(n, d, m, 3, DTYPES[dtype]), DTYPES[dtype])
        trained(stack, y, torch.full((3, 1), 1e-3, dtype=DTYPES[dtype]))
        factors = [stack.params.W, stack.params.U, stack.X.mT, stack.Z.mT, stack.V.mT, stack.injection.value]
        factors += [stack.workspace[name] for name in ("image", "change", "start")]
        factors += [stack.injection._XtX, stack.injection._sum] if stack.injection.summed else []
        for tensor in factors:
            assert all(network.data_ptr() % ALIGNMENT == 0 for network in tensor)


@every_dtype
def test_taking_a_stack_apart_and_joining_it_changes_no_bit(dtype: str) -> None:
    problems = problems_of(7, 5, 33, 3, DTYPES[dtype])
    y, rates = labels(problems, DTYPES[dtype]), torch.full((3, 1), 1e-3, dtype=DTYPES[dtype])
    stack = stack_of(Continuation(), problems, DTYPES[dtype])
    trained(stack, y, rates)
    for order in itertools.permutations(range(3)):
        again = joined([part(stack, k) for k in order])
        for name, tensor in stack.state().items():
            assert torch.equal(again.state()[name], tensor[list(order)])
        for tensor, wanted in ((again.Z, stack.Z), (again.V, stack.V), (again.slope, stack.slope), (again.X, stack.X)):
            assert torch.equal(tensor, wanted[list(order)])
        assert torch.equal(again.injection.U, stack.injection.U[list(order)])


def test_parts_go_on_as_the_stack_would() -> None:
    """The next steps of each part, alone or joined in another order, are those of the stack."""
    problems = problems_of(7, 5, 33, 3, torch.float64)
    y, rates = labels(problems), torch.tensor([[0.001], [0.01], [0.002]], dtype=torch.float64)
    stack = stack_of(Continuation(), problems)
    trained(stack, y, rates)
    order = [2, 0]
    others = joined([part(stack, k) for k in order])
    found, wanted = trained(others, y[order], rates[order]), trained(stack, y, rates)
    for some, every in zip(found, wanted, strict=True):
        assert some == [every[k] for k in order] + [every[3 + k] for k in order]
    assert torch.equal(others.Z, stack.Z[order])


# What fails in the middle


def test_what_fails_in_a_product_of_all_is_in_every_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that runs out in the fourth step; the same command begins anew, and ends with the same bytes."""
    specs, descend, taken = seeded(tmp_path, seeds=range(2)), Network.descend, itertools.count(1)

    def failing(network: Network, *arguments: object) -> None:
        if next(taken) == 4:
            raise MemoryError("no room for a matrix")
        descend(network, *arguments)

    monkeypatch.setattr(Network, "descend", failing)
    ends = compute(specs, tmp_path / "parts", [2])
    assert all(isinstance(end, MemoryError) for end in ends.values())
    for spec in specs:
        manifest = read_manifest(run_folder(tmp_path / "parts", spec), "run", spec.run_id)
        assert (manifest.status, "no room for a matrix" in manifest.error) == ("failed", True)
    monkeypatch.undo()
    assert complete(compute(specs, tmp_path / "parts", [2]))
    assert complete(compute(specs, tmp_path / "whole", [2]))
    assert written(specs, tmp_path / "parts") == written(specs, tmp_path / "whole")


def test_a_checkpoint_that_fails_leaves_those_of_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full for one of three runs when all are told to stop."""
    specs, checkpoint = seeded(tmp_path, seeds=range(3)), batch.Attempt.checkpoint

    def failing(attempt: batch.Attempt, network: Network, k: int) -> None:
        if attempt.spec.train.seed == 1:
            raise OSError(28, "No space left on device")
        checkpoint(attempt, network, k)

    with monkeypatch.context() as patch:
        patch.setattr(batch.Attempt, "checkpoint", failing)
        ends: dict[str, object] = {}
        with pytest.raises(Interrupted, match="interrupted at step 5 of 8"):
            run_batch(
                specs,
                tmp_path / "parts",
                CPU,
                report=signal_at(5, signal.SIGTERM),
                on_end=lambda spec, end: ends.update({spec.run_id: end}),
            )
    assert [type(end) for end in ends.values()] == [OSError]
    found = [read_manifest(run_folder(tmp_path / "parts", spec), "run", spec.run_id).status for spec in specs]
    assert found == ["interrupted", "failed", "interrupted"]
    assert complete(compute(specs, tmp_path / "parts", [3]))
    assert complete(compute(specs, tmp_path / "whole", [3]))
    assert written(specs, tmp_path / "parts") == written(specs, tmp_path / "whole")
