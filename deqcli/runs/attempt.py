"""One attempt at a run: its files from the first to the last, and its network when it starts and when it stops."""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deqcli.data.dataset import Dataset
from deqcli.deq.initialisation import INITIALISATIONS
from deqcli.deq.model import Params
from deqcli.deq.network import Network, loss
from deqcli.errors import CorruptArtefact, as_refusal
from deqcli.recipe.memory import spec_bytes
from deqcli.recipe.schema import RunSpec
from deqcli.runs import files
from deqcli.runs.baseline import Baseline, component, draw_of, drawn_entries, measure, solve, tensors
from deqcli.runs.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from deqcli.runs.device import Execution, device_memory, device_name
from deqcli.runs.flow import Flow
from deqcli.runs.folder import (
    COMPLETE,
    FAILED,
    Manifest,
    clear,
    hashes,
    row_keys,
    verify,
    write_manifest,
)  # fmt: skip
from deqcli.runs.metrics import Metrics, Start
from deqcli.runs.predicted import prediction_rows
from deqcli.runs.records import (
    CERTIFICATE_COLUMNS,
    LOSS_COLUMNS,
    PREDICTION_COLUMNS,
    SPECTRAL_COLUMNS,
    TIMING_COLUMNS,
    Table,
    csv_text,
    whole,
)  # fmt: skip
from deqcli.runs.resample import drawn
from deqcli.runs.results import results
from deqcli.runs.standing import DRAWING, TRAINING, Report, Standing
from deqcli.runs.trainer import Step, Tables, Trainer
from deqcli.theory.certificates import certify
from deqcli.theory.initial import Initial

TABLE_FILES = {"loss": files.LOSS, "spectral": files.SPECTRAL, "timing": files.TIMING}
TABLE_COLUMNS = {"loss": LOSS_COLUMNS, "spectral": SPECTRAL_COLUMNS, "timing": TIMING_COLUMNS}
STARTED = (files.RECIPE, files.CERTIFICATES, files.PREDICTION)
"""What the draw decides, written once."""

RESULT_FILES = (*STARTED, files.LOSS, files.SPECTRAL, files.TIMING, files.CHECKPOINT)
OWN_FILES = (*RESULT_FILES, files.LOG)


@dataclass(frozen=True)
class Outcome:
    """A finished run; `computed` is False where it was found complete."""

    folder: Path
    manifest: Manifest
    computed: bool


class Attempt:
    """One attempt at a run in a folder that is locked: its files, its trainer, and how it ends."""

    def __init__(
        self, spec: RunSpec, folder: Path, dataset: Dataset, execution: Execution, resumed: Manifest | None,
        report: Report | None,
    ) -> None:  # fmt: skip
        self.spec, self.folder, self._report, self.resumed = spec, folder, report, resumed
        self.device, self.threads = torch.device(execution.device), execution.threads or 1
        dtype = getattr(torch, spec.train.dtype)
        self.exact_X, self.exact_y = tensors(dataset)
        self.X, self.y = self.exact_X.to(self.device, dtype), self.exact_y.to(self.device, dtype)
        self.rows_y = self.y[None] if spec.stackable else self.y
        self._shape = (dataset.num_samples, dataset.input_dim)
        self._files, self._first, self._started = ExitStack(), 0, time.perf_counter()
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

    def start(self) -> tuple[Network, Tensor]:
        """Say that the folder is being worked in; the network at a solved step and its prediction error."""
        if self.resumed is not None:
            clear(self.folder, [files.REPORT])  # it would tell of fewer steps
            self._compare(self.resumed)
            write_manifest(self.folder, self.manifest)
            self.enter("reading the checkpoint")
            return self._resume(self._load())
        write_manifest(self.folder, self.manifest.model_copy(update={"fresh": True}))  # before anything is removed
        clear(self.folder, (*OWN_FILES, files.REPORT))
        write_manifest(self.folder, self.manifest)
        files.replace_text(self.folder / files.RECIPE, files.recipe_text(self.spec))
        return self._fresh()

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
        """A line of the log; none before the first manifest, without which the folder would not be known as ours."""
        if not (self.folder / files.MANIFEST).exists():
            return
        with (self.folder / files.LOG).open("a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {sentence}\n")

    def enter(
        self, phase: str, fraction: float | None = None, step: int | None = None, value: float | None = None
    ) -> None:
        """Tell whoever watches which phase begins, or how far it is; `training` with the loss that it goes on from."""
        if self._report is not None:
            self._report(Standing(self.spec, self._shape, phase, fraction, step, value))

    def tell(self, solved: Step) -> None:
        """Tell whoever watches of a solved step."""
        if self._report is None:
            return
        forward, adjoint = solved.forward, solved.adjoint
        self._report(
            Standing(
                self.spec, self._shape, TRAINING, None, solved.step, solved.loss, forward.residual, forward.iterations,
                adjoint.residual, adjoint.iterations, self.trainer.spectrum,
            )
        )  # fmt: skip

    def end(self, status: str, error: str | None = None, exit_code: int = 0) -> None:
        """Say in the log and the manifest how it ended."""
        self._files.close()
        self._say(error or status)
        ended = {"status": status, "error": error, "exit_code": exit_code}
        self.manifest = self.manifest.model_copy(update=ended)
        write_manifest(self.folder, self.manifest)

    def fail(self, error: Exception) -> None:
        """End with an error; a full disk has no room for the news."""
        refusal = as_refusal(error)
        with suppress(OSError):
            self.end(FAILED, str(refusal), refusal.exit_code)

    def finish(self, network: Network, k: int) -> Outcome:
        """Checkpoint the last step, sum up, and be complete."""
        self.checkpoint(network, k)
        seconds = time.perf_counter() - self._started
        share = self.trainer.logging_seconds / seconds
        self._say(f"{self.trainer.step - self._first} steps in {seconds:.2f} s, of which logging {share:.1%}")
        self.manifest.results = results(self.folder, self.spec, self.X.shape[0], self.metrics.baseline)
        self.manifest.results["residual_misses"] = self.trainer.misses
        self.manifest.results |= self._results_of_variants()
        self.manifest.files = hashes(self.folder, RESULT_FILES)
        self.end(COMPLETE)
        return Outcome(self.folder, self.manifest, computed=True)

    def _results_of_variants(self) -> dict[str, float | int]:
        """What only some recipes have: how many draws it took, and how far off the flow may be."""
        draws = {"draws": self.draws} if self.spec.model.resample != "never" else {}
        return draws | ({} if self.flow is None else {"flow_error": self.flow.error})

    def _load(self) -> Checkpoint:
        checkpoint = load_checkpoint(self.folder / files.CHECKPOINT)
        if checkpoint.state["run_id"] != self.spec.run_id:
            raise CorruptArtefact(f"{self.folder / files.CHECKPOINT} is of another run, {checkpoint.state['run_id']}")
        verify(self.folder, checkpoint.state["files"])
        self._say(f"resumed at step {checkpoint.state['step']}")
        return checkpoint

    def _tables(self, checkpoint: Checkpoint | None) -> Tables:
        marks: dict[str, Any] = dict(checkpoint.state["marks"]) if checkpoint else {}
        if checkpoint and "timing" not in marks:
            marks["timing"] = whole(self.folder / files.TIMING)
        keys = row_keys(self.spec)
        opened = {
            name: self._files.enter_context(Table(self.folder / file, TABLE_COLUMNS[name], keys, marks.get(name)))
            for name, file in TABLE_FILES.items()
        }
        return Tables(**opened)

    def _network(self, params: Params) -> Network:
        """The network of a run; a small one is a stack of one, so that its bits are those it has in a larger stack."""
        X = self.X
        if self.spec.stackable:
            params, X = Params(**{name: each[None] for name, each in params.given().items()}), X[None]
        return Network(params, X, component(self.spec, self.X.shape[0]))

    def _fresh(self) -> tuple[Network, Tensor]:
        """Draw, solve step 0, measure the draw, and write the first rows."""
        params = self._draw()
        self.trainer = trainer = Trainer(self.spec, self.y, self._tables(None))
        network = self._network(params)
        self.enter("first equilibrium")
        (forward,) = network.solve_equilibria([True])
        trainer.accept_equilibrium(forward)
        self.enter("first adjoint")
        (adjoint,) = network.solve_adjoints([True])
        e = network.prediction_error(self.rows_y)
        solved = trainer.accept(forward, adjoint, e.reshape(-1))
        trainer.refuse_runaway(solved)
        network.rest()
        exact = solve(self.spec, params, self.exact_X, self.exact_y, self.enter)
        initial = measure(self.spec, exact, on_part=self.enter)
        trainer.baseline = baseline = Baseline.of(self.spec, initial)
        self.enter("certificates")
        self._certify(initial, baseline.learning_rate)
        self._say(f"learning rate {baseline.learning_rate!r}, lambda_0 {baseline.lambda_0!r}")
        self.enter("spectra of step 0")
        self.metrics = Metrics(self._start(params), self.X, baseline, None)
        self._follow(network)
        trainer.stop_if_reached(solved)
        trainer.log(solved, lambda: network.cell(0), self.metrics)
        self.tell(solved)
        return network, e

    def _draw(self, draws: int = 0) -> Params:
        """W(0), U(0), a(0), telling how much of them is drawn; draw number `draws` of the seed, where that is known."""
        entries = drawn_entries(self.spec, self.X.shape[0])
        filled = 0

        def on_entries(count: int) -> None:
            nonlocal filled
            filled += count
            self.enter(DRAWING, filled / entries % 1.0 or 1.0)

        self.enter(DRAWING, 0.0)
        found = drawn(self.spec, self.exact_X, self.exact_y, self.device, on_entries, draws)
        if found.draws > 1 and not draws:
            self._say(f"draw {found.draws} of the seed was the first that model.resample accepts")
        self.draws = found.draws
        return found.params

    def _follow(self, network: Network, state: dict[str, float] | None = None) -> None:
        """Make ready to follow gradient flow, where the recipe says so."""
        train = self.spec.train
        self.flow = Flow(network, self.y, train.flow_tolerance) if train.method == "flow" else None
        if self.flow is not None and state:
            self.flow.restore(state)

    def _start(self, params: Params) -> Start:
        """What the distances are measured from, apart from what is trained; W(0) is no copy where memory is short."""
        rows, a = INITIALISATIONS[self.spec.model.init].by_rows, params.readouts.clone()
        wanted = spec_bytes(self.spec, self.X.shape[1], self.X.shape[0], keeps_start=True)
        if rows is not None and wanted > device_memory(self.device):
            again = draw_of(self.spec, self.X.shape[0], self.device, self.draws - 1)
            return Start(partial(rows, again), params.U, a)
        return Start(partial(torch.split, params.W.clone()), params.U, a)

    def _certify(self, initial: Initial, learning_rate: float) -> None:
        rows = [row_keys(self.spec) | certificate.row() for certificate in certify(initial, learning_rate)]
        files.replace_text(self.folder / files.CERTIFICATES, csv_text(CERTIFICATE_COLUMNS, rows))
        curve = prediction_rows(self.spec, initial.kernel, learning_rate)
        files.replace_text(self.folder / files.PREDICTION, csv_text(PREDICTION_COLUMNS, curve))

    def _resume(self, checkpoint: Checkpoint) -> tuple[Network, Tensor]:
        """Put the solved step of a checkpoint back in place, with all that its next guesses are made of."""
        stored = checkpoint.tensors  # on the CPU, where float64 is; what the device needs is copied there
        self.trainer = trainer = Trainer(self.spec, self.y, self._tables(checkpoint))
        self._first = trainer.step = checkpoint.state["step"]
        trainer.misses = checkpoint.state["misses"]
        trainer.baseline = baseline = Baseline.restored(self.spec, checkpoint)
        params = self._draw(checkpoint.state.get("draws", 1))
        start = self._start(params)
        network = self._network(params)
        self.enter("putting the checkpoint in place")
        network.restore({name: stored[name].reshape(held.shape) for name, held in network.state().items()})
        self.metrics = Metrics(start, self.X, baseline, checkpoint.tensors["norm_vector"].numpy())
        self._follow(network, checkpoint.state.get("flow"))
        e = network.prediction_error(self.rows_y)
        trainer.stopped = checkpoint.state.get("stopped", False)
        self.enter(TRAINING, step=trainer.step, value=loss(e.reshape(-1)))
        return network, e

    def checkpoint(self, network: Network, k: int) -> None:
        """Write what the next step depends on: network k of a stack, or the only one."""
        trainer, cell = self.trainer, network.cell(k)
        marks = trainer.tables.marks()
        if trainer.finished:
            del marks["timing"]  # nothing follows it, and its clock would be in the last file that the recipe decides
        state = {
            "run_id": self.spec.run_id,
            "step": trainer.step,
            "misses": trainer.misses,
            "baseline": self.metrics.baseline.scalars(),
            "marks": marks,
            "files": hashes(self.folder, STARTED),
        }
        if trainer.stopped:
            state["stopped"] = True
        if self.draws > 1:
            state["draws"] = self.draws
        if self.flow is not None:
            state["flow"] = self.flow.state()
        own = {name: tensor[k] if network.stacked else tensor for name, tensor in network.state().items()}
        tensors = {
            "W": cell.params.W, "U": cell.params.U, **own,
            "norm_vector": torch.from_numpy(self.metrics.vector), **self.metrics.baseline.tensors(),
        }  # fmt: skip
        save_checkpoint(self.folder / files.CHECKPOINT, Checkpoint(tensors, state))
