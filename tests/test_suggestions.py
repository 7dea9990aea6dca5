"""check-init --suggest: every recipe that it writes passes --strict, no more is asked than needed, and it says why."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from deqcli.data.kinds import Sphere
from deqcli.runs.folder import read_manifest, verify
from deqcli.sweep import suggestions
from tests.dense import population_limit
from tests.runs import SMALL
from tests.test_cli import call
from tests.training import shapes_unchecked

SCALES, SIGMA, WIDTH = "suggested.yaml", "suggested-sigma.yaml", "suggested-width.yaml"
SMALL_SCALES = [
    "data={kind: sphere, num_samples: 3, input_dim: 20, label_scale: 0.0005}", "model.readout_scale=0.002",
    "model.sigma_w_sq=0.005", "train.learning_rate=theorem",
]  # fmt: skip
"""At which width mends Condition 1."""


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in an empty folder that holds small.yaml and two data sets, on the CPU."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEQCLI_DEVICE", "cpu")
    (tmp_path / "small.yaml").write_text(SMALL)
    angles = np.linspace(0, 0.9 * math.pi, 5)
    np.savez("circle.npz", X=np.stack([np.cos(angles), np.sin(angles)], 1), y=np.sign(np.sin(3 * angles) + 0.1))
    np.savez("unlabelled.npz", X=np.random.default_rng(0).standard_normal((4, 6)), y=np.zeros(4))
    with shapes_unchecked():
        yield


def suggested(*arguments: str) -> tuple[list[str], dict[str, Path]]:
    """The sentences, and the recipes by name."""
    code, out, err = call("check-init", "small.yaml", *arguments, "--suggest", "--json")
    assert code in (0, 3), err
    found = json.loads(out)["suggestion"]
    return found["sentences"], {Path(path).name: Path(path) for path in found["recipes"]}


def failing(recipe: Path, *overrides: str) -> set[str]:
    """What --strict stands for: the inequalities that fail, of any draw."""
    code, out, _ = call("check-init", str(recipe), *overrides, "--strict", "--json", "--out", "again")
    draws = json.loads(out)["draws"]
    assert draws
    assert len(draws[0]["certificates"]) == 20
    names = {name for draw in draws for name in draw["failed"]}
    assert code == (3 if names else 0)
    return names


def content(recipe: Path) -> dict[str, dict[str, float]]:
    loaded = yaml.load(recipe.read_text(), yaml.BaseLoader)  # noqa: S506 (texts only)
    numbers = re.compile(r"[-+.\de]+")
    return {
        name: {
            key: float(value) for key, value in section.items() if isinstance(value, str) and numbers.fullmatch(value)
        }
        for name, section in loaded.items()
        if isinstance(section, dict)
    }


def scales_of(recipe: Path) -> tuple[float, float]:
    found = content(recipe)
    return found["model"]["readout_scale"], found["data"]["label_scale"]


ONE = ["--widths", "24", "--seeds", "0"]


@pytest.mark.parametrize(
    "given",
    [
        [],
        ["train.dtype=float32", "--widths", "200"],
        ["model.sigma_w_sq=0.12499", "--widths", "40"],
        ["data={kind: sphere, num_samples: 1, input_dim: 1}", "--widths", "1,24"],
        ["data={kind: sphere, num_samples: 2, input_dim: 30}"],
        ["data={kind: digits, num_samples: 8}", "--widths", "100,150"],
        ["data={kind: file, path: circle.npz}"],
        ["data={kind: file, path: unlabelled.npz}", *ONE],
        ["data.label_scale=1e-6", *ONE],
        ["data.label_scale=1e6", *ONE],
        ["model.readout_scale=100.0", *ONE],
        ["model.readout_scale=1e-6", *ONE],
        ["solver.kind=picard", *ONE],
        ["solver.kind=anderson", *ONE],
        ["solver.kind=newton", *ONE],
        ["solver.kind=auto", *ONE],
    ],
    ids=str,
)
def test_the_scales_suggested_pass_and_twice_as_large_ones_do_not(given: list[str]) -> None:
    sentences, recipes = suggested(*given)
    assert failing(recipes[SCALES]) == set()
    readout, label = scales_of(recipes[SCALES])
    assert failing(recipes[SCALES], f"model.readout_scale={2 * readout!r}", f"data.label_scale={2 * label!r}")
    sentence, *others = [each for each in sentences if each.startswith("With ")]
    assert len(others) == (SIGMA in recipes)
    assert f"model.readout_scale {readout:g}, data.label_scale {label:g}, model.sigma_w_sq " in sentence
    assert sentence.endswith("draws (checked).")


@pytest.mark.parametrize("given", [[], ["data={kind: digits, num_samples: 8}", "--widths", "100,150"]], ids=str)
def test_a_smaller_w_allows_larger_scales(given: list[str]) -> None:
    _, recipes = suggested(*given)
    assert failing(recipes[SIGMA]) == set()
    assert content(recipes[SIGMA])["model"]["sigma_w_sq"] == 0.005
    pairs = zip(scales_of(recipes[SIGMA]), scales_of(recipes[SCALES]), strict=True)
    assert all(larger > 2 * smaller for larger, smaller in pairs)


def test_a_w_that_is_small_already_is_left_alone() -> None:
    _, recipes = suggested("model.sigma_w_sq=0.004", *ONE)
    assert recipes.keys() == {SCALES}


@pytest.mark.parametrize("given", [["--widths", "24,32", "--seeds", "0:2"], ["--widths", "60", "--seeds", "3,5"]])
def test_the_scales_suggested_keep_all_else(given: list[str]) -> None:
    _, recipes = suggested(*given)
    ours, theirs = (
        yaml.load(path.read_text(), yaml.BaseLoader)  # noqa: S506 (texts only)
        for path in (recipes[SCALES].with_name("recipe.yaml"), recipes[SCALES])
    )
    factors = [float(new) / float(old) for old, new in zip(scales_of_text(ours), scales_of_text(theirs), strict=True)]
    assert factors[0] == pytest.approx(factors[1], rel=1e-11)
    assert 0 < factors[0] < 1
    assert theirs["train"].pop("dtype") == ours["train"].pop("dtype") == "float64"
    for section, key in (("model", "readout_scale"), ("data", "label_scale"), ("train", "learning_rate")):
        assert ours[section].pop(key) != theirs[section].pop(key)
    assert theirs["sweep"] == ours["sweep"]
    assert theirs["model"].pop("width") in theirs["sweep"]["widths"]
    ours["model"].pop("width")
    assert theirs == ours


def scales_of_text(loaded: dict[str, dict[str, str]]) -> tuple[str, str]:
    return loaded["model"]["readout_scale"], loaded["data"]["label_scale"]


def test_a_width_at_which_scales_do_not_help_is_left_out_and_the_sentence_says_why() -> None:
    """Theorem 2 fails for one of the draws of width 32, and is no matter of scales."""
    given = ["data={kind: sphere, num_samples: 2, input_dim: 2}"]
    assert "theorem_2" in failing(Path("small.yaml"), *given, "--widths", "32")
    assert "theorem_2" not in failing(Path("small.yaml"), *given, "--widths", "24")
    sentences, recipes = suggested(*given)
    assert re.fullmatch(r"model.sigma_w_sq 0.05: width 32, seed \d: theorem_2 fails, \S+ against \S+\.", sentences[0])
    assert "at width 24, for each of the 2 draws (checked)." in sentences[1]
    assert failing(recipes[SCALES]) == set()


def test_a_recipe_that_passes_is_not_to_be_changed() -> None:
    given = ["model.readout_scale=1e-6", "data.label_scale=1e-6", "train.learning_rate=theorem"]
    assert failing(Path("small.yaml"), *given) == set()
    sentences, recipes = suggested(*given)
    assert sentences == ["Every inequality holds as it is; nothing is to be changed."]
    assert recipes == {}


@pytest.mark.parametrize("samples", [28, 40])
def test_more_samples_than_units_get_a_larger_width(samples: int) -> None:
    sentences, recipes = suggested(f"data.num_samples={samples}", "--widths", "24")
    assert f"num_samples {samples} > width 24: lambda_0 is exactly 0" in sentences[0]
    width, *_ = [int(each) for each in re.findall(r"every inequality holds at width (\d+), ", " ".join(sentences))]
    assert width > samples
    assert content(recipes[SCALES])["model"]["width"] == width
    assert failing(recipes[SCALES]) == set()


@pytest.mark.parametrize("s", ["0.125", "0.2", "0.6", "30.0"])
def test_a_w_that_is_too_large_gets_a_smaller_one(s: str) -> None:
    sentences, recipes = suggested(f"model.sigma_w_sq={s}", "--widths", "32")
    assert sentences[0].startswith(f"model.sigma_w_sq {float(s):g}: width 32")
    assert sentences[-1].startswith(
        "No width is expected to do: at sigma_w_sq of 1/8 or more the norm of W(0) does not"
    )
    assert content(recipes[SCALES])["model"]["sigma_w_sq"] == 0.08
    assert failing(recipes[SCALES]) == set()


@pytest.mark.parametrize(("alpha", "s"), [(1.0, 0.05), (0.5, 0.08), (100.0, 0.01)])
def test_the_limit_of_9_that_no_width_passes(alpha: float, s: float) -> None:
    """lambda_* (1 - 2 sqrt2 sigma_w)^4/(16 n alpha^2), 1 where alpha is its root."""
    sentences, recipes = suggested(f"model.readout_scale={alpha}", f"model.sigma_w_sq={s}")
    X = Sphere(kind="sphere", num_samples=6, input_dim=4, seed=1).load().X
    lambda_star = float(np.linalg.eigvalsh(population_limit(X, s))[0])
    limit = lambda_star * (1 - 2 * math.sqrt(2 * s)) ** 4 / (16 * 6 * alpha**2)
    assert sentences[-1] == (
        f"No width is expected to do: with model.readout_scale {alpha:g} the slack of (9 with 8) tends to {limit:.3g}; "
        f"it passes 1 below a readout_scale of {alpha * math.sqrt(limit):.3g}."
    )
    assert WIDTH not in recipes


@pytest.mark.parametrize("seeds", ["0", "1:4"])
def test_at_small_scales_a_larger_width_mends_condition_1(seeds: str) -> None:
    assert any(name.startswith("condition_1") for name in failing(Path("small.yaml"), *SMALL_SCALES, "--widths", "20"))
    sentences, recipes = suggested(*SMALL_SCALES, "--widths", "20", "--seeds", seeds)
    (expected,) = re.findall(r"Condition 1 is expected from width (\d+) on", " ".join(sentences))
    (drawn,) = re.findall(r"At width (\d+) every inequality holds for its draws \(checked\)", " ".join(sentences))
    assert 20 < int(expected) <= int(drawn) <= 3 * int(expected)
    assert content(recipes[WIDTH])["model"]["width"] == int(drawn)
    assert scales_of(recipes[WIDTH]) == (0.002, 0.0005)
    assert failing(recipes[WIDTH]) == set()


def test_a_width_that_no_memory_holds_is_named_and_not_drawn() -> None:
    sentences, recipes = suggested("model.readout_scale=1e-6", "--widths", "32")
    assert re.search(r"Condition 1 is expected from width \d{10,} on", sentences[-2])
    assert re.match(r"It was not drawn: a run of width \d+ takes \d+ bytes", sentences[-1])
    assert WIDTH not in recipes


def test_a_width_whose_draws_fail_is_not_said_to_be_too_large() -> None:
    """Theorem 2 needs a larger width than Condition 1; the draws in between do not pass, but they do fit."""
    sentences, recipes = suggested(
        "data={kind: sphere, num_samples: 20, input_dim: 20, label_scale: 1e-20}", "model.readout_scale=1e-14",
        "--widths", "20", "--seeds", "0",
    )  # fmt: skip
    assert WIDTH in recipes or not any("It was not drawn" in sentence for sentence in sentences)


def test_nothing_is_found_where_nothing_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suggestions, "LARGEST_DRAWN", 30)
    sentences, recipes = suggested("data.num_samples=40", "--widths", "24")
    assert "No scales were found: see above what stands in the way at each width." in sentences
    assert recipes == {}
    monkeypatch.setattr(suggestions, "SMALLEST_FACTOR", 0.5)
    sentences, recipes = suggested("--widths", "24")
    (sentence,) = [each for each in sentences if each.startswith("No scales were found: at 0.5 times the recipe's, ")]
    assert re.search(r"condition_1_eq_9_with_8 \(slack [\d.e-]+\)", sentence)
    assert recipes == {}


def test_what_was_suggested_is_shown_listed_and_removed_by_a_call_that_does_not_ask() -> None:
    code, out, err = call("check-init", "small.yaml", *SMALL_SCALES, "--widths", "20", "--suggest")
    assert code == 0
    assert set(err.splitlines()) >= {"trying width 30, sigma_w_sq 0.005"}
    (folder,) = Path("outputs/small/checks").iterdir()
    manifest = read_manifest(folder, "check", folder.name)
    assert manifest is not None
    assert {SCALES, WIDTH} <= manifest.files.keys()
    verify(folder, manifest.files)
    for name in (SCALES, WIDTH):
        assert f"Recipe: {folder / name}\n" in out
        assert call("recipes", "validate", str(folder / name))[0] == 0
    assert call("check-init", "small.yaml", *SMALL_SCALES, "--widths", "20")[0] == 0
    assert not (folder / SCALES).exists()
    assert not (folder / WIDTH).exists()


@pytest.mark.parametrize(
    "given",
    [
        ["model.readout_scale=1e-200"],
        ["model.readout_scale=1e-300", "data.label_scale=1e-300"],
        ["data.label_scale=1e150"],
        ["model.readout_scale=1e-6", "data.label_scale=1e140"],
        ["model.sigma_w_sq=1e-300"],
        ["data.label_scale=1e-200"],
        ["data.label_scale=1e-320"],
    ],
    ids=str,
)
def test_no_scale_is_too_odd_for_a_suggestion(given: list[str]) -> None:
    code, out, err = call("check-init", "small.yaml", *given, "--widths", "24", "--suggest", "--json")
    assert code in (0, 3), err
    for path in json.loads(out)["suggestion"]["recipes"]:
        assert failing(Path(path)) == set()


def test_scales_are_suggested_for_another_activation_and_pass() -> None:
    """With gelu's L = 1.13 the same W has less room; the samples are few enough for the bound by coefficients."""
    given = [
        "model.activation=gelu",
        "data={kind: sphere, num_samples: 3, input_dim: 20}",
        "--widths",
        "60",
        "--seeds",
        "0",
    ]
    sentences, recipes = suggested(*given)
    assert sentences[-1].startswith("No width is expected to do: with model.readout_scale 1 the slack of (9 with 8)")
    for name in (SCALES, SIGMA):
        code, out, _ = call("check-init", str(recipes[name]), "--strict", "--json", "--out", "again")
        (draw,) = json.loads(out)["draws"]
        assert (code, draw["failed"], len(draw["certificates"])) == (0, [], 24)
    folder = recipes[SCALES].parent
    rows = list(csv.DictReader((folder / "hermite.csv").read_text().splitlines()))
    assert [int(row["order"]) for row in rows] == list(range(11))
    assert {row["activation"] for row in rows} == {"gelu"}
    assert float(rows[0]["coefficient"]) > 0.3


def test_a_w_that_is_too_large_for_an_activation_says_what_its_lipschitz_constant_allows() -> None:
    """1/(8 L^2) = 0.098 for gelu, and 0.11 would do for the ReLU; 2 is what a sigmoid allows."""
    sentences, _ = suggested("model.activation=gelu", "model.sigma_w_sq=0.11", *ONE)
    assert sentences[-1] == (
        "No width is expected to do: at sigma_w_sq of 0.0980835 or more the norm of W(0) does not stay below "
        "1/L = 0.885815."
    )
    sentences, recipes = suggested("model.activation=sigmoid", "model.sigma_w_sq=0.5", "--widths", "60", "--seeds", "0")
    assert content(recipes[SCALES])["model"]["sigma_w_sq"] == 0.5


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            ["model.activation=leaky_relu"],
            "the slope of leaky_relu jumps: no bound of its second derivative (Truong 2023)",
        ),
        (["train.momentum=0.5"], "train.momentum is 0.5"),
        (["model.skip=true"], "K and H_inf are the limits of Gaussian W, not of this initialisation"),
        (["model.activation=identity", "data.num_samples=6", "data.input_dim=4"], "truong_coefficients fails"),
    ],
    ids=str,
)
def test_nothing_is_suggested_where_the_theory_does_not_cover_the_recipe(given: list[str], sentence: str) -> None:
    sentences, recipes = suggested(*given, *ONE)
    assert recipes == {}
    assert all(each.startswith("No initialisation is suggested: ") for each in sentences)
    assert sentence in sentences[0]
    assert not list(Path("outputs/small/checks").glob("*/suggested*.yaml"))
