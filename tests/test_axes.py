"""Axes beyond widths and seeds: which keys and values can be one, the cells they make, and their columns."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deqcli.errors import RecipeRefused
from deqcli.recipe.axes import value_at, with_values
from deqcli.recipe.schema import Recipe
from deqcli.runs.files import recipe_text
from deqcli.runs.records import LOSS_COLUMNS, RUNS_COLUMNS
from deqcli.show.figures import draw_figures, facets
from deqcli.sweep.gather import gather
from deqcli.sweep.stored import open_stored
from deqcli.sweep.sweep import SweepEnd, SweepOptions, sweep
from tests.runs import recipe

OVER = "sweep.over={model.sigma_w_sq: [0.05, 0.01], data.num_samples: [3, 4]}"


def refusals(folder: Path, *overrides: str) -> list[str]:
    """What is wrong, without the places."""
    with pytest.raises(RecipeRefused) as refused:
        recipe(folder, *overrides)
    return [mistake.message for mistake in refused.value.mistakes]


def test_the_cells_are_the_product_in_the_order_of_their_rows(tmp_path: Path) -> None:
    found = [
        (cell.data.num_samples, cell.model.sigma_w_sq, cell.model.width, cell.train.seed)  # type: ignore[union-attr]
        for cell in recipe(tmp_path, OVER).cells()
    ]
    assert found == list(itertools.product([3, 4], [0.01, 0.05], [24, 32], [0, 1]))


def test_a_cell_is_the_run_of_the_recipe_with_its_values(tmp_path: Path) -> None:
    cell = recipe(tmp_path, OVER).cells()[-1]
    alone = recipe(tmp_path, "model.sigma_w_sq=0.05", "data.num_samples=4", "model.width=32", "train.seed=1").run()
    assert cell == alone
    assert cell.run_id == alone.run_id


def test_however_the_axes_are_spelled_the_sweep_is_the_same(tmp_path: Path) -> None:
    other = recipe(tmp_path, "sweep.over={data.num_samples: [4, 3], model.sigma_w_sq: [1.0e-2, 0.05]}")
    assert other.sweep_id == recipe(tmp_path, OVER).sweep_id
    assert other.sweep_id != recipe(tmp_path).sweep_id


def test_the_text_of_a_sweep_gives_the_same_cells_again(tmp_path: Path) -> None:
    loaded = recipe(tmp_path, "sweep.over={solver.kind: [picard, continuation], train.steps: [5]}")
    again = recipe(tmp_path, text=recipe_text(loaded))
    assert again.cells() == loaded.cells()


def test_a_kind_keeps_of_its_section_what_it_knows(tmp_path: Path) -> None:
    loaded = recipe(
        tmp_path, "solver={kind: anderson, memory: 3, tolerance: 1e-8}", "sweep.over={solver.kind: [anderson, picard]}"
    )
    anderson, picard = (variant.solver for variant in loaded.variants)
    assert (anderson.kind, picard.kind) == ("anderson", "picard")
    assert anderson.tolerance == picard.tolerance == 1e-8
    assert not hasattr(picard, "memory")


def test_data_files_are_swept_over_by_path_each_with_its_own_hash(tmp_path: Path) -> None:
    for name in ("a", "b"):
        rng = np.random.default_rng(ord(name))
        np.savez(tmp_path / f"{name}.npz", X=rng.standard_normal((4, 3)), y=rng.standard_normal(4))
    loaded = recipe(tmp_path, "data={kind: file, path: a.npz}", "sweep.over={data.path: [a.npz, b.npz]}")
    hashes = {value_at(variant, "data.sha256") for variant in loaded.variants}
    assert len(hashes) == 2
    assert [Path(value_at(variant, "data.path")).name for variant in loaded.variants] == ["a.npz", "b.npz"]


def test_two_files_of_one_content_are_one_run(tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        np.savez(tmp_path / name, X=np.eye(3), y=np.ones(3))
    given = "data={kind: file, path: a.npz}", "sweep.over={data.path: [a.npz, b.npz]}"
    (message,) = refusals(tmp_path, *given)
    assert message.startswith("sweep.over: two of its runs are one: width ")
    assert message.count("a.npz") == 1 == message.count("b.npz")


def test_what_no_key_takes_is_refused_in_the_words_of_that_key(tmp_path: Path) -> None:
    assert refusals(tmp_path, "sweep.over={model.sigma_w_sq: [0.1, -1, x]}") == [
        "sweep.over: model.sigma_w_sq must be a positive number (default 0.08), got -1",
        "sweep.over: model.sigma_w_sq must be a positive number (default 0.08), got 'x'",
    ]
    (unknown,) = refusals(tmp_path, "sweep.over={model.sigma_w: [0.1, 0.2]}")
    assert unknown.startswith("sweep.over: model.sigma_w is not known; did you mean `sigma_w_sq`?")
    assert refusals(tmp_path, "sweep.over={model.width: [3]}") == [
        "sweep.over: model.width is swept over by sweep.widths"
    ]
    assert refusals(tmp_path, "sweep.over={data.num_samples: [3, 3]}") == ["sweep.over: data.num_samples has 3 twice"]
    (empty,) = refusals(tmp_path, "sweep.over={train.steps: []}")
    assert empty.startswith("sweep.over.train.steps must be a list of at least 1")
    for key in ("execution.jobs", "sweep.widths", "name", "model", "data.kind.x"):
        (no_axis,) = refusals(tmp_path, f"sweep.over={{{key}: [1]}}")
        assert no_axis.startswith(f"sweep.over: '{key}' is no axis; one is a key of data, model, solver, train, log")


def test_a_contradiction_of_one_combination_is_told_with_its_values(tmp_path: Path) -> None:
    (message,) = refusals(tmp_path, "sweep.over={model.sigma_w_sq: [0.1, 0.2]}", "train.learning_rate=theorem")
    assert message.endswith("got 0.2 (with model.sigma_w_sq 0.2)")
    (size,) = refusals(tmp_path, "sweep.over={data.num_samples: [4, 40000000000]}")
    assert size.endswith("(with data.num_samples 40000000000)")


def test_a_key_that_not_every_kind_has_is_refused_beside_the_kinds(tmp_path: Path) -> None:
    """Whatever the alphabet says of the order in which they are set."""
    for key, value in (("forcing", 0.1), ("inner_iterations", 5)):
        over = f"sweep.over={{solver.kind: [newton, picard], solver.{key}: [{value}]}}"
        (message,) = refusals(tmp_path, "solver.kind=newton", over)
        assert message.startswith(f"sweep.over: solver.{key} is not known; ")
        assert message.endswith(f"(with solver.{key} {value}, solver.kind 'picard')")


def test_mistakes_elsewhere_are_told_beside_those_of_an_axis(tmp_path: Path) -> None:
    found = refusals(tmp_path, "sweep.over={model.sigma_w_sq: [-1]}", "train.steps=-5", "solver.kind=magic")
    assert len(found) == 3


def test_too_many_cells_are_refused(tmp_path: Path) -> None:
    many = ", ".join(map(str, range(400)))
    (message,) = refusals(tmp_path, f"sweep.over={{data.seed: [{many}], train.steps: [{many}]}}")
    assert (
        message
        == "sweep.widths: with seeds and data.seed and train.steps makes 640000 runs; at most 100000 are possible"
    )


def test_plain_data_is_left_as_it_was() -> None:
    plain = {"solver": {"kind": "anderson", "memory": 3}}
    assert with_values(plain, {"solver.kind": "picard"}) == {"solver": {"kind": "picard"}}
    assert plain == {"solver": {"kind": "anderson", "memory": 3}}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, SweepEnd]:
    """A sweep over two further axes."""
    folder = tmp_path_factory.mktemp("axes")
    loaded = recipe(folder, OVER, "train.steps=4", "execution.jobs=1")
    return loaded, sweep(loaded, folder / "out", SweepOptions("cpu", draw_figures))


def test_the_axes_are_columns_of_every_table(done: tuple[Recipe, SweepEnd]) -> None:
    loaded, end = done
    runs = pd.read_csv(end.folder / "runs.csv")
    axes = ["data.num_samples", "model.sigma_w_sq"]
    assert list(runs.columns) == [*RUNS_COLUMNS[:6], *axes, *RUNS_COLUMNS[6:]]
    assert list(pd.read_csv(end.folder / "loss.csv").columns) == [*LOSS_COLUMNS[:6], *axes, *LOSS_COLUMNS[6:]]
    for name in ("loss", "spectral", "certificates", "prediction", "runs"):
        rows = pd.read_csv(end.folder / f"{name}.csv").drop_duplicates("run_id").set_index("run_id")
        for cell in loaded.cells():
            assert [rows.loc[cell.run_id, key] for key in axes] == [value_at(cell, key) for key in axes]


def test_the_other_columns_are_those_of_the_runs_to_the_byte(done: tuple[Recipe, SweepEnd]) -> None:
    loaded, end = done
    merged = (end.folder / "loss.csv").read_text().splitlines()[1:]
    runs = end.folder.parent.parent / "runs"
    own = [line for cell in loaded.cells() for line in (runs / cell.run_id / "loss.csv").read_text().splitlines()[1:]]
    assert [",".join(line.split(",")[:6] + line.split(",")[8:]) for line in merged] == own


def test_the_figures_have_a_part_for_each_combination_with_comparable_axes(done: tuple[Recipe, SweepEnd]) -> None:
    gathered = gather([open_stored(done[1].folder)])
    parts = facets(gathered)
    assert [[part.name for part in row] for row in parts] == [
        ["num_samples 3, sigma_w_sq 0.01", "num_samples 4, sigma_w_sq 0.01"],
        ["num_samples 3, sigma_w_sq 0.05", "num_samples 4, sigma_w_sq 0.05"],
    ]
    assert {len(part.of(gathered.loss)) for row in parts for part in row} == {4 * 5}
    assert len(done[1].figures) == 6


def test_a_cell_is_called_by_all_that_tells_it_from_the_others(tmp_path: Path) -> None:
    loaded = recipe(tmp_path, OVER)
    names = [loaded.title(cell) for cell in loaded.cells()]
    assert names[0] == "width 24, seed 0, num_samples 3, sigma_w_sq 0.01"
    assert len(set(names)) == len(names)
