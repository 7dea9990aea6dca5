"""Ray: what is asked of a cluster, and on a real one of two nodes what becomes of it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deqcli.errors import Interrupted, Refused
from deqcli.recipe.schema import RunSpec
from deqcli.runs.folder import run_folder
from deqcli.sweep.cells import CellEnd
from deqcli.sweep.sweep import SweepOptions, sweep
from deqcli.sweep.watch import Progress
from tests.runs import CSV, recipe
from tests.waiting import wait_for

# for the clusters that the tests start: any process here may use them, and none elsewhere
os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}

try:
    import ray
    from ray.cluster_utils import Cluster
except ImportError:
    ray = None

pytestmark = [
    pytest.mark.reliability,
    pytest.mark.skipif(ray is None, reason="NO RAY HERE: install the extra `ray`"),
    pytest.mark.filterwarnings("ignore"),
]

LONG = ("train.steps=6000", "log.spectral_every=500", "log.checkpoint_every=1000", "solver.kind=picard")


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Two nodes of one CPU each, on this machine's loopback."""
    asked = {"num_cpus": 1, "object_store_memory": 10**8}
    head = {**asked, "node_ip_address": "127.0.0.1", "include_dashboard": False}
    started = Cluster(initialize_head=True, head_node_args=head)
    started.second = started.add_node(**asked, node_ip_address="127.0.0.1")
    started.wait_for_nodes()
    yield started
    ray.shutdown()
    for node in list(started.list_all_nodes()):
        started.remove_node(node, allow_graceful=False)


def asked(cluster: Any, *more: str) -> list[str]:
    """Overrides for a sweep on this cluster."""
    return [f"execution={{executor: ray, ray: {{address: '{cluster.address}'}}}}", *more]


def same_tables(one: Path, other: Path) -> bool:
    """Whether two sweeps' folders agree to the byte."""
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in (*CSV, "runs.csv", "recipe.yaml"))


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the sweep of `LONG` by the local executor, one thread for each cell."""
    folder = tmp_path_factory.mktemp("local")
    return sweep(recipe(folder, *LONG, "execution={jobs: 2, threads: 1}"), folder, SweepOptions("cpu")).folder


def workers() -> list[int]:
    """Processes that compute a task of deqcli's."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            title = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if re.match(r"ray::_compute", title):
            found.append(int(path.parent.name))
    return found


def once(act: Callable[[], object], going: int = 1) -> Callable[[Progress], None]:
    """A listener that acts the first time that so many running cells have made a step."""
    acted: list[bool] = []

    def on_progress(progress: Progress) -> None:
        if not acted and sum(bool(each.step) for each in progress.running) >= going:
            acted.append(True)
            act()

    return on_progress


def test_a_cluster_started_here_listens_on_loopback_alone_and_ends_with_the_sweep(tmp_path: Path, local: Path) -> None:
    """In a process of its own: how Ray tells friend from foe it reads once, when it is imported."""
    recipe(tmp_path)
    command = [sys.executable, "-m", "deqcli", "sweep-width", str(tmp_path / "recipe.yaml"), *LONG, "--executor", "ray"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    driver = subprocess.Popen([*command, "--out", str(tmp_path / "out"), "--device", "cpu"], env=environment)
    wait_for(lambda: driver.poll() is not None or workers(), 90)
    listing = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True, check=True).stdout
    seen = [line for line in listing.splitlines() if re.search(r'"(raylet|gcs_server|ray|python)', line)]
    assert seen
    assert [line for line in seen if not re.match(r"(127\.0\.0\.1|\[::ffff:127\.0\.0\.1\]):", line.split()[3])] == []
    assert driver.wait(120) == 0
    wait_for(lambda: not workers())
    (folder,) = (tmp_path / "out" / "small" / "sweeps").iterdir()
    assert same_tables(folder, local)


def test_a_killed_worker_is_replaced_and_the_tables_are_the_same(cluster: Any, local: Path, tmp_path: Path) -> None:
    repeated: list[CellEnd] = []

    def kill() -> None:
        os.kill(workers()[0], signal.SIGKILL)

    loaded = recipe(tmp_path, *asked(cluster, *LONG))
    end = sweep(loaded, tmp_path / "out", SweepOptions("cpu", on_repeat=repeated.append, on_progress=once(kill)))
    assert [each.attempts for each in repeated] == [2]
    assert "WorkerCrashedError" in str(repeated[0].error)
    assert end.failed == []
    assert same_tables(end.folder, local)


def test_a_node_removed_in_mid_sweep_costs_nothing_but_time(cluster: Any, local: Path, tmp_path: Path) -> None:
    repeated: list[CellEnd] = []

    def remove() -> None:
        cluster.remove_node(cluster.second, allow_graceful=False)

    loaded = recipe(tmp_path, *asked(cluster, *LONG))
    end = sweep(loaded, tmp_path / "out", SweepOptions("cpu", on_repeat=repeated.append, on_progress=once(remove)))
    assert len(repeated) == 1
    assert end.failed == []
    assert same_tables(end.folder, local)


def test_a_cell_that_kills_its_worker_every_time_fails_and_the_others_do_not(cluster: Any, tmp_path: Path) -> None:
    """Its first seed is killed whenever it runs."""
    loaded = recipe(tmp_path, *asked(cluster, "sweep.widths=[32]", *LONG), "execution.jobs=1")
    doomed = loaded.cells()[0].run_id

    def kill(progress: Progress) -> None:
        if [each.spec.run_id for each in progress.running] == [doomed] and progress.running[0].step is not None:
            for pid in workers():
                os.kill(pid, signal.SIGKILL)

    end = sweep(loaded, tmp_path / "out", SweepOptions("cpu", on_progress=kill))
    assert [(each.spec.run_id, each.attempts) for each in end.failed] == [(doomed, 3)]
    assert [each.status for each in end.ends] == ["failed", "complete"]


def test_an_interrupt_checkpoints_what_runs_and_cancels_what_waits(cluster: Any, local: Path, tmp_path: Path) -> None:
    loaded = recipe(tmp_path, *asked(cluster, *LONG))

    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    before = time.monotonic()
    with pytest.raises(Interrupted):
        sweep(loaded, tmp_path / "out", SweepOptions("cpu", on_progress=once(interrupt, 2)))
    assert time.monotonic() - before < 60
    cells = [run_folder(tmp_path / "out", cell) for cell in loaded.cells()]
    assert sum((cell / "checkpoint.safetensors").exists() for cell in cells) == 2
    end = sweep(loaded, tmp_path / "out", SweepOptions("cpu"))
    assert end.failed == []
    assert same_tables(end.folder, local)


def test_what_no_node_can_give_is_refused_at_once_with_what_there_is(cluster: Any, tmp_path: Path) -> None:
    for more, words in (("execution.threads=7", "asks for 7 CPU"), ("train.steps=9", "asks for 1 CPU, 1 GPU")):
        loaded = recipe(tmp_path, *asked(cluster, more))
        with pytest.raises(Refused, match=f"{words}.*the Ray cluster has .*1 CPU, 0 GPU"):
            sweep(loaded, tmp_path / "out", SweepOptions("cuda" if "GPU" in words else "cpu"))


def test_nodes_that_do_not_see_the_folder_are_named(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver's folder is put where the nodes, which are processes of this machine as well, do not look."""
    monkeypatch.setattr("deqcli.sweep.ray_tasks._seen_from_a_node", lambda probe: f"/nowhere{probe}")
    with pytest.raises(Refused, match=r"does not see .*; --out must be a folder that all nodes of the cluster share"):
        sweep(recipe(tmp_path, *asked(cluster)), tmp_path / "out", SweepOptions("cpu"))


def test_an_address_where_no_cluster_is_is_refused(tmp_path: Path) -> None:
    loaded = recipe(tmp_path, "execution={executor: ray, ray: {address: '127.0.0.1:1'}}")
    with pytest.raises(Refused, match=r"the Ray cluster at 127\.0\.0\.1:1 cannot be reached"):
        sweep(loaded, tmp_path / "out", SweepOptions("cpu"))


def test_a_sweep_on_the_command_line_ends_on_sigterm_with_its_code(cluster: Any, tmp_path: Path) -> None:
    loaded = recipe(tmp_path, *asked(cluster, *LONG, "train.steps=200000"))
    command = [sys.executable, "-m", "deqcli", "sweep-width", str(tmp_path / "recipe.yaml"), *LONG]
    driver = subprocess.Popen(
        [*command, *asked(cluster), "train.steps=200000", "--out", str(tmp_path / "out"), "--device", "cpu"],
        stderr=subprocess.PIPE,
        text=True,
    )
    first: RunSpec = loaded.cells()[-1]
    wait_for((run_folder(tmp_path / "out", first) / "checkpoint.safetensors").exists, 60)
    driver.send_signal(signal.SIGTERM)
    _, said = driver.communicate(timeout=60)
    assert driver.returncode == 143
    assert "the same command goes on from there" in said
    assert "Traceback" not in said
