"""A report of runs and sweeps: one HTML page, and the figures beside it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from deqcli.errors import Refused
from deqcli.runs.files import MANIFEST, REPORT, replace_file, replace_text
from deqcli.runs.folder import any_manifest
from deqcli.show.findings import Findings
from deqcli.show.paper import FORMATS, FigureOptions, known_names, parse_size
from deqcli.show.verdicts import Verdict
from deqcli.sweep.gather import Gathered, gather
from deqcli.sweep.stored import Stored, open_stored

FIGURES = "figures"
TITLED = "titled"
"""The folder of figures that differ by their title alone."""


@dataclass(frozen=True)
class ReportOptions:
    """What a report is told: a folder or an HTML file, a title, and which figures are written beside the page, and how.

    Without `out` the page goes into the folder of the run or sweep, and that of several into
    <root>/reports/<hash of the runs>. `figures` None means every one, none of them an empty list.
    """

    out: Path | None = None
    root: Path = Path("outputs")
    title: str | None = None
    figures: Sequence[str] | None = None
    formats: Sequence[str] = FORMATS
    size: str | None = None


@dataclass(frozen=True)
class Report:
    """What was written, and what it says at its top.

    `unfinished` has a line for each run that is not complete, `thinned` a sentence for each sweep in small, `empty` the
    figures for which no run has numbers.
    """

    page: Path
    figures: list[Path]
    runs: list[str]
    verdicts: list[Verdict]
    unfinished: Sequence[str]
    thinned: Sequence[str]
    empty: Sequence[str]


def write_report(paths: Sequence[Path], options: ReportOptions) -> Report:
    """Write the page, and the figures, of runs and sweeps. No file that a manifest vouches for is touched.

    The same folders, in whatever order, give the same bytes.
    Raises: Refused (no folder, a folder, a figure, a size), CorruptArtefact, OSError.
    """
    from deqcli.show.page.render import page_html

    if not paths:
        raise Refused("no folder of a run or a sweep is named")
    names = known_names(options.figures)
    wanted = FigureOptions(options.formats, None if options.size is None else parse_size(options.size), options.title)
    findings = Findings(gather(_each_once(paths)))
    gathered = findings.gathered
    page = _place(gathered, options)
    page.parent.mkdir(parents=True, exist_ok=True)
    figures = _write_figures(gathered, page.parent, names, wanted, options.size) if names else []
    replace_text(page, page_html(findings, options.title))
    runs = [str(run) for run in gathered.runs["run_id"]]
    empty = [name for name in names if not any(figure.stem == name for figure in figures)]
    return Report(page, figures, runs, findings.verdicts, findings.unfinished, findings.thinned, empty)


def _each_once(paths: Sequence[Path]) -> list[Stored]:
    found: dict[Path, Stored] = {}
    for path in paths:
        stored = open_stored(path)
        found.setdefault(stored.folder.resolve(), stored)
    return sorted(found.values(), key=lambda stored: (stored.manifest.recipe, stored.manifest.id))


def _place(gathered: Gathered, options: ReportOptions) -> Path:
    if options.out is not None:
        return options.out if options.out.suffix.lower() in (".html", ".htm") else options.out / REPORT
    if len(gathered.sources) == 1:
        return gathered.sources[0].folder / REPORT
    runs = "\n".join(sorted(gathered.runs["run_id"]))
    return options.root / "reports" / hashlib.sha256(runs.encode()).hexdigest()[:8] / REPORT


def _write_figures(
    gathered: Gathered, folder: Path, names: Sequence[str], wanted: FigureOptions, size: str | None
) -> list[Path]:
    """Draw elsewhere, and take from there what the manifest of this folder does not vouch for.

    A sweep has drawn some of its figures itself, and vouches for them: they stay as they are. In the folder of a run or
    sweep, figures of another size or under another title go into a folder of that name.
    """
    from deqcli.show.figures import write_figures

    vouched = any_manifest(folder).files.keys() if (folder / MANIFEST).is_file() else None
    other = wanted.size is not None or wanted.title is not None
    below = (size or TITLED).strip().lower() if other and vouched is not None else ""
    with TemporaryDirectory() as room:
        drawn = write_figures(gathered, Path(room), wanted, names)
        places = {name: folder / FIGURES / below / Path(name).name for name in drawn}
        for name, place in places.items():
            if below or name not in (vouched or ()):
                place.parent.mkdir(parents=True, exist_ok=True)
                replace_file(place, partial(shutil.copyfile, Path(room) / name))
    return list(places.values())
