"""A folder that deqcli left, to be looked at: its manifest, recipe and tables. Nothing is written, no lock is taken."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deqcli.errors import CorruptArtefact, Refused
from deqcli.recipe.reading import read_text
from deqcli.runs import files
from deqcli.runs.folder import COMPLETE, FAILED, INTERRUPTED, RUNNING, Manifest, any_manifest, owner, verify

if TYPE_CHECKING:
    import pandas as pd

RUN, SWEEP = "run", "sweep"
WORDS = ("run_id", "recipe", "dataset", "activation", "status", "error")
"""Columns that are text even where it looks like a number: a recipe may be called 007."""


@dataclass(frozen=True)
class Stored:
    """A run, a sweep, a check or a prediction, as its folder tells it."""

    folder: Path
    manifest: Manifest

    @property
    def state(self) -> str:
        """The status of the manifest; `interrupted` where it says `running` and no process works in the folder."""
        gone = self.manifest.status == RUNNING and owner(self.folder) is None
        return INTERRUPTED if gone else self.manifest.status

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """The resolved recipe in plain data, by section. Its data file need not be there any more.

        Raises: CorruptArtefact.
        """
        text = self._text(files.RECIPE).decode(errors="replace")
        lines = [_mapping(line) for line in text.splitlines()]
        value = _mapping(text) if None in lines else {key: own for line in lines if line for key, own in line.items()}
        if value is None:
            raise CorruptArtefact(f"{self.folder / files.RECIPE} is not what was written")
        return deepcopy(value)

    def has(self, name: str) -> bool:
        """Whether the folder has a file of this name."""
        return (self.folder / name).is_file()

    def table(self, name: str) -> pd.DataFrame:
        """A CSV file of the folder: its whole lines, where it may be being written.

        Raises: CorruptArtefact where it is missing, or is not what the manifest says.
        """
        import pandas as pd

        words = dict.fromkeys(WORDS, "str")
        return pd.read_csv(io.BytesIO(self._lines(name)), dtype=words, keep_default_na=False, na_values=[""])

    def rows(self, name: str) -> list[dict[str, str]]:
        """The same as text, every digit of it, and without pandas. Raises: CorruptArtefact."""
        return list(csv.DictReader(io.StringIO(self._lines(name).decode(errors="replace"), newline="")))

    def _lines(self, name: str) -> bytes:
        text = self._text(name)
        return text[: text.rfind(b"\n") + 1]

    def _text(self, name: str) -> bytes:
        digests = self.manifest.files if self.manifest.status in (COMPLETE, FAILED) else {}
        verify(self.folder, {name: digests[name]} if name in digests else {}, self.manifest.advice)
        try:
            return (self.folder / name).read_bytes()
        except FileNotFoundError:
            raise CorruptArtefact(f"{self.folder / name} is missing") from None

    def runs(self) -> Iterator[Stored]:
        """The run itself, or those runs of a sweep that have begun, in the order of their rows."""
        if self.manifest.kind == RUN:
            yield self
        for cell in self.manifest.cells:
            folder = self.folder.parent.parent / "runs" / cell
            if (folder / files.MANIFEST).exists():
                yield Stored(folder, any_manifest(folder))


@lru_cache(maxsize=10_000)
def _mapping(text: str) -> dict[str, Any] | None:
    """YAML as plain data, None where it is no mapping: a section is a line, and runs have most of their lines alike."""
    document = read_text(text, files.RECIPE)
    return document.value if isinstance(document.value, dict) and not document.mistakes else None


def open_stored(path: Path) -> Stored:
    """What lies in a folder. Raises: Refused where deqcli left nothing there; CorruptArtefact, OSError."""
    folder = path.parent if path.is_file() else path
    if not folder.exists():
        raise Refused(f"there is no folder {path}")
    if not (folder / files.MANIFEST).is_file():
        below = next(iter(sorted(folder.glob(f"**/{files.MANIFEST}"))), None)
        hint = "" if below is None else f"; below it there is {below.parent}, for one"
        raise Refused(f"{path} is no folder of a run, sweep, check or prediction: it has no {files.MANIFEST}{hint}")
    return Stored(folder, any_manifest(folder))


def stored_runs(out: Path) -> Iterator[Stored]:
    """Every run under `out`, by recipe, width, seed and hash. Raises: CorruptArtefact."""
    for path in sorted(out.glob(f"*/runs/*/{files.MANIFEST}")):
        yield Stored(path.parent, any_manifest(path.parent))
