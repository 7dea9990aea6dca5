"""A sweep's folder in small, to be committed beside a paper: what reads the folder of a sweep reads it as well."""

from __future__ import annotations

import csv
import shlex
import shutil
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path

from deqcli.errors import Refused
from deqcli.exporters.exporter import Exported, Exporter, Item, State, Tell
from deqcli.runs import files
from deqcli.runs.folder import (
    COMPLETE,
    FAILED,
    RUNNING,
    Manifest,
    any_manifest,
    clear,
    hashes,
    locked,
    strangers,
    verify,
    write_manifest,
)  # fmt: skip
from deqcli.runs.folder import THINNED as EVERY
from deqcli.sweep.gather import TABLES, Gathered
from deqcli.sweep.stored import SWEEP, Stored

OVER_STEPS = (files.LOSS, files.SPECTRAL, files.PREDICTION)
ATTRIBUTES = ".gitattributes"
"""Keeps git from changing the ends of lines, which would be other bytes than the manifest vouches for."""

MOST_ROWS = 4000
"""Of a table with a row for each step of each run, but for the last ones."""


@dataclass(frozen=True)
class Thinning:
    """Which rows stay: of every `every` steps the first that was logged, and of each run those of `last`."""

    every: int
    last: Mapping[str, Collection[int]]

    @classmethod
    def of(cls, gathered: Gathered) -> Thinning:
        """`every` is the least of 1, 2, 5, 10, 20, 50, ... with runs x steps / every <= MOST_ROWS."""
        steps = gathered.all_losses.groupby("run_id")["step"].max()
        return cls(least_stride(len(steps) * int(steps.max()) if len(steps) else 0), last_steps(gathered))

    def rows(self, path: Path) -> Iterator[str]:
        """The header and the rows that stay, as they are written."""
        records = _records(path)
        names, header = next(records)
        yield header
        run, step, before = names.index("run_id"), names.index("step"), None
        for cells, text in records:
            at = int(cells[step])
            part = (cells[run], at // self.every)
            if part != before or at in self.last[cells[run]]:
                yield text
            before = part


def least_stride(rows: int) -> int:
    """The least of 1, 2, 5, 10, 20, 50, ... that leaves no more than MOST_ROWS rows of so many."""
    stride, factors = 1, cycle((2, 2.5, 2))
    while rows > MOST_ROWS * stride:
        stride = round(stride * next(factors))
    return stride


def last_steps(gathered: Gathered) -> dict[str, set[int]]:
    """The last steps, in each table, of the runs that a run is averaged with: those that differ in their seed alone.

    With its own alone, a mean over seeds would at the end of one run be of that run.
    """
    groups = gathered.runs.groupby(["width", *gathered.axes], dropna=False, sort=False).ngroup()
    group = dict(zip(gathered.runs["run_id"], groups, strict=True))
    ends: dict[int, set[int]] = defaultdict(set)
    for table in (gathered.all_losses, gathered.spectral, gathered.prediction):
        for run, step in table.groupby("run_id")["step"].max().items():
            ends[group[run]].add(int(step))
    return {str(run): ends[own] for run, own in group.items()}


def _records(path: Path) -> Iterator[tuple[list[str], str]]:
    """The rows of a CSV file by cells, and as they are written."""
    taken: list[str] = []
    with path.open(newline="", encoding="utf-8") as file:
        for cells in csv.reader(_noted(file, taken)):
            yield cells, "".join(taken)
            taken.clear()


def _noted(lines: Iterable[str], taken: list[str]) -> Iterator[str]:
    for line in lines:
        taken.append(line)
        yield line


def write_thinned(gathered: Gathered, place: str, tell: Tell) -> Exported:
    """Write the tables of one sweep with fewer steps, its recipe, and a manifest that vouches for them.

    The same sweep gives the same bytes. Raises: Refused where it is none, has not ended or is thinned already, or the
    place is not that of a former such export; CorruptArtefact, FolderInUse, OSError.
    """
    source, folder, thinning = _whole_sweep(gathered), Path(place), Thinning.of(gathered)
    names = (files.RECIPE, *TABLES)
    verify(source.folder, {name: source.manifest.files[name] for name in names}, source.manifest.advice)
    state: State = "replaced" if _is_former(folder) else "written"
    note, items = _note(source, gathered, thinning.every), []
    with locked(folder):
        write_manifest(folder, note.model_copy(update={"status": RUNNING}))
        clear(folder, names)
        shutil.copyfile(source.folder / files.RECIPE, folder / files.RECIPE)
        for name in TABLES:
            files.replace_file(folder / name, partial(_write, source.folder / name, thinning))
            items.append(Item(name, sum(1 for _ in _records(folder / name)) - 1, state))
            tell(items[-1])
        files.replace_text(folder / ATTRIBUTES, "* -text\n")
        write_manifest(folder, note.model_copy(update={"files": hashes(folder, names)}))
    return Exported("thinned", "tables", place, items, f"deqcli report {shlex.quote(place)}", [_told(note)])


def _whole_sweep(gathered: Gathered) -> Stored:
    """The sweep that is thinned. Raises: Refused."""
    first, *others = gathered.sources
    if others or first.manifest.kind != SWEEP:
        what = f"{1 + len(others)} folders" if others else f"a {first.manifest.kind}"
        raise Refused(f"--to thinned is for the folder of one sweep, not for {what}")
    if first.manifest.is_small:
        raise Refused(f"{first.folder} is a sweep's folder in small itself; name that of the sweep")
    if first.manifest.status not in (COMPLETE, FAILED):
        raise Refused(
            f"{first.folder} is {first.state}: its tables are not those of its end; run the sweep again first"
        )
    return first


def _is_former(folder: Path) -> bool:
    """Whether a former export left a folder; False where there is nothing. Raises: Refused, CorruptArtefact."""
    if (folder / files.MANIFEST).is_file():
        if not any_manifest(folder).is_small:
            raise Refused(f"{folder} has the manifest of something else and is left as it is; name another with --out")
        return True
    if folder.exists() and not folder.is_dir():
        raise Refused(f"{folder} is a file and is left as it is; name a folder with --out")
    for stranger in strangers(folder):
        raise Refused(
            f"{folder / stranger} is not deqcli's, and its folder is left as it is; name another one with --out"
        )
    return False


def _note(source: Stored, gathered: Gathered, every: int) -> Manifest:
    """The manifest of the sweep, with the results of its runs and what computed them, and without files."""
    runs = [run.manifest for run in gathered.stored]
    results = {f"{run.id}.{name}": value for run in runs for name, value in run.results.items()}
    packages = dict.fromkeys(package for run in runs for package in run.versions)
    origin = {
        "device": _values(run.device for run in runs),
        "device_name": _values(run.device_name for run in runs),
        "threads": runs[0].threads if len({run.threads for run in runs}) == 1 else 0,
        "versions": {package: _values(run.versions.get(package) for run in runs) for package in packages},
        "git": _values(run.git for run in runs) or None,
    }
    return source.manifest.model_copy(update={"files": {}, "results": {EVERY: every, **results}, **origin})


def _values(found: Iterable[str | None]) -> str:
    """The values that there are, each once."""
    return " / ".join(dict.fromkeys(filter(None, found)))


def _write(table: Path, thinning: Thinning, beside: Path) -> None:
    if table.name not in OVER_STEPS:
        shutil.copyfile(table, beside)
        return
    with beside.open("w", encoding="utf-8", newline="") as file:
        file.writelines(thinning.rows(table))


def _told(note: Manifest) -> str:
    """What is kept, in words."""
    if not note.thinned:
        return f"Nothing is left out but timing.csv: {MOST_ROWS} rows are not too many"
    return f"The sweep is {note.thinned} and to the last one of each run; timing.csv is left out"


THINNED = Exporter(write_thinned, ())
