"""What a benchmark leaves: rows, printed as a table and written as tidy CSV."""

from __future__ import annotations

import csv
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

Row = dict[str, object]
FOLDER = Path("outputs/benchmarks")


def say(text: str) -> None:
    """A line of progress, apart from the tables."""
    print(text, file=sys.stderr, flush=True)


def publish(name: str, title: str, rows: Sequence[Row]) -> None:
    """Print the rows and write them to outputs/benchmarks/<name>.csv."""
    columns = list(rows[0])
    print(f"\n{title}")
    shown = [columns, *([_shown(row[column]) for column in columns] for row in rows)]
    widths = [max(len(line[k]) for line in shown) for k in range(len(columns))]
    for line in shown:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip(), flush=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _shown(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) and abs(value) < 1000 else str(value)


def median(values: Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)


def median_ratio(values: Sequence[float], others: Sequence[float]) -> float:
    """The median of the ratios, pair by pair, so that a machine that drifts does not matter."""
    return median([value / other for value, other in zip(values, others, strict=False)])
