"""The tables of a page: captions, columns, and cells that know the number they show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from deqcli.runs import files
from deqcli.show.console import number
from deqcli.show.findings import Deviation, Findings, Slack, apart
from deqcli.show.page.curves import Drawn, words
from deqcli.show.verdicts import CONCLUSIONS, Results
from deqcli.sweep.gather import Gathered

MOST_ROWS = 3000
"""Rows of a table on the page; the files have them all."""

SHORT = {"yes": "held", "no": "not shown", "unknown": "-"}


@dataclass(frozen=True)
class Cell:
    """What is read, and the number behind it, by which a column is sorted and which is shown in full on request."""

    text: str
    value: float | int | None = None

    @property
    def full(self) -> str:
        """The number with all of its digits."""
        return "" if self.value is None else repr(self.value)


@dataclass(frozen=True)
class Table:
    """A table as it stands on the page; `more` says where the rows are that it has no room for."""

    name: str
    caption: str
    columns: list[str]
    rows: list[list[Cell]] = field(default_factory=list)
    numeric: frozenset[str] = frozenset()
    more: str = ""


def table(name: str, caption: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], source: str = "") -> Table:
    """A table of plain values or cells; a column is numeric where a number is behind every cell that says something."""
    cells = [[each if isinstance(each, Cell) else cell(each) for each in row] for row in rows[:MOST_ROWS]]
    numeric = frozenset(
        column
        for index, column in enumerate(columns)
        if any(row[index].value is not None for row in cells)
        and all(row[index].value is not None or row[index].text == "-" for row in cells)
    )
    more = f"The first {MOST_ROWS} of {len(rows)} rows; all of them are in {source}." if len(rows) > MOST_ROWS else ""
    return Table(name, caption, list(columns), cells, numeric, more)


def cell(value: Any) -> Cell:
    """A value as a cell: numbers with few digits, `yes` and `no`, a dash where there is none."""
    plain = value.item() if hasattr(value, "item") else value
    if plain is None or plain == "" or (isinstance(plain, float) and pd.isna(plain)):
        return Cell("-")
    if isinstance(plain, bool) or not isinstance(plain, (int, float)):
        return Cell(number(plain))
    return Cell(number(plain), plain)


def runs_table(findings: Findings) -> Table:
    """A row for each run: what it is, how it ended, what its loss came to, and what of the theory held."""
    gathered = findings.gathered
    columns = [
        *gathered.keys, "status", "steps", "final loss", "predicted", "apart", "||W||_2", "(i)", "(ii)", "(iii)",
        "Condition 1", "error",
    ]  # fmt: skip
    rows = [[*_run_cells(findings, row)] for row in gathered.runs.to_dict("records")]
    return table("runs", "Runs", columns, rows, files.RUNS)


def _run_cells(findings: Findings, row: Mapping[Any, Any]) -> Iterator[Any]:
    run = row["run_id"]
    yield run
    yield from (cell_of_key(row[key]) for key in findings.gathered.keys[1:])
    yield row["status"]
    yield from _loss(findings.deviations.get(run), row)
    yield row["max_spectral_norm"]
    yield from _conclusions(findings.outcomes.get(run))
    yield _slack(findings.slacks.get(run))
    yield row["error"]


def cell_of_key(value: Any) -> Cell:
    """The value of a run on an axis; as a number where it is one."""
    found = cell(value)
    return Cell(words(value.item() if hasattr(value, "item") else value), found.value)


def _loss(ends: Deviation | None, row: Mapping[Any, Any]) -> list[Any]:
    """Steps, final loss, the predicted one, and the decades between them in words."""
    if ends is None:
        return [row["steps"], row["final_loss"], None, None]
    return [ends.step, ends.loss, ends.predicted, Cell(apart(ends.final), ends.final)]


def _conclusions(results: Results | None) -> Iterator[Cell]:
    for each in CONCLUSIONS:
        value = None if results is None else results[each.name]
        state = "unknown" if results is None else each.state(results)
        yield Cell("-") if value is None else Cell(f"{SHORT[state]} ({number(value, 4)})", value)


def _slack(slack: Slack | None) -> Cell:
    return Cell("-") if slack is None else Cell(slack.briefly, slack.value)


def certificates_table(gathered: Gathered) -> Table:
    """A row for each inequality of each draw."""
    columns = [*gathered.keys, "certificate", "lhs", "rhs", "slack", "holds", "repaired by width", "source"]
    names = [each.replace(" ", "_") for each in columns]
    rows = gathered.certificates[names].to_dict("records")
    cells = [
        [cell_of_key(row[each]) if each in gathered.keys[1:] else row[each] for each in names]
        for row in rows[: MOST_ROWS + 1]
    ]
    caption = "Certificates: every inequality of a draw reads lhs >= rhs; slack = lhs/rhs; holds is a proof"
    return table("certificates", caption, columns, cells, files.CERTIFICATES)


def summary_table(drawn: Drawn, keys: Sequence[str]) -> Table:
    """First, least, greatest and last value of each curve of a figure."""
    panel = drawn.panel
    rows = [
        [cell_of_key(row[each]) if each in keys[1:] else row[each] for each in drawn.summary.columns]
        for row in drawn.summary.to_dict("records")
    ]
    return table(
        f"figure-{panel.name}",
        f"{panel.title}: {panel.vertical.words} of each curve",
        [str(each) for each in drawn.summary.columns],
        rows,
        "the CSV files",
    )


def provenance_table(gathered: Gathered) -> Table:
    """Versions, device, threads and commit; where runs differ, each value with the number of runs that have it."""
    seen: dict[str, dict[str, int]] = {}
    small = [each for each in gathered.sources if each.manifest.is_small]
    for each in gathered.stored or small:
        manifest = each.manifest
        device, threads = manifest.device_name or manifest.device or "-", manifest.threads or "-"
        own = {**manifest.versions, "device": device, "threads": threads}
        for name, value in (own | {"git commit": manifest.git or "-"}).items():
            counts = seen.setdefault(name, {})
            counts[str(value)] = counts.get(str(value), 0) + 1
    rows = [[name, _counted(values)] for name, values in seen.items()]
    return table("provenance", "What the numbers depend on beside the recipe", ["name", "value"], rows)


def _counted(values: Mapping[str, int]) -> str:
    if len(values) == 1:
        return next(iter(values))
    return ", ".join(f"{value} ({count} runs)" for value, count in values.items())
