"""Parquet: a file for each table, with declared types, readable by pandas, polars, DuckDB, Spark and R."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import deqcli
from deqcli.errors import Refused
from deqcli.exporters.exporter import Exported, Exporter, Item, State, Tell
from deqcli.exporters.series import recipe_text, timing
from deqcli.runs import files
from deqcli.runs.folder import locked
from deqcli.runs.records import RUN_KEYS, RUNS_COLUMNS, TIMING_COLUMNS, cell
from deqcli.sweep.gather import Gathered
from deqcli.sweep.merge import MERGED

if TYPE_CHECKING:
    import pandas as pd

INTEGERS = ("width", "seed", "step", "iterations", "adjoint_iterations", "attempts", "steps")
FLAGS = ("holds", "repaired_by_width")
TEXTS = ("run_id", "recipe", "dataset", "activation", "status", "error", "certificate", "source", "kernel")
"""A column that is none of these and no axis has numbers in float64."""

KINDS = {int: ("int64", "Int64"), bool: ("bool", "boolean"), float: ("float64", "float64")}
"""The type of a column, and the one where values are missing."""

OURS = "deqcli.version"
COLUMNS = {**MERGED, files.RUNS: RUNS_COLUMNS, files.TIMING: TIMING_COLUMNS}


def write_parquet(gathered: Gathered, place: str, tell: Tell) -> Exported:
    """Write loss.parquet and so on, each file in one move; of a former export nothing is left among them.

    Raises: Refused where a file of such a name is not deqcli's; FolderInUse, OSError.
    """
    folder, tables = Path(place), _tables(gathered)
    with locked(folder):
        former = _former(folder)
        for path in former - {folder / name for name in tables}:
            path.unlink()
        items = []
        for name, table in tables.items():
            files.replace_file(folder / name, partial(_write, table, _metadata(gathered)))
            state: State = "replaced" if folder / name in former else "written"
            items.append(Item(name, len(table), state))
            tell(items[-1])
    return Exported("parquet", "tables", place, items, f"pandas.read_parquet({str(folder / items[0].name)!r})")


def _tables(gathered: Gathered) -> dict[str, pd.DataFrame]:
    """The tables by the name of their file, with the columns of the CSV files; without timing where there is none."""
    found = {
        files.LOSS: gathered.all_losses,
        files.SPECTRAL: gathered.spectral,
        files.CERTIFICATES: gathered.certificates,
        files.PREDICTION: gathered.prediction,
        files.RUNS: gathered.runs,
        files.TIMING: timing(gathered),
    }
    return {
        f"{name.removesuffix('.csv')}.parquet": typed(table[_columns(name, gathered.axes)], gathered.axes)
        for name, table in found.items()
        if name != files.TIMING or len(table)
    }


def _columns(name: str, axes: Sequence[str]) -> list[str]:
    columns = COLUMNS[name]
    return list(columns) if name == files.TIMING else [*RUN_KEYS, *axes, *columns[len(RUN_KEYS) :]]


def typed(table: pd.DataFrame, axes: Sequence[str]) -> pd.DataFrame:
    """The table with int64, bool, float64 and texts as declared, whatever its values look like; missing is missing."""
    return table.assign(**{str(name): _axis(own) if name in axes else _column(own) for name, own in table.items()})


def _column(values: pd.Series[Any]) -> pd.Series[Any]:
    kind = int if values.name in INTEGERS else bool if values.name in FLAGS else str if values.name in TEXTS else float
    return _as(kind, values)


def _axis(values: pd.Series[Any]) -> pd.Series[Any]:
    """Values of one type as they are; of several, such as `auto` and a number, or lists: as the CSV file has them."""
    kinds = {type(value) for value in values.dropna().tolist()}
    return _as(kinds.pop() if len(kinds) == 1 else str, values)


def _as(kind: type, values: pd.Series[Any]) -> pd.Series[Any]:
    if kind not in KINDS:
        return values.map(cell, na_action="ignore").astype(object)
    dtype: Any = KINDS[kind][bool(values.isna().any())]
    found: pd.Series[Any] = values.astype(dtype)
    return found


def _metadata(gathered: Gathered) -> dict[str, str]:
    """What the schema of each file says of where its rows are from."""
    return {
        OURS: deqcli.__version__,
        "deqcli.id": " ".join(each.manifest.id for each in gathered.sources),
        "deqcli.recipe": "---\n".join(map(recipe_text, gathered.sources)),
    }


def _write(table: pd.DataFrame, metadata: Mapping[str, str], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = {name: pa.string() for name in table if table[name].dtype == object}
    inferred = pa.Schema.from_pandas(table.astype(dict.fromkeys(texts, "str")), preserve_index=False)
    fields = [pa.field(each.name, texts.get(each.name, each.type)) for each in inferred]
    schema = pa.schema(fields, {**(inferred.metadata or {}), **metadata})
    pq.write_table(pa.Table.from_pandas(table, schema, preserve_index=False), path)


def _former(folder: Path) -> set[Path]:
    """The files of an earlier export. Raises: Refused where one of their names belongs to somebody else."""
    found = {folder / f"{name.removesuffix('.csv')}.parquet" for name in COLUMNS}
    there = {path for path in found if path.exists()}
    foreign = sorted(path for path in there if not _is_ours(path))
    if foreign:
        raise Refused(
            f"{foreign[0]} is not of an export of deqcli and is left as it is; name another folder with --out"
        )
    return there


def _is_ours(path: Path) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return OURS.encode() in (pq.read_schema(path).metadata or {})
    except (pa.ArrowInvalid, OSError):
        return False


PARQUET = Exporter(write_parquet, ("pyarrow",))
