"""Figures from tables: deterministic, complete, and distinguishable without colour."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from deqcli.runs.records import LOSS_COLUMNS, PREDICTION_COLUMNS, RUNS_COLUMNS, SPECTRAL_COLUMNS, csv_text
from deqcli.show import figures
from deqcli.show.style import THIN

FIGURES = ("figure-1", "rescaled", "loss", "loss_rescaled", "spectral_norm")


def write_tables(folder: Path, widths: int = 4, seeds: int = 3, status: str = "converged") -> None:
    """Tables of a made-up sweep whose log(loss) is -step/100 - seed/10 - log(width)."""
    keys = {"recipe": "made-up", "dataset": "sphere", "activation": "relu"}
    loss, spectral, prediction = [], [], []
    for width in range(100, 100 + 10 * widths, 10):
        for seed in range(seeds):
            for step in range(0, 101, 10):
                row = keys | {"run_id": f"w{width}-s{seed}", "width": width, "seed": seed, "step": step}
                loss.append(row | {"loss": float(np.exp(-step / 100 - seed / 10) / width), "status": status})
                spectral.append(row | {"spectral_norm": 0.79 + width / 1e5 + seed / 1e4 + step / 1e6})
                time = {"kernel": "H(0)", "learning_rate": 1e-3, "time": 1e-3 * width * step}
                prediction.append(row | time | {"loss": float(np.exp(-step / 90 - seed / 10) / width)})
    (folder / "prediction.csv").write_text(csv_text(PREDICTION_COLUMNS, prediction))
    (folder / "loss.csv").write_text(csv_text(LOSS_COLUMNS, loss))
    (folder / "spectral.csv").write_text(csv_text(SPECTRAL_COLUMNS, spectral))
    (folder / "runs.csv").write_text(csv_text(RUNS_COLUMNS, [row for row in spectral if row["step"] == 0]))


def test_a_prediction_that_diverges_does_not_flatten_what_was_measured(tmp_path: Path) -> None:
    write_tables(tmp_path, widths=1)
    rows = pd.read_csv(tmp_path / "prediction.csv")
    rows["loss"] = np.where(rows["step"] > 50, 1e300, rows["loss"])
    rows.to_csv(tmp_path / "prediction.csv", index=False)
    assert drawn(tmp_path).axes[0].get_ylim()[1] < 8


def test_a_combination_of_which_nothing_converged_has_an_empty_panel(tmp_path: Path) -> None:
    write_tables(tmp_path, widths=2)
    for name in ("loss", "spectral", "prediction", "runs"):
        rows = pd.read_csv(tmp_path / f"{name}.csv")
        rows.insert(6, "model.sigma_w_sq", np.where(rows["width"] == 100, 0.1, 0.2))
        gone = rows["width"] == 110 if name != "runs" else np.zeros(len(rows), bool)
        rows[~gone].to_csv(tmp_path / f"{name}.csv", index=False)
    axes = drawn(tmp_path).axes
    assert [each.get_title() for each in axes] == ["sigma_w_sq 0.1", "sigma_w_sq 0.2"] * 2
    assert [len(each.lines) > 0 for each in axes] == [True, False] * 2


def test_every_panel_and_the_whole_figure_are_written_as_png_and_svg(tmp_path: Path) -> None:
    write_tables(tmp_path)
    names = figures.draw_figures(tmp_path)
    assert sorted(names) == sorted(f"figures/{name}.{form}" for name in FIGURES for form in ("png", "svg"))
    for name in names:
        content = (tmp_path / name).read_bytes()
        if name.endswith("png"):
            assert content.startswith(b"\x89PNG")
        else:
            assert ElementTree.fromstring(content).tag.endswith("svg")  # noqa: S314 (our own file)


def test_the_same_tables_give_the_same_bytes(tmp_path: Path) -> None:
    pictures = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        write_tables(folder)
        pictures.append([(folder / name).read_bytes() for name in figures.draw_figures(folder)])
    assert pictures[0] == pictures[1]


def drawn(folder: Path) -> Figure:
    """The combined figure, unsaved."""
    return figures.draw(figures.Sweep.read(folder), "figure-1")


def test_a_line_is_the_mean_over_seeds_and_its_band_their_range(tmp_path: Path) -> None:
    write_tables(tmp_path, widths=1, seeds=3)
    axes = drawn(tmp_path).axes[0]
    _, measured = axes.lines  # behind it the prediction
    steps, values = measured.get_data()
    assert np.asarray(values) == pytest.approx(-np.asarray(steps) / 100 - 0.1 - np.log(100))
    band = axes.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(-1.0 - 0.2 - np.log(100))
    assert band[:, 1].max() == pytest.approx(-np.log(100))


def test_axes_are_named_and_the_legend_names_every_width_once(tmp_path: Path) -> None:
    write_tables(tmp_path)
    figure = drawn(tmp_path)
    assert [(axes.get_xlabel(), axes.get_ylabel()) for axes in figure.axes] == [
        ("step", "log(loss)"),
        ("step", r"$\|W\|_2$"),
    ]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["100", "110", "120", "130"]


@pytest.mark.parametrize("widths", [2, 5, 9])
def test_lines_differ_in_grey_and_in_dashes_or_markers(tmp_path: Path, widths: int) -> None:
    write_tables(tmp_path, widths=widths)
    lines = [line for line in drawn(tmp_path).axes[0].lines if line.get_linewidth() > THIN]
    grey = [float(np.dot(mpl.colors.to_rgb(line.get_color()), (0.299, 0.587, 0.114))) for line in lines]
    assert len(grey) == widths
    assert grey == sorted(grey)
    assert min(np.diff(grey)) > 0.3 / widths
    shapes = {
        (str(line.get_linestyle()), line._dash_pattern[1] and tuple(line._dash_pattern[1]), line.get_marker())
        for line in lines
    }
    assert len(shapes) == widths


def test_behind_each_measured_curve_is_a_thin_one_of_its_prediction(tmp_path: Path) -> None:
    write_tables(tmp_path, widths=3, seeds=2)
    lines = drawn(tmp_path).axes[0].lines
    thin, thick = ([line for line in lines if (line.get_linewidth() <= THIN) == is_thin] for is_thin in (True, False))
    assert [line.get_color().tolist() for line in thin] == [line.get_color().tolist() for line in thick]
    assert len(thin) == 3
    assert max(line.get_zorder() for line in thin) < min(line.get_zorder() for line in thick)
    steps, values = thin[2].get_data()
    assert np.asarray(values) == pytest.approx(-np.asarray(steps) / 90 - 0.05 - np.log(120))


def test_rescaled_time_is_eta_times_width_times_step(tmp_path: Path) -> None:
    write_tables(tmp_path, widths=2, seeds=2)
    plain, rescaled = figures.draw(figures.Sweep.read(tmp_path), "rescaled").axes
    assert (plain.get_xlabel(), rescaled.get_xlabel()) == ("step", r"$\eta \, m \cdot$ step")
    for width, before, after in zip((100, 110) * 2, plain.lines, rescaled.lines, strict=True):
        assert np.asarray(after.get_xdata()) == pytest.approx(1e-3 * width * np.asarray(before.get_xdata()))
        assert np.asarray(after.get_ydata()) == pytest.approx(np.asarray(before.get_ydata()))


def test_rows_that_did_not_converge_are_not_drawn(tmp_path: Path) -> None:
    write_tables(tmp_path, status="diverged")
    assert figures.draw_figures(tmp_path) == []
    assert not (tmp_path / "figures").exists()


def test_the_legend_says_what_the_band_is(tmp_path: Path) -> None:
    write_tables(tmp_path, seeds=3)
    assert "band from least to greatest of 3 seeds" in drawn(tmp_path).legends[0].get_title().get_text()
    write_tables(tmp_path, seeds=1)
    assert "band" not in drawn(tmp_path).legends[0].get_title().get_text()


def test_a_flat_norm_looks_flat(tmp_path: Path) -> None:
    write_tables(tmp_path, widths=1, seeds=1)
    low, high = drawn(tmp_path).axes[1].get_ylim()
    assert high - low == pytest.approx(0.004)
    assert low < 0.791 < high
