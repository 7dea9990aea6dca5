"""deqcli report."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deqcli.cli.arguments import JsonOption, QuietOption
from deqcli.cli.reporting import reporting

if TYPE_CHECKING:
    from deqcli.show.console import Screen
    from deqcli.show.report import Report


def report(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", help="Folders of runs and sweeps.")],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR|FILE.html",
            help="Where to write. [default: the folder of the run or sweep; of several, outputs/reports/<hash>]",
        ),
    ] = None,
    title: Annotated[str | None, typer.Option(help="Of the page and the figures.")] = None,
    figure: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A figure to write; may be given again. [default: all]")
    ] = None,
    formats: Annotated[str, typer.Option("--format", metavar="F,F", help="Of the figures.")] = "png,svg,pdf",
    size: Annotated[
        str | None, typer.Option(metavar="W|WxH|VENUE", help="Of the figures, in inches, or as icml or jmlr have it.")
    ] = None,
    no_figures: Annotated[bool, typer.Option("--no-figures", help="Write the page alone.")] = False,
    show: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write one HTML page of a run, a sweep or several, and the figures for a paper beside it.

    The page needs no network and no other file. A run that is not complete is shown as far as it is.

    Example: deqcli report outputs/quickstart/sweeps/* --out report
    """
    from deqcli import api
    from deqcli.show.console import Screen
    from deqcli.show.paper import parse_formats

    screen = Screen(quiet, as_json)
    with reporting(screen):
        written = api.report(
            *paths, out=out, title=title, figures=[] if no_figures else figure, formats=parse_formats(formats),
            size=size, root=os.environ.get("DEQCLI_OUT") or api.OUT,
        )  # fmt: skip
        _show(screen, written)
        if show:
            _open(screen, written.page)


def _show(screen: Screen, written: Report) -> None:
    for line in (*map(str, written.verdicts), *written.unfinished, *written.thinned):
        screen.say(line)
    if written.figures:
        screen.say(f"Figures: {written.figures[0].parent} ({len(written.figures)} files)")
    if written.empty:
        screen.say(f"Nothing to draw, since no run has numbers for it: {', '.join(written.empty)}")
    screen.say(f"Page:    {written.page}")
    screen.document(
        {
            "page": str(written.page),
            "bytes": written.page.stat().st_size,
            "figures": [str(figure) for figure in written.figures],
            "empty": list(written.empty),
            "runs": written.runs,
            "unfinished": list(written.unfinished),
            "thinned": list(written.thinned),
            "verdicts": [vars(verdict) for verdict in written.verdicts],
        }
    )


def _open(screen: Screen, page: Path) -> None:
    import webbrowser

    if not webbrowser.open(page.resolve().as_uri()):
        screen.complain(f"no browser was found to open {page}")
