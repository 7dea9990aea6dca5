"""The HTML of a report: one page that needs nothing else, and the same for the same runs."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from importlib.resources import files as resources
from typing import Any

import bokeh
import pandas as pd
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

import deqcli
from deqcli.recipe.axes import order
from deqcli.runs import files
from deqcli.runs.folder import COMPLETE
from deqcli.show.console import number
from deqcli.show.findings import Findings
from deqcli.show.page import plots, tables
from deqcli.show.page.curves import Drawn, as_json, draw, keys, words
from deqcli.show.panels import PANELS, TIME
from deqcli.sweep.gather import Gathered, flattened
from deqcli.sweep.stored import SWEEP, Stored

LEFT_OUT = ("loss_rescaled",)
"""Panels that another one shows when its time is rescaled."""

MOST_NAMED = 8
"""Values that are named one by one."""

POLICY = (
    "default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data: blob:; font-src data:; "
    "base-uri 'none'; form-action 'none'"
)
"""Nothing is fetched, and no script runs but those whose digests stand here."""


def page_html(findings: Findings, title: str | None = None) -> str:
    """The page of a run, a sweep or several of them. Raises: CorruptArtefact."""
    gathered = findings.gathered
    panels = [panel for name, panel in PANELS.items() if name not in LEFT_OUT]
    drawn = draw(gathered, panels)
    shown = [each for each in drawn if each.curves]
    scripts = [Markup(plots.script()), Markup(_asset("report.js"))]  # noqa: S704 (of Bokeh's package, and of our own)
    content = {
        "title": title or default_title(gathered),
        "question": question(gathered),
        "notice": " ".join(filter(None, [_notice(gathered), *findings.thinned])),
        "unfinished": findings.unfinished,
        "verdicts": findings.verdicts,
        "figures": [_figure(each, gathered) for each in shown],
        "absent": [each.panel for each in drawn if not each.curves],
        "keys": [key for key in keys(gathered) if len(key.values) > 1],
        "time": TIME.words,
        "runs": tables.runs_table(findings),
        "certificates": tables.certificates_table(gathered),
        "provenance": tables.provenance_table(gathered),
        "sources": [_source(each) for each in gathered.sources],
        "written": f"Written by deqcli {deqcli.__version__}; figures by Bokeh {bokeh.__version__} (BSD-3-Clause).",
        "style": Markup(_asset("report.css")),  # noqa: S704
        "bokeh": scripts[0],
        "script": scripts[1],
        "policy": POLICY.format(scripts=" ".join(_digest(each) for each in scripts)),
        "data": in_script(as_json(gathered, shown) | {"palettes": plots.palettes(), "time": TIME.words}),
        "plots": in_script([plots.figure(each.panel, f"plot-{each.panel.name}") for each in shown]),
    }
    return _environment().from_string(_asset("report.html.j2")).render(content).lstrip()


def _environment() -> Environment:
    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def _asset(name: str) -> str:
    return (resources(__package__) / name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    """A script as the content security policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def in_script(value: object) -> Markup:
    """A value as JSON that may stand inside a <script>: no text in it ends the element."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704 (what has a meaning in HTML is written as \u....)


def default_title(gathered: Gathered) -> str:
    """The recipes, and how many runs."""
    names = ", ".join(dict.fromkeys(gathered.runs["recipe"]))
    runs = gathered.runs["run_id"].tolist()
    return f"{names}: {runs[0] if len(runs) == 1 else f'{len(runs)} runs'}"


def question(gathered: Gathered) -> list[str]:
    """What was asked: the data, the model and the training in a sentence, and what was varied."""
    own = _Common(gathered)
    widths, seeds = (listed(gathered.runs[name]) for name in ("width", "seed"))
    seeds = f"seed{'s' if gathered.runs['seed'].nunique() > 1 else ''} {seeds}"
    lines = [
        f"Do {own['model.activation']} networks of width {widths} ({seeds}), trained on {own['data.kind']} data "
        f"({own['data.num_samples']} samples) by {own['train.steps']} steps of gradient descent at the learning rate "
        f"{own['train.learning_rate']}, lose what their tangent kernel predicts, and do the conclusions of Theorem 1 "
        "hold on the way?"
    ]
    lines += [f"Varied besides: {key} = {listed(gathered.runs[key])}." for key in gathered.axes]
    return lines


class _Common:
    """The value of a key of the runs, in words, or the values; `?` where nobody knows."""

    def __init__(self, gathered: Gathered) -> None:
        known = gathered.stored or gathered.sources
        self._recipes = [dict(flattened(each.recipe)) for each in known]

    def __getitem__(self, key: str) -> str:
        values = dict.fromkeys(words(recipe.get(key, "?")) for recipe in self._recipes)
        return " or ".join(values) if len(values) <= MOST_NAMED else "several"


def listed(column: pd.Series[Any]) -> str:
    """The values of a column: each, or how many there are between which."""
    known = sorted((None if pd.isna(each) else each for each in column.drop_duplicates()), key=order)
    if len(known) <= MOST_NAMED or not all(isinstance(each, (int, float)) for each in known):
        return ", ".join(words(each) for each in known)
    low, high = column.min(), column.max()
    return f"{words(low)} to {words(high)}, {len(known)} values"


def _notice(gathered: Gathered) -> str:
    """What is to be said first where not everything is complete."""
    counts = gathered.runs["status"].value_counts()
    other = {str(status): int(count) for status, count in counts.items() if status != COMPLETE}
    if not other:
        return ""
    if len(gathered.runs) == 1:
        return f"This run is not complete: {next(iter(other))}. What follows is what there is so far."
    named = ", ".join(f"{count} {status}" for status, count in sorted(other.items()))
    return f"Not every run is complete: {named} of {len(gathered.runs)}."


def _figure(drawn: Drawn, gathered: Gathered) -> dict[str, Any]:
    panel = drawn.panel
    styles = plots.lines(panel)
    present = {curve.kind for curve in drawn.curves}
    return {
        "panel": panel,
        "kinds": [
            {"index": index, "name": kind, "width": width, "dashes": " ".join(map(str, dashes))}
            for index, (kind, (width, dashes)) in enumerate(styles.items())
            if kind in present
        ],
        "described": described(drawn),
        "points": f"{drawn.shown} of {drawn.count} points drawn, extremes kept" if drawn.shown < drawn.count else "",
        "table": tables.summary_table(drawn, gathered.keys),
    }


def described(drawn: Drawn) -> str:
    """What the figure shows, in a sentence for who does not see it: least, greatest and last values."""
    panel, kind = drawn.panel, drawn.curves[0].kind
    rows = drawn.summary[drawn.summary["curve"] == kind]
    low, high = rows.iloc[rows["least"].argmin()], rows.iloc[rows["greatest"].argmax()]
    ends = sorted({number(float(rows["last"].min())), number(float(rows["last"].max()))}, key=float)
    return (
        f"{panel.vertical.words}, {kind}: least {number(float(low['least']))} ({low['run_id']}, {panel.x} "
        f"{number(low[f'{panel.x} of least'])}), greatest {number(float(high['greatest']))} ({high['run_id']}, "
        f"{panel.x} {number(high[f'{panel.x} of greatest'])}); at the end {' to '.join(ends)}."
    )


def _source(stored: Stored) -> dict[str, Any]:
    """A folder: its name, its recipe as text, and the commands that make the runs and the page again."""
    name = stored.recipe.get("name", stored.manifest.recipe)
    place = f"{name}/{'sweeps' if stored.manifest.kind == SWEEP else 'runs'}/{stored.manifest.id}"
    return {
        "name": place,
        "state": stored.state,
        "recipe": (stored.folder / files.RECIPE).read_text(encoding="utf-8").rstrip("\n"),
        "commands": list(_commands(stored)),
    }


def _commands(stored: Stored) -> Iterator[str]:
    if stored.manifest.kind == SWEEP:
        yield f"deqcli sweep-width {files.RECIPE}"
        return
    manifest = stored.manifest
    threads = f" --threads {manifest.threads}" if manifest.threads else ""
    yield f"deqcli train {files.RECIPE}" + (f" --device {manifest.device}" if manifest.device else "") + threads
