"""Sweeps: the cells of a product, in worker processes that may fail or die, merged byte for byte."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deqcli.errors import Interrupted, Refused
from deqcli.recipe.schema import Recipe, RunSpec
from deqcli.runs.device import Execution
from deqcli.runs.folder import run_folder
from deqcli.runs.run import run
from deqcli.show.figures import AT_THE_END, draw_figures
from deqcli.sweep.cells import CellEnd, share
from deqcli.sweep.sweep import SweepEnd, SweepOptions, sweep
from deqcli.sweep.watch import Progress
from tests.runs import CSV, recipe

OPTIONS = SweepOptions("cpu", draw_figures)
ALONE, TWO = "execution.jobs=1", "execution.jobs=2"


@pytest.fixture(autouse=True)
def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small runs would be over before anybody looks."""
    monkeypatch.setattr("deqcli.sweep.watch.LOOK_EVERY", 0.1)
    monkeypatch.setattr("deqcli.sweep.drive.POLL_SECONDS", 0.05)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, SweepEnd, Path]:
    """A sweep of two widths and two seeds by two workers."""
    folder = tmp_path_factory.mktemp("sweep")
    loaded = recipe(folder)
    return loaded, sweep(loaded, folder / "out", OPTIONS), folder / "out"


def test_every_cell_of_the_product_is_there_in_order(done: tuple[Recipe, SweepEnd, Path]) -> None:
    loaded, end, _ = done
    cells = [(each.spec.model.width, each.spec.train.seed, each.status) for each in end.ends]
    assert cells == [(24, 0, "complete"), (24, 1, "complete"), (32, 0, "complete"), (32, 1, "complete")]
    assert end.kept == 0
    assert [each.spec for each in end.ends] == loaded.cells()


def test_merged_tables_are_those_of_the_runs_byte_for_byte(done: tuple[Recipe, SweepEnd, Path], tmp_path: Path) -> None:
    loaded, end, _ = done
    alone = [run(cell, tmp_path, Execution("cpu", 1)).folder for cell in loaded.cells()]
    for name in CSV:
        lines = [(folder / name).read_bytes().splitlines(keepends=True) for folder in alone]
        expected = lines[0][:1] + [row for table in lines for row in table[1:]]
        assert (end.folder / name).read_bytes() == b"".join(expected)


def test_a_row_for_each_run(done: tuple[Recipe, SweepEnd, Path]) -> None:
    runs = pd.read_csv(done[1].folder / "runs.csv")
    assert ",".join(runs.columns) == (
        "run_id,recipe,dataset,activation,width,seed,status,attempts,steps,final_loss,max_spectral_norm,"
        "min_lambda_ratio,error"
    )
    loss = pd.read_csv(done[1].folder / "loss.csv")
    for _, row in runs.iterrows():
        assert row["final_loss"] == loss[(loss["run_id"] == row["run_id"]) & (loss["step"] == 20)]["loss"].item()
    assert len(runs) == 4


def test_the_manifest_lists_tables_and_figures(done: tuple[Recipe, SweepEnd, Path]) -> None:
    manifest = json.loads((done[1].folder / "manifest.json").read_text())
    assert manifest["status"] == "complete"
    names = {"loss.csv", "spectral.csv", "certificates.csv", "prediction.csv", "runs.csv", "recipe.yaml"}
    figures = {f"figures/{name}.{form}" for name in AT_THE_END for form in ("png", "svg", "csv")}
    assert len(figures) == 6
    assert set(manifest["files"]) == names | figures


def test_a_second_sweep_keeps_what_is_complete_and_computes_only_what_is_new(
    done: tuple[Recipe, SweepEnd, Path], tmp_path: Path
) -> None:
    loaded, first, out = done
    ended: list[CellEnd] = []
    again = sweep(loaded, out, SweepOptions("cpu", on_end=ended.append))
    assert (again.kept, ended) == (4, [])
    wider = recipe(tmp_path, "sweep.widths=[24, 32, 40]", "sweep.seeds=[0]")
    more = sweep(wider, out, SweepOptions("cpu", on_end=ended.append))
    assert more.kept == 2
    assert [(end.spec.model.width, end.status) for end in ended] == [(40, "complete")]
    assert more.folder != first.folder


def test_a_failed_cell_is_told_at_once_and_the_others_go_on(tmp_path: Path) -> None:
    ended: list[CellEnd] = []
    overrides = ("solver.max_iterations=24", "sweep.widths=[2, 24]", "sweep.seeds=[0]", "train.steps=5", ALONE)
    loaded = recipe(tmp_path, *overrides)
    end = sweep(loaded, tmp_path, SweepOptions("cpu", draw_figures, ended.append))
    statuses = {each.spec.model.width: each.status for each in ended}
    assert sorted(statuses) == [2, 24]
    assert "failed" in statuses.values()
    assert "complete" in statuses.values()
    runs = pd.read_csv(end.folder / "runs.csv").set_index("status")
    assert "was not solved" in runs.loc["failed", "error"]
    assert json.loads((end.folder / "manifest.json").read_text())["status"] == "failed"
    rows = pd.read_csv(end.folder / "loss.csv")
    assert rows[rows["status"] != "converged"]["loss"].isna().all()


def children() -> list[int]:
    """Processes started by this one."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid() and fields[0] != "Z":
            found.append(int(status.parent.name))
    return found


def test_cells_that_shared_a_killed_worker_are_tried_one_by_one(tmp_path: Path) -> None:
    """Three small networks in one stack: nobody knows which of them was to blame."""
    overrides = ("train.steps=1500", "log.spectral_every=300", "sweep.widths=[24]", "sweep.seeds=[0, 1, 2]", ALONE)
    killed: list[RunSpec] = []

    def kill_once(progress: Progress) -> None:
        going = [each.spec for each in progress.running if each.loss is not None]
        if going and not killed:
            killed.append(going[0])
            for pid in children():
                os.kill(pid, signal.SIGKILL)

    loaded = recipe(tmp_path, *overrides)
    end = sweep(loaded, tmp_path, SweepOptions("cpu", on_progress=kill_once))
    assert killed
    assert [each.status for each in end.ends] == ["complete"] * 3
    whole = sweep(loaded, tmp_path / "whole", SweepOptions("cpu"))
    assert (end.folder / "loss.csv").read_bytes() == (whole.folder / "loss.csv").read_bytes()


def test_a_killed_worker_takes_only_its_own_cell_along(tmp_path: Path) -> None:
    loaded = recipe(
        tmp_path,
        "train.steps=1500",
        "log.spectral_every=300",
        "sweep.widths=[24]",
        "sweep.seeds=[0, 1, 2]",
        "solver.kind=picard",
        "execution={jobs: 1, retries: 0}",
    )
    killed: list[RunSpec] = []

    def kill_once(progress: Progress) -> None:
        going = [each.spec for each in progress.running if each.loss is not None]
        if going and not killed:
            killed.append(going[0])
            for pid in children():
                os.kill(pid, signal.SIGKILL)

    end = sweep(loaded, tmp_path, SweepOptions("cpu", on_progress=kill_once))
    assert [each.spec for each in end.failed] == killed
    assert "signal 9" in str(end.failed[0].error)
    assert [each.status for each in end.ends].count("complete") == 2
    again = sweep(loaded, tmp_path, SweepOptions("cpu"))
    assert (again.kept, again.failed) == (2, [])


def test_a_signal_stops_every_worker_and_the_sweep_goes_on_byte_for_byte(tmp_path: Path) -> None:
    loaded = recipe(tmp_path, "train.steps=1500", "log.spectral_every=300", "log.checkpoint_every=5000")
    signalled: list[int] = []

    def stop(progress: Progress) -> None:
        steps = [each.step for each in progress.running if each.step is not None]
        if steps and not signalled:
            signalled.append(steps[0])
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        sweep(loaded, tmp_path / "parts", SweepOptions("cpu", on_progress=stop))
    assert not children()
    logs = [run_folder(tmp_path / "parts", cell) / "manifest.json" for cell in loaded.cells()]
    assert "interrupted" in {json.loads(log.read_text())["status"] for log in logs if log.exists()}
    parts = sweep(loaded, tmp_path / "parts", SweepOptions("cpu"))
    whole = sweep(loaded, tmp_path / "whole", SweepOptions("cpu"))
    for name in (*CSV, "runs.csv"):
        assert (parts.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_workers_whose_driver_was_killed_leave_by_themselves(tmp_path: Path) -> None:
    loaded = recipe(tmp_path, "train.steps=2000000", "sweep.widths=[24]", "sweep.seeds=[0]")
    command = [sys.executable, "-m", "deqcli", "sweep-width", str(tmp_path / "recipe.yaml"), "train.steps=2000000"]
    driver = subprocess.Popen([*command, "--widths", "24", "--seeds", "0", "--out", str(tmp_path)])
    manifest = run_folder(tmp_path, loaded.cells()[0]) / "manifest.json"
    _wait_for(manifest.exists)
    driver.kill()
    driver.wait()
    _wait_for(lambda: json.loads(manifest.read_text())["status"] == "interrupted")


def _wait_for(condition: object, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():  # type: ignore[operator]
            return
        time.sleep(0.05)
    raise AssertionError("waited in vain")


@pytest.mark.parametrize(("jobs", "each"), [(1, 8), (3, 2), (9, 1)])
def test_cores_are_shared_out_among_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int, each: int
) -> None:
    monkeypatch.setattr("deqcli.sweep.cells.cores", lambda: 8)
    loaded = recipe(tmp_path, f"execution.jobs={jobs}")
    assert share(loaded.cells(), loaded.execution, "cpu") == (jobs, each)


def test_a_damaged_run_fails_its_cell_and_no_other(tmp_path: Path) -> None:
    loaded = recipe(tmp_path, "sweep.widths=[24]")
    first = run(loaded.cells()[0], tmp_path, Execution("cpu", 1)).folder
    (first / "loss.csv").write_text("altered")
    end = sweep(loaded, tmp_path, SweepOptions("cpu"))
    assert [(each.status, each.exit_code) for each in end.ends] == [("failed", 4), ("complete", 0)]
    assert (first / "loss.csv").read_text() == "altered"


def test_data_that_is_refused_is_refused_once_and_leaves_nothing(tmp_path: Path) -> None:
    np.savez(tmp_path / "bad.npz", X=np.ones((3, 2)), y=np.zeros(3))
    loaded = recipe(tmp_path, f"data={{kind: file, path: {tmp_path}/bad.npz}}")
    with pytest.raises(Refused, match="row 0 and row 1 are parallel"):
        sweep(loaded, tmp_path / "out", OPTIONS)
    assert not (tmp_path / "out").exists()


def test_a_sweep_in_which_nothing_converged_has_tables_with_headers_and_no_picture(tmp_path: Path) -> None:
    loaded = recipe(tmp_path, "solver.max_iterations=2", "sweep.widths=[8]")
    end = sweep(loaded, tmp_path, SweepOptions("cpu", draw_figures))
    assert [each.exit_code for each in end.ends] == [3, 3]
    assert end.figures == []
    assert pd.read_csv(end.folder / "loss.csv")["status"].tolist() == ["iterations_exhausted"] * 2
    assert len(pd.read_csv(end.folder / "spectral.csv")) == 0
    assert (end.folder / "certificates.csv").read_text().startswith("run_id,")


def test_files_of_strangers_and_damaged_ones_are_not_merged(tmp_path: Path) -> None:
    loaded = recipe(tmp_path, "sweep.widths=[24, 32]", "sweep.seeds=[0]")
    stranger = run_folder(tmp_path, loaded.cells()[0])
    stranger.mkdir(parents=True)
    (stranger / "loss.csv").write_text("not,ours\n1,2\n")
    damaged = run(loaded.cells()[1], tmp_path, Execution("cpu", 1)).folder / "spectral.csv"
    damaged.write_text(damaged.read_text() + "1,2,3\n")
    end = sweep(loaded, tmp_path, SweepOptions("cpu"))
    assert [(each.status, each.exit_code) for each in end.ends] == [("failed", 4), ("failed", 4)]
    assert len(pd.read_csv(end.folder / "loss.csv")) == 0
    runs = pd.read_csv(end.folder / "runs.csv")
    assert runs["final_loss"].isna().all()
    assert runs["error"].str.contains("not deqcli's|not what was written").all()


@pytest.mark.parametrize(("kind", "shared"), [("picard", 1), ("continuation", 2)])
def test_a_signal_to_one_worker_interrupts_its_cells_and_the_rest_go_on(tmp_path: Path, kind: str, shared: int) -> None:
    """One cell of a solver that stacks no networks, else both of a stack; the same sweep goes on from there."""
    overrides = ("train.steps=1500", "log.spectral_every=50", "log.checkpoint_every=5000", f"solver.kind={kind}")
    loaded, signalled = recipe(tmp_path, *overrides, ALONE), list[RunSpec]()

    def stop_once(progress: Progress) -> None:
        going = [each.spec for each in progress.running if each.step]
        if going and not signalled:
            signalled.append(going[0])
            for pid in children():
                os.kill(pid, signal.SIGTERM)

    end = sweep(loaded, tmp_path / "parts", SweepOptions("cpu", on_progress=stop_once))
    assert [each.status for each in end.failed] == ["interrupted"] * shared
    assert [each.status for each in end.ends].count("complete") == 4 - shared
    assert signalled[0] in [each.spec for each in end.failed]
    assert {each.spec.model.width for each in end.failed} == {signalled[0].model.width}
    for each in end.failed:
        folder = run_folder(tmp_path / "parts", each.spec)
        assert json.loads((folder / "manifest.json").read_text())["status"] == "interrupted"
        assert (folder / "checkpoint.safetensors").exists()
    assert json.loads((end.folder / "manifest.json").read_text())["status"] == "failed"
    again = sweep(loaded, tmp_path / "parts", SweepOptions("cpu"))
    assert (again.kept, again.failed) == (4 - shared, [])
    for each in end.failed:
        assert "resumed at step" in (run_folder(tmp_path / "parts", each.spec) / "run.log").read_text()
    whole = sweep(loaded, tmp_path / "whole", SweepOptions("cpu"))
    assert (again.folder / "loss.csv").read_bytes() == (whole.folder / "loss.csv").read_bytes()


def test_an_executor_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"execution\.executor must be `local`, `ray` or `slurm`"):
        recipe(tmp_path, "execution.executor=pigeons")
