"""Errors as sentences and exit codes; no traceback reaches a user."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

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
    except Interrupted as stop:
        _leave(screen, stop.exit_code, f"{stop}; {on_interrupt}" if on_interrupt else str(stop))
    except Exception as error:
        refusal = _as_refusal(error)
        _leave(screen, refusal.exit_code, str(refusal), _mistakes(refusal))


def _leave(screen: Screen, code: int, sentence: str, mistakes: list[dict[str, Any]] | None = None) -> NoReturn:
    screen.complain(sentence)
    listed = {} if mistakes is None else {"mistakes": mistakes}
    screen.document({"status": "error", "exit_code": code, "error": sentence, **listed})
    raise typer.Exit(code)


def _mistakes(refusal: DeqcliError) -> list[dict[str, Any]] | None:
    return [vars(mistake) for mistake in refusal.mistakes] if isinstance(refusal, RecipeRefused) else None


def _as_refusal(error: Exception) -> DeqcliError:
    if isinstance(error, DeqcliError):
        return error
    if isinstance(error, OSError):
        return refused_by_system(error, "use")
    if isinstance(error, MemoryError) or any(words in str(error) for words in OUT_OF_MEMORY):
        return SystemRefused(f"out of memory: {str(error).splitlines()[0] if str(error) else 'the system has no more'}")
    if os.environ.get(DEBUG):
        raise error
    return Bug(f"a bug in deqcli: {type(error).__name__}: {error}. {DEBUG}=1 shows where; please report it.")
