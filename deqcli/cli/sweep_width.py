"""deqcli sweep-width."""

from __future__ import annotations

from collections.abc import Sequence
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
from deqcli.errors import CellsFailed, counted

if TYPE_CHECKING:
    from deqcli.recipe.schema import Recipe
    from deqcli.show.console import Screen
    from deqcli.sweep.cells import CellEnd
    from deqcli.sweep.sweep import SweepEnd, SweepStatus


MOST_ROWS = 100
"""Rows of a table on the screen; the files have them all."""

COUNTS = ("width", "seed", "attempts", "steps")
MEASURED = ("final_loss", "max_spectral_norm", "min_lambda_ratio")


def sweep_width(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    widths: WidthsOption = None,
    seeds: SeedsOption = None,
    executor: Annotated[
        str | None, typer.Option(metavar="local|ray|slurm", help="Where the cells are computed.")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, envvar="DEQCLI_JOBS", help="Cells at a time; the cores are shared out among them."),
    ] = None,
    retries: Annotated[
        int | None, typer.Option(min=0, help="Further attempts at a cell whose process died. [default: 2]")
    ] = None,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first cell that fails.")] = False,
    status: Annotated[bool, typer.Option("--status", help="Say how far the sweep is; nothing is run.")] = False,
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
    from deqcli.show.watch import watching
    from deqcli.sweep.sweep import sweep_status

    screen = Screen(quiet, as_json)
    with reporting(screen, resumable=not status):
        placed = {"executor": executor, "jobs": jobs, "retries": retries, "fail_fast": fail_fast or None}
        given = [
            *(overrides or []),
            *values_override("sweep.widths", widths),
            *values_override("sweep.seeds", seeds),
            *(f"execution.{key}={str(value).lower()}" for key, value in placed.items() if value is not None),
        ]
        if status:
            resolved = api.resolve(recipe, given, memory=api.UNLIMITED)
            _show_status(screen, resolved, sweep_status(resolved, out))
            return
        resolved = api.resolve(recipe, given, device=device)
        if dry_run:
            _show_plan(screen, resolved, out)
            return
        with watching(screen, resolved) as watch:
            end = api.run_sweep(
                resolved, out, device,
                on_progress=watch.update,
                on_end=lambda end: _show_end(screen, end, out),
                on_repeat=lambda end: screen.note(f"{end.spec.run_id}: {end.error}; attempt {end.attempts}"),
            )  # fmt: skip
        _show_sweep(screen, resolved, end)


def _show_plan(screen: Screen, recipe: Recipe, out: Path) -> None:
    from deqcli.recipe.axes import value_at
    from deqcli.runs.folder import read_manifest, run_folder
    from deqcli.sweep.sweep import sweep_folder

    rows = []
    for cell in recipe.cells():
        manifest = read_manifest(run_folder(out, cell), "run", cell.run_id)
        values = [value_at(cell, key) for key in recipe.axes]
        state = manifest.status if manifest else "not started"
        rows.append([cell.run_id, cell.model.width, cell.train.seed, *values, state])
    for variant in recipe.variants:
        variant.data.load()
    columns = ["run_id", "width", "seed", *recipe.axes, "status"]
    screen.table(counted(len(rows), "run"), columns, rows)
    screen.say(f"Merged into: {sweep_folder(out, recipe)}")
    screen.document(
        {
            "folder": str(sweep_folder(out, recipe)),
            "runs": [dict(zip(columns, row, strict=True)) for row in rows],
        }
    )


def _show_status(screen: Screen, recipe: Recipe, found: SweepStatus) -> None:
    from deqcli.runs.folder import COMPLETE
    from deqcli.show.watch import remark, state_columns, state_rows, summary
    from deqcli.sweep.status import WAITING

    news = [each for each in found.cells if each.state not in (WAITING, COMPLETE)]
    started = [each for each in found.cells if each.state != WAITING]
    shown = (started if len(started) <= MOST_ROWS else news)[:MOST_ROWS]
    screen.table(f"sweep {found.state}", state_columns(), state_rows(recipe, shown))
    for each in shown:
        if sentence := remark(each):
            screen.say(f"{each.spec.run_id}: {sentence}")
    screen.say(summary(found.progress.counts, found.progress.seconds_left))
    screen.say(f"Tables:  {found.folder}")
    screen.document(
        {
            "folder": str(found.folder),
            "status": found.state,
            "counts": found.progress.counts,
            "seconds_left": found.progress.seconds_left,
            "cells": [each.row() for each in found.cells],
        }
    )


def _show_end(screen: Screen, end: CellEnd, out: Path) -> None:
    from deqcli.runs.folder import FAILED, run_folder

    if end.status == FAILED:
        log = run_folder(out, end.spec) / "run.log"
        screen.complain(f"{end.spec.run_id} failed: {end.error}" + (f" (log: {log})" if log.exists() else ""))
    else:
        screen.note(f"{end.spec.run_id} {end.status}")


def _show_sweep(screen: Screen, recipe: Recipe, sweep: SweepEnd) -> None:
    from deqcli.runs.folder import FAILED, INTERRUPTED
    from deqcli.runs.records import read_rows
    from deqcli.show.console import picture_lines

    if sweep.elsewhere is not None:
        _show_submitted(screen, sweep)
        return
    rows = read_rows(sweep.folder / "runs.csv")
    columns = ["width", "seed", *recipe.axes, "status", "steps", *MEASURED]
    shown = [_cells(row, columns) for row in rows[:MOST_ROWS]]
    screen.table(f"{counted(len(rows), 'run')}, {sweep.kept} of them complete before", columns, shown)
    if len(rows) > MOST_ROWS:
        screen.say(f"and {len(rows) - MOST_ROWS} more in runs.csv")
    figures = [figure for figure in sweep.figures if figure.stem == "figure-1"]
    screen.say(f"Tables:  {sweep.folder}")
    for line in picture_lines(figures):
        screen.say(line)
    failed, stopped = _ends(sweep, FAILED), _ends(sweep, INTERRUPTED)
    screen.document(
        {
            "folder": str(sweep.folder),
            "runs": _typed(rows, recipe),
            "figures": [str(figure) for figure in figures],
            "failed": failed,
            "stopped": stopped,
        }
    )
    if failed or stopped:
        rest = f", {len(stopped)} were stopped; what is done is kept, and goes on by"
        rest = rest if stopped else "; the others are complete, and are kept by"
        screen.complain(f"{len(failed)} of {counted(len(rows), 'run')} failed{rest}")
        screen.complain(command_line())
        raise typer.Exit(CellsFailed.exit_code)


def _ends(sweep: SweepEnd, status: str) -> list[dict[str, object]]:
    """The cells that ended so, with their sentences."""
    return [
        {"run_id": end.spec.run_id, "error": end.error, "exit_code": end.exit_code}
        for end in sweep.failed
        if end.status == status
    ]


def _show_submitted(screen: Screen, sweep: SweepEnd) -> None:
    screen.say(f"{sweep.elsewhere}")
    screen.say(f"How far it is: {command_line()} --status")
    screen.document({"folder": str(sweep.folder), "submitted": sweep.elsewhere, "kept": sweep.kept})


def _typed(rows: Sequence[dict[str, str]], recipe: Recipe) -> list[dict[str, object]]:
    """The rows of runs.csv for a document: numbers as numbers, null for what is missing."""
    from deqcli.sweep.merge import axis_values

    values = {cell.run_id: axis_values(recipe, cell) for cell in recipe.cells()}
    return [{key: _number(key, text) for key, text in row.items()} | values[row["run_id"]] for row in rows]


def _number(column: str, text: str) -> object:
    if text and column in COUNTS:
        return int(text)
    return float(text) if text and column in MEASURED else text or None


def _cells(row: dict[str, str], columns: list[str]) -> list[object]:
    """The texts of a CSV row, its measured values as numbers."""
    return [float(row[column]) if column in MEASURED and row[column] else row[column] or None for column in columns]
