"""A run that was stopped, killed or damaged: resumed byte for byte, or refused by name."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from deqcli.errors import CorruptArtefact, FolderInUse, Interrupted
from deqcli.recipe.schema import RunSpec
from deqcli.runs import folder as run_folders
from deqcli.runs.device import Execution
from deqcli.runs.run import run
from deqcli.runs.standing import Report, Standing
from tests.runs import small, tables

CPU = Execution("cpu", 1)


def signal_at(step: int, signum: int) -> Report:
    """A report that sends a signal to its own process, once, when a run has reached `step`."""
    sent: list[int] = []

    def report(standing: Standing) -> None:
        if standing.step == step and not sent:
            sent.append(step)
            os.kill(os.getpid(), signum)

    return report


def interrupted(spec: RunSpec, out: Path, step: int, signum: int = signal.SIGTERM) -> Path:
    """The folder of a run that a signal stopped at `step`."""
    with pytest.raises(Interrupted) as stop:
        run(spec, out, CPU, report=signal_at(step, signum))
    assert stop.value.exit_code == 128 + signum
    return run_folders.run_folder(out, spec)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_signal_checkpoints_and_the_same_run_goes_on_byte_for_byte(tmp_path: Path, signum: int, dtype: str) -> None:
    spec = small(tmp_path, f"train.dtype={dtype}")
    whole = tables(run(spec, tmp_path / "whole", CPU).folder)
    folder = interrupted(spec, tmp_path / "parts", 4, signum)
    assert json.loads((folder / "manifest.json").read_text())["status"] == "interrupted"
    interrupted(spec, tmp_path / "parts", 11, signum)
    assert run(spec, tmp_path / "parts", CPU).computed
    assert tables(folder) == whole
    assert "resumed at step 11" in (folder / "run.log").read_text()


@pytest.mark.parametrize("step", range(1, 21, 3))
def test_wherever_it_stops(tmp_path: Path, step: int) -> None:
    spec = small(tmp_path)
    folder = interrupted(spec, tmp_path / "parts", step)
    run(spec, tmp_path / "parts", CPU)
    assert tables(folder) == tables(run(spec, tmp_path / "whole", CPU).folder)


@pytest.mark.parametrize(
    "override",
    [
        *(f"solver.kind={kind}" for kind in ("picard", "anderson", "newton", "auto")),
        "model.width=130",
        "data.num_samples=40",
    ],
)
def test_whatever_is_kept_from_step_to_step_is_in_the_checkpoint(tmp_path: Path, override: str) -> None:
    """Of every solver, of a network too wide for a stack, and of one whose U itself is kept."""
    spec = small(tmp_path, override)
    folder = interrupted(spec, tmp_path / "parts", 9)
    run(spec, tmp_path / "parts", CPU)
    assert tables(folder) == tables(run(spec, tmp_path / "whole", CPU).folder)


KILLED = """
import os, signal, sys
from pathlib import Path
from deqcli.recipe.schema import RunSpec
from deqcli.runs.device import Execution
from deqcli.runs.run import run
spec = RunSpec.model_validate_json(sys.argv[1])
def report(standing):
    if standing.step == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
run(spec, Path(sys.argv[2]), Execution("cpu", 1), report=report)
"""


@pytest.mark.parametrize("step", [3, 8, 15])
def test_kill_9_loses_at_most_the_work_since_the_last_checkpoint(tmp_path: Path, step: int) -> None:
    spec = small(tmp_path)
    arguments = [sys.executable, "-c", KILLED, spec.model_dump_json(), str(tmp_path / "parts"), str(step)]
    assert subprocess.run(arguments, check=False).returncode == -signal.SIGKILL
    done = run(spec, tmp_path / "parts", CPU)
    assert tables(done.folder) == tables(run(spec, tmp_path / "whole", CPU).folder)


def test_rows_after_the_checkpoint_and_a_torn_line_are_cut(tmp_path: Path) -> None:
    spec = small(tmp_path)
    folder = interrupted(spec, tmp_path, 9)
    with (folder / "loss.csv").open("a") as file:
        file.write("w00032-s002,small,sph")
    run(spec, tmp_path, CPU)
    assert tables(folder) == tables(run(spec, tmp_path / "whole", CPU).folder)


def test_what_an_interrupted_write_left_is_removed(tmp_path: Path) -> None:
    spec = small(tmp_path)
    folder = interrupted(spec, tmp_path, 9)
    (folder / ".checkpoint.safetensors.partial").write_bytes(b"half")
    run(spec, tmp_path, CPU)
    assert not list(folder.glob("*.partial")) + list(folder.glob(".*.partial"))


def flip(path: Path, position: int) -> None:
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 0.999])
def test_a_checkpoint_with_a_flipped_bit_is_named_and_not_used(tmp_path: Path, fraction: float) -> None:
    spec = small(tmp_path)
    path = interrupted(spec, tmp_path, 9) / "checkpoint.safetensors"
    flip(path, int(fraction * path.stat().st_size))
    with pytest.raises(CorruptArtefact, match=r"checkpoint\.safetensors"):
        run(spec, tmp_path, CPU)
    assert run(spec, tmp_path, CPU, force=True).computed


@pytest.mark.parametrize("length", [0, 5, 300, -1])
def test_a_truncated_checkpoint_is_named_and_not_used(tmp_path: Path, length: int) -> None:
    spec = small(tmp_path)
    path = interrupted(spec, tmp_path, 9) / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CorruptArtefact, match=r"checkpoint\.safetensors"):
        run(spec, tmp_path, CPU)


@pytest.mark.parametrize("name", ["loss.csv", "spectral.csv"])
def test_rows_altered_before_the_checkpoint_are_named_and_not_continued(tmp_path: Path, name: str) -> None:
    spec = small(tmp_path)
    path = interrupted(spec, tmp_path, 9) / name
    flip(path, path.stat().st_size // 2)
    with pytest.raises(CorruptArtefact, match=name):
        run(spec, tmp_path, CPU)


def test_a_complete_run_is_found_and_left_alone(tmp_path: Path) -> None:
    spec = small(tmp_path)
    folder = run(spec, tmp_path, CPU).folder
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert not run(spec, tmp_path, CPU).computed
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert run(spec, tmp_path, CPU, force=True).computed


@pytest.mark.parametrize("name", ["loss.csv", "recipe.yaml", "certificates.csv", "checkpoint.safetensors"])
def test_a_damaged_result_of_a_complete_run_is_named(tmp_path: Path, name: str) -> None:
    spec = small(tmp_path)
    folder = run(spec, tmp_path, CPU).folder
    flip(folder / name, 40)
    with pytest.raises(CorruptArtefact, match=name):
        run(spec, tmp_path, CPU)
    (folder / name).unlink()
    with pytest.raises(CorruptArtefact, match=f"{name} is missing"):
        run(spec, tmp_path, CPU)


def test_a_folder_of_something_else_is_neither_written_nor_removed(tmp_path: Path) -> None:
    spec = small(tmp_path)
    folder = run_folders.run_folder(tmp_path, spec)
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("mine")
    for force in (False, True):
        with pytest.raises(CorruptArtefact, match="not deqcli's"):
            run(spec, tmp_path, CPU, force=force)
    assert [path.name for path in folder.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("content", ["", "{}", "[]", "{", '{"kind": "run", "id": "w00001-s000-00000000"}', "\xff"])
def test_a_manifest_that_is_damaged_or_of_another_run_is_refused(tmp_path: Path, content: str) -> None:
    spec = small(tmp_path)
    folder = run(spec, tmp_path, CPU).folder
    (folder / "manifest.json").write_text(content, encoding="latin-1")
    with pytest.raises(CorruptArtefact):
        run(spec, tmp_path, CPU)


def test_a_folder_in_use_is_refused_with_its_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folders, "LOCK_PATIENCE", 0.1)
    spec = small(tmp_path)
    folder = run_folders.run_folder(tmp_path, spec)
    folder.mkdir(parents=True)
    (folder / ".owner").write_text("process 42 on otherhost\n")
    with FileLock(folder / ".lock"), pytest.raises(FolderInUse, match="process 42 on otherhost"):
        run(spec, tmp_path, CPU)


@pytest.mark.parametrize("name", ["loss.csv", "spectral.csv", "timing.csv", "recipe.yaml", "certificates.csv"])
def test_a_file_missing_beside_its_checkpoint_is_named(tmp_path: Path, name: str) -> None:
    spec = small(tmp_path)
    (interrupted(spec, tmp_path, 9) / name).unlink()
    with pytest.raises(CorruptArtefact, match=f"{name} is missing"):
        run(spec, tmp_path, CPU)
    assert json.loads((run_folders.run_folder(tmp_path, spec) / "manifest.json").read_text())["status"] == "failed"
    assert run(spec, tmp_path, CPU, force=True).computed


@pytest.mark.parametrize("name", ["recipe.yaml", "certificates.csv"])
def test_a_file_altered_beside_its_checkpoint_is_named(tmp_path: Path, name: str) -> None:
    spec = small(tmp_path)
    flip(interrupted(spec, tmp_path, 9) / name, 20)
    with pytest.raises(CorruptArtefact, match=name):
        run(spec, tmp_path, CPU)


def test_a_fresh_start_that_was_killed_at_once_starts_afresh_again(tmp_path: Path) -> None:
    spec = small(tmp_path)
    folder = interrupted(spec, tmp_path, 9)
    (folder / "checkpoint.safetensors").unlink()  # what a forced start removes first
    (folder / "loss.csv").unlink()
    run(spec, tmp_path, CPU)
    assert tables(folder) == tables(run(spec, tmp_path / "whole", CPU).folder)


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    spec, other = small(tmp_path), small(tmp_path, "train.seed=5")
    folder = interrupted(spec, tmp_path, 9)
    stranger = interrupted(other, tmp_path, 9)
    (folder / "checkpoint.safetensors").write_bytes((stranger / "checkpoint.safetensors").read_bytes())
    with pytest.raises(CorruptArtefact, match="is of another run"):
        run(spec, tmp_path, CPU)


def test_resuming_with_other_threads_says_so(tmp_path: Path) -> None:
    spec = small(tmp_path, "model.width=130")
    assert not spec.stackable
    interrupted(spec, tmp_path, 9)
    done = run(spec, tmp_path, Execution("cpu", 2))
    assert (done.manifest.changed, done.manifest.threads) == (["threads"], 2)
    assert "resumed with other threads" in (done.folder / "run.log").read_text()


def test_a_run_that_can_be_stacked_has_one_thread_whatever_is_asked_for(tmp_path: Path) -> None:
    spec = small(tmp_path)
    assert spec.stackable
    interrupted(spec, tmp_path / "parts", 9)
    done = run(spec, tmp_path / "parts", Execution("cpu", 2))
    assert (done.manifest.changed, done.manifest.threads) == ([], 1)
    assert tables(done.folder) == tables(run(spec, tmp_path / "whole", CPU).folder)


def test_a_signal_in_the_last_step_is_heard_although_the_run_is_complete(tmp_path: Path) -> None:
    spec = small(tmp_path)
    with pytest.raises(Interrupted, match="when the run was complete"):
        run(spec, tmp_path, CPU, report=signal_at(20, signal.SIGINT))
    assert not run(spec, tmp_path, CPU).computed


@pytest.mark.parametrize("status", ["complete", "interrupted"])
def test_a_manifest_altered_by_hand_is_not_believed(tmp_path: Path, status: str) -> None:
    spec = small(tmp_path)
    folder = interrupted(spec, tmp_path, 9) if status == "interrupted" else run(spec, tmp_path, CPU).folder
    path = folder / "manifest.json"
    forged = re.sub(r'"threads": ?1', '"threads": 3', path.read_text())
    assert forged != path.read_text()
    path.write_text(forged)
    with pytest.raises(CorruptArtefact, match=r"manifest\.json is not what was written"):
        run(spec, tmp_path, CPU)
