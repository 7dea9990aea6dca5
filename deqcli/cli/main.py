"""The application: its commands, and the pipes around them."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

import deqcli
from deqcli.cli import data, recipes, runs
from deqcli.cli.check_init import check_init
from deqcli.cli.export import export
from deqcli.cli.predict import predict
from deqcli.cli.report import report
from deqcli.cli.sweep_width import sweep_width
from deqcli.cli.train import train
from deqcli.errors import SystemRefused, as_refusal

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="The experiment runner for the theory of over-parameterized deep equilibrium models.",
)
app.command("train")(train)
app.command("sweep-width")(sweep_width)
app.command("check-init")(check_init)
app.command("predict")(predict)
app.command("report")(report)
app.command("export")(export)
app.add_typer(data.app, name="data")
app.add_typer(recipes.app, name="recipes")
app.add_typer(runs.app, name="runs")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"deqcli {deqcli.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Hold the options of the application itself."""


@app.command()
def env(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False) -> None:
    """Name the versions, devices, cores and executors that runs would use here.

    Example: deqcli env
    """
    from deqcli.cli.environment import describe
    from deqcli.cli.reporting import reporting
    from deqcli.show.console import Screen

    screen = Screen(as_json=as_json)
    with reporting(screen):
        found = describe()
        for name, value in found.items():
            screen.say(f"{name:<{max(map(len, found))}}  {value}")
        screen.document(found)


def main() -> None:
    """Run the command line."""
    try:
        app()
    except SystemExit as end:
        os._exit(_flushed(int(end.code or 0)))
    except OSError as error:  # help or a version that standard output did not take
        os.write(2, f"{as_refusal(error)}\n".encode())
        os._exit(SystemRefused.exit_code)


def _flushed(code: int) -> int:
    """The exit code, once everything printed has left: a full disk is the system's refusal, a closed pipe is none."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        return code
    except OSError as error:
        os.write(2, f"{as_refusal(error)}\n".encode())
        return code or SystemRefused.exit_code
    return code
