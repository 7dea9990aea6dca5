"""What the theory says about draws, without training: certificates and rates for each width and seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from deqcli.data.dataset import Dataset
from deqcli.errors import NumericalFailure
from deqcli.recipe.schema import Recipe, RunSpec
from deqcli.runs import files
from deqcli.runs.baseline import draw, learning_rate, measure, tensors
from deqcli.runs.device import Execution, pick_device, threads_for, threads_limited
from deqcli.runs.folder import (
    COMPLETE,
    FAILED,
    RUNNING,
    Manifest,
    Status,
    clear,
    hashes,
    locked,
    read_manifest,
    row_keys,
    write_manifest,
)  # fmt: skip
from deqcli.runs.records import CERTIFICATE_COLUMNS, RUN_KEYS, csv_text
from deqcli.runs.run import refuse_impossible
from deqcli.runs.signals import StopSignals
from deqcli.theory.certificates import Certificate, best_delta, certify, theorem_rate
from deqcli.theory.initial import Initial

DRAWS = "draws.csv"


@dataclass(frozen=True)
class Measured:
    """The numbers of a draw that the certificates are made of, and its learning rates."""

    spectral_norm: float
    spectral_norm_upper: float
    spectral_norm_limit: float
    lambda_0: float
    lambda_star: float
    initial_loss: float
    delta: float | None
    error_bound: float | None
    learning_rate: float | None
    learning_rate_theorem: float | None
    learning_rate_auto: float | None
    learning_rate_largest_stable: float | None


DRAW_COLUMNS = (*RUN_KEYS, "status", *Measured.__annotations__, "error")


@dataclass(frozen=True)
class CheckedDraw:
    """A draw with its numbers and certificates, or the sentence why it has none."""

    spec: RunSpec
    measured: Measured | None
    certificates: list[Certificate]
    error: str | None = None

    @property
    def failed(self) -> list[Certificate]:
        """What `--strict` stands for: every inequality that fails, but for Lemma 1, which is about a limit."""
        return [each for each in self.certificates if not each.holds and not each.about_a_limit]

    def row(self) -> dict[str, object]:
        """The row of draws.csv."""
        status = COMPLETE if self.error is None else FAILED
        numbers = asdict(self.measured) if self.measured else {}
        return row_keys(self.spec) | numbers | {"status": status, "error": self.error}


@dataclass(frozen=True)
class Checked:
    """The folder of a check and its draws, in the order of the rows."""

    folder: Path
    draws: list[CheckedDraw]


def check_folder(out: Path, recipe: Recipe) -> Path:
    """<out>/<name>/checks/<sweep_id>."""
    return out / recipe.name / "checks" / recipe.sweep_id


def check(
    recipe: Recipe, out: Path, execution: Execution = Execution(), on_draw: Callable[[CheckedDraw], None] | None = None
) -> Checked:
    """Draw each cell's network, measure it in float64 and write certificates.csv and draws.csv.

    A draw that cannot be measured, such as one without an equilibrium, has an error in place of numbers.
    Raises: Refused, CorruptArtefact, FolderInUse, Interrupted.
    """
    folder = check_folder(out, recipe)
    read_manifest(folder, "check", recipe.sweep_id)
    device, dataset, draws = pick_device(execution.device), recipe.data.load(), []
    with StopSignals().installed():
        for spec in recipe.cells():
            refuse_impossible(spec, dataset, device)
            with threads_limited(threads_for(execution, spec.model.width, dataset.num_samples)):
                draws.append(_check_draw(spec, dataset, device))
            if on_draw is not None:
                on_draw(draws[-1])
        with locked(folder):
            _write(folder, recipe, draws)
    return Checked(folder, draws)


def _check_draw(spec: RunSpec, dataset: Dataset, device: torch.device) -> CheckedDraw:
    X, y = tensors(dataset)
    try:
        initial = measure(spec, draw(spec, dataset.input_dim, device), X, y)
    except NumericalFailure as error:
        return CheckedDraw(spec, None, [], str(error))
    try:
        rate = learning_rate(spec, initial)
    except NumericalFailure:  # the draw has none of that kind, which (10) then shows
        rate = None
    return CheckedDraw(spec, _numbers(initial, rate), certify(initial, rate))


def _numbers(initial: Initial, rate: float | None) -> Measured:
    delta, stable = best_delta(initial), initial.kernel.stable_rate
    return Measured(
        spectral_norm=initial.spectral_norm,
        spectral_norm_upper=initial.spectral_norm_upper,
        spectral_norm_limit=initial.scales.spectral_norm_limit,
        lambda_0=initial.lambda_0,
        lambda_star=initial.lambda_star,
        initial_loss=initial.loss,
        delta=delta,
        error_bound=initial.error_bound,
        learning_rate=rate,
        learning_rate_theorem=theorem_rate(initial, delta),
        learning_rate_auto=stable and stable / 2,
        learning_rate_largest_stable=stable,
    )


def _write(folder: Path, recipe: Recipe, draws: list[CheckedDraw]) -> None:
    def note(status: Status, digests: dict[str, str]) -> None:
        identity, versions = recipe.sweep_id, files.versions()
        manifest = Manifest(
            kind="check", id=identity, recipe=recipe.name, status=status, files=digests, versions=versions
        )
        write_manifest(folder, manifest)

    note(RUNNING, {})
    clear(folder, [])
    certificates = [row_keys(each.spec) | row.row() for each in draws for row in each.certificates]
    files.replace_text(folder / files.RECIPE, files.recipe_text(recipe))
    files.replace_text(folder / files.CERTIFICATES, csv_text(CERTIFICATE_COLUMNS, certificates))
    files.replace_text(folder / DRAWS, csv_text(DRAW_COLUMNS, [each.row() for each in draws]))
    status: Status = FAILED if any(each.error for each in draws) else COMPLETE
    note(status, hashes(folder, [files.RECIPE, files.CERTIFICATES, DRAWS]))
