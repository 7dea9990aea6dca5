"""Every refusal that a user can meet, each with its exit code and a sentence that says what to do."""

from __future__ import annotations

import errno
from dataclasses import dataclass

MOST_SHOWN, LONGEST_LINE = 200, 1000
DEBUG = "DEQCLI_DEBUG"
OUT_OF_MEMORY = ("can't allocate memory", "out of memory")
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class DeqcliError(Exception):
    """A refusal in words; `exit_code` is what the shell sees, 1 being reserved for bugs."""

    exit_code = 1


class Refused(DeqcliError):
    """The command line, the recipe or the data cannot be used."""

    exit_code = 2


class NumericalFailure(DeqcliError):
    """Not converged, diverged, NaN, or a certificate that failed under --strict."""

    exit_code = 3


class CorruptArtefact(DeqcliError):
    """A stored file is damaged, or the folder belongs to something else."""

    exit_code = 4


class SystemRefused(DeqcliError):
    """The operating system said no: disk full, permission, memory."""

    exit_code = 5


class DiskFull(SystemRefused):
    """No room is left where the results go; nothing that writes there can go on."""


class OutOfMemory(SystemRefused):
    """Memory ran out; with more of it free the same may succeed."""


class FolderInUse(DeqcliError):
    """Another process works in the output folder."""

    exit_code = 6


class CellsFailed(DeqcliError):
    """Some runs of a sweep failed; the others are complete."""

    exit_code = 7


class Interrupted(KeyboardInterrupt):
    """A signal asked the process to stop; what was done is kept and can be resumed.

    As any KeyboardInterrupt it is no Exception: what handles errors lets it pass.
    """

    def __init__(self, signum: int, message: str = "interrupted") -> None:
        super().__init__(message)
        self.signum = signum
        self.exit_code = 128 + signum


def one_line(text: str) -> str:
    """A text as it may stand in a message: printable, and not endless."""
    printable = "".join(each if each.isprintable() else "?" for each in text)
    return printable if len(printable) <= LONGEST_LINE else f"{printable[:LONGEST_LINE]}..."


def counted(count: int, noun: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


@dataclass(frozen=True, order=True)
class Mistake:
    """One thing that is wrong with a recipe, and where: `file:line:column: message`."""

    source: str
    line: int
    column: int
    message: str
    key: str = ""

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}: {self.message}"


class RecipeRefused(Refused):
    """All mistakes of a recipe at once, in the order of the text."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        self.mistakes = mistakes
        shown = [str(mistake) for mistake in mistakes[:MOST_SHOWN]]
        more = f" ({len(mistakes) - MOST_SHOWN} of them not shown)" if len(mistakes) > MOST_SHOWN else ""
        count = f"{len(mistakes)} error{'s' if len(mistakes) > 1 else ''}{more}; nothing was run."
        super().__init__("\n".join([*shown, count]))


class Bug(DeqcliError):
    """Something that deqcli did not foresee."""


def as_refusal(error: Exception) -> DeqcliError:
    """Anything that was raised as a refusal in words: itself, the system's, out of memory, or a bug."""
    if isinstance(error, DeqcliError):
        return error
    if isinstance(error, OSError):
        where = f" {error.filename}" if error.filename else ""
        kind = DiskFull if error.errno in NO_SPACE else OutOfMemory if error.errno == errno.ENOMEM else SystemRefused
        return kind(f"the system refused{where}: {error.strerror or error}")
    if isinstance(error, MemoryError) or any(words in str(error) for words in OUT_OF_MEMORY):
        return OutOfMemory(f"out of memory: {(str(error).splitlines() or ['the system has no more'])[0]}")
    return Bug(f"a bug in deqcli: {type(error).__name__}: {error}. {DEBUG}=1 shows where; please report it.")
