"""Errors as sentences and exit codes; no traceback reaches a user."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from deqcli.errors import DEBUG, Bug, DeqcliError, DiskFull, Interrupted, RecipeRefused, as_refusal

if TYPE_CHECKING:
    from deqcli.show.console import Screen

GOES_ON = "the same command goes on from there"


def command_line() -> str:
    """The command as it was given, to be pasted."""
    return shlex.join(["deqcli", *sys.argv[1:]])


@contextmanager
def reporting(screen: Screen, resumable: bool = False) -> Iterator[None]:
    """Turn what a command raises into its sentence on standard error (and a JSON document) and its exit code."""
    try:
        yield
    except typer.Exit:
        raise
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (nobody reads on; nothing failed)
        raise typer.Exit(0) from None
    except Interrupted as stop:
        _leave(screen, stop.exit_code, f"{stop}; {GOES_ON}: {command_line()}" if resumable else str(stop))
    except Exception as error:
        refusal = as_refusal(error)
        if isinstance(refusal, Bug) and os.environ.get(DEBUG):
            raise
        later = f"; when there is room, {GOES_ON}: {command_line()}"
        more = later if resumable and isinstance(refusal, DiskFull) else ""
        _leave(screen, refusal.exit_code, f"{refusal}{more}", _mistakes(refusal))


def _leave(screen: Screen, code: int, sentence: str, mistakes: list[dict[str, Any]] | None = None) -> NoReturn:
    screen.complain(sentence)
    listed = {} if mistakes is None else {"mistakes": mistakes}
    with suppress(OSError):  # standard output may be what failed
        screen.document({"status": "error", "exit_code": code, "error": sentence, **listed})
    raise typer.Exit(code)


def _mistakes(refusal: DeqcliError) -> list[dict[str, Any]] | None:
    return [vars(mistake) for mistake in refusal.mistakes] if isinstance(refusal, RecipeRefused) else None
