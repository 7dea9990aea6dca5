"""From a RunSpec to its folder: fresh, resumed, or found complete. Every executor calls `run`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from deqcli.data.dataset import Dataset
from deqcli.deq.network import Network, Params
from deqcli.errors import CorruptArtefact, Interrupted, Refused, as_refusal
from deqcli.recipe.memory import bytes_message, spec_bytes
from deqcli.recipe.schema import RunSpec
from deqcli.runs import files
from deqcli.runs.baseline import Baseline, component, draw, measure, tensors
from deqcli.runs.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from deqcli.runs.device import Execution, device_memory, device_name, pick_device, threads_for, threads_limited
from deqcli.runs.folder import (
    COMPLETE,
    FAILED,
    INTERRUPTED,
    Manifest,
    clear,
    find_complete,
    hashes,
    locked,
    read_manifest,
    row_keys,
    run_folder,
    verify,
    write_manifest,
)  # fmt: skip
from deqcli.runs.metrics import Metrics
from deqcli.runs.records import (
    CERTIFICATE_COLUMNS,
    LOSS_COLUMNS,
    SPECTRAL_COLUMNS,
    TIMING_COLUMNS,
    Table,
    csv_text,
)  # fmt: skip
from deqcli.runs.results import results
from deqcli.runs.signals import StopSignals
from deqcli.runs.trainer import Report, Tables, Trainer
from deqcli.theory.certificates import certify
from deqcli.theory.initial import Initial

TABLE_FILES = {"loss": files.LOSS, "spectral": files.SPECTRAL, "timing": files.TIMING}
TABLE_COLUMNS = {"loss": LOSS_COLUMNS, "spectral": SPECTRAL_COLUMNS, "timing": TIMING_COLUMNS}
RESULT_FILES = (files.RECIPE, files.LOSS, files.SPECTRAL, files.TIMING, files.CERTIFICATES, files.CHECKPOINT)
OWN_FILES = (*RESULT_FILES, files.LOG)


@dataclass(frozen=True)
class Outcome:
    """A finished run; `computed` is False where it was found complete."""

    folder: Path
    manifest: Manifest
    computed: bool


def run(
    spec: RunSpec, out: Path, execution: Execution = Execution(), force: bool = False, report: Report | None = None
) -> Outcome:
    """Compute a run in its folder under `out`, resume it, or find it complete; `force` computes it anew.

    Raises: Refused (data, memory, device), NumericalFailure, CorruptArtefact, FolderInUse, Interrupted, OSError.
    """
    folder = run_folder(out, spec)
    read_manifest(folder, "run", spec.run_id)  # before anything is written: the folder may be somebody else's
    complete = None if force else find_complete(out, spec)
    if complete:
        return Outcome(folder, complete, computed=False)
    device, dataset = pick_device(execution.device), spec.data.load()
    refuse_impossible(spec, dataset, device)
    with locked(folder):
        found = read_manifest(folder, "run", spec.run_id)
        if found and found.status == COMPLETE and not force:
            return Outcome(folder, found, computed=False)
        resumed = found if found and not force and (folder / files.CHECKPOINT).exists() else None
        threads = execution.threads or (resumed.threads if resumed else threads_for(execution, spec.model.width))
        return _Attempt(spec, folder, dataset, Execution(str(device), threads), report).compute(resumed)


def refuse_impossible(spec: RunSpec, dataset: Dataset, device: torch.device) -> None:
    """Refuse what the device cannot do, now that the data and the device are known: its memory, its precision."""
    if device.type == "mps" and spec.train.dtype == "float64":
        raise Refused("train.dtype: float64 is not possible on an Apple GPU (mps); use float32 or --device cpu")
    needed = spec_bytes(spec, dataset.num_samples, dataset.input_dim)
    has = device_memory(device)
    if needed > has:
        shape = (dataset.num_samples, dataset.input_dim)
        raise Refused(bytes_message(spec.model.width, shape, spec.train.dtype, needed, has))


class _Attempt:
    """One attempt at a run in a folder that is locked."""

    def __init__(
        self, spec: RunSpec, folder: Path, dataset: Dataset, execution: Execution, report: Report | None
    ) -> None:
        self.spec, self.folder, self.report = spec, folder, report or (lambda *_: None)
        self.device, self.threads = torch.device(execution.device), execution.threads or 1
        dtype = getattr(torch, spec.train.dtype)
        self.exact_X, self.exact_y = tensors(dataset)
        self.X, self.y = self.exact_X.to(self.device, dtype), self.exact_y.to(self.device, dtype)
        self.signals = StopSignals()
        self.manifest = Manifest(
            kind="run",
            id=spec.run_id,
            recipe=spec.name,
            status="running",
            device=self.device.type,
            device_name=device_name(self.device),
            threads=self.threads,
            versions=files.versions(),
            git=files.git_commit(),
        )

    def compute(self, resumed: Manifest | None) -> Outcome:
        """Run to the end and say in the manifest how it ended, whatever happens."""
        with self.signals.installed(), threads_limited(self.threads):
            try:
                self._start(resumed)
                self._train(fresh=resumed is None)
            except Interrupted as stop:
                self._end(INTERRUPTED, str(stop))
                raise
            except Exception as error:
                with suppress(OSError):  # a full disk has no room for the news
                    self._end(FAILED, str(as_refusal(error)))
                raise
        if self.signals.pending is not None:
            raise Interrupted(self.signals.pending, "interrupted when the run was complete")
        return Outcome(self.folder, self.manifest, computed=True)

    def _start(self, resumed: Manifest | None) -> None:
        """Say that the folder is being worked in; a fresh start first drops the checkpoint of an earlier one."""
        if resumed is not None:
            self._compare(resumed)
            write_manifest(self.folder, self.manifest)
            return
        clear(self.folder, [files.CHECKPOINT])
        write_manifest(self.folder, self.manifest)
        clear(self.folder, OWN_FILES)
        files.replace_text(self.folder / files.RECIPE, files.recipe_text(self.spec))

    def _compare(self, resumed: Manifest) -> None:
        now = self.manifest
        others = {"versions": resumed.versions != now.versions, "threads": resumed.threads != now.threads}
        others |= {"device": resumed.device != now.device}
        now.changed = sorted({*resumed.changed, *(name for name, other in others.items() if other)})
        if now.changed:
            self._say(
                f"resumed with other {', '.join(now.changed)}: the last bits may differ from an uninterrupted run"
            )

    def _say(self, sentence: str) -> None:
        with (self.folder / files.LOG).open("a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {sentence}\n")

    def _end(self, status: str, error: str | None = None) -> None:
        self._say(error or status)
        self.manifest = self.manifest.model_copy(update={"status": status, "error": error})
        write_manifest(self.folder, self.manifest)

    def _train(self, fresh: bool) -> None:
        started = time.perf_counter()
        checkpoint = None if fresh else self._load()
        with self._tables(checkpoint) as tables:
            trainer, metrics = self._fresh(tables) if checkpoint is None else self._resumed(tables, checkpoint)
            first = trainer.step
            with self.signals.deferred():
                self._steps(trainer, metrics)
                self._checkpoint(trainer, metrics)
            seconds = time.perf_counter() - started
        share = trainer.logging_seconds / seconds
        self._say(f"{trainer.step - first} steps in {seconds:.2f} s, of which logging {share:.1%}")
        self.manifest.results = results(self.folder, self.spec, self.X.shape[0], metrics.baseline)
        self.manifest.files = hashes(self.folder, RESULT_FILES)
        self._end(COMPLETE)

    def _load(self) -> Checkpoint:
        checkpoint = load_checkpoint(self.folder / files.CHECKPOINT)
        if checkpoint.state["run_id"] != self.spec.run_id:
            raise CorruptArtefact(f"{self.folder / files.CHECKPOINT} is of another run, {checkpoint.state['run_id']}")
        verify(self.folder, checkpoint.state["files"])
        self._say(f"resumed at step {checkpoint.state['step']}")
        return checkpoint

    @contextmanager
    def _tables(self, checkpoint: Checkpoint | None) -> Iterator[Tables]:
        marks: Mapping[str, Any] = checkpoint.state["marks"] if checkpoint else {}
        keys = row_keys(self.spec)
        with ExitStack() as stack:
            opened = {
                name: stack.enter_context(Table(self.folder / file, TABLE_COLUMNS[name], keys, marks.get(name)))
                for name, file in TABLE_FILES.items()
            }
            yield Tables(**opened)

    def _fresh(self, tables: Tables) -> tuple[Trainer, Metrics]:
        """Draw, solve step 0, measure the draw, and write the first rows."""
        params = draw(self.spec, self.X.shape[0], self.device)
        trainer = Trainer(self.spec, Network(params, self.X, component(self.spec)), self.y, tables)
        solved = trainer.solve()
        trainer.refuse_runaway(solved)
        initial = measure(self.spec, params, self.exact_X, self.exact_y)
        trainer.baseline = baseline = Baseline.of(self.spec, initial)
        self._certify(initial, baseline.learning_rate)
        self._say(f"learning rate {baseline.learning_rate!r}, lambda_0 {baseline.lambda_0!r}")
        metrics = Metrics(params.clone(), self.X, baseline, None)
        trainer.log(solved, metrics)
        return trainer, metrics

    def _certify(self, initial: Initial, learning_rate: float) -> None:
        rows = [row_keys(self.spec) | certificate.row() for certificate in certify(initial, learning_rate)]
        files.replace_text(self.folder / files.CERTIFICATES, csv_text(CERTIFICATE_COLUMNS, rows))

    def _resumed(self, tables: Tables, checkpoint: Checkpoint) -> tuple[Trainer, Metrics]:
        """Put the solved step of a checkpoint back in place, warm starts included."""
        stored = {name: tensor.to(self.device) for name, tensor in checkpoint.tensors.items()}
        params = Params(stored["W"], stored["U"], stored["a"])
        network = Network(params, self.X, component(self.spec))
        network.Z.copy_(stored["Z"])
        network.V.copy_(stored["V"])
        trainer = Trainer(self.spec, network, self.y, tables)
        trainer.step = checkpoint.state["step"]
        trainer.baseline = baseline = Baseline.restored(checkpoint)
        start = draw(self.spec, self.X.shape[0], self.device)
        return trainer, Metrics(start, self.X, baseline, checkpoint.tensors["norm_vector"].numpy())

    def _steps(self, trainer: Trainer, metrics: Metrics) -> None:
        """Descend to the last step, with checkpoints when due and at the first signal."""
        log, rate = self.spec.log, metrics.baseline.learning_rate
        e = trainer.network.prediction_error(self.y)
        while trainer.step < self.spec.train.steps:
            if self.signals.pending is not None:
                self._stop(trainer, metrics, self.signals.pending)
            trainer.descend(e, rate)
            solved = trainer.solve()
            trainer.log(solved, metrics)
            e = solved.prediction_error
            self.report(self.spec, trainer.step, solved.loss)
            if trainer.step % log.checkpoint_every == 0 and trainer.step < self.spec.train.steps:
                self._checkpoint(trainer, metrics)

    def _stop(self, trainer: Trainer, metrics: Metrics, signum: int) -> None:
        self._checkpoint(trainer, metrics)
        raise Interrupted(signum, f"interrupted at step {trainer.step} of {self.spec.train.steps}")

    def _checkpoint(self, trainer: Trainer, metrics: Metrics) -> None:
        network, params = trainer.network, trainer.network.params
        state = {
            "run_id": self.spec.run_id,
            "step": trainer.step,
            "baseline": metrics.baseline.scalars(),
            "marks": trainer.tables.marks(),
            "files": hashes(self.folder, [files.RECIPE, files.CERTIFICATES]),
        }
        tensors = {
            "W": params.W, "U": params.U, "a": params.a, "Z": network.Z, "V": network.V,
            "norm_vector": torch.from_numpy(metrics.vector), **metrics.baseline.tensors(),
        }  # fmt: skip
        save_checkpoint(self.folder / files.CHECKPOINT, Checkpoint(tensors, state))
