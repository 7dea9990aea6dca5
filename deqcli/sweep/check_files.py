"""check-init: its tables of draws, certificates, spectra of the kernels, and what finite depth came to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deqcli.data.dataset import Dataset
from deqcli.data.pairs import Closeness, closeness
from deqcli.recipe.schema import Recipe
from deqcli.runs import files
from deqcli.runs.folder import COMPLETE, FAILED, Manifest, Status, read_manifest, row_keys
from deqcli.runs.records import CERTIFICATE_COLUMNS, RUN_KEYS, Row, csv_text
from deqcli.runs.signals import StopSignals
from deqcli.sweep.checks import CheckedDraw, CheckOptions, Finish, Measured, check_draws
from deqcli.sweep.suggestions import SCALES, SIGMA, WIDTH, Suggestion, suggest
from deqcli.sweep.tables import write_tables
from deqcli.theory.depth import TIED, UNTIED, Rate, rates_over_width

DRAW_COLUMNS = (*RUN_KEYS, "status", "draws", *Measured.__annotations__, "remarks", "error")
SPECTRA_COLUMNS = (*RUN_KEYS, "kernel", "index", "eigenvalue")
DEPTH_COLUMNS = (*RUN_KEYS, "depth", "quantity", "source", "value", "bound")
HERMITE_COLUMNS = (*RUN_KEYS, "order", "coefficient")
PAIR_COLUMNS = ("recipe", "dataset", "sample", "other", "angle", "opposite", "sample_name", "other_name")
RATE_COLUMNS = (*RUN_KEYS, "quantity", "against", "rate", "relation", "expected")
PAIRS = "pairs.csv"
KERNELS = {"G": "gram", "H": "ntk", "m K": "population_gram", "H_inf": "population_ntk"}
"""Names in spectra.csv, and the attribute of `Spectra` that has the eigenvalues."""


@dataclass(frozen=True)
class Checked:
    """The folder of a check, its draws in the order of the rows, its figures, and what it suggests if asked to.

    `pairs` has a row for each of the closest near-parallel pairs of samples, or for the closest pair of all.
    """

    folder: Path
    draws: list[CheckedDraw]
    figures: list[Path]
    suggestion: Suggestion
    closeness: Closeness
    pairs: list[Row]


def check_folder(out: Path, recipe: Recipe) -> Path:
    """<out>/<name>/checks/<sweep_id>."""
    return out / recipe.name / "checks" / recipe.sweep_id


def check(recipe: Recipe, out: Path, options: CheckOptions = CheckOptions()) -> Checked:
    """Draw each cell's network, measure it in float64 and write what came out.

    A draw that cannot be measured, such as one without an equilibrium, has an error in place of numbers.
    Raises: Refused, CorruptArtefact, FolderInUse, Interrupted.
    """
    folder = check_folder(out, recipe)
    read_manifest(folder, "check", recipe.sweep_id)
    with StopSignals().installed():
        dataset = recipe.data.load()
        draws = check_draws(recipe.cells(), dataset, options)
        suggestion = suggest(recipe, draws, options) if options.suggest else Suggestion()
        close = closeness(dataset.X)
        checked = Checked(folder, draws, [], suggestion, close, list(_pair_rows(recipe, dataset, close)))
        figures = _write(recipe, checked, options.finish)
    return replace(checked, figures=[folder / name for name in figures])


def _write(recipe: Recipe, checked: Checked, finish: Finish) -> list[str]:
    """Write the tables that there is something to say in, the recipes suggested, the figures; the names of these."""
    tables = {name: text for name, make in TABLES.items() if (text := make(checked.draws)) is not None}
    tables[PAIRS] = csv_text(PAIR_COLUMNS, checked.pairs)
    tables |= {name: files.recipe_text(suggested) for name, suggested in checked.suggestion.recipes.items()}
    status: Status = FAILED if any(each.error for each in checked.draws) else COMPLETE
    note = Manifest(kind="check", id=recipe.sweep_id, recipe=recipe.name, status=status)
    return write_tables(checked.folder, note, recipe, tables, status, finish, [*TABLES, PAIRS, SCALES, SIGMA, WIDTH])


def _pair_rows(recipe: Recipe, dataset: Dataset, close: Closeness) -> Iterator[Row]:
    """A row for each near-parallel pair that is listed, or for the closest pair where there is none."""
    names: Sequence[str | None] = dataset.names or [None] * dataset.num_samples
    for pair in close.listed or [close.closest] if close.closest else []:
        keys = {"recipe": recipe.name, "dataset": recipe.data.kind}
        yield {**keys, **pair._asdict(), "sample_name": names[pair.sample], "other_name": names[pair.other]}


def _draws(draws: Sequence[CheckedDraw]) -> str:
    return csv_text(DRAW_COLUMNS, [each.row() for each in draws])


def _certificates(draws: Sequence[CheckedDraw]) -> str:
    return csv_text(
        CERTIFICATE_COLUMNS, [row_keys(each.spec) | row.row() for each in draws for row in each.certificates]
    )


def _spectra(draws: Sequence[CheckedDraw]) -> str:
    return csv_text(SPECTRA_COLUMNS, [row for each in draws for row in _spectrum_rows(each)])


def _spectrum_rows(drawn: CheckedDraw) -> Iterator[Row]:
    """A row for each kernel and eigenvalue; the lowest has index 0."""
    for kernel, attribute in KERNELS.items():
        values = getattr(drawn.initial.spectra, attribute) if drawn.initial else None
        for index, value in enumerate([] if values is None else values.tolist()):
            yield row_keys(drawn.spec) | {"kernel": kernel, "index": index, "eigenvalue": value}


def _hermite(draws: Sequence[CheckedDraw]) -> str | None:
    rows = [row_keys(each.spec) | row for each in draws for row in hermite_rows(each)]
    return csv_text(HERMITE_COLUMNS, rows) if rows else None


def hermite_rows(drawn: CheckedDraw) -> list[dict[str, object]]:
    """A row for each Hermite coefficient of an activation other than the ReLU, at the variance of the limit."""
    expansion = drawn.initial.expansion if drawn.initial else None
    listed = expansion.listed if expansion else ()
    return [{"order": order, "coefficient": coefficient} for order, coefficient in enumerate(listed)]


def _depths(draws: Sequence[CheckedDraw]) -> str | None:
    rows = [row_keys(each.spec) | level.row() for each in draws for level in each.depths]
    return csv_text(DEPTH_COLUMNS, rows) if rows else None


def _rates(draws: Sequence[CheckedDraw]) -> str | None:
    """The rates per layer of each draw, then those per width of all of them, whose run, width and seed stay empty."""
    rows = [row_keys(each.spec) | vars(rate) for each in draws for rate in each.rates]
    common = {
        key: value for key, value in row_keys(draws[0].spec).items() if key in ("recipe", "dataset", "activation")
    }
    rows += [common | vars(rate) for rate in width_rates(draws)]
    return csv_text(RATE_COLUMNS, rows) if rows else None


def width_rates(draws: Sequence[CheckedDraw]) -> list[Rate]:
    """How both deviations at the largest depth fall with width, where there is more than one width."""
    last = [(each.spec.model.width, level) for each in draws for level in each.depths[-4:]]
    return rates_over_width(
        {
            quantity: [
                (width, level.value) for width, level in last if level.quantity == quantity and level.value is not None
            ]
            for quantity in (TIED, UNTIED)
        }
    )


TABLES: dict[str, Callable[[Sequence[CheckedDraw]], str | None]] = {
    "draws.csv": _draws,
    files.CERTIFICATES: _certificates,
    "spectra.csv": _spectra,
    "hermite.csv": _hermite,
    "depth.csv": _depths,
    "rates.csv": _rates,
}
