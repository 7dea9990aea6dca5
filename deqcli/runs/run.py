"""From RunSpecs to their folders: fresh, resumed, or found complete. Every executor calls `run` or `run_batch`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from deqcli.data.dataset import Dataset
from deqcli.errors import Refused
from deqcli.recipe.memory import bytes_message, spec_bytes
from deqcli.recipe.schema import RunSpec
from deqcli.runs import files
from deqcli.runs.attempt import Attempt, Outcome
from deqcli.runs.batch import Batch, OnRunEnd
from deqcli.runs.device import Execution, device_memory, pick_device, threads_for
from deqcli.runs.folder import COMPLETE, find_complete, locked, read_manifest, run_folder
from deqcli.runs.standing import Report


def run(
    spec: RunSpec, out: Path, execution: Execution = Execution(), force: bool = False, report: Report | None = None
) -> Outcome:
    """Compute a run in its folder under `out`, resume it, or find it complete; `force` computes it anew.

    Raises: Refused (data, memory, device), NumericalFailure, CorruptArtefact, FolderInUse, Interrupted, OSError.
    """
    ends: list[Outcome | Exception] = []
    run_batch([spec], out, execution, force, report, lambda _, end: ends.append(end))
    (end,) = ends
    if isinstance(end, Exception):
        raise end
    return end


def run_batch(
    specs: Sequence[RunSpec], out: Path, execution: Execution = Execution(), force: bool = False,
    report: Report | None = None, on_end: OnRunEnd = lambda *_: None,
) -> None:  # fmt: skip
    """Compute several runs as `run` does, those of small networks of one shape in one batched product.

    `on_end` hears of each run as it ends: its outcome, or what it raised; the others go on. What a run writes does not
    depend on which runs it shared the products with.
    Raises: Interrupted, once every run has its checkpoint.
    """
    with ExitStack() as stack:
        attempts = []
        for spec in specs:
            try:
                attempts.append(stack.enter_context(_opened(spec, out, execution, force, report)))
            except _Complete as complete:
                on_end(spec, complete.outcome)
            except Exception as error:
                on_end(spec, error)
        if attempts:
            Batch(attempts, on_end).compute()


class _Complete(Exception):
    """A run needs no computing."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome


@contextmanager
def _opened(spec: RunSpec, out: Path, execution: Execution, force: bool, report: Report | None) -> Iterator[Attempt]:
    """The attempt at a run, its folder locked; raises what there is instead of one."""
    folder = run_folder(out, spec)
    read_manifest(folder, "run", spec.run_id)  # before anything is written: the folder may be somebody else's
    complete = None if force else find_complete(out, spec)
    if complete:
        raise _Complete(Outcome(folder, complete, computed=False))
    device, dataset = pick_device(execution.device), spec.data.load()
    refuse_impossible(spec, dataset, device)
    with locked(folder):
        found = read_manifest(folder, "run", spec.run_id)
        if found and found.status == COMPLETE and not force:
            raise _Complete(Outcome(folder, found, computed=False))
        resumable = found and not (force or found.fresh) and (folder / files.CHECKPOINT).exists()
        resumed = found if resumable else None
        wanted = 1 if spec.stackable else execution.threads or (resumed.threads if resumed else None)
        threads = wanted or threads_for(execution, spec.model.width, dataset.num_samples)
        yield Attempt(spec, folder, dataset, Execution(str(device), threads), resumed, report)


def refuse_impossible(spec: RunSpec, dataset: Dataset, device: torch.device) -> None:
    """Refuse what the device cannot do, now that the data and the device are known: its memory, its precision."""
    if device.type == "mps" and spec.train.dtype == "float64":
        raise Refused("train.dtype: float64 is not possible on an Apple GPU (mps); use float32 or --device cpu")
    needed = spec_bytes(spec, dataset.num_samples, dataset.input_dim)
    has = device_memory(device)
    if needed > has:
        shape = (dataset.num_samples, dataset.input_dim)
        raise Refused(bytes_message(spec.model.width, shape, spec.train.dtype, needed, has))
