"""A file that was cut, altered or removed after it was written: named and refused, or not needed for the same bytes."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from deqcli.errors import CorruptArtefact
from deqcli.runs import files
from deqcli.runs.attempt import OWN_FILES
from deqcli.runs.checkpoint import load_checkpoint
from deqcli.runs.folder import RUNNING, find_complete, run_folder, write_manifest
from deqcli.runs.run import run
from deqcli.runs.standing import Report, Standing
from tests.faults import CPU, Reference, tiny
from tests.test_resume import interrupted

FILES = (*OWN_FILES, files.MANIFEST)
STATES = ("complete", "interrupted", "killed", "finished")
REACH = [pytest.param(4, id="some"), pytest.param(42, id="all", marks=pytest.mark.reliability)]
"""How many cases of a file."""


class Bench:
    """A run as it is left: by its end, by a signal, by its death after rows that no checkpoint has, or after all."""

    def __init__(self, scratch: Path) -> None:
        self._scratch, self.spec = scratch, tiny(scratch)
        self.reference = Reference([self.spec], scratch / "complete")
        interrupted(self.spec, scratch / "interrupted", 4)
        run(self.spec, scratch / "going", CPU, report=copied(scratch / "going", scratch / "killed", 6))
        finished = run_folder(scratch / "going", self.spec)
        manifest = find_complete(scratch / "going", self.spec)
        assert manifest
        write_manifest(finished, manifest.model_copy(update={"status": RUNNING, "files": {}, "results": {}}))
        (scratch / "going").rename(scratch / "finished")

    def copy(self, state: str, out: Path) -> Path:
        """The folder of the run in a copy of the output folder as it was left."""
        shutil.copytree(self._scratch / state, out)
        return run_folder(out, self.spec)

    def timing(self, state: str) -> bytes:
        """The rows of timing.csv that the next run has to keep; they are the same in no other run."""
        folder = run_folder(self._scratch / state, self.spec)
        marks = load_checkpoint(folder / files.CHECKPOINT).state["marks"]
        length = marks["timing"][0] if "timing" in marks else None
        return (folder / files.TIMING).read_bytes()[:length]


def copied(out: Path, to: Path, at: int) -> Report:
    """A report that copies the output folder at a step: what there were of it, had the process been killed then."""

    def report(standing: Standing) -> None:
        if standing.step == at:
            shutil.copytree(out, to)

    return report


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"))


def damaged(data: bytes, generator: random.Random) -> Iterator[tuple[str, bytes]]:
    """Without end: what became of a file, and its bytes then."""
    lengths = [len(data) // 2, len(data) - 1, 0]
    while True:
        length = lengths.pop(0) if lengths else generator.randrange(len(data))
        yield f"cut to {length} bytes", data[:length]
        for _ in range(1 if lengths else 5):
            at, bit = generator.randrange(len(data)), generator.randrange(8)
            yield f"bit {bit} of byte {at} flipped", data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


def complaints(bench: Bench, state: str, out: Path, name: str) -> Iterator[str]:
    """What is wrong with how the next run in `out`, where a file is damaged, takes it."""
    resumes = (run_folder(out, bench.spec) / files.CHECKPOINT).exists()
    try:
        run(bench.spec, out, CPU)
    except CorruptArtefact as refusal:
        if name not in str(refusal):
            yield f"not named: {refusal}"
    except Exception as error:
        yield f"{type(error).__name__}: {error}"
    else:
        yield from bench.reference.complaints(out)
        rows = (run_folder(out, bench.spec) / files.TIMING).read_bytes()
        marked = state != "finished" or name != files.TIMING  # the last checkpoint holds no clock, and so no mark of it
        if resumes and marked and not rows.startswith(bench.timing(state)):
            yield "other rows of timing.csv"


@pytest.mark.parametrize("cases", REACH)
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("state", STATES)
def test_damage_is_named_or_changes_no_number(bench: Bench, tmp_path: Path, state: str, name: str, cases: int) -> None:
    said, data = [], (bench.copy(state, tmp_path / "sound") / name).read_bytes()
    generator = random.Random(f"{state} {name}")  # noqa: S311 (damage is no secret)
    for case, (what, bytes_then) in zip(range(cases), damaged(data, generator), strict=False):
        out = tmp_path / str(case)
        (bench.copy(state, out) / name).write_bytes(bytes_then)
        said += [f"{what}: {complaint}" for complaint in complaints(bench, state, out, name)]
    assert not said, "\n".join(said)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("state", STATES)
def test_what_is_missing_is_named_or_changes_no_number(bench: Bench, tmp_path: Path, state: str, name: str) -> None:
    (bench.copy(state, tmp_path / "out") / name).unlink()
    assert not list(complaints(bench, state, tmp_path / "out", name))


@pytest.mark.parametrize("name", sorted({*FILES} - {files.LOG, files.MANIFEST}))
def test_a_run_of_which_a_file_is_damaged_can_be_forced(bench: Bench, tmp_path: Path, name: str) -> None:
    path = bench.copy("complete", tmp_path / "out") / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptArtefact, match=r"--force"):
        run(bench.spec, tmp_path / "out", CPU)
    assert run(bench.spec, tmp_path / "out", CPU, force=True).computed
    assert not bench.reference.complaints(tmp_path / "out")
