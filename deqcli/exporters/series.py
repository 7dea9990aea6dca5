"""Gathered runs one by one, as tools see them that know runs, settings and series of numbers over the steps."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from deqcli.runs import files
from deqcli.runs.records import LOSS_COLUMNS, PREDICTION_COLUMNS, RUN_KEYS, SPECTRAL_COLUMNS, TIMING_COLUMNS
from deqcli.sweep.gather import Gathered, flattened
from deqcli.sweep.stored import Stored

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

OVER_STEPS = {
    files.LOSS: LOSS_COLUMNS,
    files.SPECTRAL: SPECTRAL_COLUMNS,
    files.PREDICTION: PREDICTION_COLUMNS,
    files.TIMING: TIMING_COLUMNS,
}
"""The tables that have a row for a step."""

NO_SERIES = (*RUN_KEYS, "step", "time", "status", "kernel", "learning_rate")
Setting = bool | int | float | str


@dataclass(frozen=True)
class Series:
    """The numbers of a column of a run where there are any, float64, and their steps."""

    tag: str
    steps: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class ExportedRun:
    """A run: what names it, how it ended, and its rows by table; `stored` is None where its folder is gone."""

    keys: dict[str, Any]
    status: str
    error: str | None
    stored: Stored | None
    tables: Mapping[str, pd.DataFrame]

    @property
    def name(self) -> str:
        """The run_id."""
        return str(self.keys["run_id"])

    @property
    def settings(self) -> dict[str, Setting]:
        """Its resolved recipe by dotted key; where that is gone, what names the run."""
        return settings(self.stored) if self.stored is not None else _plain(self.keys)

    @cached_property
    def series(self) -> list[Series]:
        """`loss/residual` and so on, each column of each table; `results/...`, each number of the run as a whole."""
        columns = [
            _series(f"{name.removesuffix('.csv')}/{column}", table, column)
            for name, table in self.tables.items()
            for column in OVER_STEPS[name]
            if column not in NO_SERIES
        ]
        return [each for each in (*columns, *self._results()) if len(each.steps)]

    def _results(self) -> Iterator[Series]:
        """The results in the manifest, at the last step; none of a run whose rows are not to be trusted."""
        import numpy as np

        found = self.stored.manifest.results if self.stored is not None and self.tables else {}
        for name, value in found.items():
            if value is not None:
                yield Series(f"results/{name}", np.array([found.get("steps") or 0]), np.array([float(value)]))


def _series(tag: str, table: pd.DataFrame, column: str) -> Series:
    there = table[table[column].notna()]
    return Series(tag, there["step"].to_numpy(dtype="int64"), there[column].to_numpy(dtype="float64"))


def settings(stored: Stored) -> dict[str, Setting]:
    """A resolved recipe by dotted key: numbers, yes and no, and the rest in words."""
    return _plain(dict(flattened(stored.recipe)))


def _plain(values: Mapping[str, Any]) -> dict[str, Setting]:
    plain = {key: value.item() if hasattr(value, "item") else value for key, value in values.items()}
    return {key: value if isinstance(value, Setting) else json.dumps(value) for key, value in plain.items()}


def exported_runs(gathered: Gathered) -> Iterator[ExportedRun]:
    """Every run, in the order of runs.csv, with the rows that the tables have of it."""
    stored = {each.manifest.id: each for each in gathered.stored}
    rows = {name: dict(list(table.groupby("run_id"))) for name, table in _tables(gathered).items()}
    for row in gathered.runs.to_dict("records"):
        run = str(row["run_id"])
        tables = {name: own[run] for name, own in rows.items() if run in own}
        error = row["error"] if isinstance(row["error"], str) else None
        keys = {key: row[key] for key in (*RUN_KEYS, *gathered.axes)}
        yield ExportedRun(keys, str(row["status"]), error, stored.get(run), tables)


def _tables(gathered: Gathered) -> dict[str, pd.DataFrame]:
    return {
        files.LOSS: gathered.all_losses,
        files.SPECTRAL: gathered.spectral,
        files.PREDICTION: gathered.prediction,
        files.TIMING: timing(gathered),
    }


def timing(gathered: Gathered) -> pd.DataFrame:
    """timing.csv of those runs whose rows are in the other tables and whose folder is there, one after the other."""
    import pandas as pd

    trusted = set(gathered.all_losses["run_id"])
    there = [run for run in gathered.stored if run.manifest.id in trusted and run.has(files.TIMING)]
    tables = [run.table(files.TIMING) for run in there]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(TIMING_COLUMNS))


def recipe_text(stored: Stored) -> str:
    """The resolved recipe as it was written."""
    return (stored.folder / files.RECIPE).read_text(encoding="utf-8")
