"""How far a sweep is, read from its folder: by other processes, after every way to end, with the time that is left."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from contextlib import redirect_stderr
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from deqcli.recipe.schema import Recipe, RunSpec
from deqcli.runs.device import Execution
from deqcli.runs.folder import locked, run_folder
from deqcli.runs.run import run
from deqcli.show.watch import COLUMNS, NARROW_COLUMNS, LineWatch, LiveWatch, duration, summary
from deqcli.sweep.status import CellState, counts, pace, read_state, seconds_left
from deqcli.sweep.sweep import SweepOptions, sweep, sweep_status
from deqcli.sweep.watch import Progress
from tests.runs import recipe, small


def complete(folder: Path) -> RunSpec:
    """A run that is complete."""
    spec = small(folder)
    run(spec, folder, Execution("cpu", 1))
    return spec


def test_a_cell_that_nobody_has_begun_waits(tmp_path: Path) -> None:
    assert read_state(tmp_path, small(tmp_path)).state == "waiting"


def test_a_complete_cell_has_its_results(tmp_path: Path) -> None:
    spec = complete(tmp_path)
    state = read_state(tmp_path, spec)
    results = json.loads((run_folder(tmp_path, spec) / "manifest.json").read_text())["results"]
    assert (state.state, state.step, state.steps_left) == ("complete", 20, 0)
    assert (state.loss, state.spectral_norm) == (results["final_loss"], results["max_spectral_norm"])


def with_status(folder: Path, spec: RunSpec, status: str) -> Path:
    """The folder of a run whose manifest says something else."""
    from deqcli.runs.folder import read_manifest, write_manifest

    where = run_folder(folder, spec)
    manifest = read_manifest(where, "run", spec.run_id)
    assert manifest is not None
    write_manifest(where, manifest.model_copy(update={"status": status, "error": "why", "results": {}}))
    return where


@pytest.mark.parametrize(
    ("status", "state"), [("running", "interrupted"), ("interrupted", "interrupted"), ("failed", "failed")]
)
def test_without_a_lock_a_cell_is_as_its_manifest_says_or_was_killed(tmp_path: Path, status: str, state: str) -> None:
    spec = complete(tmp_path)
    with_status(tmp_path, spec, status)
    assert read_state(tmp_path, spec).state == state


def test_a_locked_cell_runs_and_is_as_far_as_its_last_whole_rows(tmp_path: Path) -> None:
    spec = complete(tmp_path)
    folder = with_status(tmp_path, spec, "running")
    rows = (folder / "loss.csv").read_text().splitlines()
    (folder / "loss.csv").write_text("\n".join(rows[:9]) + "\n" + rows[9][:-20])  # torn in step 8
    with locked(folder):
        state = read_state(tmp_path, spec)
    assert (state.state, state.step, state.steps_left) == ("running", 7, 13)
    assert state.loss == float(rows[8].split(",")[7])
    assert state.iterations == int(rows[8].split(",")[9])
    assert state.spectral_norm is not None
    assert str(state.owner).startswith("process ")
    assert state.idle_seconds is not None
    assert state.seconds_left == pytest.approx(13 * pace(folder))  # type: ignore[operator]


def test_a_folder_that_cannot_be_trusted_counts_as_failed(tmp_path: Path) -> None:
    spec = complete(tmp_path)
    manifest = run_folder(tmp_path, spec) / "manifest.json"
    manifest.write_text(manifest.read_text().replace("complete", "failed"))
    state = read_state(tmp_path, spec)
    assert state.state == "failed"
    assert "is not what was written" in str(state.error)


def states(folder: Path, *widths: int) -> list[CellState]:
    """Cells that wait, of so many steps each."""
    loaded = recipe(folder, f"sweep.widths=[{', '.join(map(str, widths))}]", "sweep.seeds=[0]", "train.steps=100")
    return [CellState(cell, "waiting") for cell in loaded.cells()]


def test_the_time_left_grows_as_the_square_of_the_width(tmp_path: Path) -> None:
    one, two, four = states(tmp_path, 100, 200, 400)
    going = replace(one, state="running", step=50, seconds_per_step=0.1)
    assert seconds_left([going], {}, 1) == pytest.approx(5.0)
    assert seconds_left([going, two], {}, 1) == pytest.approx(5 + 40)
    assert seconds_left([going, two, four], {}, 1) == pytest.approx(5 + 40 + 160)
    assert seconds_left([going, two, four], {}, 5) == pytest.approx(160)  # no less than the longest alone
    assert seconds_left([two, four], {(200, 6): 1.0}, 1) == pytest.approx(100 + 400)
    assert seconds_left([two], {}, 1) is None
    assert seconds_left([replace(two, state="complete")], {}, 1) == 0


def test_a_sweep_is_counted_from_its_folder_alone(tmp_path: Path) -> None:
    loaded = recipe(tmp_path, "execution.jobs=1")
    found = sweep_status(loaded, tmp_path)
    assert (found.state, found.progress.counts["waiting"]) == ("not started", 4)
    complete_cell = loaded.cells()[0]
    run(complete_cell, tmp_path, Execution("cpu", 1))
    found = sweep_status(loaded, tmp_path)
    assert {key: count for key, count in found.progress.counts.items() if count} == {"complete": 1, "waiting": 3}
    assert found.progress.seconds_left is not None
    sweep(loaded, tmp_path, SweepOptions("cpu"))
    found = sweep_status(loaded, tmp_path)
    assert (found.state, found.progress.counts["complete"], found.progress.seconds_left) == ("complete", 4, 0)


def shown(loaded: Recipe, out: Path, *options: str) -> str:
    """What the command says from another process."""
    command = [sys.executable, "-m", "deqcli", "sweep-width", str(out.parent / "recipe.yaml"), "--status"]
    done = subprocess.run([*command, "--out", str(out), *options], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_status_is_told_by_the_command_and_nothing_is_written(tmp_path: Path) -> None:
    loaded = recipe(tmp_path)
    assert "4 waiting" in shown(loaded, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    run(loaded.cells()[0], tmp_path / "out", Execution("cpu", 1))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    said, document = shown(loaded, tmp_path / "out"), json.loads(shown(loaded, tmp_path / "out", "--json"))
    assert "sweep not started" in said
    assert "1 complete, 3 waiting" in said
    assert document["counts"] == {"complete": 1, "running": 0, "failed": 0, "interrupted": 0, "waiting": 3}
    assert [cell["state"] for cell in document["cells"]] == ["complete", "waiting", "waiting", "waiting"]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


def test_in_a_log_a_running_cell_has_a_plain_line_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("deqcli.show.watch.time.monotonic", lambda: clock[0])
    loaded = recipe(tmp_path)
    cell = CellState(loaded.cells()[0], "running", 7, 0.25, 0.625, 9, 2.0)
    watch, said = LineWatch(loaded), io.StringIO()
    with redirect_stderr(said):
        for clock[0] in (1.0, 59.0, 61.0, 100.0, 119.0, 121.0):
            watch.update(Progress(counts([cell]), [cell], 26.0))
    line = "width 24, seed 0: step 7/20  loss 0.25  ||W||_2 0.625  iterations 9  time left 26 s"
    assert said.getvalue().splitlines() == [line, "1 running; 26 s left"] * 2


def test_times_and_counts_are_for_people() -> None:
    assert [duration(each) for each in (None, 0.4, 89, 91, 5399, 5401, 100000)] == [
        "-", "0 s", "89 s", "2 min", "90 min", "1.5 h", "27.8 h",
    ]  # fmt: skip
    assert summary({"complete": 3, "running": 0, "waiting": 0}, 0.0) == "3 complete"
    assert summary({"complete": 3, "running": 1, "waiting": 2}, None) == "3 complete, 1 running, 2 waiting"


@pytest.mark.parametrize(("width", "columns"), [(100, COLUMNS), (60, NARROW_COLUMNS)])
def test_on_a_terminal_a_running_cell_has_a_row_that_fits(tmp_path: Path, width: int, columns: tuple[str, ...]) -> None:
    loaded = recipe(tmp_path, "sweep.over={model.sigma_w_sq: [0.01, 0.02]}")
    cell = CellState(loaded.cells()[0], "running", 7, 0.25, 0.625, 9, 2.0)
    shown: list[Table] = []
    LiveWatch(loaded, columns, shown.append).update(Progress(counts([cell]), [cell], 26.0))
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(shown[0])
    text = console.export_text()
    assert [word in text for word in COLUMNS] == [word in columns for word in COLUMNS]
    assert {"7/20", "0.25", "26 s"} <= set(text.replace("  ", "\n").replace("\n ", "\n").splitlines())
    assert "1 running; 26 s left" in text
    assert max(map(len, text.splitlines())) <= width
