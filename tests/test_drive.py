"""Driving a pool whose cells end as they are told: what is repeated, what is not, and what stops everything."""

from __future__ import annotations

import os
import signal
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path

import pytest

from deqcli.errors import DiskFull, Interrupted, OutOfMemory, SystemRefused, as_refusal
from deqcli.recipe.execution import ExecutionOptions
from deqcli.recipe.schema import RunSpec
from deqcli.sweep.cells import FULL, LOST, Batch, CellEnd, batch_bytes, batches, devices, threads_of
from deqcli.sweep.drive import Drive, Listener
from deqcli.sweep.local import LocalPool
from deqcli.sweep.sweep import SweepOptions, sweep
from tests.runs import recipe

COMPLETE, FAILED, INTERRUPTED = "complete", "failed", "interrupted"


class ToldPool:
    """Every attempt at a cell ends as the script says, the last word for ever; so many batches at a time."""

    def __init__(self, script: dict[str, list[str]], jobs: int = 1, act: object = None) -> None:
        self.script = {run_id: deque(ends) for run_id, ends in script.items()}
        self.jobs, self.act = jobs, act
        self.running: list[RunSpec] = []
        self.started: list[list[str]] = []
        self.stopped = False

    def room(self, batch: Batch) -> bool:
        return len(self.running) < self.jobs

    def start(self, batch: Batch) -> None:
        self.started.append([spec.run_id for spec in batch])
        self.running += batch

    def ended(self, seconds: float) -> list[CellEnd]:
        ends = [CellEnd(spec, self._word(spec.run_id), "why", 5) for spec in self.running]
        self.running = []
        return ends

    def _word(self, run_id: str) -> str:
        words = self.script.get(run_id, deque([COMPLETE]))
        return INTERRUPTED if self.stopped else words.popleft() if len(words) > 1 else words[0]

    def stop(self) -> None:
        self.stopped = True


def cells(folder: Path, count: int) -> list[RunSpec]:
    """Cells that differ in their seed."""
    return recipe(folder, "sweep.widths=[24]", f"sweep.seeds=[{', '.join(map(str, range(count)))}]").cells()


def driven(pool: ToldPool, batches: Sequence[Batch], **options: object) -> tuple[list[CellEnd], list[CellEnd]]:
    """How the cells ended, and which attempts were repeated."""
    ends: list[CellEnd] = []
    repeated: list[CellEnd] = []
    Drive(pool, batches, ExecutionOptions(**options), Listener(ends.append, repeated.append)).run()  # type: ignore[arg-type]
    return ends, repeated


@pytest.mark.parametrize(("retries", "status", "attempts"), [(0, FAILED, 1), (1, FAILED, 2), (2, COMPLETE, 1)])
def test_a_lost_cell_is_tried_again_as_often_as_asked(tmp_path: Path, retries: int, status: str, attempts: int) -> None:
    """Twice in vain; a cell that becomes complete is the work of one whole attempt, whatever went before."""
    one, other = cells(tmp_path, 2)
    pool = ToldPool({one.run_id: [LOST, LOST, COMPLETE]})
    ends, repeated = driven(pool, [[one], [other]], retries=retries)
    assert {(end.spec.run_id, end.status, end.attempts) for end in ends} == {
        (one.run_id, status, attempts), (other.run_id, COMPLETE, 1),
    }  # fmt: skip
    assert [end.attempts for end in repeated] == list(range(2, 2 + min(retries, 2)))


def test_cells_that_were_lost_together_are_tried_alone_and_the_innocent_lose_no_attempt(tmp_path: Path) -> None:
    guilty, *others = together = cells(tmp_path, 4)
    script = {guilty.run_id: [LOST], **{each.run_id: [LOST, COMPLETE] for each in others}}
    pool = ToldPool(script)
    ends, _ = driven(pool, [together], retries=0)
    assert {end.spec.run_id: end.status for end in ends} == {
        guilty.run_id: FAILED, **{each.run_id: COMPLETE for each in others},
    }  # fmt: skip
    assert Counter(map(len, pool.started)) == {4: 1, 1: 4}


def test_a_cell_that_fails_by_itself_is_not_tried_again(tmp_path: Path) -> None:
    (one,) = cells(tmp_path, 1)
    pool = ToldPool({one.run_id: [FAILED, COMPLETE]})
    ends, repeated = driven(pool, [[one]], retries=5)
    assert ([end.status for end in ends], repeated, len(pool.started)) == ([FAILED], [], 1)


@pytest.mark.parametrize("fail_fast", [False, True])
def test_the_first_failure_stops_a_sweep_only_where_that_was_asked_for(tmp_path: Path, fail_fast: bool) -> None:
    specs = cells(tmp_path, 4)
    pool = ToldPool({specs[1].run_id: [FAILED]})
    ends, _ = driven(pool, [[spec] for spec in specs], fail_fast=fail_fast)
    rest = INTERRUPTED if fail_fast else COMPLETE
    assert [end.status for end in ends] == [COMPLETE, FAILED, rest, rest]
    assert pool.stopped == fail_fast


def test_a_full_disk_stops_everything(tmp_path: Path) -> None:
    specs = cells(tmp_path, 3)
    pool = ToldPool({specs[0].run_id: [FULL]})
    ends: list[CellEnd] = []
    with pytest.raises(DiskFull, match=specs[0].run_id):
        Drive(pool, [[spec] for spec in specs], ExecutionOptions(), Listener(ends.append)).run()
    assert [(end.spec, end.status) for end in ends] == [(specs[0], FAILED)]
    assert pool.stopped


def test_a_signal_stops_what_runs_and_says_how_much_had_not_started(tmp_path: Path) -> None:
    specs = cells(tmp_path, 5)
    pool = ToldPool({})
    ends: list[CellEnd] = []

    def interrupt(running: Sequence[RunSpec]) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match="4 cells had not started") as stop:
        Drive(pool, [[spec] for spec in specs], ExecutionOptions(), Listener(ends.append, running=interrupt)).run()
    assert stop.value.exit_code == 143
    assert len(ends) == 1


def test_what_the_system_says_decides_whether_another_attempt_makes_sense() -> None:
    assert type(as_refusal(OSError(28, "No space left on device"))) is DiskFull
    assert type(as_refusal(OSError(13, "Permission denied"))) is SystemRefused
    assert type(as_refusal(MemoryError())) is OutOfMemory
    assert type(as_refusal(RuntimeError("CUDA out of memory. Tried to"))) is OutOfMemory
    assert type(as_refusal(OSError(12, "Cannot allocate memory"))) is OutOfMemory


class Idle:
    """A worker that computes for ever."""

    def __init__(self, batch: Batch) -> None:
        self.running = {spec.run_id: spec for spec in batch}


def test_two_cells_that_do_not_fit_together_run_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = cells(tmp_path, 2)
    pool = LocalPool(lambda _: pytest.fail("nothing is started"), jobs=2)
    needed = batch_bytes([one])
    monkeypatch.setattr("deqcli.sweep.local.available_memory", lambda: 10 * needed)
    for memory, fits in ((2 * needed - 1, False), (2 * needed, True)):
        monkeypatch.setattr("deqcli.sweep.local.machine_memory", lambda memory=memory: memory)
        pool._slots = [None, None]
        assert pool.room([one])  # alone anything is tried
        pool._slots = [Idle([one]), None]  # type: ignore[list-item]
        assert pool.room([other]) is fits
    monkeypatch.setattr("deqcli.sweep.local.available_memory", lambda: needed - 1)
    assert not pool.room([other])
    pool._slots = [Idle([one]), Idle([one])]  # type: ignore[list-item]
    assert not pool.room([other])


def test_gpus_are_counted_without_torch_and_only_those_that_are_visible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deqcli.sweep.cells.DEVICES", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert devices("auto") == ["auto"]
    for name in ("nvidia0", "nvidia1", "nvidia2", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert devices("auto") == devices("cuda") == ["cuda:0", "cuda:1", "cuda:2"]
    assert (devices("cuda:1"), devices("cpu")) == (["cuda:1"], ["cpu"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,0")
    assert devices("auto") == ["cuda:0", "cuda:1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert devices("auto") == ["auto"]


def test_what_was_stopped_before_it_was_begun_is_still_what_it_was_before(tmp_path: Path) -> None:
    """A second start with fail_fast forgets no failure that it did not come to."""
    overrides = ("solver.max_iterations=2", "sweep.widths=[24]", "sweep.seeds=[0, 1]", "execution.jobs=1")
    sweep(recipe(tmp_path, *overrides, "solver.kind=picard"), tmp_path, SweepOptions("cpu"))
    fast = recipe(tmp_path, *overrides, "solver.kind=picard", "execution.fail_fast=true")
    end = sweep(fast, tmp_path, SweepOptions("cpu"))
    assert [(each.status, each.exit_code) for each in end.ends] == [(FAILED, 3), (FAILED, 3)]


def test_small_cells_take_one_thread_of_their_share_and_large_ones_all(tmp_path: Path) -> None:
    small, large = (recipe(tmp_path, f"sweep.widths=[{width}]").cells() for width in (32, 2000))
    assert (threads_of(small, 8), threads_of(large, 8), threads_of([*small, *large], 8)) == (1, 8, 8)


def test_cells_are_together_only_where_they_differ_in_their_seed_alone(tmp_path: Path) -> None:
    loaded = recipe(tmp_path, "sweep={widths: [24, 300], seeds: [0, 1, 2], over: {model.sigma_w_sq: [0.01, 0.02]}}")
    grouped = batches(loaded.cells(), jobs=1)
    assert sorted(map(len, grouped)) == [1] * 6 + [3, 3]
    for batch in grouped:
        assert len({(cell.model.width, cell.model.sigma_w_sq) for cell in batch}) == 1
