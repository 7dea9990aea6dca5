"""What runs can be handed to, other tools and a folder in small, and handing them over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from deqcli.errors import Refused
from deqcli.exporters.exporter import Exported, Exporter, Tell
from deqcli.exporters.mlflow import MLFLOW
from deqcli.exporters.parquet import PARQUET
from deqcli.exporters.tensorboard import TENSORBOARD
from deqcli.exporters.thinned import THINNED
from deqcli.runs.signals import StopSignals
from deqcli.sweep.gather import gather
from deqcli.sweep.stored import Stored, open_stored

EXPORTERS: dict[str, Exporter] = {"parquet": PARQUET, "tensorboard": TENSORBOARD, "mlflow": MLFLOW, "thinned": THINNED}
FOLDER = "export"


def export(paths: Sequence[Path], to: str, out: str | None = None, tell: Tell = lambda _: None) -> Exported:
    """Hand the runs of some folders to a tool; `tell` hears of each file or run once it is there.

    Raises: Refused where the tool is not known or not installed, a folder has no runs, or something of somebody else's
    is in the way; CorruptArtefact, FolderInUse, OSError, Interrupted.
    """
    exporter = _installed(to)
    sources = [open_stored(path) for path in paths]
    place = _place(sources, to, out, exporter)
    with StopSignals().installed():
        done = exporter.write(gather(sources), place, tell)
    manifests = [source.manifest for source in sources]
    lacking = [f"{each.recipe} {each.id} is {each.thinned}" for each in manifests if each.thinned]
    return replace(done, remarks=[*lacking, *done.remarks])


def _installed(to: str) -> Exporter:
    """Raises: Refused where there is no such tool, or what it needs is not installed."""
    if to not in EXPORTERS:
        raise Refused(f"--to {to} is not known; it is one of {', '.join(EXPORTERS)}")
    missing = [module for module in EXPORTERS[to].modules if find_spec(module) is None]
    if missing:
        raise Refused(f"export --to {to} needs {' and '.join(missing)}: pip install 'deqcli[{to}]'")
    return EXPORTERS[to]


def _place(sources: Sequence[Stored], to: str, out: str | None, exporter: Exporter) -> str:
    """Where the runs go: as named, where the tool is told by other means, or `export/<tool>` in the one folder."""
    if out is not None and "://" in out and not exporter.takes_uri:
        raise Refused(f"--out {out} is a URI; --to {to} writes into a folder")
    place = out or exporter.elsewhere()
    if place is None and len(sources) != 1:
        raise Refused(f"the runs of {len(sources)} folders go to one place; name it with --out")
    return place or str(sources[0].folder / FOLDER / to)
