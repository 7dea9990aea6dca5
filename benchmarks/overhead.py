"""What a sweep costs beside its runs: per cell, for its status, its merge, and for finding that all is done."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from benchmarks.tables import Row, median, publish, say
from deqcli.recipe.loading import load_recipe
from deqcli.recipe.schema import Recipe
from deqcli.runs.device import Execution
from deqcli.runs.folder import hashes, read_manifest, row_keys, run_folder, write_manifest
from deqcli.runs.records import leading_cells
from deqcli.runs.run import run as run_one
from deqcli.sweep.cells import CellEnd
from deqcli.sweep.merge import merge
from deqcli.sweep.sweep import SweepOptions, sweep

TEXT = """
name: overhead
data: {kind: sphere, num_samples: 6, input_dim: 4, seed: 1}
model: {width: 16}
solver: {kind: picard}
"""
FEW, MANY, REPEATS = 10, 60, 3
RUNS, STEPS = 1000, 1999


def run() -> None:
    """Seconds of each, the median of three, on a quiet machine."""
    executors = ["local", *(["ray"] if find_spec("ray") else [])]
    rows: list[Row] = [
        {"what": f"a cell, {each}, beside its own work", "seconds": _per_cell(each)} for each in executors
    ]
    with tempfile.TemporaryDirectory() as folder:
        say(f"{RUNS} runs of {STEPS + 1} rows")
        recipe, out = _complete(Path(folder))
        ends = [CellEnd(cell, "complete") for cell in recipe.cells()]
        merged = out / "merged"
        merged.mkdir()
        rows.append({"what": f"merging {RUNS} runs", "seconds": _timed(lambda: merge(recipe, out, merged, ends))})
        command = [sys.executable, "-m", "deqcli", "sweep-width", str(out / "recipe.yaml"), "--out", str(out)]
        rows.append({"what": f"--status of {RUNS} cells", "seconds": _timed(lambda: _call([*command, "--status"]))})
        _call(command)
        rows.append({"what": f"a sweep of {RUNS} cells, all done", "seconds": _timed(lambda: _call(command))})
    publish("overhead", "What a sweep costs beside its runs", rows)


def _timed(act: Callable[[], object]) -> float:
    found = []
    for _ in range(REPEATS):
        before = time.perf_counter()
        act()
        found.append(time.perf_counter() - before)
    return median(found)


def _call(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)


def _recipe(folder: Path, seeds: int, steps: int, executor: str = "local") -> Recipe:
    path = folder / "recipe.yaml"
    chosen = f"train: {{steps: {steps}}}\nsweep: {{seeds: [{', '.join(map(str, range(seeds)))}]}}\n"
    path.write_text(f"{TEXT}{chosen}execution: {{executor: {executor}, jobs: 1}}\n", encoding="utf-8")
    return load_recipe(str(path))


def _per_cell(executor: str) -> float:
    """What a further cell takes in a running sweep, less what the same run takes by itself."""
    say(f"cells by the executor {executor}")
    if executor == "ray":
        _start_ray()
    taken = {}
    for count in (FEW, FEW, MANY):  # the first one starts what has to be started
        with tempfile.TemporaryDirectory() as folder:
            recipe = _recipe(Path(folder), count, 20, executor)
            before = time.perf_counter()
            sweep(recipe, Path(folder), SweepOptions("cpu"))
            taken[count] = time.perf_counter() - before
    with tempfile.TemporaryDirectory() as folder:
        cells = _recipe(Path(folder), MANY, 20).cells()
        run_one(cells[0], Path(folder), Execution("cpu", 1))
        before = time.perf_counter()
        for cell in cells[FEW:]:
            run_one(cell, Path(folder), Execution("cpu", 1))
        alone = time.perf_counter() - before
    return (taken[MANY] - taken[FEW] - alone) / (MANY - FEW)


def _start_ray() -> None:
    """One cluster for all sweeps: how long it takes to start is not asked here."""
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # on loopback alone
    import ray

    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR", num_cpus=2)


def _complete(out: Path) -> tuple[Recipe, Path]:
    """A sweep of which every cell is complete: one is computed, the others are copies under their own names."""
    recipe = _recipe(out, RUNS, STEPS)
    first, *others = recipe.cells()
    folder = run_one(first, out, Execution("cpu", 1)).folder
    manifest = read_manifest(folder, "run", first.run_id)
    assert manifest is not None
    for cell in others:
        copied = run_folder(out, cell)
        shutil.copytree(folder, copied)
        old, new = leading_cells(row_keys(first)), leading_cells(row_keys(cell))
        for table in copied.glob("*.csv"):
            table.write_bytes(table.read_bytes().replace(b"\n" + old, b"\n" + new))
        update = {"id": cell.run_id, "files": hashes(copied, list(manifest.files))}
        write_manifest(copied, manifest.model_copy(update=update))
    return recipe, out
