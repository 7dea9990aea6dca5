"""Killed, refused by the system or cut off from power at any change it makes to the disk, a run comes to its end."""

from __future__ import annotations

import random
import re
import shutil
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from deqcli.errors import SystemRefused
from deqcli.runs.folder import owner, run_folder
from tests.faults import (
    FULL_DISKS,
    KILLS,
    LEFT,
    ONCE,
    End,
    Fault,
    Reference,
    Server,
    content,
    cut_power,
    finish,
    shim,
    tiny,
)  # fmt: skip

GROUPS = ("alone", "wide", "stack")
SOME = {"alone": 12, "wide": 4, "stack": 5}
"""Of so many changes of a group, each of another kind, the fast tests try out what happens there."""

TURNS = {"alone": r"rename .*/(checkpoint|manifest)\."}
"""And in any case where one state of a folder becomes the next."""

STOP = 5
"""The step at which a signal comes; no checkpoint is due there."""

KILLED, TERMINATED, REFUSED = signal.SIGKILL, 128 + signal.SIGTERM, SystemRefused.exit_code
REACH = [pytest.param(False, id="some"), pytest.param(True, id="all", marks=pytest.mark.reliability)]


class Bench:
    """The server, the groups of runs with what they should come to, and the changes that each makes to the disk."""

    def __init__(self, scratch: Path) -> None:
        self.server = Server(shim(scratch), scratch / "server")
        self._scratch = scratch
        specs = {
            "alone": [tiny(scratch)],
            "wide": [tiny(scratch, "model.width=130", "data.num_samples=3")],
            "stack": [tiny(scratch, f"train.seed={seed}") for seed in range(3)],
        }
        self.references = {group: Reference(each, scratch / group) for group, each in specs.items()}
        self.earlier = scratch / "earlier"  # an output folder in which another run is complete
        finish([tiny(scratch, "train.seed=9")], self.earlier)
        self.changes = {group: self.changes_in(scratch / f"{group}-counted", group) for group in specs}
        self.stopped = {group: self.changes_in(scratch / f"{group}-stopped", group, stop=STOP) for group in specs}
        self.beside = {}  # an earlier run: fewer changes, since part of the way to the folder is there
        for group in specs:
            shutil.copytree(self.earlier, scratch / f"{group}-beside")
            self.beside[group] = self.changes_in(scratch / f"{group}-beside", group)

    def changes_in(self, out: Path, group: str, **how: Any) -> list[str]:
        """All changes that the runs of a group make in a folder, in order."""
        return self.server.compute(self.references[group].specs, out, **how).calls

    def complete(self, group: str) -> Path:
        """Where they are complete; to be copied, not touched."""
        return self._scratch / group


def for_each(faults: Sequence[Fault]) -> pytest.MarkDecorator:
    """A test for each fault, which has its name."""
    return pytest.mark.parametrize("fault", faults, ids=[fault.name for fault in faults])


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    found = Bench(tmp_path_factory.mktemp("bench"))
    yield found
    found.server.close()


def kind(change: str) -> str:
    """What a change is, whichever run and whichever time it is of."""
    return re.sub(r"^\d+ |w\d{5}-s\d{3}-\w{8}|(?<=/\.tmp)\w+", "", change)


def pseudo_random(seed: object) -> random.Random:
    """The same numbers whenever the tests run."""
    return random.Random(str(seed))  # noqa: S311 (they are no secret)


def chosen(changes: Sequence[str], seed: object, most: int | None, always: str = "(?!)") -> list[int]:
    """The numbers of all changes; or of at most so many of different kinds, pseudo-randomly, and of those named."""
    numbers = list(range(1, len(changes) + 1))
    if most is None:
        return numbers
    generator = pseudo_random(seed)
    generator.shuffle(numbers)
    one_of_each = {kind(changes[number - 1]): number for number in numbers}
    some = generator.sample(list(one_of_each.values()), min(most, len(one_of_each)))
    return sorted({*some, *(number for number in numbers if re.search(always, changes[number - 1]))})


def none(complaints: Sequence[str]) -> None:
    assert not complaints, "\n".join(complaints)


def about(end: End, fault: Fault, at: int, complaints: Sequence[str]) -> list[str]:
    """Complaints with the change that they are about."""
    change = end.calls[at - 1] if at <= len(end.calls) else "after the last change"
    return [f"{fault.name} at {change}: {complaint} {end.sentences or ''}" for complaint in complaints]


@pytest.mark.parametrize("group", GROUPS)
def test_no_file_that_a_run_leaves_escapes_the_count(bench: Bench, group: str) -> None:
    changes = bench.changes[group]
    assert {change.rsplit("/")[-1] for change in changes} >= LEFT
    assert {change.split()[1] for change in changes} >= {"mkdir", "create", "write", "fsync", "rename", "unlink"}


@pytest.mark.parametrize("everywhere", REACH)
@for_each(KILLS)
@pytest.mark.parametrize("group", GROUPS)
def test_killed_at_a_change_a_run_goes_on_to_the_same_bytes(
    bench: Bench, tmp_path: Path, group: str, fault: Fault, everywhere: bool
) -> None:
    reference, complaints = bench.references[group], list[str]()
    most, always = None if everywhere else SOME[group], TURNS.get(group, "(?!)")
    for at in chosen(bench.changes[group], (group, fault), most, always):
        out = tmp_path / str(at)
        end = bench.server.compute(reference.specs, out, fault, at)
        assert end.signal == KILLED
        owners = [owner(run_folder(out, spec)) for spec in reference.specs]
        complaints += about(end, fault, at, [f"{each!r} is believed to live" for each in owners if each is not None])
        complaints += about(end, fault, at, reference.complaints_after_another_run(out))
    none(complaints)


@pytest.mark.parametrize("everywhere", REACH)
def test_killed_again_and_again_a_run_goes_on_to_the_same_bytes(bench: Bench, tmp_path: Path, everywhere: bool) -> None:
    complaints = []
    for case in range(400 if everywhere else 6):
        generator, out = pseudo_random(case), tmp_path / str(case)
        group = generator.choice(GROUPS)
        reference, most = bench.references[group], len(bench.changes[group])
        for _ in range(generator.choice((2, 3))):
            fault, at = generator.choice(KILLS), generator.randint(1, most)
            end = bench.server.compute(reference.specs, out, fault, at)
            assert end.signal == (KILLED if at <= len(end.calls) else 0)
            most = max(1, most // 2)  # what is left is less
        complaints += about(end, fault, at, reference.complaints_after_another_run(out))
    none(complaints)


@pytest.mark.parametrize("everywhere", REACH)
@for_each(KILLS)
def test_a_forced_start_that_was_killed_leaves_what_can_be_run(
    bench: Bench, tmp_path: Path, fault: Fault, everywhere: bool
) -> None:
    """Over a complete run; the old one or the new one, they have the same bytes."""
    reference, complaints, counted = bench.references["alone"], list[str](), tmp_path / "counted"
    shutil.copytree(bench.complete("alone"), counted)
    changes = bench.changes_in(counted, "alone", force=True)
    for at in chosen(changes, fault, None if everywhere else 5, TURNS["alone"]):
        out = tmp_path / str(at)
        shutil.copytree(bench.complete("alone"), out)
        end = bench.server.compute(reference.specs, out, fault, at, force=True)
        assert end.signal == KILLED
        complaints += about(end, fault, at, reference.complaints_after_another_run(out))
    none(complaints)


def refused(end: End, reference: Reference, out: Path, fault: Fault, at: int) -> Iterator[str]:
    """What is wrong with an end that the system brought about."""
    codes = [*end.codes.values(), end.raised]
    if end.signal or {*codes} - {0, REFUSED}:
        yield f"signal {end.signal}, codes {end.codes}, raised {end.raised}"
    if len(end.codes) < len(reference.specs):
        yield f"only of {len(end.codes)} runs was anything heard"
    if REFUSED not in codes and "mkdir" not in end.calls[at - 1]:  # of a folder that exists
        yield "nobody was told"
    if fault in ONCE and codes.count(REFUSED) > 1:
        yield "it cost more than one run"
    if any({path.name for path in run_folder(out, spec).glob(".*")} - LEFT for spec in reference.specs):
        yield "something temporary is left"
    for spec in reference.specs:
        if end.codes.get(spec.run_id) == 0:
            yield from (f"told to be complete, but: {each}" for each in reference.complaints_of(spec, out))


def refuse_at(bench: Bench, out: Path, group: str, fault: Fault, at: int) -> list[str]:
    """What is wrong with a run that met a refusal, with its neighbour, and with the run after it."""
    reference = bench.references[group]
    shutil.copytree(bench.earlier, out)
    end = bench.server.compute(reference.specs, out, fault, at)
    complaints = list(refused(end, reference, out, fault, at))
    complaints += [f"then {each}" for each in reference.complaints_after_another_run(out)]
    neighbour, found = content(bench.earlier), content(out)
    complaints += [f"an earlier run has another {name}" for name in neighbour if found.get(name) != neighbour[name]]
    return about(end, fault, at, complaints)


@pytest.mark.parametrize("everywhere", REACH)
@for_each(ONCE)
@pytest.mark.parametrize("group", GROUPS)
def test_what_the_system_refuses_once_is_said_and_the_next_run_has_the_same_bytes(
    bench: Bench, tmp_path: Path, group: str, fault: Fault, everywhere: bool
) -> None:
    changes = bench.beside[group]
    numbers = chosen(changes, (group, fault), None if everywhere else SOME[group] // 2)
    none([each for at in numbers for each in refuse_at(bench, tmp_path / str(at), group, fault, at)])


@pytest.mark.parametrize("everywhere", REACH)
@for_each(FULL_DISKS)
@pytest.mark.parametrize("group", GROUPS)
def test_a_disk_that_is_full_is_said_and_the_next_run_has_the_same_bytes(
    bench: Bench, tmp_path: Path, group: str, fault: Fault, everywhere: bool
) -> None:
    """It is full from a change on that needs room; to be so from another on is to be so from the next of these."""
    changes = bench.beside[group]
    numbers = chosen(changes, (group, fault), None if everywhere else SOME[group])
    numbers = [at for at in numbers if re.search("mkdir|create|write", changes[at - 1])]
    none([each for at in numbers for each in refuse_at(bench, tmp_path / str(at), group, fault, at)])


@pytest.mark.parametrize("everywhere", REACH)
@for_each((*KILLS, *ONCE, *FULL_DISKS))
@pytest.mark.parametrize("group", ["alone", "stack"])
def test_what_goes_wrong_while_a_signal_is_obeyed_costs_no_more_than_the_steps(
    bench: Bench, tmp_path: Path, group: str, fault: Fault, everywhere: bool
) -> None:
    reference, complaints = bench.references[group], list[str]()
    changes = bench.stopped[group]
    usual = [kind(change) for change in bench.changes[group]]
    first = next(at for at, change in enumerate(changes, 1) if kind(change) != usual[at - 1])
    numbers = [at for at in chosen(changes, (group, fault), None if everywhere else 60) if at >= first]
    for at in numbers if everywhere else numbers[::6]:
        out = tmp_path / str(at)
        end = bench.server.compute(reference.specs, out, fault, at, stop=STOP)
        assert end.signal == (KILLED if fault in KILLS else 0)
        wrong = {*end.codes.values(), end.raised} - {0, REFUSED, TERMINATED}
        complaints += about(end, fault, at, [f"code {code}" for code in wrong])
        complaints += about(end, fault, at, reference.complaints_after_another_run(out))
    none(complaints)


@pytest.mark.parametrize("everywhere", REACH)
@pytest.mark.parametrize("names_lost", [False, True])
def test_a_power_cut_loses_nothing_that_the_next_run_counts_on(
    bench: Bench, tmp_path: Path, names_lost: bool, everywhere: bool
) -> None:
    """Two in a row: of what was not synced, the names are left, or nothing."""
    reference, complaints = bench.references["alone"], list[str]()
    changes = bench.changes["alone"]
    for first in chosen(changes, names_lost, None if everywhere else 7):
        out, generator = tmp_path / str(first), pseudo_random(first)
        for at in (first, generator.randint(1, len(changes) // 2)):
            durable = tmp_path / f"{first}-{at}"
            end = bench.server.compute(reference.specs, out, Fault.KILL_BEFORE, at, durable=durable)
            cut_power(run_folder(out, reference.specs[0]), durable, names_lost)
        complaints += about(end, Fault.KILL_BEFORE, at, reference.complaints_after_another_run(out))
    none(complaints)


@pytest.mark.parametrize("names_lost", [False, True])
def test_what_was_told_to_be_complete_survives_a_power_cut(bench: Bench, tmp_path: Path, names_lost: bool) -> None:
    reference, out, durable = bench.references["stack"], tmp_path / "out", tmp_path / "durable"
    assert set(bench.server.compute(reference.specs, out, durable=durable).codes.values()) == {0}
    for spec in reference.specs:
        cut_power(run_folder(out, spec), durable, names_lost)
    none(reference.complaints(out))
