"""Runs to be looked at together: their tables one after the other, with a column for each key that tells them apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from deqcli.errors import Refused
from deqcli.recipe.axes import OF_THEIR_OWN
from deqcli.runs import files
from deqcli.runs.records import RUN_KEYS
from deqcli.sweep.merge import MERGED, RUN_RESULTS
from deqcli.sweep.stored import RUN, SWEEP, Stored

if TYPE_CHECKING:
    import pandas as pd

CONVERGED = "converged"
TABLES = (*MERGED, files.RUNS)


@dataclass(frozen=True)
class Gathered:
    """The runs of one or more folders: `axes` are the keys, beyond width and seed, in which they differ.

    `loss` has converged rows alone; it and `prediction` have the column time = eta m step, `spectral` has it too and
    lambda_ratio = lambda_tau/lambda_0, which is missing where lambda_0 is 0.
    """

    sources: Sequence[Stored]
    axes: list[str]
    all_losses: pd.DataFrame
    spectral: pd.DataFrame
    certificates: pd.DataFrame
    prediction: pd.DataFrame
    runs: pd.DataFrame

    @cached_property
    def loss(self) -> pd.DataFrame:
        """The rows of loss.csv whose step is solved."""
        return self.all_losses[self.all_losses["status"] == CONVERGED]

    @property
    def keys(self) -> list[str]:
        """The columns that tell the runs apart, for a person."""
        return ["run_id", "width", "seed", *self.axes]

    @cached_property
    def stored(self) -> list[Stored]:
        """The folders of the runs, of those that are still there."""
        found = {run.manifest.id: run for source in self.sources for run in source.runs()}
        return [found[each] for each in self.runs["run_id"] if each in found]


def gather(sources: Sequence[Stored]) -> Gathered:
    """Read the tables of runs and sweeps; a run that is in several of them is taken once.

    Raises: Refused where a folder is neither, or is a sweep without tables yet; CorruptArtefact.
    """
    for source in sources:
        _refuse_others(source)
    axes = _axes(sources)
    tables = {name: _joined([_table(source, name) for source in sources], name) for name in TABLES}
    if len(sources) > 1 and axes:
        values = _values(sources)
        for table in tables.values():
            for key in axes:
                table[key] = table["run_id"].map({run: own.get(key) for run, own in values.items()})
    _add_times(tables)
    _add_ratios(tables[files.SPECTRAL], sources)
    names = (files.LOSS, files.SPECTRAL, files.CERTIFICATES, files.PREDICTION, files.RUNS)
    return Gathered(sources, axes, *(tables[name] for name in names))


def _refuse_others(source: Stored) -> None:
    if source.manifest.kind not in (RUN, SWEEP):
        raise Refused(f"{source.folder} is the folder of a {source.manifest.kind}; name those of runs and sweeps")
    missing = next((name for name in MERGED if not source.has(name)), None)
    if missing is not None:
        raise Refused(f"{source.folder} has no {missing} yet ({source.state}); its tables are written at its end")


def _axes(sources: Sequence[Stored]) -> list[str]:
    """Keys of `sweep.over`, and those in which the runs of several folders differ."""
    found = {key for source in sources for key in source.recipe.get("sweep", {}).get("over", {})}
    if len(sources) > 1:
        found |= set(differing([run.recipe for source in sources for run in source.runs()]))
    return sorted(found)


def differing(recipes: Sequence[Mapping[str, Any]]) -> list[str]:
    """The dotted keys in which resolved recipes of runs differ, beyond the name, width and seed."""
    flat = [dict(flattened(recipe)) for recipe in recipes]
    keys = dict.fromkeys(key for each in flat for key in each)
    varies = [key for key in keys if any(each.get(key) != flat[0].get(key) for each in flat)]
    return [key for key in varies if key not in ("name", *OF_THEIR_OWN) and not key.startswith("sweep.")]


def flattened(section: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested sections by dotted key."""
    for key, value in section.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _values(sources: Sequence[Stored]) -> dict[str, dict[str, Any]]:
    """The value of each run on each axis, a list as text."""
    runs = [run for source in sources for run in source.runs()]
    return {run.manifest.id: {key: _single(value) for key, value in flattened(run.recipe)} for run in runs}


def _single(value: object) -> object:
    return str(value) if isinstance(value, list) else value


def _table(source: Stored, name: str) -> pd.DataFrame:
    import pandas as pd

    if name != files.RUNS or source.manifest.kind == SWEEP:
        return source.table(name)
    keys = source.table(files.LOSS)[list(RUN_KEYS)].head(1)
    manifest = source.manifest
    own = {"status": source.state, "attempts": 1, "error": manifest.error}
    results = {key: manifest.results.get(key) for key in RUN_RESULTS}
    return keys.assign(**{key: pd.Series([value]) for key, value in (own | results).items()})


def _joined(tables: Sequence[pd.DataFrame], name: str) -> pd.DataFrame:
    """The tables one after the other, without the runs that an earlier one had already."""
    import pandas as pd

    fresh, seen = [], set[str]()
    for table in tables:
        fresh.append(table[~table["run_id"].isin(seen)])
        seen.update(table["run_id"])
    joined = fresh[0] if len(fresh) == 1 else pd.concat([each for each in fresh if len(each)], ignore_index=True)
    return joined.copy()


def _add_times(tables: Mapping[str, pd.DataFrame]) -> None:
    """eta m step for loss and spectral, as prediction.csv has it."""
    rates = tables[files.PREDICTION].drop_duplicates("run_id").set_index("run_id")["learning_rate"]
    for name in (files.LOSS, files.SPECTRAL):
        table = tables[name]
        table["time"] = table["run_id"].map(rates) * table["width"] * table["step"]


def _add_ratios(spectral: pd.DataFrame, sources: Sequence[Stored]) -> None:
    """lambda_tau/lambda_0, with the lambda_0 of a manifest, or of the run's first row where there is none."""
    first = spectral[spectral["step"] == 0].set_index("run_id")["lambda_min"].to_dict()
    exact = {run.manifest.id: run.manifest.results.get("lambda_0") for each in sources for run in each.runs()}
    carried = {run: own.get("lambda_0") for each in sources for run, own in each.manifest.of_runs.items()}
    starts = first | {run: value for run, value in (carried | exact).items() if value is not None}
    positive = {run: value for run, value in starts.items() if value > 0}
    spectral["lambda_ratio"] = spectral["lambda_min"] / spectral["run_id"].map(positive)
