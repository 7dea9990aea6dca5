"""What the theory says about draws, without training: certificates and rates for each width and seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from deqcli.data.dataset import Dataset
from deqcli.recipe.schema import Recipe, RunSpec
from deqcli.runs import files
from deqcli.runs.baseline import draw, learning_rate, measure, tensors
from deqcli.runs.device import Execution, pick_device, threads_for, threads_limited
from deqcli.runs.folder import COMPLETE, clear, hashes, locked, read_manifest, row_keys, write_manifest
from deqcli.runs.records import CERTIFICATE_COLUMNS, RUN_KEYS, csv_text
from deqcli.runs.run import refuse_too_large
from deqcli.runs.signals import StopSignals
from deqcli.theory.certificates import Certificate, best_delta, certify, theorem_rate

DRAWS = "draws.csv"


@dataclass(frozen=True)
class Measured:
    """The numbers of a draw that the certificates are made of, and its three learning rates."""

    spectral_norm: float
    spectral_norm_upper: float
    spectral_norm_limit: float
    lambda_0: float
    lambda_star: float
    initial_loss: float
    delta: float | None
    error_bound: float | None
    learning_rate: float
    learning_rate_theorem: float | None
    learning_rate_auto: float | None
    learning_rate_largest_stable: float | None


DRAW_COLUMNS = (*RUN_KEYS, *Measured.__annotations__)


@dataclass(frozen=True)
class CheckedDraw:
    """A draw with its numbers and certificates."""

    spec: RunSpec
    measured: Measured
    certificates: list[Certificate]

    @property
    def failed(self) -> list[Certificate]:
        """What `--strict` stands for: every inequality that fails, but for Lemma 1, which is about a limit."""
        return [each for each in self.certificates if not each.holds and not each.about_a_limit]


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

    Raises: Refused, NumericalFailure (a draw that has no equilibrium), CorruptArtefact, FolderInUse, Interrupted.
    """
    folder = check_folder(out, recipe)
    read_manifest(folder, "check", recipe.sweep_id)
    device, dataset, draws = pick_device(execution.device), recipe.data.load(), []
    with StopSignals().installed():
        for spec in recipe.cells():
            refuse_too_large(spec, dataset, device)
            with threads_limited(threads_for(execution, spec.model.width)):
                draws.append(_check_draw(spec, dataset, device))
            if on_draw is not None:
                on_draw(draws[-1])
        with locked(folder):
            _write(folder, recipe, draws)
    return Checked(folder, draws)


def _check_draw(spec: RunSpec, dataset: Dataset, device: torch.device) -> CheckedDraw:
    X, y = tensors(dataset)
    initial = measure(spec, draw(spec, dataset.input_dim, device), X.to(device), y)
    delta, rate, stable = best_delta(initial), learning_rate(spec, initial), initial.kernel.stable_rate
    measured = Measured(
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
    return CheckedDraw(spec, measured, certify(initial, rate))


def _write(folder: Path, recipe: Recipe, draws: list[CheckedDraw]) -> None:
    manifest = {"format": 1, "kind": "check", "id": recipe.sweep_id, "recipe": recipe.name, "status": COMPLETE}
    write_manifest(folder, manifest | {"status": "running", "files": {}})
    clear(folder, [])
    certificates = [row_keys(each.spec) | row.row() for each in draws for row in each.certificates]
    numbers = [row_keys(each.spec) | asdict(each.measured) for each in draws]
    files.replace_text(folder / files.RECIPE, files.recipe_text(recipe))
    files.replace_text(folder / files.CERTIFICATES, csv_text(CERTIFICATE_COLUMNS, certificates))
    files.replace_text(folder / DRAWS, csv_text(DRAW_COLUMNS, numbers))
    written = hashes(folder, [files.RECIPE, files.CERTIFICATES, DRAWS])
    write_manifest(folder, manifest | {"versions": files.versions(), "files": written})
