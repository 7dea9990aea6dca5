"""The runs below an output folder as rows to be filtered and sorted by any key. Light: no torch, no pandas."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deqcli.data.files import is_file
from deqcli.errors import CorruptArtefact, Refused, as_refusal
from deqcli.recipe.axes import order
from deqcli.runs import files
from deqcli.runs.folder import COMPLETE, FAILED, any_manifest
from deqcli.runs.records import LOSS_COLUMNS
from deqcli.sweep.gather import flattened
from deqcli.sweep.query import DAMAGED, OWN, VERSIONS, Keys, Query, parse_query, quoted, recipe_keys
from deqcli.sweep.status import tail
from deqcli.sweep.stored import RUN, SWEEP, Stored, open_stored

if TYPE_CHECKING:
    import pandas as pd

MOST_CANDIDATES = 20
RUNS = f"*/runs/*/{files.MANIFEST}"
_NAMED = re.compile(r"w(\d+)-s(\d+)-")


class Row:
    """A run as its folder tells it. Of a damaged folder `damage` is the sentence, and its path tells the rest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stored: Stored | None = None
        self.damage: str | None = None
        try:
            self.stored = _opened(folder)
        except (CorruptArtefact, OSError) as error:
            self.damage = str(as_refusal(error))

    @property
    def run_id(self) -> str:
        """w<width>-s<seed>-<hash>."""
        return self.stored.manifest.id if self.stored else self.folder.name

    @property
    def recipe(self) -> str:
        """The name of the recipe."""
        return self.stored.manifest.recipe if self.stored else self.folder.parent.parent.name

    @property
    def width(self) -> int | None:
        """m, as the run id has it."""
        return self._numbers[0]

    @property
    def seed(self) -> int | None:
        """train.seed, as the run id has it."""
        return self._numbers[1]

    @cached_property
    def _numbers(self) -> tuple[int | None, int | None]:
        match = _NAMED.match(self.run_id)
        return (int(match[1]), int(match[2])) if match else (None, None)

    @cached_property
    def _state(self) -> str:
        return self.stored.state if self.stored else DAMAGED

    @property
    def status(self) -> str:
        """complete, running, interrupted (killed, too), failed or damaged."""
        return DAMAGED if self.damage else self._state

    @property
    def error(self) -> str | None:
        """Why it failed or stopped, or what is damaged."""
        return self.damage or (self.stored.manifest.error if self.stored else None)

    @property
    def step(self) -> int | None:
        """The last step that was logged."""
        return self._last[0]

    @property
    def loss(self) -> float | None:
        """The loss at that step."""
        return self._last[1]

    @cached_property
    def _last(self) -> tuple[int | None, float | None]:
        if self.stored is None:
            return None, None
        results = self.stored.manifest.results
        if self._state == COMPLETE:
            return results.get("steps"), results.get("final_loss")  # type: ignore[return-value]  # a whole number
        row = next(iter(tail(self.folder / files.LOSS, LOSS_COLUMNS)[-1:]), {})
        try:
            return int(row["step"]) if row else None, float(row["loss"]) if row.get("loss") else None
        except ValueError:
            self.damage = f"{self.folder / files.LOSS} is not what was written"
            return None, None

    @cached_property
    def sections(self) -> dict[str, Any]:
        """The resolved recipe by dotted key, empty where it is not there yet; what is wrong with it is damage."""
        try:
            return dict(flattened(self.stored.recipe)) if self.stored else {}
        except (CorruptArtefact, OSError) as error:
            if self._state in (COMPLETE, FAILED) or (self.folder / files.RECIPE).exists():
                self.damage = str(as_refusal(error))
            return {}

    def value(self, key: str) -> Any:
        """The value of a key of `deqcli.sweep.query`; None where the run has none."""
        if key == "folder":
            return str(self.folder)
        if self.stored is None or key in OWN:
            found = getattr(self, key, None) if key in OWN else None
            return found if found is not None or self.stored is None else getattr(self.stored.manifest, key, None)
        if key.startswith(VERSIONS):
            return self.stored.manifest.versions.get(key.removeprefix(VERSIONS))
        return self.sections.get(key) if key in recipe_keys() else self.stored.manifest.results.get(key)

    def plain(self) -> dict[str, Any]:
        """Everything that needs no recipe, in plain data."""
        results = self.stored.manifest.results if self.stored else {}
        return {key: self.value(key) for key in OWN} | results


def _opened(folder: Path) -> Stored:
    manifest = any_manifest(folder)
    if manifest.kind != RUN:
        raise CorruptArtefact(f"{folder} belongs to something else ({manifest.kind} {manifest.id})")
    return Stored(folder, manifest)


def rows_below(out: Path) -> list[Row]:
    """Every run below an output folder, by recipe, width, seed and hash; none is left out for being damaged."""
    rows = [Row(path.parent) for path in out.glob(RUNS)]
    return sorted(rows, key=lambda row: (row.recipe, row.width or 0, row.seed or 0, row.run_id, str(row.folder)))


def keys_of(rows: Sequence[Row]) -> Keys:
    """The keys that these runs can be asked for."""
    manifests = [row.stored.manifest for row in rows if row.stored]
    found = dict.fromkeys(key for each in manifests for key in each.results)
    versions = dict.fromkeys(f"{VERSIONS}{package}" for each in manifests for package in each.versions)
    return Keys((*found, *versions))


def select(rows: Sequence[Row], query: Query) -> list[Row]:
    """The rows that meet every condition, in the order asked for; those without a value are the last."""
    if any(key.of_recipe for key in query.keys):
        for row in rows:
            row.sections  # noqa: B018  # whether it is damaged is part of its status
    kept = [row for row in rows if all(each.holds(row.value(each.key.name)) for each in query.where)]
    for key, descending in reversed(query.sort):
        known = [row for row in kept if row.value(key.name) is not None]
        unknown = [row for row in kept if row.value(key.name) is None]
        kept = sorted(known, key=lambda row: order(row.value(key.name)), reverse=descending) + unknown
    return kept


def frame(out: Path, where: Sequence[str] = (), sort: str | None = None) -> pd.DataFrame:
    """The runs below a folder that meet conditions, with their results and every key of their recipes as columns.

    Raises: Refused where a condition or a key means nothing; CorruptArtefact where a folder is damaged.
    """
    import pandas as pd

    rows = rows_below(out)
    chosen = select(rows, parse_query(keys_of(rows), where, sort))
    for row in chosen:
        row.sections  # noqa: B018
    if damaged := [row.damage for row in rows if row.damage]:
        raise CorruptArtefact("\n".join(damaged))
    return pd.DataFrame([row.plain() | row.sections for row in chosen])


def find_run(text: str, out: Path) -> Stored:
    """The run of a folder, of a run id, or of the beginning of one that no other run below `out` has.

    Raises: Refused, with those that it may be; CorruptArtefact where the folder is damaged.
    """
    folder = _folder_of(text)
    if folder is None:
        return _opened(_by_name(text, out))
    stored = open_stored(folder)
    if stored.manifest.kind != RUN:
        cells = stored.manifest.cells[:MOST_CANDIDATES] if stored.manifest.kind == SWEEP else []
        raise Refused("\n".join([f"{text} is the folder of a {stored.manifest.kind}; name a run", *cells]))
    return stored


def _folder_of(text: str) -> Path | None:
    """The folder that a text names: a word without a slash may be the name of a run as well."""
    named = "/" in text or is_file(text) or is_file(Path(text) / files.MANIFEST)
    return Path(text) if named else None


def _by_name(text: str, out: Path) -> Path:
    folders = sorted((path.parent for path in out.glob(RUNS)), key=lambda folder: (folder.name, str(folder)))
    found = [each for each in folders if each.name == text] or [each for each in folders if each.name.startswith(text)]
    if len(found) == 1:
        return found[0]
    if found:
        listed = [f"{each.name}  ({each})" for each in found[:MOST_CANDIDATES]]
        more = [f"and {len(found) - MOST_CANDIDATES} more"] if len(found) > MOST_CANDIDATES else []
        raise Refused("\n".join([f"{quoted(text)} is the beginning of {len(found)} runs:", *listed, *more]))
    beginnings = {each.name[: len(text)]: each.name for each in reversed(folders)}
    near = difflib.get_close_matches(text, beginnings, n=1)
    guess = f"did you mean {beginnings[near[0]]}? " if near else ""
    raise Refused(f"there is no run {quoted(text)} below {out}; {guess}`deqcli runs list --out {out}` names them")
