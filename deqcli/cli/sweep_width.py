"""deqcli sweep-width."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deqcli.cli.arguments import (
    DeviceOption,
    DryRunOption,
    JsonOption,
    OutOption,
    OverridesArgument,
    QuietOption,
    RecipeArgument,
    SeedsOption,
    WidthsOption,
    values_override,
)  # fmt: skip
from deqcli.cli.reporting import command_line, reporting
from deqcli.errors import CellsFailed

if TYPE_CHECKING:
    from deqcli.recipe.schema import Recipe
    from deqcli.show.console import Screen
    from deqcli.sweep.local import CellEnd
    from deqcli.sweep.sweep import SweepEnd


MEASURED = ("final_loss", "max_spectral_norm", "min_lambda_ratio")


def sweep_width(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    widths: WidthsOption = None,
    seeds: SeedsOption = None,
    executor: Annotated[str, typer.Option(help="Where the cells are computed: local.")] = "local",
    jobs: Annotated[
        int | None, typer.Option(min=1, envvar="DEQCLI_JOBS", help="Worker processes; the cores are shared out.")
    ] = None,
    device: DeviceOption = "auto",
    out: OutOption = Path("outputs"),
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train a network for each width and seed, merge the tables, draw the figures.

    Complete runs are kept, interrupted ones go on; a run that fails is named at once and the others go on.

    Example: deqcli sweep-width quickstart --widths 64,128,256 --seeds 0:3
    """
    from deqcli import api
    from deqcli.show.console import Screen

    screen = Screen(quiet, as_json)
    with reporting(screen, resumable=True):
        given = [*(overrides or []), *values_override("sweep.widths", widths), *values_override("sweep.seeds", seeds)]
        if dry_run:
            _show_plan(screen, api.resolve(recipe, given, device=device), out)
            return
        with screen.progress() as watch:

            def on_end(end: CellEnd) -> None:
                watch.end(end.spec)
                _show_end(screen, end, out)

            end = api.sweep_width(
                recipe, *given, executor=executor, device=device, out=out, jobs=jobs,
                on_progress=watch.progress, on_end=on_end,
            )  # fmt: skip
        _show_sweep(screen, end, out)


def _show_plan(screen: Screen, recipe: Recipe, out: Path) -> None:
    from deqcli.runs.folder import read_manifest, run_folder
    from deqcli.sweep.sweep import sweep_folder

    rows = []
    for cell in recipe.cells():
        manifest = read_manifest(run_folder(out, cell), "run", cell.run_id)
        rows.append([cell.run_id, cell.model.width, cell.train.seed, manifest.status if manifest else "not started"])
    recipe.data.load()
    screen.table(f"{len(rows)} runs", ["run_id", "width", "seed", "status"], rows)
    screen.say(f"Merged into: {sweep_folder(out, recipe)}")
    screen.document(
        {
            "folder": str(sweep_folder(out, recipe)),
            "runs": [dict(zip(("run_id", "width", "seed", "status"), row, strict=True)) for row in rows],
        }
    )


def _show_end(screen: Screen, end: CellEnd, out: Path) -> None:
    from deqcli.runs.folder import FAILED, run_folder

    if end.status == FAILED:
        log = run_folder(out, end.spec) / "run.log"
        screen.complain(f"{end.spec.run_id} failed: {end.error}" + (f" (log: {log})" if log.exists() else ""))
    else:
        screen.note(f"{end.spec.run_id} {end.status}")


def _show_sweep(screen: Screen, sweep: SweepEnd, out: Path) -> None:
    from deqcli.runs.records import read_rows

    rows = read_rows(sweep.folder / "runs.csv")
    columns = ["width", "seed", "status", "steps", *MEASURED]
    screen.table(
        f"{len(rows)} runs, {sweep.kept} of them complete before", columns, [_cells(row, columns) for row in rows]
    )
    figures = [figure for figure in sweep.figures if figure.stem == "figure-1"]
    screen.say(f"Tables:  {sweep.folder}")
    for figure in figures:
        screen.say(f"Picture: {figure}")
    failed = [{"run_id": end.spec.run_id, "error": end.error, "exit_code": end.exit_code} for end in sweep.failed]
    screen.document(
        {"folder": str(sweep.folder), "runs": rows, "figures": [str(figure) for figure in figures], "failed": failed}
    )
    if failed:
        screen.complain(f"{len(failed)} of {len(rows)} runs failed; the others are complete, and are kept by")
        screen.complain(command_line())
        raise typer.Exit(CellsFailed.exit_code)


def _cells(row: dict[str, str], columns: list[str]) -> list[object]:
    """The texts of a CSV row, its measured values as numbers."""
    return [float(row[column]) if column in MEASURED and row[column] else row[column] or None for column in columns]
