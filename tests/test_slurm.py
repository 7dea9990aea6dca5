"""SLURM: what is submitted, and on a real cluster of one node what becomes of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deqcli.errors import FolderInUse, Refused
from deqcli.recipe.schema import Recipe
from deqcli.runs.folder import run_folder
from deqcli.sweep.slurm import MOST_TASKS, script
from deqcli.sweep.sweep import SweepEnd, SweepOptions, sweep, sweep_folder, sweep_status
from tests import slurm_cluster
from tests.runs import CSV, recipe
from tests.waiting import wait_for

SLURM = "execution.executor=slurm"
LONG = ("train.steps=400000", "log.spectral_every=2000", "log.checkpoint_every=50000", "solver.kind=picard")


def directives(text: str) -> dict[str, str]:
    """The options of the #SBATCH lines of a script."""
    lines = [line.removeprefix("#SBATCH --") for line in text.splitlines() if line.startswith("#SBATCH --")]
    return dict(line.partition("=")[::2] for line in lines)


def test_the_script_asks_for_what_the_recipe_says(tmp_path: Path) -> None:
    asked = "execution={jobs: 3, threads: 4, slurm: {time: '2:00:00', partition: long, account: theory, gres: 'gpu:1',"
    loaded = recipe(tmp_path, asked + " lines: ['#SBATCH --constraint=a100', 'module load cuda']}}")
    text = script(tmp_path, [loaded.cells()[:2], loaded.cells()[2:]], loaded.execution, loaded.name)
    found = directives(text)
    assert {found[key] for key in ("time", "partition", "account", "gres")} == {"2:00:00", "long", "theory", "gpu:1"}
    assert (found["array"], found["cpus-per-task"], found["constraint"]) == ("0-1%3", "4", "a100")
    assert (found["signal"], found["open-mode"]) == ("B:USR1@120", "append")
    assert "requeue" in found
    assert text.splitlines()[-2] == "trap '' USR1"
    assert text.splitlines()[-1:] == [line for line in text.splitlines() if "exec" in line]
    assert text.index("module load cuda") > text.rindex("#SBATCH")


def test_memory_is_that_of_the_largest_task_unless_the_recipe_says_otherwise(tmp_path: Path) -> None:
    small, wide = recipe(tmp_path), recipe(tmp_path, "sweep.widths=[32, 4000]")
    asked = [directives(script(tmp_path, [each.cells()], each.execution, each.name))["mem"] for each in (small, wide)]
    assert [text[-1] for text in asked] == ["M", "M"]
    least, most = (int(text[:-1]) for text in asked)
    assert least > 450
    assert most > 4000**2 * 8 / 2**20
    given = recipe(tmp_path, "execution.slurm.memory=7G")
    assert directives(script(tmp_path, [given.cells()], given.execution, given.name))["mem"] == "7G"


@pytest.mark.parametrize(
    "value",
    ["partition: 'a b'", 'partition: "a\\nb"', 'lines: ["a\\nb"]', "time: soon", "memory: lots", "grace: 0"],
)
def test_what_would_break_the_script_is_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(Refused, match=f"execution.slurm.{value.partition(':')[0]}"):
        recipe(tmp_path, f"execution.slurm={{{value}}}")


def test_without_sbatch_nothing_is_submitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    loaded = recipe(tmp_path, SLURM)
    with pytest.raises(Refused, match="slurm needs sbatch"):
        sweep(loaded, tmp_path / "out", SweepOptions("cpu"))
    assert sweep_status(loaded, tmp_path / "out").state == "interrupted"


def fake_sbatch(folder: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `sbatch` in front of all others."""
    (folder / "bin").mkdir()
    for name in ("sbatch", "squeue"):
        (folder / "bin" / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}/bin:{os.environ['PATH']}")


def test_what_sbatch_complains_of_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_sbatch(tmp_path, "echo 'sbatch: error: invalid partition specified: moon' >&2; exit 1", monkeypatch)
    with pytest.raises(Refused, match="sbatch refused: sbatch: error: invalid partition specified: moon"):
        sweep(recipe(tmp_path, SLURM), tmp_path / "out", SweepOptions("cpu"))


def test_a_sweep_of_many_cells_has_no_more_tasks_than_an_array_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_sbatch(tmp_path, "echo 17", monkeypatch)
    seeds = ", ".join(map(str, range(700)))
    loaded = recipe(tmp_path, SLURM, "sweep.widths=[2, 3, 4]", f"sweep.seeds=[{seeds}]")
    end = sweep(loaded, tmp_path / "out", SweepOptions("cpu"))
    plan = json.loads((end.folder / "slurm" / "plan.json").read_text())
    assert len(plan["tasks"]) <= MOST_TASKS
    assert sorted(run_id for task in plan["tasks"] for run_id in task) == sorted(c.run_id for c in loaded.cells())
    assert "submitted SLURM job 17: 2100 cells" in str(end.elsewhere)
    with pytest.raises(FolderInUse, match="SLURM job 17 works on this sweep"):
        sweep(loaded, tmp_path / "out", SweepOptions("cpu"))


needs_slurm = [
    pytest.mark.slurm,
    pytest.mark.skipif(slurm_cluster.missing() is not None, reason=f"NO SLURM HERE: {slurm_cluster.missing()}"),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[slurm_cluster.Cluster]:
    """A cluster of one node, to which this process submits."""
    with slurm_cluster.Cluster(tmp_path_factory.mktemp("c")) as started, pytest.MonkeyPatch.context() as patch:
        for name, value in started.environment.items():
            patch.setenv(name, value)
        yield started


def submitted(loaded: Recipe, out: Path) -> SweepEnd:
    """Submit a sweep of which nothing is complete."""
    end = sweep(loaded, out, SweepOptions("cpu"))
    assert "submitted SLURM job" in str(end.elsewhere)
    assert end.failed == []
    return end


def job_of(end: SweepEnd) -> str:
    """The number of the array."""
    return str(json.loads((end.folder / "slurm" / "job.json").read_text())["job"])


def merged(loaded: Recipe, out: Path) -> bool:
    """Whether the last task has merged the tables."""
    return sweep_status(loaded, out).state == "complete"


def show(task: str) -> str:
    """What SLURM says of a task."""
    return subprocess.run(["scontrol", "show", "job", task], capture_output=True, text=True, check=False).stdout


def same_tables(one: Path, other: Path) -> bool:
    """Whether two sweeps' tables agree to the byte."""
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in (*CSV, "runs.csv", "recipe.yaml"))


class TestOnARealCluster:
    """Arrays that are submitted, killed, requeued and stopped by their time limit."""

    pytestmark = needs_slurm

    def test_the_tables_are_those_of_the_local_executor(self, cluster: slurm_cluster.Cluster, tmp_path: Path) -> None:
        loaded = recipe(tmp_path, SLURM, "execution.slurm.lines=['export FROM_THE_RECIPE=1']")
        end = submitted(loaded, tmp_path / "out")
        assert sweep_status(loaded, tmp_path / "out").state == "submitted"
        with pytest.raises(FolderInUse, match=f"SLURM job {job_of(end)} works on this sweep"):
            sweep(loaded, tmp_path / "out", SweepOptions("cpu"))
        wait_for(lambda: merged(loaded, tmp_path / "out"), 120)
        local = sweep(recipe(tmp_path, "execution.threads=1"), tmp_path / "local", SweepOptions("cpu"))
        assert same_tables(end.folder, local.folder)
        again = sweep(loaded, tmp_path / "out", SweepOptions("cpu"))
        assert (again.elsewhere, again.kept) == (None, 4)

    def test_a_warning_before_the_time_limit_checkpoints_and_requeues(
        self, cluster: slurm_cluster.Cluster, tmp_path: Path
    ) -> None:
        loaded = recipe(tmp_path, SLURM, "sweep.widths=[32]", "sweep.seeds=[0]", *LONG[:3], "train.steps=30000")
        end = submitted(loaded, tmp_path / "out")
        wait_for(lambda: (sweep_status(loaded, tmp_path / "out").cells[0].step or 0) > 1000, 120)
        subprocess.run(["scancel", "--batch", "--signal=USR1", f"{job_of(end)}_0"], check=True)
        log = end.folder / "slurm" / f"{job_of(end)}_0.log"
        wait_for(lambda: f"requeued {job_of(end)}_0" in log.read_text(), 60)
        assert sweep_status(loaded, tmp_path / "out").cells[0].state == "interrupted"
        subprocess.run(["scontrol", "update", f"JobId={job_of(end)}_0", "StartTime=now"], check=False)
        wait_for(lambda: merged(loaded, tmp_path / "out"), 240)
        assert "Restarts=1" in show(f"{job_of(end)}_0")
        assert "resumed at step" in (run_folder(tmp_path / "out", loaded.cells()[0]) / "run.log").read_text()
        local = sweep(recipe(tmp_path, *_without(loaded)), tmp_path / "local", SweepOptions("cpu"))
        assert same_tables(end.folder, local.folder)

    def test_a_real_time_limit_ends_in_the_bytes_of_an_uninterrupted_sweep(
        self, cluster: slurm_cluster.Cluster, tmp_path: Path
    ) -> None:
        """Two cells of more than a minute each, in jobs of one minute."""
        asked = "execution={executor: slurm, slurm: {time: 1, grace: 30}}"
        loaded = recipe(tmp_path, asked, "sweep.widths=[32]", *LONG, "train.steps=500000", "log.loss_every=400000")
        end = submitted(loaded, tmp_path / "out")
        wait_for(lambda: merged(loaded, tmp_path / "out"), 900)
        assert any("Restarts=0" not in show(f"{job_of(end)}_{task}") for task in (0, 1))
        local = sweep(recipe(tmp_path, *_without(loaded)), tmp_path / "local", SweepOptions("cpu"))
        assert same_tables(end.folder, local.folder)

    def test_a_killed_worker_is_replaced_and_a_killed_job_goes_on_when_it_is_requeued(
        self, cluster: slurm_cluster.Cluster, tmp_path: Path
    ) -> None:
        loaded = recipe(tmp_path, SLURM, "sweep.widths=[32]", "sweep.seeds=[0]", *LONG[1:], "train.steps=20000")
        end = submitted(loaded, tmp_path / "out")
        log = end.folder / "slurm" / f"{job_of(end)}_0.log"

        def step() -> int:
            return sweep_status(loaded, tmp_path / "out").cells[0].step or 0

        wait_for(lambda: step() > 100, 120)
        os.kill(_process(cluster, "deqcli.sweep.worker"), signal.SIGKILL)
        wait_for(lambda: "attempt 2" in log.read_text(), 60)
        os.kill(_process(cluster, "deqcli.cli.slurm_task"), signal.SIGKILL)
        wait_for(lambda: "JobState=FAILED" in show(f"{job_of(end)}_0"), 60)
        assert sweep_status(loaded, tmp_path / "out").cells[0].state == "interrupted"
        subprocess.run(["scontrol", "requeue", f"{job_of(end)}_0"], check=True)
        wait_for(lambda: merged(loaded, tmp_path / "out"), 240)
        local = sweep(recipe(tmp_path, *_without(loaded)), tmp_path / "local", SweepOptions("cpu"))
        assert same_tables(end.folder, local.folder)

    def test_a_cancelled_job_checkpoints_and_stays_cancelled(
        self, cluster: slurm_cluster.Cluster, tmp_path: Path
    ) -> None:
        loaded = recipe(tmp_path, SLURM, "sweep.widths=[32]", "sweep.seeds=[0]", *LONG)
        end = submitted(loaded, tmp_path / "out")
        wait_for(lambda: (sweep_status(loaded, tmp_path / "out").cells[0].step or 0) > 100, 120)
        subprocess.run(["scancel", job_of(end)], check=True)
        wait_for(lambda: "JobState=CANCELLED" in show(f"{job_of(end)}_0"), 60)
        cell = run_folder(tmp_path / "out", loaded.cells()[0])
        assert (cell / "checkpoint.safetensors").exists()
        assert json.loads((cell / "manifest.json").read_text())["status"] == "interrupted"
        time.sleep(8)
        assert "JobState=CANCELLED" in show(f"{job_of(end)}_0")

    def test_what_the_cluster_cannot_give_is_refused_at_once(
        self, cluster: slurm_cluster.Cluster, tmp_path: Path
    ) -> None:
        for asked in ("partition: moon", "memory: 900000G", "gres: 'gpu:9'"):
            loaded = recipe(tmp_path, f"execution={{executor: slurm, slurm: {{{asked}}}}}")
            with pytest.raises(Refused, match="sbatch refused"):
                sweep(loaded, tmp_path / "out", SweepOptions("cpu"))
        assert not sweep_folder(tmp_path / "out", loaded).joinpath("slurm", "job.json").exists()


def _without(loaded: Recipe) -> list[str]:
    """Overrides that make the same sweep for this machine, each cell in one thread."""
    plain = loaded.model_dump(mode="json", exclude={"execution", "name", "data"})
    return ["execution={jobs: 2, threads: 1}", *(f"{name}={json.dumps(value)}" for name, value in plain.items())]


def _process(cluster: slurm_cluster.Cluster, module: str) -> int:
    """The process of the only running task that runs a module."""
    found = [pid for pid in cluster.processes() if module in Path(f"/proc/{pid}/cmdline").read_text()]
    assert len(found) == 1
    return found[0]
