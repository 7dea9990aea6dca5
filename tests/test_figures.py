"""Figures from tables: their numbers, their sizes, their bytes, and that they are told apart without colour."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from deqcli.errors import Refused
from deqcli.runs.device import Execution
from deqcli.runs.run import run
from deqcli.show import figures, paper, theory_figures
from deqcli.show.figures import plot, write_figures
from deqcli.show.panels import MEASURED, PANELS, PREDICTED
from deqcli.show.paper import FORMATS, SIZES, FigureOptions, parse_formats, parse_size
from deqcli.show.sheet import Cell
from deqcli.show.style import DASHES, MARKERS, STROKES, STYLE_FILE, fitted, inches, look, strokes, styled, titled
from deqcli.sweep.gather import Gathered, gather
from deqcli.sweep.stored import open_stored
from tests.made_up import write_sweep
from tests.runs import small

KEYS = {"recipe": "made-up", "dataset": "sphere", "activation": "relu"}
PNG = FigureOptions(("png",))
SIDES = ["low", "high"]
THIN = 1.0
"""Line widths below are those of what is not measured."""

GREY = (0.2126, 0.7152, 0.0722)
COLOUR_BLIND = {
    "protan": ((0.152, 1.053, -0.205), (0.115, 0.786, 0.099), (-0.004, -0.048, 1.052)),
    "deutan": ((0.367, 0.861, -0.228), (0.280, 0.673, 0.047), (-0.012, 0.043, 0.969)),
    "tritan": ((1.256, -0.077, -0.179), (-0.078, 0.931, 0.148), (0.005, 0.691, 0.304)),
}
"""Linear RGB as seen without cones of one kind. Source: Machado, Oliveira and Fernandes 2009, severity 1."""


def made(
    widths: int = 2, seeds: int = 2, axes: Mapping[str, Sequence[object]] | None = None, steps: int = 100
) -> Gathered:  # fmt: skip
    """Runs with log(loss) = -step/100 - seed/10 - log(width), which their kernel predicts to fall by step/90."""
    runs, rows = [], []
    for values in product(*(axes or {}).values()):
        for width, seed in product(range(100, 100 + 10 * widths, 10), range(seeds)):
            name = f"w{width}-s{seed}-{values}"
            runs.append(
                {"run_id": name, **KEYS, "width": width, "seed": seed, **dict(zip(axes or {}, values, strict=True))}
            )
            rows += [runs[-1] | _of_step(width, seed, step) for step in range(0, steps + 1, 10)]
    table = pd.DataFrame(rows)
    predicted = table.assign(loss=np.exp(-table["step"] / 90 - table["seed"] / 10) / table["width"])
    return Gathered(
        [], list(axes or {}), table, table, table[:0], predicted, pd.DataFrame(runs).assign(status="complete")
    )


def _of_step(width: int, seed: int, step: int) -> dict[str, object]:
    return {
        "step": step, "time": 1e-3 * width * step, "loss": float(np.exp(-step / 100 - seed / 10) / width),
        "status": "converged", "residual": 1e-7 * (1 + seed), "adjoint_residual": 3e-7, "iterations": 5 + seed,
        "adjoint_iterations": 9, "spectral_norm": 0.79 + width / 1e5 + seed / 1e4 + step / 1e6,
        "spectral_norm_upper": 0.8 + step / 1e3, "lambda_ratio": 1 - step / 1000, "loss_bound": 1.0 / width,
    }  # fmt: skip


def thick(figure: Figure, panel: int = 0) -> list[Line2D]:
    """The lines of what was measured."""
    return [line for line in figure.axes[panel].lines if line.get_linewidth() >= THIN]


def thin(figure: Figure, panel: int = 0) -> list[Line2D]:
    """The others."""
    return [line for line in figure.axes[panel].lines if line.get_linewidth() < THIN]


def words(figure: Figure) -> list[str]:
    """All that stands above the panels."""
    keys = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    return [line for text in figure.texts for line in text.get_text().splitlines()] + keys


def test_a_line_is_the_mean_over_seeds_and_its_band_their_range() -> None:
    axes = plot(made(widths=1, seeds=3)).axes[0]
    measured, _ = axes.lines
    steps, values = measured.get_data()
    assert np.asarray(values) == pytest.approx(-np.asarray(steps) / 100 - 0.1 - np.log(100))
    band = axes.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(-1.0 - 0.2 - np.log(100))
    assert band[:, 1].max() == pytest.approx(-np.log(100))


def test_what_is_on_a_logarithmic_scale_is_averaged_there() -> None:
    (axes,) = plot(made(widths=1, seeds=2), "residual").axes
    assert axes.get_yscale() == "log"
    assert np.asarray(axes.lines[0].get_ydata()) == pytest.approx(np.sqrt(2) * 1e-7)
    assert axes.get_ylim() == (1e-8, 1e-6)


def test_axes_are_named_and_the_legend_names_every_width_and_curve_once() -> None:
    figure = plot(made(widths=4))
    assert [(axes.get_xlabel(), axes.get_ylabel()) for axes in figure.axes] == [
        ("", "log(loss)"),  # the panel below says it
        ("step", r"$\|W\|_2$"),
    ]
    band = "width $m$; band from least to greatest of 2 seeds"
    keys = ["100", "110", "120", "130", MEASURED, "predicted from $H(0)$"]
    assert words(figure) == ["made-up, sphere, relu", band, *keys]
    assert "width $m$" in words(plot(made(seeds=1)))


def test_behind_each_measured_curve_is_a_thin_one_of_its_prediction() -> None:
    figure = plot(made(widths=3))
    colours = [[line.get_color() for line in lines] for lines in (thick(figure), thin(figure))]
    assert colours[0] == colours[1]
    assert len(colours[0]) == 3
    assert max(line.get_zorder() for line in thin(figure)) < min(line.get_zorder() for line in thick(figure))
    steps, values = thin(figure)[2].get_data()
    assert np.asarray(values) == pytest.approx(-np.asarray(steps) / 90 - 0.05 - np.log(120))


def test_rescaled_time_is_eta_times_width_times_step() -> None:
    plain, rescaled = plot(made(), "rescaled").axes
    assert (plain.get_xlabel(), rescaled.get_xlabel()) == ("step", r"$\eta \, m \cdot$ step")
    assert plain.get_ylim() == rescaled.get_ylim()
    for width, before, after in zip((100, 110) * 2, plain.lines, rescaled.lines, strict=True):
        assert np.asarray(after.get_xdata()) == pytest.approx(1e-3 * width * np.asarray(before.get_xdata()))
        assert np.asarray(after.get_ydata()) == pytest.approx(np.asarray(before.get_ydata()))


def test_every_panel_is_a_figure_of_its_own() -> None:
    assert paper.figure_names() == (*paper.COMBINED, *PANELS)
    drawn = [plot(made(), name) for name in PANELS if name != "spectra"]
    assert len(drawn) >= 6
    for figure in drawn:
        assert len(figure.axes) == 1
        assert len(thick(figure)) == 2


def test_a_flat_norm_looks_flat_and_a_reference_is_drawn_only_where_it_is_in_sight() -> None:
    flat = made(widths=1, seeds=1)
    low, high = plot(flat).axes[1].get_ylim()
    assert high - low == pytest.approx(0.004)
    assert low < 0.791 < high
    assert PANELS["spectral_norm"].meaning not in words(plot(flat))
    grown = replace(flat, spectral=flat.spectral.assign(spectral_norm=0.95 + flat.spectral["step"] / 1000))
    assert PANELS["spectral_norm"].meaning in words(plot(grown))


def test_a_width_looks_the_same_in_every_figure() -> None:
    runs = made(widths=3)
    known = runs.spectral["lambda_ratio"].where(runs.spectral["width"] == 120)
    part = plot(replace(runs, spectral=runs.spectral.assign(lambda_ratio=known)), "lambda_ratio")
    (only,), last = thick(part), thick(plot(runs))[2]
    assert only.get_color() == last.get_color()
    assert only.get_marker() == last.get_marker()
    assert [word for word in words(part) if word.isdigit()] == ["120"]


@pytest.mark.parametrize("count", range(2, 9))
def test_shades_of_widths_differ_in_grey_and_to_the_colour_blind(count: int) -> None:
    shades = np.array([to_rgb(look(index, count)["color"]) for index in range(count)])
    linear = np.where(shades <= 0.04045, shades / 12.92, ((shades + 0.055) / 1.055) ** 2.4)  # IEC 61966-2-1
    for seen in (linear, *(np.clip(linear @ np.array(matrix).T, 0, 1) for matrix in COLOUR_BLIND.values())):
        lightness = 116 * np.cbrt(seen @ np.array(GREY)) - 16  # CIE L*
        assert lightness.max() < 85  # on white, 100
        assert np.diff(lightness).min() > 50 / count


def test_more_widths_than_dashes_are_told_apart_by_markers() -> None:
    looks = [look(index, 35) for index in range(35)]
    assert len({(str(each["linestyle"]), each["marker"]) for each in looks}) == 35 == len(DASHES) * len(MARKERS)
    figure = plot(made(widths=9, seeds=1))
    assert len({(str(line._unscaled_dash_pattern), line.get_marker()) for line in thick(figure)}) == 9


def test_curves_of_one_width_are_told_apart_by_their_strokes() -> None:
    for panel in PANELS.values():
        found = strokes(panel.styles)
        assert list(found) == list(panel.styles)
        assert len({str(each) for each in found.values()}) == len(panel.styles)
    assert len({str(each) for kind in STROKES.values() for each in kind}) == 5


def drawn_numbers(figure: Figure) -> Iterator[tuple[float, ...]]:
    """(x, y) of every point of every line, and (x, low, high) of every band."""
    for axes in figure.axes:
        for line in axes.lines:
            yield from zip(*map(np.asarray, line.get_data()), strict=True)
        for band in axes.collections:
            corners = pd.DataFrame(band.get_paths()[0].vertices, columns=["x", "y"]).groupby("x")["y"]
            yield from zip(corners.min().index, corners.min(), corners.max(), strict=True)


@pytest.mark.parametrize("name", ["figure-1", "iterations"])
def test_the_csv_has_exactly_the_numbers_that_are_drawn(tmp_path: Path, name: str) -> None:
    runs = made(widths=2, seeds=3)
    write_figures(runs, tmp_path, PNG, [name])
    rows = pd.read_csv(tmp_path / f"figures/{name}.csv", dtype=str)
    assert list(rows.columns) == [
        "panel", "quantity", "width", "curve", "step", "time", "value", "low", "high", "seeds",
    ]  # fmt: skip
    assert all(repr(float(cell)) == cell for column in ("time", "value", "low", "high") for cell in rows[column])
    lines, bands = ({tuple(map(float, row)) for row in rows[["step", *own]].to_numpy()} for own in (["value"], SIDES))
    drawn = set(drawn_numbers(plot(runs, name)))
    assert {point for point in drawn if len(point) == 2} == lines
    assert {point for point in drawn if len(point) == 3} <= bands
    assert len(lines) > 20
    assert len(drawn) > len(lines)
    assert set(rows["seeds"]) == {"3"}


def test_the_csv_tells_panels_quantities_and_axes_apart(tmp_path: Path) -> None:
    runs = made(1, 1, axes={"data.path": ["a,b", None], "train.tf32": [True]})
    write_figures(runs, tmp_path, PNG, ["figure-1"])
    rows = pd.read_csv(tmp_path / "figures/figure-1.csv", dtype=str)
    assert set(zip(rows["panel"], rows["quantity"], strict=True)) == {
        ("loss", "log(loss)"), ("spectral_norm", "||W||_2"),
    }  # fmt: skip
    combinations = rows[["data.path", "train.tf32"]].drop_duplicates().fillna("").to_numpy().tolist()
    assert combinations == [["a,b", "true"], ["", "true"]]


def test_the_first_axis_goes_across_and_the_others_down() -> None:
    runs = made(axes={"model.sigma_w_sq": [0.01, 0.08], "data.path": ["a", None]})
    assert [[facet.name for facet in row] for row in figures.facets(runs)] == [
        ["sigma_w_sq 0.01, path a", "sigma_w_sq 0.08, path a"],
        ["sigma_w_sq 0.01", "sigma_w_sq 0.08"],
    ]
    figure = plot(runs)
    titles = [axes.get_title() for axes in figure.axes]
    assert [bool(title) for title in titles] == [True, True, False, False] * 2  # once for each combination
    assert [len(axes.lines) for axes in figure.axes] == [4, 4, 2, 2] * 2
    for alike in (figure.axes[0:2] + figure.axes[4:6], figure.axes[2:4] + figure.axes[6:8]):
        assert len({axes.get_ylim() for axes in alike}) == 1
    assert [bool(axes.get_ylabel()) for axes in figure.axes] == [True, False] * 4


def test_combinations_that_are_no_full_product_are_side_by_side() -> None:
    runs = made(axes={"model.sigma_w_sq": [0.01, 0.08], "data.path": ["a", "b"]})
    some = runs.runs[(runs.runs["model.sigma_w_sq"] == 0.01) | (runs.runs["data.path"] == "a")]
    ((*row,),) = figures.facets(replace(runs, runs=some))
    assert [facet.name for facet in row] == [
        "sigma_w_sq 0.01, path a", "sigma_w_sq 0.01, path b", "sigma_w_sq 0.08, path a",
    ]  # fmt: skip


def test_values_that_are_lists_or_of_several_kinds_have_their_facets() -> None:
    runs = made(widths=1, seeds=1, axes={"data.classes": [[0, 1], [3, 5]], "solver.memory": [None, 5]})
    parts = [facet for row in figures.facets(runs) for facet in row]
    assert [facet.name for facet in parts] == [
        "classes [0, 1]", "classes [3, 5]", "classes [0, 1], memory 5", "classes [3, 5], memory 5",
    ]  # fmt: skip
    assert {len(facet.of(runs.loss)) for facet in parts} == {11}
    assert len(parts[0].of(runs.loss[:0])) == 0
    (unset,), (_,) = figures.facets(made(axes={"data.path": ["a"], "solver.memory": [None, 5]}))
    assert unset.name == "path a"


def test_a_narrow_figure_has_fewer_panels_side_by_side() -> None:
    runs = made(widths=1, seeds=1, axes={"data.num_samples": range(6)})
    for size, across in ((None, 3), (1.6, 1), (6.75, 3)):
        columns = plot(runs, "loss", None if size is None else (size, None)).axes[0].get_gridspec().ncols
        assert columns == across


def test_a_combination_of_which_nothing_converged_has_an_empty_panel() -> None:
    runs = made(axes={"data.seed": [1, 2]})
    first = runs.all_losses["data.seed"] == 1
    figure = plot(replace(runs, all_losses=runs.all_losses[first], prediction=runs.prediction[first]), "loss")
    assert [len(axes.lines) > 1 for axes in figure.axes] == [True, False]
    figure = plot(replace(runs, all_losses=runs.all_losses[first], prediction=runs.prediction[first]))
    assert [len(axes.lines) > 0 for axes in figure.axes] == [True, False, True, True]


def test_where_nothing_converged_there_is_no_figure(tmp_path: Path) -> None:
    runs = made()
    for losses in (runs.all_losses.assign(status="diverged"), runs.all_losses[:0]):
        none = replace(runs, all_losses=losses, spectral=runs.spectral[:0])
        assert write_figures(none, tmp_path, FigureOptions()) == []
    assert not (tmp_path / "figures").exists()
    with pytest.raises(Refused, match="there is nothing to draw in loss"):
        plot(none, "loss")


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Sequence[str]]:
    """The folder of a sweep, and what its end drew."""
    folder = write_sweep(tmp_path_factory.mktemp("sweep"), run_folders=False)
    return folder, figures.draw_figures(folder)


def test_the_end_of_a_sweep_leaves_its_figures_and_their_data(swept: tuple[Path, Sequence[str]]) -> None:
    names = swept[1]
    forms = (*figures.FORMATS_AT_THE_END, "csv")
    assert names == [f"figures/{name}.{form}" for name in figures.AT_THE_END for form in forms]


def test_every_format_is_what_its_name_says(swept: tuple[Path, Sequence[str]]) -> None:
    folder, _ = swept
    names = write_figures(gather([open_stored(folder)]), folder, FigureOptions(), ["figure-1"])
    assert names == [f"figures/figure-1.{form}" for form in (*FORMATS, "csv")]
    starts = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF", "csv": b"panel,quantity,"}
    for name in names:
        assert (folder / name).read_bytes().startswith(starts[name[-3:]])


def test_fonts_are_embedded_and_no_file_has_a_date(swept: tuple[Path, Sequence[str]]) -> None:
    folder, _ = swept
    pdf = (folder / "figures/figure-1.pdf").read_bytes()
    fonts = pdf.count(b"/Type /FontDescriptor")
    assert fonts == pdf.count(b"/FontFile2") > 0
    assert b"/Type3" not in pdf
    assert b"CreationDate" not in pdf
    svg = ElementTree.parse(folder / "figures/figure-1.svg")  # noqa: S314 (our own file)
    tags = [element.tag.rpartition("}")[2] for element in svg.iter()]
    assert tags.count("path") > 50
    assert "text" not in tags
    assert "date" not in tags
    assert b"tEXt" not in (folder / "figures/figure-1.png").read_bytes()


def test_the_same_tables_give_the_same_bytes_whatever_matplotlibrc_says(
    swept: tuple[Path, Sequence[str]], tmp_path: Path
) -> None:
    folder, names = swept
    with mpl.rc_context({"lines.linewidth": 9.0, "font.family": "serif", "svg.fonttype": "none"}):
        write_figures(gather([open_stored(folder)]), tmp_path, FigureOptions(), ["figure-1"])
    compared = [name for name in names if "figure-1" in name]
    assert len(compared) == 3
    for name in compared:
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name


def test_a_run_has_every_figure(tmp_path: Path) -> None:
    folder = run(small(tmp_path, "train.steps=6"), tmp_path, Execution("cpu", 1)).folder
    gathered = gather([open_stored(folder)])
    for name in paper.figure_names():
        assert len(thick(plot(gathered, name))) == 1
    write_figures(gathered, tmp_path, FigureOptions(("svg",), (3.25, None)), ["spectra"])
    spectra = pd.read_csv(tmp_path / "figures/spectra.csv")
    assert set(spectra["curve"]) == set(PANELS["spectra"].styles)


def size_of(path: Path) -> tuple[float, float]:
    """Inches of a picture at 300 dots an inch."""
    with Image.open(path) as picture:
        return picture.width / 300, picture.height / 300


@pytest.mark.parametrize("facets", [1, 2])
def test_the_size_is_that_of_the_whole_figure(tmp_path: Path, facets: int) -> None:
    runs = made(widths=1, axes={"data.seed": range(facets)})
    for text in ("ieee", "5.5x4.25"):
        size = parse_size(text)
        write_figures(runs, tmp_path, FigureOptions(("png",), size), ["loss"])
        width, height = size_of(tmp_path / "figures/loss.png")
        assert width == pytest.approx(size[0], abs=0.004)
        assert size[1] is None or height == pytest.approx(size[1], abs=0.004)


def test_sizes_are_names_of_venues_or_inches() -> None:
    assert {parse_size(name) for name in SIZES} == {(width, None) for width in SIZES.values()}
    assert parse_size(" ICML ") == (3.25, None)
    assert [parse_size(text) for text in ("3", "3.25x2.5", ".5e1"[:-2] + "x2" if False else "2.x2", "4X3in")] == [
        (3.0, None), (3.25, 2.5), (2.0, 2.0), (4.0, 3.0),
    ]  # fmt: skip
    for text in ("", "3x", "x3", "1e1", "-3", "nan", "3,5"):
        with pytest.raises(Refused, match=r"is not known; known are aistats, .*, and W or WxH in inches"):
            parse_size(text)
    with pytest.raises(Refused, match=r"size `icmll` is not known; did you mean `icml`\?"):
        parse_size("icmll")
    for text in ("0.5", "3x99"):
        with pytest.raises(Refused, match=r"inches are not between 1\.5 and 30"):
            parse_size(text)


def test_formats_and_names_are_checked() -> None:
    assert parse_formats("PDF, png,pdf") == ("pdf", "png")
    for text, why in (("gif", "format `gif` is not known; .*known are png, svg, pdf"), (" ,", "no format is named")):
        with pytest.raises(Refused, match=why):
            parse_formats(text)
    assert paper.known_names(None) == list(paper.figure_names())
    assert paper.known_names(["loss", "loss"]) == ["loss"]
    with pytest.raises(Refused, match=r"figure `figure1` is not known; did you mean `figure-1`\?"):
        plot(made(), "figure1")


def test_what_finds_no_room_is_refused() -> None:
    with pytest.raises(Refused, match=r"the heading finds no room in 1\.5 x 1\.5 inches"):
        plot(made(), size="1.5x1.5")
    many = made(widths=1, seeds=1, axes={"data.seed": range(6)})
    with pytest.raises(Refused, match=r"6 panels find no room in 1\.6 x 3 inches; name a larger size"):
        write_figures(many, Path("nowhere"), FigureOptions(("png",), (1.6, 3.0)), ["loss"])


@pytest.mark.parametrize(
    ("title", "shown"),
    [
        (None, ["made-up, sphere, relu"]),
        ("", []),
        ("Wide, $\\|W\\|_2 < 1$", ["Wide, $\\|W\\|_2 < 1$"]),
        ("$5 and $\\alpha_{$", [r"\$5 and \$\alpha_{\$"]),
        ("one $ alone", [r"one \$ alone"]),
    ],
)  # fmt: skip
def test_a_title_is_shown_as_it_is_meant(tmp_path: Path, title: str | None, shown: list[str]) -> None:
    figure = plot(made(), title=title)
    assert words(figure)[: len(shown)] == shown
    assert words(figure)[len(shown)].startswith("width $m$")
    with styled():
        figure.savefig(tmp_path / "figure.svg")  # what is no mathematics must not end in an error


def test_titles_that_cannot_be_drawn_are_refused() -> None:
    with styled(), pytest.raises(Refused, match="the title has `\u6807`, which the font of figures, DejaVu Sans, has"):
        titled("\u6807")
    with pytest.raises(Refused, match="a title of 301 characters; at most 300"):
        FigureOptions(title="x" * 301)
    with styled():
        assert titled("a\n\tb") == "a b"
        assert titled("$" + "{" * 3000 + "$").startswith(r"\$")


def test_long_texts_are_broken_so_that_they_fit() -> None:
    mathematics = r"$\lambda_\tau / \lambda_0 > 1$"
    long = f"words of many letters {mathematics} " + "x" * 120 + r"\$" * 40
    with styled():
        lines = fitted(long, 8, 2.0).splitlines()
        assert len(lines) > 4
        assert max(inches(line, 8) for line in lines) <= 2.0
    assert any(mathematics in line for line in lines)
    assert "".join(lines).replace(" ", "") == long.replace(" ", "")
    figure = plot(made(axes={"data.path": ["/a/long/path" * 9]}), title=long.replace(r"\$", ""), size="icml")
    figure.draw_without_rendering()
    for text in (*figure.texts, figure.axes[0].title):
        box = text.get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.width
    top = max(axes.title.get_window_extent().y1 for axes in figure.axes)
    assert top < min(legend.get_window_extent().y0 for legend in figure.legends)


def test_the_style_file_is_part_of_the_package() -> None:
    assert STYLE_FILE.is_file()
    declared = (STYLE_FILE.parent.parent.parent / "setup.cfg").read_text()
    assert f"deqcli.show = *{STYLE_FILE.suffix}\n" in declared


def test_a_curve_keeps_a_band_of_its_own(tmp_path: Path) -> None:
    rows = made(widths=1, seeds=1).prediction.assign(kernel="H_inf", learning_rate=1e-5, index=0)
    rows = rows.assign(loss_low=rows["loss"] / 2, loss_median=rows["loss"], loss_high=2 * rows["loss"])
    rows.to_csv(tmp_path / "prediction.csv", index=False)
    rows.assign(eigenvalue=1.0, initial_loss=2.0, final_loss=1.0).to_csv(tmp_path / "directions.csv", index=False)
    names = theory_figures.draw_prediction(tmp_path, None)
    assert names == [f"figures/prediction.{form}" for form in (*FORMATS, "csv")]
    drawn = pd.read_csv(tmp_path / names[-1])
    predicted = drawn[drawn["curve"] == "predicted from H_inf"]
    assert len(predicted) == 11
    assert (predicted["high"] - predicted["value"]).to_numpy() == pytest.approx(np.log(2))
    assert (predicted["value"] - predicted["low"]).to_numpy() == pytest.approx(np.log(2))


def test_a_prediction_that_diverges_does_not_flatten_what_was_measured() -> None:
    runs = made(widths=1)
    grown = runs.prediction["loss"].where(runs.prediction["step"] <= 50, 1e300)
    assert plot(replace(runs, prediction=runs.prediction.assign(loss=grown))).axes[0].get_ylim()[1] < 8


def test_a_cell_says_which_kinds_of_curves_it_has() -> None:
    points = pd.DataFrame({"curve": [PREDICTED]})
    assert Cell(PANELS["loss"], points).has("thin")
    assert not Cell(PANELS["loss"], points).has("thick")
