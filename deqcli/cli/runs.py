"""deqcli runs: list, show, compare. Light: no torch, no pandas; matplotlib for the picture of a comparison alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deqcli.cli.arguments import JsonOption, OutOption, QuietOption
from deqcli.cli.reporting import reporting
from deqcli.errors import CorruptArtefact, Refused, as_refusal

if TYPE_CHECKING:
    from deqcli.show.console import Screen
    from deqcli.sweep.comparing import Comparison, Difference

PICTURES = (".png", ".svg", ".pdf")

app = typer.Typer(no_args_is_help=True, help="List, show and compare what was trained; nothing is computed.")


def complete_run(context: typer.Context, incomplete: str) -> list[str]:
    """Run ids below the output folder for the shell, by the names of the folders alone."""
    out = context.params.get("out") or os.environ.get("DEQCLI_OUT") or "outputs"
    return sorted(path.name for path in Path(out).glob("*/runs/*") if path.name.startswith(incomplete))


RUN_HELP = "A run's folder, its run id, or the beginning of it that no other run has."
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help=RUN_HELP, autocompletion=complete_run)]
RunsArgument = Annotated[list[str], typer.Argument(metavar="RUN", help=RUN_HELP, autocompletion=complete_run)]


@app.command("list")
def list_runs(
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONDITION",
            help="KEY OPERATOR VALUE in quotes, as 'width>=1000': = != < <= > >=, or ~ for a pattern with * and ?. "
            "Given more than once, all must hold. What a run does not have meets no condition.",
        ),
    ] = None,
    sort: Annotated[
        str | None, typer.Option(metavar="KEY,...", help="Keys to sort by; -KEY for the greatest first.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(metavar="KEY,...", help="What to show instead of the usual columns.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=0, help="Show no more than so many.")] = None,
    out: OutOption = Path("outputs"),
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """List the runs of all recipes.

    A KEY is a column, any result of a run, or any key of its recipe: final_loss, model.sigma_w_sq, or sigma_w_sq where
    only one key ends so. A folder that is damaged is listed as that, and the exit code is 4.

    Example: deqcli runs list --where 'width>=1000' --where status=complete --sort final_loss
    """
    from deqcli.errors import counted
    from deqcli.show.console import Screen
    from deqcli.sweep.listing import keys_of, rows_below, select
    from deqcli.sweep.query import parse_query

    screen = Screen(quiet, as_json)
    with reporting(screen):
        rows = rows_below(out)
        query = parse_query(keys_of(rows), where or [], sort, columns)
        found = select(rows, query)
        shown = found[:limit]
        values = [[row.value(key.name) for key in query.columns] for row in shown]
        names = [key.text for key in query.columns]
        if rows:
            some = "" if len(found) == len(rows) else f"{len(found)} of "
            screen.say(some + counted(len(rows), "run"))
            _table(screen, names, values)
        else:
            screen.say(f"There are no runs below {out}.")
        if len(shown) < len(found):
            screen.say(f"and {len(found) - len(shown)} more")
        asked = [dict(zip(names, each, strict=True)) for each in values]
        plain = [row.plain() for row in shown] if columns is None else [{} for _ in shown]
        damaged = [{"folder": str(row.folder), "error": row.damage} for row in rows if row.damage]
        runs = [each | some for each, some in zip(plain, asked, strict=True)]
        screen.document({"runs": runs, "found": len(found), "damaged": damaged})
        for each in damaged:
            screen.complain(str(each["error"]))
        if damaged:
            raise typer.Exit(CorruptArtefact.exit_code)


@app.command()
def show(
    run: RunArgument,
    out: OutOption = Path("outputs"),
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show a run: its recipe, how it ended, its results, its files, and the command that computes it again.

    Example: deqcli runs show w00250-s000
    """
    from deqcli.cli.one_run import describe, document
    from deqcli.show.console import Screen
    from deqcli.show.fitting import terminal_width
    from deqcli.sweep.listing import Row, find_run

    screen = Screen(quiet, as_json)
    with reporting(screen):
        row = Row(find_run(run, out).folder)
        told = document(row)
        describe(screen, row, told, terminal_width())
        screen.document(told)


@app.command()
def compare(
    runs: RunsArgument,
    tolerance: Annotated[
        float | None, typer.Option(min=0, help="Relative difference above which losses are apart. [default: 1e-6]")
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The picture: .png, .svg or .pdf. [default: <out>/comparisons/<hash>.png]"),
    ] = None,
    no_picture: Annotated[bool, typer.Option("--no-picture", help="Draw no picture.")] = False,
    out: OutOption = Path("outputs"),
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Compare two or more runs: recipes, surroundings, results, and the step at which the losses part.

    Losses are compared with those of the first run, at the steps that both logged and solved.

    Example: deqcli runs compare w00250-s000 w00250-s001
    """
    from deqcli.show.console import Screen
    from deqcli.sweep.comparing import TOLERANCE
    from deqcli.sweep.comparing import compare as compared
    from deqcli.sweep.listing import find_run

    screen = Screen(quiet, as_json)
    with reporting(screen):
        if picture is not None and picture.suffix.lower() not in PICTURES:
            raise Refused(f"--picture {picture}: its suffix must be one of {', '.join(PICTURES)}")
        comparison = compared([find_run(run, out) for run in runs], TOLERANCE if tolerance is None else tolerance)
        _show_comparison(screen, comparison)
        drawn = None if no_picture else _draw(screen, comparison, picture, out)
        screen.document(_document(comparison, drawn))


def _show_comparison(screen: Screen, comparison: Comparison) -> None:
    from deqcli.show.fitting import terminal_width
    from deqcli.show.overlay import Curve, overlaid
    from deqcli.sweep.comparing import MARKS

    marks = list(MARKS[: len(comparison.runs)])
    rows = zip(marks, comparison.names, comparison.runs, comparison.losses, strict=True)
    _table(screen, ["", "run", "status", "step", "folder"], [
        [mark, name, run.state, max(losses, default=None), str(run.folder)] for mark, name, run, losses in rows
    ])  # fmt: skip
    _differences(screen, "recipe", comparison.recipes, marks, "The recipes are the same.")
    _differences(
        screen, "surroundings", comparison.surroundings, marks, "Versions, device, threads and commit are the same."
    )
    different = [each for each in comparison.results if each.differs]
    _differences(screen, "result", different, marks, "The results are the same to the last bit.", relative=True)
    equal = [each.key for each in comparison.results if not each.differs]
    if different and equal:
        screen.say(f"The same in all: {', '.join(equal)}")
    screen.say("")
    for mark, parting in zip(marks[1:], comparison.partings, strict=True):
        screen.say(f"Losses of {mark} beside {marks[0]}: {parting.sentence(comparison.tolerance)}.")
    screen.say("")
    curves = map(Curve, marks, comparison.names, comparison.losses)
    for line in overlaid(list(curves), terminal_width()):
        screen.say(line)


def _table(screen: Screen, columns: list[str], rows: list[list[object]]) -> None:
    from deqcli.show.fitting import fitted

    for line in fitted(columns, rows):
        screen.say(line)


def _differences(
    screen: Screen, what: str, found: list[Difference], marks: list[str], same: str, relative: bool = False
) -> None:  # fmt: skip
    from deqcli.show.console import number

    screen.say("")
    if not found:
        screen.say(same)
        return
    rows = [[each.key, *each.values, *([number(each.relative, 3)] if relative else [])] for each in found]
    _table(screen, [what, *marks, *(["relative difference"] if relative else [])], rows)


def _draw(screen: Screen, comparison: Comparison, picture: Path | None, out: Path) -> Path | None:
    """The picture that was drawn; where nobody asked for one, a folder that cannot be written to is no failure."""
    from deqcli.show.compare_figure import draw_comparison

    path = picture or out / "comparisons" / f"{comparison.identity}.png"
    try:
        draw_comparison(comparison, path)
    except OSError as error:
        if picture is not None:
            raise
        screen.note(f"No picture: {as_refusal(error)}")
        return None
    screen.say("")
    screen.say(f"Picture: {path}")
    return path


def _document(comparison: Comparison, picture: Path | None) -> dict[str, object]:
    def plain(found: list[Difference]) -> dict[str, object]:
        return {each.key: {"values": list(each.values), "relative_difference": each.relative} for each in found}

    runs = zip(comparison.runs, comparison.names, strict=True)
    others = zip(comparison.runs[1:], comparison.partings, strict=True)
    first, tolerance = comparison.runs[0].manifest.id, comparison.tolerance
    return {
        "runs": [
            {"run_id": run.manifest.id, "name": name, "folder": str(run.folder), "status": run.state}
            for run, name in runs
        ],
        "recipe": plain(comparison.recipes),
        "surroundings": plain(comparison.surroundings),
        "results": plain(comparison.results),
        "tolerance": tolerance,
        "losses": [
            {"run_id": run.manifest.id, "beside": first, "words": parting.sentence(tolerance), **vars(parting)}
            for run, parting in others
        ],
        "picture": None if picture is None else str(picture),
    }
