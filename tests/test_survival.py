"""Killed, started twice or asked to stop at any time, a sweep ends with the bytes of an undisturbed one."""

from __future__ import annotations

import itertools
import random
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deqcli.runs import files
from deqcli.runs.folder import LOCK_PATIENCE
from tests.survival import SOLVERS, Going, Server, below, chances, differences, gone, send
from tests.waiting import wait_for

VICTIMS = ("worker", "driver", "worker", "tree", "workers")
STOPS = (signal.SIGINT, signal.SIGTERM)
FULL = pytest.mark.reliability
IMPATIENT = 0.3
"""Seconds that one of many contenders waits for a folder."""


class Bench:
    """The server, and for each solver an undisturbed sweep and how long it took."""

    def __init__(self, scratch: Path) -> None:
        self.server = Server(scratch)
        self.seconds: dict[str, float] = {}
        for solver in SOLVERS:
            start = time.monotonic()
            self.finish(self.reference(solver), solver)
            self.seconds[solver] = time.monotonic() - start

    def reference(self, solver: str) -> Path:
        """The output folder of the undisturbed sweep."""
        return self.server.scratch / solver

    def finish(self, out: Path, solver: str) -> None:
        """Let the sweep in a folder come to its end, and compare."""
        self.server.settle(lambda: self.server.sweep(out, SOLVERS[solver]))
        assert not differences(out, self.reference(solver))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    found = Bench(tmp_path_factory.mktemp("bench"))
    yield found
    found.server.close()


def killed(command: Going, victim: str, chance: random.Random) -> list[int]:
    """Kill -9 a worker, all of them, the driver, or the driver and its workers in any order; who they were."""
    workers = below(command.pid)
    if victim == "worker":
        chosen = workers and [chance.choice(workers)]
    else:
        chosen = [*workers * (victim != "driver"), *[command.pid] * (victim != "workers")]
    send(signal.SIGKILL, *chance.sample(chosen, len(chosen)))
    return chosen


def harassed(command: Going, seconds: float, victims: Iterator[str], chance: random.Random) -> int:
    """Kill parts of a sweep until it has lost its driver or is done; how many times something was killed."""
    count = 0
    while True:
        until = time.monotonic() + chance.uniform(0, 0.6 * seconds)
        while time.monotonic() < until and not command.over:
            time.sleep(0.01)
        if command.over:
            return count
        workers = below(command.pid)
        victims_now = killed(command, next(victims), chance)
        count += bool(victims_now)
        if command.pid in victims_now:
            assert command.code() in (-signal.SIGKILL, 0)
            if chance.random() < 0.5:  # else the next command meets workers that have lost their driver
                gone(workers)
            return count


@pytest.mark.parametrize("kills", [3, pytest.param(100, marks=FULL)])
@pytest.mark.parametrize("solver", SOLVERS)
def test_kills_at_random_times_change_no_byte(bench: Bench, tmp_path: Path, solver: str, kills: int) -> None:
    """Some in each folder, of what VICTIMS names, until the sweep is let alone."""
    chance, victims, count = chances((solver, kills)), itertools.cycle(VICTIMS), 0
    for number in range(10 * kills):
        out = tmp_path / str(number)
        for _ in range(chance.randint(2, 5)):
            command = bench.server.sweep(out, SOLVERS[solver], jobs=chance.choice((1, 2)))
            count += harassed(command, bench.seconds[solver], victims, chance)
            if command.code() == 0:
                break
        bench.finish(out, solver)
        if count >= kills:
            return
    raise AssertionError(f"only {count} kills hit anything")


def owner_of(out: Path) -> tuple[int, str] | None:
    """Process id and host of who works in the folder of the only sweep, as it says of itself."""
    texts = [path.read_text() for path in out.glob(f"*/sweeps/*/{files.OWNER}") if path.exists()]
    found = re.fullmatch(r"process (\d+) on (\S+)\n", texts[0]) if texts else None
    return (int(found[1]), found[2]) if found else None


def raced(start: Callable[[], Going], contenders: int, out: Path) -> bool:
    """Race for a folder; False where the winner was done before it could be held, which decides nothing."""
    commands = [start() for _ in range(contenders)]
    wait_for(lambda: owner_of(out) or all(each.over for each in commands))
    pid, host = owner_of(out) or (0, "")
    winners = [each for each in commands if each.pid == pid]
    send(signal.SIGSTOP, *(each.pid for each in winners))  # until the others have given up, however slow the machine is
    held = bool(winners) and owner_of(out) == (pid, host)
    for each in commands:
        if each not in winners:
            assert each.code() in ((6,) if held else (0, 6)), each.err
            assert each.code() == 0 or re.search(r"is in use by process \d+ on \S+", each.err)
            assert not held or f"is in use by process {pid} on {host}" in each.err
    send(signal.SIGCONT, *(each.pid for each in winners))
    assert all(each.code() == 0 for each in winners)
    return held


@pytest.mark.parametrize(
    ("contenders", "races", "patience"),
    [
        (2, 1, LOCK_PATIENCE),
        (8, 1, IMPATIENT),
        pytest.param(2, 40, IMPATIENT, marks=FULL),
        pytest.param(8, 60, IMPATIENT, marks=FULL),
    ],
)
def test_of_starts_in_one_folder_one_works_and_the_others_name_it(
    bench: Bench, tmp_path: Path, contenders: int, races: int, patience: float
) -> None:
    count = 0
    for number in range(3 * races):
        out = tmp_path / str(number)
        count += raced(lambda: bench.server.sweep(out, patience=patience), contenders, out)  # noqa: B023
        assert not differences(out, bench.reference("apart"))
        if count == races:
            return
    raise AssertionError(f"only {count} races were close")


OTHERS = ("sweep.widths=[32, 40]", "sweep.widths=[24, 40]", "sweep.widths=[32]", "sweep.seeds=[0, 2]")
"""Sweeps that share cells with the usual one."""


def meet(bench: Bench, out: Path, other: str, chance: random.Random) -> None:
    """Another sweep, or the training of one cell, begins at some time in a sweep, or the sweep in it."""
    cell = ["--width", chance.choice((24, 32)), "--seed", chance.choice((0, 1))]
    train = ["train", bench.server.recipe, *cell, "--device", "cpu", "--out", out]
    starts = [
        lambda: bench.server.sweep(out, patience=IMPATIENT),
        (lambda: bench.server.start(*train, patience=IMPATIENT))
        if other == "train"
        else (lambda: bench.server.sweep(out, other, patience=IMPATIENT)),
    ]
    chance.shuffle(starts)
    first = starts[0]()
    time.sleep(chance.uniform(0, 0.7 * bench.seconds["apart"]))
    for command in (first, starts[1]()):
        assert command.code() in (0, 6, 7), command.err
        assert "Traceback" not in command.err
        assert command.code() == 0 or re.search(r"is in use by process \d+ on \S+", command.err)
    for start in starts:
        bench.server.settle(start)


@pytest.mark.parametrize("times", [1, pytest.param(10, marks=FULL)])
@pytest.mark.parametrize("other", ["train", OTHERS[0], *(pytest.param(each, marks=FULL) for each in OTHERS[1:])])
def test_what_shares_cells_with_a_sweep_waits_or_says_who_has_them(
    bench: Bench, tmp_path: Path, other: str, times: int
) -> None:
    alone = tmp_path / "alone"
    bench.server.settle(lambda: bench.server.sweep(alone))
    if other != "train":
        bench.server.settle(lambda: bench.server.sweep(alone, other))
    for number in range(times):
        out = tmp_path / str(number)
        meet(bench, out, other, chances((other, times, number)))
        assert not differences(out, alone)


PHASES = {
    "train": ("*", "*/runs/*/certificates.csv", "*/runs/*/timing.csv"),
    "sweep": ("*", "*/runs/*/timing.csv", "*/sweeps/*/runs.csv", "*/sweeps/*/figures/*.png"),
}
"""What is there once a command has come so far: it is started, draws or trains, merges, makes figures."""


def stopped(command: Going, there: Callable[[], object], chance: random.Random) -> float | None:
    """Send a command a signal some time after what is to be there, half of the times two, and let it end.

    How long that took after the last one; None where it had ended before.
    """
    wait_for(lambda: command.over or (command.listens and there()))
    time.sleep(chance.uniform(0, 1.5 if command.real else 0.5))
    signums, gaps = chance.choices(STOPS, k=chance.choice((1, 2))), iter([0.0, chance.uniform(0, 0.1)])
    workers, late = below(command.pid), command.over
    for signum in signums:
        time.sleep(next(gaps))
        if not command.over:
            send(signum, command.pid)
    start = time.monotonic()
    code = command.code()
    took = time.monotonic() - start
    assert code in {0, *(128 + each for each in signums)}, command.err
    assert "Traceback" not in command.err, command.err
    gone(workers)
    return None if late else took


def begun(bench: Bench, what: str, out: Path, solver: str, real: bool) -> Going:
    """A sweep, or the training of one of its cells."""
    start = bench.server.real if real else bench.server.start
    if what == "sweep":
        return start(*bench.server.sweeping(out, SOLVERS[solver]))
    cell = ["--width", 24, "--seed", 0, "--device", "cpu", "--out", out]
    return start("train", bench.server.recipe, SOLVERS[solver], *cell)


@pytest.mark.parametrize(
    ("real", "times"),
    [
        pytest.param(False, 4, id="some"),
        pytest.param(True, 2, id="started"),
        pytest.param(False, 48, id="many", marks=FULL),
        pytest.param(True, 12, id="many-started", marks=FULL),
    ],
)
@pytest.mark.parametrize("what", ["train", "sweep"])
def test_signals_at_any_time_end_a_command_and_it_goes_on(
    bench: Bench, tmp_path: Path, what: str, real: bool, times: int
) -> None:
    """Up to four in a folder, one in each phase; then the same command goes on to its end."""
    chance, took = chances((what, real, times)), list[float | None]()
    for first in range(0, times, 4):
        out, solver = tmp_path / str(first), chance.choice(list(SOLVERS))
        for number in range(min(4, times - first)):
            mark = PHASES[what][number % len(PHASES[what])]
            there = (lambda: True) if number == 0 else (lambda: list(out.glob(mark)))  # noqa: B023
            took.append(stopped(begun(bench, what, out, solver, real), there, chance))
        bench.server.settle(lambda: begun(bench, what, out, solver, False))  # noqa: B023
        compared = [out] if what == "sweep" else list(out.glob("*/runs/*"))
        for folder in compared:
            assert not differences(folder, bench.reference(solver) / folder.relative_to(out))
    ends = [each for each in took if each is not None]
    print(f"{what}: {len(ends)} of {times} were interrupted, and ended at most {max(ends, default=0):.2f} s later")
