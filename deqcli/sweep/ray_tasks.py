"""The Ray executor: a task for each batch, on a cluster that is running or on one that is started on this machine."""

from __future__ import annotations

import os
import secrets
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import deqcli
from deqcli.errors import Refused, SystemRefused
from deqcli.recipe.execution import Ray
from deqcli.recipe.schema import RunSpec
from deqcli.runs.files import TEMPORARY, replace_text
from deqcli.runs.folder import FAILED, INTERRUPTED
from deqcli.sweep.cells import LOST, Batch, CellEnd, Share, batch_bytes, batches, by_cost, end_of, threads_of
from deqcli.sweep.drive import Drive
from deqcli.sweep.local import environment
from deqcli.sweep.work import Work
from deqcli.sweep.worker import compute, plain

if TYPE_CHECKING:
    import ray

ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"}
"""Read by Ray when it is imported: listen on loopback alone, and take tasks from those alone who know the token."""

CONNECT_SECONDS = 10.0
PROBE_SECONDS = 60.0
LOOK_EVERY = 5.0
"""Seconds between looks at what the cluster still has, while nothing ends."""

Resources = Mapping[str, float]
"""CPU, GPU and memory (bytes), as Ray names them."""


def compute_by_ray(work: Work) -> None:
    """Compute the cells as Ray tasks. Raises: Refused (no Ray, no such node), Interrupted, DiskFull, SystemRefused."""
    with _cluster(work.execution.ray):
        _refuse_unseen(work.folder)
        nodes = _nodes()
        pool = RayPool(work, nodes)
        grouped = batches(by_cost(work.cells), pool.jobs)
        pool.refuse_infeasible(grouped, nodes)
        Drive(pool, grouped, work.execution, work.listener).run()


@contextmanager
def _cluster(options: Ray) -> Iterator[None]:
    """Be connected to the cluster for the block; one started here ends with it, and listens on loopback alone."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if options.address is None:
        os.environ |= environment()
        if "ray" not in sys.modules:
            os.environ |= ALONE | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
    try:
        import ray
    except ImportError:
        raise Refused("execution.executor: ray is not installed; install deqcli with its extra `ray`") from None
    if ray.is_initialized():  # by whoever called this
        yield
        return
    dashboard = {"include_dashboard": False} if options.address is None else {}
    if options.address is not None:
        _refuse_unreachable(options.address)
    try:
        ray.init(address=options.address or "local", log_to_driver=False, logging_level="ERROR", **dashboard)
    except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        where = f"the Ray cluster at {options.address}" if options.address else "a Ray cluster on this machine"
        raise Refused(f"{where} cannot be reached: {str(error).splitlines()[0]}") from None
    try:
        yield
    finally:
        ray.shutdown()


def _refuse_unreachable(address: str) -> None:
    """Ask first whether anything listens at host:port: Ray would try for many minutes."""
    import ray

    os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "1")  # attempts, of half a minute each
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdecimal()):
        return
    if host in ("localhost", "127.0.0.1"):
        host = ray.util.get_node_ip_address()
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except OSError as error:
        raise Refused(f"the Ray cluster at {address} cannot be reached: {error.strerror or error}") from None


def _nodes() -> list[dict[str, Any]]:
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


def _refuse_unseen(folder: Path) -> None:
    """Refuse nodes that do not see the output folder, or that have another deqcli: asked of each by a probe file."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    probe, word = folder / f".probe{TEMPORARY}", secrets.token_hex(8)
    replace_text(probe, word)
    try:
        asked = {
            ray.remote(_probe)
            .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
            .remote(_seen_from_a_node(probe)): node["NodeManagerHostname"]
            for node in _nodes()
        }
        answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=PROBE_SECONDS)
        wrong = [f"{asked[each]} does not answer" for each in silent]
        for each in answered:
            wrong += _objections(asked[each], ray.get(each), word, folder)
    except ray.exceptions.RayError as error:
        raise Refused(f"the Ray cluster cannot run deqcli: {str(error).splitlines()[-1]}") from None
    finally:
        probe.unlink(missing_ok=True)
    if wrong:
        raise Refused("; ".join(wrong))


def _seen_from_a_node(probe: Path) -> str:
    """The path of a probe file on a node."""
    return str(probe.absolute())


def _probe(path: str) -> tuple[str | None, str]:
    """On a node: what it reads in the probe file, and its version of deqcli."""
    try:
        return Path(path).read_text(encoding="utf-8"), deqcli.__version__
    except OSError:
        return None, deqcli.__version__


def _objections(host: str, answer: tuple[str | None, str], word: str, folder: Path) -> list[str]:
    read, version = answer
    unseen = f"{host} does not see {folder.absolute()}; --out must be a folder that all nodes of the cluster share"
    other = f"{host} has deqcli {version}, this machine {deqcli.__version__}"
    return [unseen] * (read != word) + [other] * (version != deqcli.__version__)


class RayPool:
    """Tasks, each asking for the threads, the memory and the GPU of its batch."""

    def __init__(self, work: Work, nodes: Sequence[dict[str, Any]]) -> None:
        import ray

        self._ray, self._work = ray, work
        with_gpu = [node for node in nodes if node["Resources"].get("GPU", 0) >= 1]
        self._gpu = work.device.startswith("cuda") or (work.device == "auto" and bool(with_gpu))
        usable = with_gpu if self._gpu and with_gpu else nodes
        cpus = [int(node["Resources"].get("CPU", 0)) for node in usable]
        slots = sum(int(node["Resources"]["GPU"]) for node in with_gpu) if self._gpu else sum(cpus)
        self.jobs = work.execution.jobs or max(1, min(slots, len(work.cells)))
        self._share = max(1, min(sum(cpus) // self.jobs, max(cpus, default=1)))
        self._tasks: dict[ray.ObjectRef[Any], dict[str, RunSpec]] = {}
        self._batches: dict[ray.ObjectRef[Any], Batch] = {}
        self._next_look = time.monotonic() + LOOK_EVERY

    def _asked(self, batch: Batch) -> dict[str, float]:
        """What a batch asks of a node."""
        threads = self._work.execution.threads or threads_of(batch, self._share)
        return {"CPU": threads, "GPU": 1.0 if self._gpu else 0.0, "memory": float(batch_bytes(batch))}

    def refuse_infeasible(self, batches: Sequence[Batch], nodes: Sequence[dict[str, Any]]) -> None:
        """Refuse what no node could ever run, for which Ray would wait without a word."""
        for batch in batches:
            asked = self._asked(batch)
            if not any(all(node["Resources"].get(key, 0) >= each for key, each in asked.items()) for node in nodes):
                there = "; ".join(f"{node['NodeManagerHostname']} {_words(node['Resources'])}" for node in nodes)
                raise Refused(f"{batch[0].run_id} asks for {_words(asked)}; the Ray cluster has {there or 'no node'}")

    def room(self, _batch: Batch) -> bool:
        """Whether fewer tasks are under way than there may be; which node has room is Ray's to say."""
        return len(self._tasks) < self.jobs

    def start(self, batch: Batch) -> None:
        """Hand a task to Ray, which is not to repeat it: attempts are counted where it is driven."""
        asked = self._asked(batch)
        device = "cuda" if self._gpu else "cpu" if self._work.device == "auto" else self._work.device
        share = Share(device, self._work.execution.threads, int(asked["CPU"]))
        task = self._ray.remote(_compute).options(
            num_cpus=asked["CPU"], num_gpus=asked["GPU"], memory=int(asked["memory"]), max_retries=0
        )
        ref = task.remote(plain(batch), str(self._work.out.absolute()), share)
        self._tasks[ref], self._batches[ref] = {spec.run_id: spec for spec in batch}, batch

    def ended(self, seconds: float) -> list[CellEnd]:
        """The cells of the tasks that have ended."""
        if not self._tasks:
            time.sleep(seconds)
            return []
        ready, _ = self._ray.wait(list(self._tasks), num_returns=len(self._tasks), timeout=0)
        if not ready:
            ready, _ = self._ray.wait(list(self._tasks), num_returns=1, timeout=seconds)
        if not ready:
            self._look()
        return [end for ref in ready for end in self._ends(ref)]

    def _look(self) -> None:
        """See that what runs can still run, now that nodes may have gone."""
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + LOOK_EVERY
            try:
                self.refuse_infeasible(list(self._batches.values()), _nodes())
            except Refused as gone:
                raise SystemRefused(f"the Ray cluster has shrunk: {gone}") from None

    def _ends(self, ref: ray.ObjectRef[Any]) -> list[CellEnd]:
        specs, errors = self._tasks.pop(ref), self._ray.exceptions
        del self._batches[ref]
        try:
            return [end_of(event, specs[event["run_id"]]) for event in self._ray.get(ref)]
        except errors.TaskCancelledError:
            return [CellEnd(spec, INTERRUPTED, "interrupted") for spec in specs.values()]
        except errors.RayTaskError as error:
            return [CellEnd(spec, FAILED, str(error).splitlines()[-1], 1) for spec in specs.values()]
        except errors.RayError as error:
            why = f"its Ray worker was lost ({type(error).__name__}: {str(error).splitlines()[0]})"
            return [CellEnd(spec, LOST, why, 1) for spec in specs.values()]

    def stop(self) -> None:
        """Cancel every task: one that runs checkpoints, one that waits ends."""
        for ref in self._tasks:
            self._ray.cancel(ref, force=False)


def _compute(batch: list[dict[str, Any]], out: str, share: Share) -> list[dict[str, Any]]:
    """On a node: the ends of the cells of a batch."""
    ends: list[dict[str, Any]] = []
    compute(batch, Path(out), share, ends.append)
    return ends


def _words(resources: Resources) -> str:
    cpus, gpus, memory = (resources.get(key, 0) for key in ("CPU", "GPU", "memory"))
    return f"{cpus:g} CPU, {gpus:g} GPU, {memory / 1e9:.3g} GB of memory"
