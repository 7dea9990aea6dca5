"""What `deqcli runs show` says of a run."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deqcli.errors import CorruptArtefact, DeqcliError, counted

if TYPE_CHECKING:
    from deqcli.show.console import Screen
    from deqcli.sweep.listing import Row

CURVE_HEIGHT = 9
OUT = "outputs"
UNITS = ("bytes", "kB", "MB", "GB", "TB")
NUMBERS, TRUTHS = ("lhs", "rhs", "slack"), ("holds", "repaired_by_width")
"""Columns of certificates.csv that are no text."""


def document(run: Row) -> dict[str, Any]:
    """All that is told of it in plain data. Raises: CorruptArtefact where a file is not what was written."""
    assert run.stored is not None
    recipe = recipe_of(run)
    repeat, remark = again(run)
    return {
        **run.stored.manifest.model_dump(mode="json"),
        "folder": str(run.folder),
        "status": run.status,
        "step": run.step,
        "loss": run.loss,
        "ending": ending(run),
        "resolved": recipe,
        "verdicts": verdicts(run),
        "certificates": certificates(run),
        "sizes": sizes(run),
        "command": repeat,
        "remark": remark,
    }


def describe(screen: Screen, run: Row, told: dict[str, Any], columns: int) -> None:
    """How it ended, recipe, results, files, surroundings, the command and the curve, `columns` wide.

    Raises: CorruptArtefact.
    """
    from deqcli.runs.files import RECIPE
    from deqcli.show.fitting import fitted

    drawn = _curve(run, columns)
    screen.say(f"{run.run_id} of {run.recipe}: {told['ending']}")
    screen.say("")
    if told["resolved"]:
        screen.say((run.folder / RECIPE).read_text(encoding="utf-8", errors="replace").rstrip())
    lines = list(fitted(["result", "value"], list(told["results"].items()))) if told["results"] else []
    lines += [*told["verdicts"], *certificates_in_words(told["certificates"]), ""]
    lines += [*fitted(["file", "size"], [[name, in_words(size)] for name, size in told["sizes"].items()]), ""]
    lines += [*surroundings(run), f"Files: {run.folder}"]
    lines += [f"Again: {told['command']}"] if told["command"] else []
    lines += [told["remark"]] if told["remark"] else []
    for line in ["", *lines, "", *drawn]:
        screen.say(line)


def recipe_of(run: Row) -> dict[str, Any]:
    """The resolved recipe by section; empty where the run has not written it yet. Raises: CorruptArtefact."""
    if not run.sections and run.damage:
        raise CorruptArtefact(run.damage)
    return run.stored.recipe if run.stored and run.sections else {}


def ending(run: Row) -> str:
    """`complete, 40 steps`, `interrupted at step 20 of 40: ...`."""
    from deqcli.runs.folder import COMPLETE, RUNNING, owner

    steps = run.sections.get("train.steps")
    if run.status == COMPLETE:
        return f"complete, {counted(run.step or 0, 'step')}"
    if run.error and run.error.startswith(run.status):
        return run.error
    if run.error and run.error.startswith(f"step {run.step}:"):
        return f"{run.status}: {run.error}"
    where = "before its first step" if run.step is None else f"at step {run.step} of {steps}"
    who = f", by {owner(run.folder)}" if run.status == RUNNING else ""
    return f"{run.status} {where}{who}" + (f": {run.error}" if run.error else "")


def verdicts(run: Row) -> list[str]:
    """Whether the conclusions of Theorem 1 held, of a run that has results."""
    from deqcli.show.verdicts import run_verdicts

    results = run.stored.manifest.results if run.stored else {}
    return [str(verdict) for verdict in run_verdicts(results)] if results else []


def certificates(run: Row) -> list[dict[str, Any]]:
    """The rows of certificates.csv, without the columns that name the run."""
    from deqcli.runs.files import CERTIFICATES
    from deqcli.runs.records import RUN_KEYS

    if run.stored is None or not run.stored.has(CERTIFICATES):
        return []
    rows = run.stored.rows(CERTIFICATES)
    return [{key: _typed(key, text) for key, text in row.items() if key not in RUN_KEYS} for row in rows]


def _typed(key: str, text: str) -> str | float | bool | None:
    if key in TRUTHS:
        return text == "true"
    return (float(text) if text else None) if key in NUMBERS else text


def certificates_in_words(rows: list[dict[str, Any]]) -> Iterator[str]:
    """How many inequalities hold, and which do not."""
    if not rows:
        return
    failed = [row for row in rows if not row["holds"]]
    yield f"inequalities: {len(rows) - len(failed)} of {len(rows)} hold" + (", not these:" if failed else "")
    for repaired, words in ((True, "repaired by width"), (False, "not repaired by width")):
        names = [row["certificate"] for row in failed if row["repaired_by_width"] == repaired]
        if names:
            yield f"  {words}: {', '.join(names)}"


def sizes(run: Row) -> dict[str, int]:
    """Bytes of each file of the run by name."""
    files = sorted(path for path in run.folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return {path.name: path.stat().st_size for path in files}


def in_words(size: float) -> str:
    """`151 kB`."""
    unit = 0
    while size >= 1000 and unit < len(UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.3g} {UNITS[unit]}"


def surroundings(run: Row) -> Iterator[str]:
    """What it was computed with, and what is other here."""
    from deqcli.runs.files import versions

    assert run.stored is not None
    manifest = run.stored.manifest
    device = manifest.device if manifest.device_name in ("", manifest.device) else manifest.device_name
    used = ", ".join(f"{package} {version}" for package, version in manifest.versions.items())
    commit = f"; commit {manifest.git}" if manifest.git else ""
    yield f"Computed on {device} by {counted(manifest.threads, 'thread')} with {used}{commit}"
    if manifest.changed:
        yield f"Resumed with other {', '.join(manifest.changed)}: the last bits may differ."
    here = versions()
    others = [f"{package} {here.get(package, '-')}" for package, version in manifest.versions.items()
              if here.get(package) != version]  # fmt: skip
    if others:
        yield f"Here is {', '.join(others)}: the last bits of a run computed here may differ."


def again(run: Row) -> tuple[str | None, str]:
    """The command that computes the run, None where its recipe gives another run or none; and what is to be known."""
    from deqcli import api
    from deqcli.runs.files import RECIPE
    from deqcli.runs.folder import COMPLETE, INTERRUPTED, RUNNING

    path = run.folder / RECIPE
    try:
        found = api.resolve(str(path), alone=True, memory=api.UNLIMITED).run().run_id
    except DeqcliError as refusal:
        return None, f"It cannot be computed again here: {str(refusal).splitlines()[0]}"
    if found != run.run_id:
        return None, f"This version of deqcli computes {path} as another run, {found}."
    remarks = {
        COMPLETE: "It finds this run complete; --force computes it anew.",
        INTERRUPTED: "It goes on from the last checkpoint.",
        RUNNING: "It is refused while the run is under way.",
    }
    remark = remarks.get(run.status, "") if placed(run) else "It computes the run anew: this folder was moved."
    return command(run, path), remark


def placed(run: Row) -> bool:
    """Whether the folder lies where `train` looks for it: <out>/<recipe>/runs/<run_id>."""
    return run.folder.resolve().parts[-3:] == (run.recipe, "runs", run.run_id)


def command(run: Row, path: Path) -> str:
    """`deqcli train` of a stored recipe as the run was computed: what is not in the recipe is named."""
    from deqcli.show.console import relative

    assert run.stored is not None
    manifest = run.stored.manifest
    out = relative(run.folder.resolve().parents[2]) if placed(run) else OUT
    words = ["deqcli", "train", str(path), "--device", manifest.device, "--threads", str(manifest.threads)]
    return shlex.join([*words, *([] if out == OUT else ["--out", out])])


def _curve(run: Row, columns: int) -> list[str]:
    from deqcli.show.overlay import Curve, overlaid
    from deqcli.sweep.comparing import losses_of

    assert run.stored is not None
    return overlaid([Curve("*", run.run_id, losses_of(run.stored))], columns, CURVE_HEIGHT)
