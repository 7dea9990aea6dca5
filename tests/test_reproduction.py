"""What was committed of the reproduction: tables and figures are made again from the CSV files, runs computed again."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import deqcli
from deqcli.errors import CorruptArtefact
from deqcli.recipe.loading import load_recipe
from deqcli.runs.folder import any_manifest
from deqcli.show.figures import write_figures
from deqcli.show.paper import FigureOptions
from deqcli.show.theory_figures import draw_prediction
from deqcli.sweep.gather import gather
from deqcli.sweep.stored import open_stored

HERE = Path(__file__).parent.parent / "docs" / "reproduction"
SWEEPS = ("figure-1a", "figure-1a-small", "figure-1-digits")
PREDICTIONS = sorted(path.parent.name for path in HERE.glob("predicted/*/manifest.json"))
RUNS = {"figure-1a": 5, "figure-1a-small": 100, "figure-1-digits": 5}
DIGITS = ("data={kind: digits, num_samples: 360}", "train.learning_rate=1.1e-7")


def tables() -> ModuleType:
    """docs/reproduction/tables.py."""
    spec = importlib.util.spec_from_file_location("reproduction_tables", HERE / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def same_picture(one: Path, other: Path) -> bool:
    """Whether two pictures have the same size and, to a mean of a twentieth of a level in 255, the same colours."""
    a, b = (np.asarray(Image.open(path).convert("RGB"), dtype=float) for path in (one, other))
    return a.shape == b.shape and float(np.abs(a - b).mean()) < 0.05


def test_the_tables_of_the_page_are_those_of_the_files() -> None:
    made = tables()
    text = made.PAGE.read_text(encoding="utf-8")
    marked = re.findall(r"<!-- table: (\w+) -->\n\|", text)
    assert sorted(marked) == sorted(made.TABLES)
    assert made.page() == text


def test_the_spread_over_seeds_is_that_of_the_files() -> None:
    made = tables()
    for name in made.SPREADS:
        kept = pd.read_csv(HERE / f"{name}-spread.csv")
        pd.testing.assert_frame_equal(kept, made.spread(name), rtol=1e-12)
        assert (kept["count"] == RUNS[name] / 5).all()
        assert kept["number"].nunique() >= 18


@pytest.mark.parametrize("name", SWEEPS)
def test_a_committed_sweep_is_whole_and_of_the_recipe_that_comes_along(name: str) -> None:
    found = deqcli.load(HERE / name)
    assert isinstance(found, deqcli.loaded.Sweep)
    assert found.status == "complete"
    assert len(found.runs) == RUNS[name] == (found.runs["status"] == "complete").sum()
    seeds = sorted({int(seed) for seed in found.runs["seed"]})
    recipe = load_recipe(name, [f"sweep.seeds={seeds}"])
    assert {cell.run_id for cell in recipe.cells()} == set(found.runs["run_id"])
    for table in ("loss", "spectral", "prediction", "certificates"):
        assert set(found.table(table)["run_id"]) == set(found.runs["run_id"])  # each verified by its SHA-256
    assert (found.loss["status"] == "converged").all()


@pytest.mark.parametrize("name", SWEEPS)
def test_the_figures_of_a_sweep_are_drawn_again_from_its_tables(name: str, tmp_path: Path) -> None:
    names = ["figure-1", "rescaled"]
    write_figures(gather([open_stored(HERE / name)]), tmp_path, FigureOptions(("png",)), names)
    for each in names:
        kept, again = HERE / name / "figures" / f"{each}.png", tmp_path / "figures" / f"{each}.png"
        assert same_picture(kept, again), each
        assert kept.with_suffix(".csv").read_bytes() == again.with_suffix(".csv").read_bytes(), each


@pytest.mark.parametrize("name", PREDICTIONS)
def test_the_figure_of_a_prediction_is_drawn_again_from_its_tables(name: str, tmp_path: Path) -> None:
    kept = HERE / "predicted" / name
    for table in ("summary", "prediction", "directions", "times"):
        assert len(deqcli.load(kept).table(table)) >= 5
    shutil.copytree(kept, tmp_path / name, ignore=shutil.ignore_patterns("figures"))
    draw_prediction(tmp_path / name, None)
    assert same_picture(kept / "figures" / "prediction.png", tmp_path / name / "figures" / "prediction.png")


def test_a_curve_that_is_off_by_2_percent_is_another_picture(tmp_path: Path) -> None:
    kept = HERE / "predicted" / "figure-1b-digits"
    shutil.copytree(kept, tmp_path / "off")
    table = pd.read_csv(tmp_path / "off" / "prediction.csv")
    table["loss"] *= np.where(table["step"] > 500, 1.02, 1)
    table.to_csv(tmp_path / "off" / "prediction.csv", index=False)
    draw_prediction(tmp_path / "off", None)
    assert not same_picture(kept / "figures" / "prediction.png", tmp_path / "off" / "figures" / "prediction.png")


@pytest.mark.parametrize(
    ("name", "table", "advice"),
    [
        ("predicted/figure-1a-draw", "directions", "the same command computes it anew once the folder is removed"),
        ("figure-1a", "loss", "take it again from where it was kept"),
    ],
)
def test_a_digit_that_was_altered_is_noticed(name: str, table: str, advice: str, tmp_path: Path) -> None:
    folder = shutil.copytree(HERE / name, tmp_path / "copy")
    text = (folder / f"{table}.csv").read_text(encoding="utf-8")
    (folder / f"{table}.csv").write_text(text.replace("7", "8", 1), encoding="utf-8")
    with pytest.raises(CorruptArtefact, match=rf"{table}\.csv is not what was written .*; {advice}"):
        deqcli.load(folder).table(table)


def test_a_prediction_comes_out_again(tmp_path: Path) -> None:
    again = deqcli.load(deqcli.predict("figure-1b", *DIGITS, widths=[21000], out=tmp_path).folder).table("summary")
    kept = deqcli.load(HERE / "predicted" / "figure-1b-digits").table("summary")
    pd.testing.assert_frame_equal(again, kept[kept["width"] == 21000], rtol=1e-6)


def test_the_first_steps_of_a_committed_run_come_out_again(tmp_path: Path) -> None:
    run = deqcli.train("figure-1a-small", "train.steps=200", width=600, seed=3, threads=1, out=tmp_path)
    compare(run, steps=5, tolerance=1e-4)


@pytest.mark.slow
def test_a_whole_committed_run_comes_out_again(tmp_path: Path) -> None:
    run = deqcli.train("figure-1a-small", width=600, seed=3, threads=1, out=tmp_path)
    compare(run, steps=41, tolerance=1e-2)
    results = any_manifest(HERE / "figure-1a-small").results
    for name in ("lambda_0", "max_spectral_norm", "min_lambda_ratio", "rate_measured"):
        assert run.results[name] == pytest.approx(results[f"{run.manifest.id}.{name}"], rel=1e-2), name


def compare(run: deqcli.loaded.Run, steps: int, tolerance: float) -> None:
    """The rows of a run beside those committed of width 600 and seed 3, at the steps that both have."""
    found = deqcli.load(HERE / "figure-1a-small")
    for name, columns, relative in (
        ("loss", ["loss"], tolerance),
        ("spectral", ["spectral_norm", "lambda_min"], tolerance / 10),
    ):
        both = [each[(each["width"] == 600) & (each["seed"] == 3)] for each in (run.table(name), found.table(name))]
        joined = pd.merge(*both, on="step", suffixes=("", "_kept"))
        assert len(joined) >= (steps if name == "loss" else steps // 2)
        for column in columns:
            np.testing.assert_allclose(joined[column], joined[f"{column}_kept"], rtol=relative, err_msg=column)
