"""What of the theory is about a recipe: rows of the neighbouring papers, marks, and the words of commands."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from deqcli.cli.main import app
from deqcli.deq.activations import ACTIVATIONS
from deqcli.errors import NumericalFailure
from deqcli.runs.scope import covered, departures, outside, scales
from deqcli.theory.features import least_feature_eigenvalue
from deqcli.theory.population import Population
from tests.runs import recipe, small

GAO = (
    "model.skip=true", "model.injection=rectified", "model.readout=signs", "model.parametrisation=ntk",
    "model.readout_scale=0.7071067811865476",
)  # fmt: skip
RUNNER = CliRunner()


def called(tmp_path: Path, command: str, *overrides: str) -> tuple[int, str]:
    """(exit code, all that is said) of a command on the small recipe."""
    recipe(tmp_path)
    result = RUNNER.invoke(app, [command, str(tmp_path / "recipe.yaml"), *overrides, "--out", str(tmp_path)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout + result.stderr


def certificates(tmp_path: Path, *overrides: str) -> dict[str, dict[str, str]]:
    """The rows of a check of one draw, by name."""
    code, _ = called(tmp_path, "check-init", "sweep.widths=[32]", "sweep.seeds=[0]", *overrides)
    assert code == 0
    (path,) = tmp_path.glob("small/checks/*/certificates.csv")
    with path.open(newline="") as file:
        return {row["certificate"]: row for row in csv.DictReader(file)}


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ([], []),
        (["model.init=orthogonal"], []),
        (["model.skip=true"], ["model"]),
        (["model.injection=rectified"], ["model"]),
        (["model.parametrisation=ntk"], ["model"]),
        (["model.init=monotone"], ["model"]),
        (["model.init=monotone", "model.activation=sin"], ["model", "proximal"]),
        (["train.parameters=[a]"], ["training"]),
        (["train.momentum=0.5"], ["training"]),
        (["train.schedule=cosine"], []),
        (["train.method=flow"], []),
    ],
    ids=str,
)
def test_what_a_recipe_departs_from(tmp_path: Path, options: list[str], names: list[str]) -> None:
    spec = small(tmp_path, *options)
    assert list(departures(spec)) == names
    assert covered(spec) == (not names)
    assert len(outside(spec)) == len(names) + (not scales(spec).gaussian_limit)


def test_the_rate_of_gao_is_for_their_model_in_their_parametrisation_alone(tmp_path: Path) -> None:
    row = certificates(tmp_path, *GAO)["gao_learning_rate"]
    X = torch.tensor(small(tmp_path).data.load().X)
    generator = np.random.default_rng(0)
    F = np.maximum(generator.standard_normal((400_000, 4)) @ X.numpy() / 2, 0)  # samples of norm 1
    sampled = np.linalg.eigvalsh(F.T @ F / len(F))[0]
    assert float(row["lhs"]) == pytest.approx(sampled / 36, rel=0.03)
    assert float(row["lhs"]) == least_feature_eigenvalue(X.T @ X / 4, ACTIVATIONS["relu"]) / 36
    assert row["holds"] == "false"
    assert "outside" not in row["source"]


@pytest.mark.parametrize("missing", range(len(GAO)))
def test_without_one_of_its_keys_there_is_no_such_row(tmp_path: Path, missing: int) -> None:
    assert not scales(small(tmp_path, *GAO[:missing], *GAO[missing + 1 :])).features
    assert scales(small(tmp_path, *GAO)).features
    assert not scales(small(tmp_path, *GAO, "train.momentum=0.9")).features


def test_monotone_weights_claim_nothing_of_an_activation_that_is_not_proximal(tmp_path: Path) -> None:
    """With W = 0.99 and input 0.09 the gelu has three equilibria, though I - W = 0.01 > 0."""
    gelu = ACTIVATIONS["gelu"]
    z = torch.linspace(-1, 20, 400_001, dtype=torch.float64)
    image = torch.empty_like(z)
    gelu.value(0.99 * z + 0.09, out=image)
    assert int((torch.diff((image - z).sign()) != 0).sum()) == 3
    row = certificates(tmp_path, "model.init=monotone", "model.activation=gelu")["monotone"]
    assert "outside its hypotheses: gelu is not both nondecreasing" in row["source"]


def test_monotone_weights_and_a_proximal_activation_are_not_marked(tmp_path: Path) -> None:
    row = certificates(tmp_path, "model.init=monotone", "model.activation=tanh")["monotone"]
    assert (row["source"], row["holds"]) == ("Winston and Kolter 2020", "true")
    assert float(row["lhs"]) == pytest.approx(0.5, abs=1e-9)


@pytest.mark.parametrize("command", ["train", "predict"])
def test_commands_say_what_is_outside_the_hypotheses(tmp_path: Path, command: str) -> None:
    code, said = called(tmp_path, command, "model.activation=gelu", "model.sigma_w_sq=0.2", "train.steps=3")
    assert code == 0
    assert "Outside the hypotheses: sigma_w_sq = 0.2 is not below 1/(8 L^2) = 0.0980835 (Assumption 1).\n" in said
    code, said = called(tmp_path, command, "train.steps=3")
    assert "Outside" not in said


def test_a_diverging_activation_stops_with_the_norm_that_it_reached(tmp_path: Path) -> None:
    code, said = called(tmp_path, "train", "model.activation=identity", "model.sigma_w_sq=4.0")
    assert code == NumericalFailure.exit_code
    assert "the iteration overflowed or became NaN" in said
    assert ", norm reached " in said
    assert "below 0.125 wide draws contract" in said


def test_a_monotone_network_is_sent_to_its_own_solvers(tmp_path: Path) -> None:
    options = "model.init=monotone", "model.activation=identity", "model.sigma_w_sq=0.6", "train.steps=2"
    code, said = called(tmp_path, "train", *options)
    assert code == NumericalFailure.exit_code
    assert "W is monotone, so there is one: use solver.kind peaceman_rachford" in said
    for kind in ("peaceman_rachford", "forward_backward"):
        assert called(tmp_path, "train", *options, f"solver.kind={kind}")[0] == 0


def test_a_limit_that_runs_away_is_no_matter_of_the_expansion(tmp_path: Path) -> None:
    spec = small(tmp_path, "model.activation=softplus", "model.sigma_w_sq=2.0")
    X = torch.tensor(spec.data.load().X)
    with pytest.raises(NumericalFailure, match="no limit at sigma_w_sq = 2"):
        Population.of(X, 2.0, ACTIVATIONS["softplus"]).gram()


@pytest.mark.parametrize("init", ["symmetric", "nonnegative", "monotone"])
def test_without_a_known_limit_nothing_is_predicted_from_the_data(tmp_path: Path, init: str) -> None:
    code, said = called(tmp_path, "predict", f"model.init={init}")
    assert code == 2
    assert "use --from draw" in said


def test_hermite_coefficients_are_in_the_table_and_in_the_document(tmp_path: Path) -> None:
    """tanh is odd: every second one is 0; its first is E[phi(u) u]/sqrt(p) > 0. The ReLU has no such table."""
    recipe(tmp_path)
    arguments = ["check-init", str(tmp_path / "recipe.yaml"), "--widths", "32", "--seeds", "0", "--json"]
    arguments += ["--out", str(tmp_path)]
    document = json.loads(RUNNER.invoke(app, [*arguments, "model.activation=tanh"]).stdout)
    hermite = document["draws"][0]["hermite"]
    assert [each["order"] for each in hermite] == list(range(len(hermite)))
    assert len(hermite) > 10
    assert all(each["coefficient"] == 0 for each in hermite[::2])
    assert hermite[1]["coefficient"] > 0.5
    (table,) = tmp_path.glob("small/checks/*/hermite.csv")
    assert len(table.read_text().splitlines()) == len(hermite) + 1
    assert json.loads(RUNNER.invoke(app, arguments).stdout)["draws"][0]["hermite"] == []


def test_more_samples_than_dimensions_leave_a_linear_network_singular(tmp_path: Path) -> None:
    """Z = (I - W)^-1 U X has the rank of X, so lambda_* and lambda_0 are exactly 0, and that is said."""
    rows = certificates(tmp_path, "model.activation=identity")  # 6 samples of dimension 4
    (path,) = tmp_path.glob("small/checks/*/draws.csv")
    (draw,) = csv.DictReader(path.read_text().splitlines())
    assert (float(draw["lambda_star"]), float(draw["lambda_0"])) == (0.0, 0.0)
    assert "identity is linear and there are more samples than input_dim 4" in draw["remarks"]
    assert rows["truong_population"]["holds"] == rows["theorem_2"]["holds"] == "false"
