"""The Python API, of which the command line is a shell: `deqcli.train`, `.sweep_width`, `.load` and so on."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deqcli.errors import Refused
from deqcli.recipe.loading import load_recipe
from deqcli.recipe.schema import Recipe

if TYPE_CHECKING:
    import pandas as pd

    from deqcli.data.download import Tell as OnProgress
    from deqcli.data.fetch import Fetched, OnFile
    from deqcli.exporters.exporter import Exported, Tell
    from deqcli.loaded import Loaded, Run, Sweep
    from deqcli.runs.standing import Standing
    from deqcli.show.report import Report
    from deqcli.sweep.cells import OnEnd
    from deqcli.sweep.check_files import Checked
    from deqcli.sweep.checks import CheckedDraw
    from deqcli.sweep.predict_files import Predictions
    from deqcli.sweep.sweep import SweepEnd, SweepStatus
    from deqcli.sweep.watch import Progress

    Exportable = str | os.PathLike[str] | Run | Sweep

OUT = "outputs"
ACCELERATORS = ("cuda", "mps")
UNLIMITED = 2**200
"""Bytes: more than any recipe can ask for."""


def resolve(
    recipe: str, overrides: Sequence[str] = (), *, width: int | None = None, seed: int | None = None,
    widths: Sequence[int] | None = None, seeds: Sequence[int] | None = None, device: str = "auto", alone: bool = False,
    memory: int | None = None,
) -> Recipe:  # fmt: skip
    """The checked recipe of a name or path, with `key=value` overrides and the common ones by name.

    `alone` is for its own run, whatever widths and seeds it would sweep over; `memory` is what a run may take, in
    bytes (None: what the machine has).

    Raises: RecipeRefused with every mistake, Refused where there is no such recipe.
    """
    named = {"model.width": width, "train.seed": seed, "sweep.widths": widths, "sweep.seeds": seeds}
    texts = [f"{key}={_spelled(value)}" for key, value in named.items() if value is not None]
    if device.startswith(ACCELERATORS):
        memory = UNLIMITED  # it is asked once torch is there
    return load_recipe(recipe, [*overrides, *texts], memory=memory, alone=alone)


def _spelled(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"[{', '.join(map(str, value))}]" if isinstance(value, (list, tuple, range)) else str(value)


def train(
    recipe: str, *overrides: str, width: int | None = None, seed: int | None = None, device: str = "auto",
    out: str | os.PathLike[str] = OUT, force: bool = False, threads: int | None = None,
    on_progress: Callable[[Standing], None] | None = None,
) -> Run:  # fmt: skip
    """Train one network, resume it, or find it complete.

    `overrides` are `key=value`; `out` is the folder above <name>/runs/<run_id>; `force` computes a run anew.
    `on_progress` hears of every phase before the first step, and of every step: see `deqcli.runs.standing.Standing`.
    Raises: DeqcliError of a kind for each exit code, each a sentence that says what to do.
    """
    spec = resolve(recipe, overrides, width=width, seed=seed, device=device, alone=True).run()

    from deqcli.loaded import Run
    from deqcli.runs.device import Execution  # torch, which a mistake in the recipe need not wait for
    from deqcli.runs.run import run
    from deqcli.sweep.stored import Stored

    outcome = run(spec, Path(out), Execution(device, threads), force, on_progress)
    return Run(Stored(outcome.folder, outcome.manifest), outcome.computed)


def load(path: str | os.PathLike[str]) -> Loaded:
    """What lies in the folder of a run, a sweep, a check or a prediction: a `Run`, `Sweep`, `Check` or `Prediction`.

    Raises: Refused where deqcli left nothing there, CorruptArtefact where its manifest is damaged.
    """
    from deqcli.loaded import KINDS
    from deqcli.sweep.stored import open_stored

    stored = open_stored(Path(path))
    return KINDS[stored.manifest.kind](stored)


def list_runs(
    where: str | Sequence[str] = (), sort: str | None = None, *, out: str | os.PathLike[str] = OUT
) -> pd.DataFrame:  # fmt: skip
    """The runs below `out`, their results and every key of their recipes as columns.

    `where` is a condition, or several that all must hold, as "width>=1000"; `sort` names keys, `-KEY` for the greatest
    first: both as for `deqcli runs list`.
    Raises: Refused, CorruptArtefact where a folder is damaged.
    """
    from deqcli.sweep.listing import frame

    return frame(Path(out), [where] if isinstance(where, str) else where, sort)


def export(
    runs: Exportable | Sequence[Exportable], to: str, out: str | os.PathLike[str] | None = None, *,
    on_item: Tell = lambda _: None,
) -> Exported:  # fmt: skip
    """Hand runs and sweeps, loaded ones or by their folders, to `parquet`, `tensorboard` or `mlflow`, or a sweep to a
    folder in small, `thinned`.

    `out` is the folder to write into, or MLflow's tracking URI; `on_item` hears of each file or run once it is there.
    Raises: Refused where the tool is not installed or something of somebody else's is in the way, CorruptArtefact.
    """
    from deqcli.exporters.export import export as write

    given = runs if isinstance(runs, Sequence) and not isinstance(runs, str) else [runs]
    return write(_folders(given), to, None if out is None else str(out), on_item)


def fetch(
    names: str | Sequence[str], root: str | os.PathLike[str] | None = None, mirror: str | None = None, *,
    on_progress: OnProgress = lambda _: None, on_file: OnFile = lambda _: None,
) -> list[Fetched]:  # fmt: skip
    """Download the files of image sets into <root>/<name>, each verified by its published SHA-256.

    `root` is what recipes without `data.root` read (None: DEQCLI_DATA, or `deqcli` in the user's cache); `mirror` is
    the address of a folder that has the files of one image set. What is there and right is left alone, unpacked or
    straight in the root too; another file in its place is kept beside it; a download that was broken off goes on.
    `on_progress` hears of every chunk, `on_file` of each file that is there.
    Raises: SystemRefused where no mirror has been of use, Refused where a name is not known, all mirrors have something
    else or what is no file is in the way, FolderInUse where another process fetches the same, DiskFull, OSError.
    """
    from deqcli.data.fetch import fetch_sets, find_published
    from deqcli.data.published import data_folder
    from deqcli.runs.folder import locked
    from deqcli.runs.signals import StopSignals

    sets = find_published([names] if isinstance(names, str) else names)
    if mirror is not None and len(sets) > 1:
        raise Refused("a mirror is a folder with the files of one image set; fetch one at a time from it")
    mirrors = () if mirror is None else (mirror,)
    with StopSignals().installed():
        return fetch_sets(sets, data_folder(root), locked, mirrors, on_progress=on_progress, on_file=on_file)


def report(
    *paths: str | os.PathLike[str] | Loaded, out: str | os.PathLike[str] | None = None, title: str | None = None,
    figures: str | Sequence[str] | None = None, formats: Sequence[str] = ("png", "svg", "pdf"), size: str | None = None,
    root: str | os.PathLike[str] = OUT,
) -> Report:  # fmt: skip
    """Write one HTML page of runs and sweeps, loaded ones or by their folders, and the figures for a paper beside it.

    `out` is a folder, or the file of the page (None: the folder of the run or sweep, of several <root>/reports/<hash>);
    `figures` are names (None: all of them, []: the page alone), `size` is inches or a venue, as for `parse_size`.
    Raises: Refused, CorruptArtefact, OSError.
    """
    from deqcli.show.report import ReportOptions, write_report

    where, wanted = None if out is None else Path(out), [figures] if isinstance(figures, str) else figures
    options = ReportOptions(where, Path(root), title, wanted, formats, size)
    return write_report(_folders(paths), options)


def _folders(given: Sequence[str | os.PathLike[str] | Loaded]) -> list[Path]:
    from deqcli.loaded import Loaded

    return [each.folder if isinstance(each, Loaded) else Path(each) for each in given]


def sweep_width(
    recipe: str, *overrides: str, widths: Sequence[int] | None = None, seeds: Sequence[int] | None = None,
    executor: str | None = None, jobs: int | None = None, retries: int | None = None, fail_fast: bool | None = None,
    device: str = "auto", out: str | os.PathLike[str] = OUT, on_progress: Callable[[Progress], None] = lambda _: None,
    on_end: OnEnd = lambda _: None, on_repeat: OnEnd = lambda _: None,
) -> Sweep:  # fmt: skip
    """Train a network for each width, seed and value of further axes, merge the tables and draw the figures.

    Runs that are complete are not computed again. A cell that fails is in `.end.failed`; the others go on. With SLURM
    the cells are submitted, `.end.elsewhere` says where, and the last of them to end merges the tables.
    `on_progress` hears now and then how far the cells are, `on_end` of each that has ended, `on_repeat` of an attempt
    that is repeated.
    Raises: DeqcliError of a kind for each exit code.
    """
    named = {"executor": executor, "jobs": jobs, "retries": retries, "fail_fast": fail_fast}
    placed = [f"execution.{key}={_spelled(value)}" for key, value in named.items() if value is not None]
    resolved = resolve(recipe, [*overrides, *placed], widths=widths, seeds=seeds, device=device)
    end = run_sweep(resolved, Path(out), device, on_progress, on_end, on_repeat)

    from deqcli.loaded import Sweep
    from deqcli.sweep.stored import open_stored

    return Sweep(open_stored(end.folder), end)


def run_sweep(
    recipe: Recipe, out: Path, device: str = "auto", on_progress: Callable[[Progress], None] = lambda _: None,
    on_end: OnEnd = lambda _: None, on_repeat: OnEnd = lambda _: None,
) -> SweepEnd:  # fmt: skip
    """`sweep_width` of a recipe that is loaded and checked."""
    from deqcli.sweep.sweep import SweepOptions, sweep

    return sweep(recipe, out, SweepOptions(device, finish_sweep, on_end, on_repeat, on_progress))


def finish_sweep(folder: Path) -> Sequence[str]:
    """Draw the figures of a sweep's folder; their names in it."""
    from deqcli.show.figures import draw_figures

    return draw_figures(folder)


def sweep_status(
    recipe: str, *overrides: str, widths: Sequence[int] | None = None, seeds: Sequence[int] | None = None,
    out: str | os.PathLike[str] = OUT,
) -> SweepStatus:  # fmt: skip
    """How far a sweep and each of its cells is, read from their folders alone, whoever computes them and wherever.

    Raises: RecipeRefused, Refused, CorruptArtefact.
    """
    from deqcli.sweep.sweep import sweep_status as read_status

    return read_status(resolve(recipe, overrides, widths=widths, seeds=seeds, memory=UNLIMITED), Path(out))


def check_init(
    recipe: str, *overrides: str, widths: Sequence[int] | None = None, seeds: Sequence[int] | None = None,
    depth: int | None = None, suggest: bool = False, device: str = "auto", out: str | os.PathLike[str] = OUT,
    on_draw: Callable[[CheckedDraw], None] = lambda _: None, on_try: Callable[[str], None] = lambda _: None,
) -> Checked:  # fmt: skip
    """Draw the network of each width and seed, measure it, and say which statements of the theory hold for it.

    With `depth`, measure Theorems 3 to 5 in the first so many layers, beside a weight-untied network; `suggest` asks
    for an initialisation for which every inequality holds.
    Raises: DeqcliError of a kind for each exit code; a statement that fails is a finding, not an error.
    """
    resolved = resolve(recipe, overrides, widths=widths, seeds=seeds, device=device)
    return run_check(one_combination(resolved), Path(out), depth, suggest, device, on_draw, on_try)


def one_combination(recipe: Recipe) -> Recipe:
    """The recipe, which must not have further axes: what comes out of it is for widths and seeds alone.

    Raises: Refused.
    """
    if recipe.axes:
        raise Refused(
            f"sweep.over: one combination of {', '.join(recipe.axes)} at a time; Recipe.variants has them all"
        )
    return recipe


def run_check(
    recipe: Recipe, out: Path, depth: int | None = None, suggest: bool = False, device: str = "auto",
    on_draw: Callable[[CheckedDraw], None] = lambda _: None, on_try: Callable[[str], None] = lambda _: None,
) -> Checked:  # fmt: skip
    """`check_init` of a recipe that is loaded and checked, without further axes."""
    from deqcli.runs.device import Execution
    from deqcli.sweep.check_files import check
    from deqcli.sweep.checks import CheckOptions

    def finish(folder: Path) -> Sequence[str]:
        from deqcli.show.spectra_figure import draw_spectra
        from deqcli.show.theory_figures import draw_depth

        return [*draw_spectra(folder), *(draw_depth(folder) if depth is not None else ())]

    return check(recipe, out, CheckOptions(Execution(device), depth, suggest, finish, on_draw, on_try))


def predict(
    recipe: str, *overrides: str, widths: Sequence[int] | None = None, seeds: Sequence[int] | None = None,
    kernel: str = "data", losses: Sequence[float] = (), against: str | os.PathLike[str] | None = None,
    device: str = "auto", out: str | os.PathLike[str] = OUT,
) -> Predictions:  # fmt: skip
    """Predict the training of each width from the data alone (H_inf), or from draws (`kernel="draw"`, H(0)).

    `losses` are those that the number of steps is told for; `against` is the folder of a finished run or sweep.
    Raises: DeqcliError of a kind for each exit code.
    """
    memory = UNLIMITED if kernel == "data" else None  # no network is drawn, however wide
    resolved = resolve(recipe, overrides, widths=widths, seeds=seeds, device=device, memory=memory)
    return run_prediction(one_combination(resolved), Path(out), kernel, losses, against, device)


def run_prediction(
    recipe: Recipe, out: Path, kernel: str = "data", losses: Sequence[float] = (),
    against: str | os.PathLike[str] | None = None, device: str = "auto",
) -> Predictions:  # fmt: skip
    """`predict` of a recipe that is loaded and checked, without further axes."""
    from deqcli.runs.device import Execution
    from deqcli.sweep.predict_files import predict as write_prediction
    from deqcli.sweep.predictions import PredictOptions

    def finish(folder: Path, measured: Path | None) -> Sequence[str]:
        from deqcli.show.theory_figures import draw_prediction

        return draw_prediction(folder, measured)

    compared = None if against is None else Path(against)
    options = PredictOptions(kernel, tuple(losses), compared, Execution(device), finish)
    return write_prediction(recipe, out, options)
