"""Errors as sentences and exit codes; no traceback reaches a user."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from deqcli.errors import DeqcliError, Interrupted, RecipeRefused, SystemRefused, refused_by_system

if TYPE_CHECKING:
    from deqcli.show.console import Screen

DEBUG = "DEQCLI_DEBUG"
OUT_OF_MEMORY = ("can't allocate memory", "out of memory")


class Bug(DeqcliError):
    """Something that deqcli did not foresee."""


@contextmanager
def reporting(screen: Screen, on_interrupt: str = "") -> Iterator[None]:
    """Turn what a command raises into its sentence on standard error (and a JSON document) and its exit code."""
    try:
        yield
    except typer.Exit:
        raise
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (nobody reads on; nothing failed)
        raise typer.Exit(0) from None
    except (Exception, KeyboardInterrupt) as error:
        refusal = _as_refusal(error)
        hint = f"; {on_interrupt}" if isinstance(refusal, Interrupted) and on_interrupt else ""
        screen.complain(f"{refusal}{hint}")
        screen.document(_document(refusal))
        raise typer.Exit(refusal.exit_code) from None


def _as_refusal(error: BaseException) -> DeqcliError:
    if isinstance(error, DeqcliError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Interrupted(2)
    if isinstance(error, OSError):
        return refused_by_system(error, "use")
    if isinstance(error, MemoryError) or any(words in str(error) for words in OUT_OF_MEMORY):
        return SystemRefused(f"out of memory: {str(error).splitlines()[0] if str(error) else 'the system has no more'}")
    if os.environ.get(DEBUG):
        raise error
    return Bug(f"a bug in deqcli: {type(error).__name__}: {error}. {DEBUG}=1 shows where; please report it.")


def _document(refusal: DeqcliError) -> dict[str, Any]:
    document: dict[str, Any] = {"status": "error", "exit_code": refusal.exit_code, "error": str(refusal)}
    if isinstance(refusal, RecipeRefused):
        document["mistakes"] = [vars(mistake) for mistake in refusal.mistakes]
    return document
