"""The recipes that come along do what their headers promise; the long ones behind the marker `slow`."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from deqcli.cli.main import app
from deqcli.recipe.loading import load_recipe
from deqcli.runs.device import Execution
from deqcli.runs.folder import run_folder
from deqcli.runs.run import run
from deqcli.sweep.sweep import SweepOptions, sweep
from tests.runs import CSV, recipe


def test_every_hypothesis_of_theorem_1_holds_for_its_recipe(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["check-init", "theorem-1", "--strict", "--seeds", "0", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    (table,) = tmp_path.glob("theorem-1/checks/*/certificates.csv")
    certificates = pd.read_csv(table)
    assert len(certificates) == 20
    assert certificates["holds"].all()


def test_every_conclusion_of_theorem_1_holds_along_its_training(tmp_path: Path) -> None:
    spec = load_recipe("theorem-1", ["train.steps=10", "log.spectral_every=1"]).run()
    done = run(spec, tmp_path, Execution("cpu", 1))
    rows, losses = pd.read_csv(done.folder / "spectral.csv"), pd.read_csv(done.folder / "loss.csv")
    assert len(rows) == len(losses) == 11
    assert (rows["spectral_norm_upper"] < 1).all()
    assert (rows["lambda_min"] > done.manifest.results["lambda_0"] / 2).all()
    assert (losses["loss"][1:] <= rows["loss_bound"][1:]).all()
    assert losses["loss"].is_monotonic_decreasing


@pytest.mark.slow
def test_quickstart_is_faster_the_wider_and_well_posed_throughout(tmp_path: Path) -> None:
    end = sweep(load_recipe("quickstart"), tmp_path, SweepOptions("cpu"))
    runs = pd.read_csv(end.folder / "runs.csv")
    assert len(runs) == 8
    assert (runs["status"] == "complete").all()
    assert runs.groupby("width")["final_loss"].mean().is_monotonic_decreasing
    assert runs["max_spectral_norm"].between(0.7, 0.82).all()


@pytest.mark.slow
def test_figure_1a_small_has_the_spread_of_its_header(tmp_path: Path) -> None:
    end = sweep(load_recipe("figure-1a-small", ["sweep.widths=[600, 1000]"]), tmp_path, SweepOptions("cpu"))
    losses = pd.read_csv(end.folder / "runs.csv").set_index("width")["final_loss"]
    assert losses[600] == pytest.approx(0.139, rel=0.05)
    assert losses[1000] == pytest.approx(0.00395, rel=0.05)


@pytest.mark.slow
def test_twenty_kills_of_a_sweep_and_its_workers_change_no_byte(tmp_path: Path) -> None:
    overrides = ["train.steps=1500", "log.checkpoint_every=100", "log.spectral_every=250"]
    loaded = recipe(tmp_path, *overrides)
    whole = sweep(loaded, tmp_path / "whole", SweepOptions("cpu"))
    command = [sys.executable, "-m", "deqcli", "sweep-width", str(tmp_path / "recipe.yaml"), *overrides]
    chance = random.Random(0)  # noqa: S311 (no secret)
    killed = 0
    while killed < 20:
        out = tmp_path / f"parts-{killed // 5}"
        process = subprocess.Popen(
            [*command, "--jobs", "2", "--device", "cpu", "--out", str(out)],
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        time.sleep(chance.uniform(2.0, 6.0))
        workers = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False)
        process.kill()
        subprocess.run(["kill", "-9", *workers.stdout.split()], stderr=subprocess.DEVNULL, check=False)
        process.wait()
        killed += 1
    for index in range(4):
        parts = sweep(loaded, tmp_path / f"parts-{index}", SweepOptions("cpu"))
        for name in (*CSV, "runs.csv"):
            assert (parts.folder / name).read_bytes() == (whole.folder / name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_signals_at_random_times_leave_with_their_code_and_resume(tmp_path: Path, signum: int) -> None:
    overrides = ["train.steps=4000", "log.spectral_every=500"]
    spec = recipe(tmp_path, *overrides).run()
    command = [sys.executable, "-m", "deqcli", "train", str(tmp_path / "recipe.yaml"), *overrides, "--threads", "1"]
    chance = random.Random(signum)  # noqa: S311 (no secret)
    codes = []
    for _ in range(12):
        process = subprocess.Popen(
            [*command, "--device", "cpu", "--out", str(tmp_path)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        time.sleep(chance.uniform(0.1, 4.0))
        process.send_signal(signum)
        _, err = process.communicate(timeout=60)
        codes.append(process.returncode)
        assert "Traceback" not in err
    assert set(codes) <= {0, 128 + signum, -signum}
    assert codes.count(128 + signum) >= 4
    done = run(spec, tmp_path, Execution("cpu", 1))
    whole = run(spec, tmp_path / "whole", Execution("cpu", 1)).folder
    assert (run_folder(tmp_path, spec) / "loss.csv").read_bytes() == (whole / "loss.csv").read_bytes()
    assert done.manifest.status == "complete"
