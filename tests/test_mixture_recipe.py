"""A Gaussian mixture in a recipe: every mistake with its key, resolved recipes, axes of a sweep."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from deqcli.errors import RecipeRefused
from deqcli.recipe.loading import load_recipe
from deqcli.recipe.schema import Recipe
from deqcli.runs.files import recipe_text


def recipe(folder: Path, data: str, *overrides: str) -> Recipe:
    path = folder / "r.yaml"
    text = (
        f"name: mixed\ndata: {{kind: gaussian_mixture, num_samples: 12, input_dim: 3, {data}}}\nmodel: {{width: 8}}\n"
    )
    path.write_text(text, encoding="utf-8")
    return load_recipe(str(path), overrides, 10**12)


def refusals(folder: Path, data: str, *overrides: str) -> list[str]:
    with pytest.raises(RecipeRefused) as caught:
        recipe(folder, data, *overrides)
    *lines, count = str(caught.value).split("\n")
    assert count.startswith(f"{len(lines)} error")
    return [line.partition(": ")[2] for line in lines]


IS = "data.classes.1.covariance:"
BAD_CLASSES = {
    "an unknown key": ("{centre: 1}", "data.classes.1.centre is not known; known here: share (1.0), mean (0.0)"),
    "a share of 0": ("{share: 0}", "data.classes.1.share must be a positive number (default 1.0), got 0"),
    "a mean of text": ("{mean: x}", "data.classes.1.mean must be a number or a list of at least 1, each a number"),
    "a short mean": ("{mean: [1, 2]}", "data.classes.1.mean: must have input_dim = 3 numbers, got 2"),
    "a short diagonal": ("{covariance: [1, 2]}", f"{IS} must have input_dim = 3 numbers, got 2"),
    "a small matrix": ("{covariance: [[1, 0], [0, 1]]}", f"{IS} must have input_dim = 3 rows, got 2"),
    "a negative number": ("{covariance: -1}", "data.classes.1.covariance must be a positive number,"),
    "a negative diagonal": ("{covariance: [1, -1, 1]}", "data.classes.1.covariance must be a positive number,"),
    "toeplitz above 1": ("{covariance: {toeplitz: 1}}", "data.classes.1.covariance must be a positive number,"),
    "not square": ("{covariance: [[1], [0, 1]]}", f"{IS} is not square: of 2 rows, row 0 has 1 numbers"),
    "not symmetric": ("{covariance: [[1, 2], [1, 1]]}", f"{IS} is not symmetric: 2 in row 0, column 1 and 1 in row 1"),
    "indefinite": ("{covariance: [[1, 2], [2, 1]]}", f"{IS} is not positive semi-definite: its least eigenvalue is -1"),
    "no section": (
        "5",
        "data.classes.1 must be a section with the keys share (1.0), mean (0.0), covariance (1.0), got 5",
    ),
}


@pytest.mark.parametrize(("written", "message"), BAD_CLASSES.values(), ids=BAD_CLASSES)
def test_a_mistake_in_a_class_is_told_with_its_key(tmp_path: Path, written: str, message: str) -> None:
    (found,) = refusals(tmp_path, f"classes: [{{}}, {written}]")
    assert found.startswith(message)


BAD_SECTIONS = {
    "one class": (
        "classes: [{mean: 1}]",
        "data.classes must be a list of at least 2, each a section with the keys share",
    ),
    "no classes": ("seed: 1", "data.classes: is missing; a mixture has `classes`, or a `path` to a file of them"),
    "three with labels": ("classes: [{}, {}, {}]", "data.labels: `class` is for two classes, got 3; use `gaussian`"),
    "an empty class": (
        "classes: [{}, {share: 0.01}]",
        "data.num_samples: leaves data.classes.1 without a sample, got 12",
    ),
    "no axis left": (
        "classes: [{}, {}, {}, {mean: 1}], labels: gaussian",
        "data.classes.3.mean: needs an axis 4 of its own, and input_dim is 3; give its 3 numbers",
    ),
    "no file": ("path: no.npz", "data.path: there is no file 'no.npz'"),
    "a CSV file": ("path: no.csv", "data.path: must be an .npz file, got 'no.csv'"),
    "both": (
        "path: classes.npz, classes: [{}, {}]",
        "data.path: names a file of classes beside `classes`; leave out one",
    ),
}


@pytest.mark.parametrize(("data", "message"), BAD_SECTIONS.values(), ids=BAD_SECTIONS)
def test_a_mistake_among_the_classes_is_told(tmp_path: Path, data: str, message: str) -> None:
    np.savez(tmp_path / "classes.npz", means=np.zeros((2, 3)), covariances=np.stack([np.eye(3)] * 2))
    (found,) = refusals(tmp_path, data)
    assert found.startswith(message)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    assert len(refusals(tmp_path, "classes: [{mean: [1], covariance: [1]}, {mean: [2]}]")) == 3


MIXED = "classes: [{share: 2, mean: 1}, {mean: [0, 1, 1], covariance: {toeplitz: 0.3}}]"


def test_a_resolved_recipe_is_read_again_as_it_was(tmp_path: Path) -> None:
    for data in (MIXED, "classes: [{covariance: [1, 2, 3]}, {covariance: [[1, 0, 0], [0, 1, 0.5], [0, 0.5, 1]]}]"):
        loaded = recipe(tmp_path, data)
        (tmp_path / "again.yaml").write_text(recipe_text(loaded), encoding="utf-8")
        again = load_recipe(str(tmp_path / "again.yaml"), (), 10**12)
        assert again == loaded
        assert again.run_id == loaded.run_id
    json.dumps(Recipe.model_json_schema())


def test_keys_of_a_mixture_are_axes_of_a_sweep(tmp_path: Path) -> None:
    swept = recipe(tmp_path, MIXED, "sweep.over={data.normalise: [true, false], data.num_samples: [9, 12]}")
    shapes = {(cell.data.normalise, cell.data.load().X.shape) for cell in swept.cells()}
    assert shapes == {(normalise, (3, n)) for normalise in (True, False) for n in (9, 12)}
    (found,) = refusals(tmp_path, MIXED, "sweep.over={data.input_dim: [3, 4]}")
    assert found == "sweep.over: data.classes.1.mean: must have input_dim = 4 numbers, got 3"
