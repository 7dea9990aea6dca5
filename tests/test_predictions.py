"""predict end to end against numpy and trained runs, and what a run itself says of its prediction and of Theorem 1."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deqcli import api
from deqcli.data.kinds import Sphere
from deqcli.runs.baseline import Baseline
from deqcli.runs.checkpoint import load_checkpoint
from deqcli.runs.device import Execution
from deqcli.runs.folder import Manifest, read_manifest, verify, write_manifest
from deqcli.runs.results import results
from deqcli.runs.run import run
from deqcli.show import theory_figures
from tests.dense import population_limit
from tests.runs import SMALL, picard, recipe, small, weights
from tests.test_cli import call

CPU = Execution("cpu", 1)
S = 0.05
KEYS = "run_id,recipe,dataset,activation,width,seed,kernel"
HEADERS = {
    "prediction.csv": f"{KEYS},learning_rate,step,time,loss,loss_low,loss_median,loss_high",
    "summary.csv": (
        f"{KEYS},learning_rate,learning_rate_largest_stable,lambda_min_ntk,lambda_max_ntk,steps,initial_loss,"
        "final_loss,final_loss_low,final_loss_median,final_loss_high,directions_left"
    ),
    "times.csv": f"{KEYS},learning_rate,loss,step",
    "directions.csv": f"{KEYS},index,eigenvalue,factor,initial_loss,final_loss",
}
FIGURES = [f"figures/prediction.{form}" for form in ("png", "svg", "pdf", "csv")]
DRAWN = theory_figures.draw_prediction


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder that holds small.yaml, on the CPU, without the figures, which take most of the time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEQCLI_DEVICE", "cpu")
    monkeypatch.setattr(theory_figures, "draw_prediction", lambda *_: [])
    (tmp_path / "small.yaml").write_text(SMALL)
    return tmp_path


@pytest.fixture
def pictures(in_a_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the figures after all."""
    monkeypatch.setattr(theory_figures, "draw_prediction", DRAWN)


def predicted(*arguments: str) -> tuple[Path, str]:
    """The folder of a prediction, and what it printed."""
    code, out, err = call("predict", "small.yaml", *arguments)
    assert (code, err) == (0, "")
    (line,) = [line for line in out.splitlines() if line.startswith("Tables:")]
    return Path(line.removeprefix("Tables:").strip()), out


def files_of(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def limit_of(width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """X, y, K and H_inf of the small recipe, K entry by entry."""
    dataset = Sphere(kind="sphere", num_samples=6, input_dim=4, seed=1).load()
    X, K = dataset.X, population_limit(dataset.X, S)
    c = (1 - S) * (S * K + X.T @ X / len(X))
    np.fill_diagonal(c, 1.0)
    k0 = 1 - np.arccos(np.clip(c, -1, 1)) / math.pi
    M = (k0 / 2) / (1 - S * k0)
    return X, dataset.y, K, width * K * (1 + M) + X.T @ X * M


def start_of(folder: Path, *overrides: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """G(0), H(0) and e(0) of a run, from the weights that it starts with, by plain iterations."""
    spec = small(folder, *overrides, "train.steps=0")
    start, dataset = weights(run(spec, folder, CPU).folder), spec.data.load()
    Z = picard(start["W"], start["U"] @ dataset.X)
    slope = (start["W"] @ Z + start["U"] @ dataset.X >= 0).astype(float)
    V = picard(start["W"].T, np.repeat(start["a"][:, None], Z.shape[1], 1), slope)
    G = Z.T @ Z
    return G, G + (V.T @ V) * (G + dataset.X.T @ dataset.X), start["a"] @ Z - dataset.y


def losses(H: np.ndarray, squares: np.ndarray, rate: float, steps: list[int]) -> list[float]:
    """1/2 tr (I - eta H)^(2 tau) E[e e^T]."""
    factor = np.eye(len(H)) - rate * H
    return [0.5 * float(np.trace(np.linalg.matrix_power(factor, 2 * step) @ squares)) for step in steps]


def theorem_rate(X: np.ndarray, y: np.ndarray, K: np.ndarray, m: int) -> float:
    """(10) at the best delta of a fine grid, for ||W|| = 2 sqrt2 sigma_w, ||U|| = sqrt2 (1 + sqrt(m/d)), ||a|| = 1."""
    norm_x, norm_u, norm_w = np.linalg.norm(X), math.sqrt(2) * (1 + math.sqrt(m / len(X))), 2 * math.sqrt(2 * S)
    lambda_0, e = m * np.linalg.eigvalsh(K)[0], math.sqrt(np.trace(K) + y @ y)
    delta = (1 - norm_w) * np.logspace(-8, -1e-3, 200_001)
    gap, u, a = 1 - norm_w - delta, norm_u + delta, 1 + delta
    c_w, c_u, c_a = u * a / gap**2, a / gap, u / gap
    slacks = (
        lambda_0 / (4 / delta * np.maximum(c_w, np.maximum(c_u, c_a)) * norm_x * e),
        lambda_0**1.5 / (4 * (2 + math.sqrt(2)) / a * (c_w**2 + c_u**2) * norm_x**2 * e),
        lambda_0 / (8 * (c_w**2 + c_u**2) * norm_x**2),
    )
    best = np.argmax(np.minimum.reduce(slacks))
    hidden = (c_w**2 + c_u**2)[best]
    return min(2 / lambda_0, 2 * hidden / ((hidden + c_a[best] ** 2) ** 2 * norm_x**2))


@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize(("kernel", "runs"), [("data", 2), ("draw", 4)])
def test_the_files_of_a_prediction(kernel: str, runs: int) -> None:
    folder, out = predicted("--from", kernel)
    assert folder.name.endswith(f"-{kernel}")
    assert set(files_of(folder)) == {*HEADERS, *FIGURES, "recipe.yaml", "manifest.json"}
    for name, header in HEADERS.items():
        assert (folder / name).read_text().splitlines()[0] == header
    rows = {name: pd.read_csv(folder / name) for name in HEADERS}
    assert {name: len(each) for name, each in rows.items()} == {
        "prediction.csv": runs * 21, "summary.csv": runs, "times.csv": runs * 5, "directions.csv": runs * 6,
    }  # fmt: skip
    for each in rows.values():
        assert set(each["kernel"]) == {"H_inf" if kernel == "data" else "H(0)"}
        assert each["run_id"].isna().all() == each["seed"].isna().all() == (kernel == "data")
    pictures = [name for name in FIGURES if name.endswith(".png")]
    assert pictures
    for name in pictures:
        assert f"Picture: {folder / name} (png, svg, pdf, csv)" in out
        assert (folder / name).stat().st_size > 5_000


@pytest.mark.usefixtures("pictures")
def test_the_manifest_of_a_prediction_verifies() -> None:
    folder, _ = predicted()
    manifest = read_manifest(folder, "prediction", folder.name)
    assert manifest is not None
    assert manifest.status == "complete"
    assert set(manifest.files) == {*HEADERS, *FIGURES, "recipe.yaml"}
    verify(folder, manifest.files)


@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize("kernel", ["data", "draw"])
def test_a_second_call_writes_the_same_bytes(kernel: str) -> None:
    folder, _ = predicted("--from", kernel)
    before = files_of(folder)
    assert len(before) == 10
    assert predicted("--from", kernel)[0] == folder
    assert files_of(folder) == before


def test_a_folder_of_something_else_is_left_as_it_is() -> None:
    folder, _ = predicted()
    (folder / "manifest.json").unlink()
    code, _, err = call("predict", "small.yaml")
    assert code == 4
    assert "it is left as it is" in err


@pytest.mark.parametrize("rate", ["0.003", "auto", "theorem"])
@pytest.mark.parametrize("kernel", ["data", "draw"])
def test_every_table_by_numpy(tmp_path: Path, kernel: str, rate: str) -> None:
    folder, _ = predicted("--from", kernel, f"train.learning_rate={rate}", "--widths", "32", "--seeds", "1")
    curve, directions = pd.read_csv(folder / "prediction.csv"), pd.read_csv(folder / "directions.csv")
    summary, times = pd.read_csv(folder / "summary.csv").iloc[0], pd.read_csv(folder / "times.csv")
    X, y, K, H = limit_of(32)
    squares = K + np.outer(y, y)
    if kernel == "draw":
        _, H, e = start_of(tmp_path, "model.width=32", "train.seed=1")
        squares = np.outer(e, e)
    eigenvalues, V = np.linalg.eigh(H)
    eta = summary["learning_rate"]
    if rate != "theorem":
        assert eta == pytest.approx(0.003 if rate == "0.003" else 1 / eigenvalues[-1], rel=1e-8)
    elif kernel == "data":
        assert eta == pytest.approx(theorem_rate(X, y, K, 32), rel=1e-3)
    assert curve["step"].tolist() == list(range(21))
    assert curve["time"].to_numpy() == pytest.approx(eta * 32 * np.arange(21), rel=1e-14)
    assert curve["loss"].to_numpy() == pytest.approx(losses(H, squares, eta, list(range(21))), rel=1e-7)
    for name in ("low", "median", "high"):
        assert curve[f"loss_{name}"].isna().all() == curve[f"loss_{name}"].isna().any() == (kernel == "draw")
        assert str(summary[f"final_loss_{name}"]) == str(curve[f"loss_{name}"].iloc[-1])
    assert directions["eigenvalue"].to_numpy() == pytest.approx(eigenvalues, rel=1e-7)
    assert directions["factor"].to_numpy() == pytest.approx((1 - eta * eigenvalues) ** 2, rel=1e-6, abs=1e-14)
    initial = 0.5 * np.einsum("ik,ij,jk->k", V, squares, V)
    assert directions["initial_loss"].to_numpy() == pytest.approx(initial, rel=1e-6)
    final = (1 - eta * eigenvalues) ** 40 * initial
    assert directions["final_loss"].to_numpy() == pytest.approx(final, rel=1e-5, abs=1e-100)
    assert summary["learning_rate_largest_stable"] == pytest.approx(2 / eigenvalues[-1], rel=1e-8)
    assert [summary["lambda_min_ntk"], summary["lambda_max_ntk"]] == pytest.approx(eigenvalues[[0, -1]], rel=1e-7)
    assert [summary["steps"], summary["initial_loss"], summary["final_loss"]] == [
        20, curve["loss"].iloc[0], curve["loss"].iloc[-1],
    ]  # fmt: skip
    held = np.cumsum(np.sort(final)[::-1]) / final.sum()
    assert summary["directions_left"] == 1 + np.flatnonzero(held >= 0.99)[0]
    assert times["loss"].to_numpy() == pytest.approx(curve["loss"][0] * np.array([1e-1, 1e-2, 1e-3, 1e-4, 1e-6]))
    for loss, step in zip(times["loss"], times["step"], strict=True):
        before, there = losses(H, squares, eta, [int(step) - 1, int(step)])
        assert there <= loss * (1 + 1e-6)
        assert before > loss * (1 - 1e-6)


def test_check_init_writes_the_spectra_of_the_same_four_kernels(tmp_path: Path) -> None:
    code, out, _ = call("check-init", "small.yaml", "--widths", "32", "--seeds", "1", "--json")
    assert code == 0
    rows = pd.read_csv(Path(json.loads(out)["folder"]) / "spectra.csv")
    (*_, K, H_inf), (G, H, _) = limit_of(32), start_of(tmp_path, "model.width=32", "train.seed=1")
    assert len(rows) == 4 * 6
    for name, kernel in {"G": G, "H": H, "m K": 32 * K, "H_inf": H_inf}.items():
        own = rows[rows["kernel"] == name]
        assert own["index"].tolist() == list(range(6))
        assert own["eigenvalue"].to_numpy() == pytest.approx(np.linalg.eigvalsh(kernel), rel=1e-7)


def test_a_prediction_from_data_needs_no_seed_and_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(*_: object) -> None:
        raise AssertionError("a network was drawn")

    monkeypatch.setattr("deqcli.sweep.predictions.drawn", drawn)
    one, other = (predicted("--seeds", seeds)[0] for seeds in ("0", "5,6,7"))
    assert one != other
    for name in HEADERS:
        assert (one / name).read_bytes() == (other / name).read_bytes()


@pytest.mark.parametrize("width", [10**7, 10**9])
def test_no_width_is_too_large_for_a_prediction_from_data(width: int) -> None:
    """In the limit eta m tau is all that counts: H_inf/m tends to K * (1 + M)."""
    folder, _ = predicted("--widths", str(width))
    curve, (*_, H) = pd.read_csv(folder / "prediction.csv"), limit_of(width)
    _, y, K, _ = limit_of(1)
    assert curve["loss"].to_numpy() == pytest.approx(
        losses(H, K + np.outer(y, y), 1 / np.linalg.eigvalsh(H)[-1], list(range(21))), rel=1e-7
    )


def test_a_draw_that_memory_cannot_hold_is_refused_in_bytes() -> None:
    code, out, err = call("predict", "small.yaml", "--from", "draw", "--widths", "10000000")
    assert (code, out) == (2, "")
    assert "width 10000000" in err
    assert "bytes" in err


@pytest.mark.parametrize("kernel", ["data", "draw"])
def test_too_many_samples_are_refused_in_bytes_before_they_are_drawn(
    kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sphere, "load", lambda _: pytest.fail("the data were drawn"))
    code, out, err = call("predict", "small.yaml", "data.num_samples=1000000", "--from", kernel)
    assert (code, out) == (2, "")
    assert "num_samples 1000000" in err
    assert "bytes" in err
    assert not Path("outputs").exists()


@pytest.mark.parametrize("rate", ["0.003", "auto", "theorem"])
def test_from_a_draw_is_what_its_run_logs(rate: str) -> None:
    given = (f"train.learning_rate={rate}", "train.steps=30", "log.spectral_every=7")
    code, _, err = call("train", "small.yaml", *given, "--width", "24", "--seed", "1")
    assert code == 0, err
    folder, _ = predicted("--from", "draw", "--widths", "24", "--seeds", "1", *given)
    (trained,) = Path("outputs/small/runs").iterdir()
    logged = pd.read_csv(trained / "spectral.csv").set_index("step")["loss_predicted"]
    assert logged.index.tolist() == [0, 7, 14, 21, 28, 30]
    for curve in (pd.read_csv(folder / "prediction.csv"), pd.read_csv(trained / "prediction.csv")):
        assert curve.set_index("step")["loss"][logged.index].to_numpy() == pytest.approx(logged.to_numpy(), rel=1e-8)
        assert set(curve["run_id"]) == {trained.name}


def test_the_steps_to_given_losses() -> None:
    folder, _ = predicted("--loss", "0.1", "--loss", "1e-3", "--loss", "1e-300", "--widths", "32")
    times, curve = pd.read_csv(folder / "times.csv"), pd.read_csv(folder / "prediction.csv")
    assert times["loss"].tolist() == [0.1, 1e-3, 1e-300]
    assert times["step"].iloc[0] == curve[curve["loss"] <= 0.1]["step"].min()
    assert times["step"].iloc[1] > 20  # beyond the recipe's own steps
    assert times["step"].iloc[2] > 20 * times["step"].iloc[1]


@pytest.mark.parametrize("loss", ["0", "-1", "nan", "inf"])
def test_a_loss_that_is_no_positive_number_is_refused(loss: str) -> None:
    code, out, err = call("predict", "small.yaml", "--loss", loss)
    assert (code, out) == (2, "")
    assert err.strip().endswith("a loss is a positive number")


def test_a_loss_that_is_never_reached_is_said_to_be_so() -> None:
    _, out = predicted("train.learning_rate=1.0", "--loss", "1e-3", "--widths", "32")
    assert out.count("never") == 1


@pytest.mark.usefixtures("pictures")
def test_json_is_one_document_with_the_numbers_of_the_tables() -> None:
    code, out, err = call("predict", "small.yaml", "--json", "--loss", "0.1", "train.learning_rate=1.0")
    document = json.loads(out)
    assert (code, err) == (0, "")
    rows = pd.read_csv(Path(document["folder"]) / "summary.csv").to_dict("records")
    assert len(rows) == len(document["predictions"]) == 2
    for row, each in zip(rows, document["predictions"], strict=True):
        assert {key: each[key] for key, value in row.items() if value == value} == {
            key: value for key, value in row.items() if value == value
        }
        assert each["times"] == [{"loss": 0.1, "step": None}]
        assert each["against"] is None
    assert document["figures"] == [f"{document['folder']}/{name}" for name in FIGURES]


def test_quiet_is_silent() -> None:
    assert call("predict", "small.yaml", "--quiet") == (0, "", "")


@pytest.mark.usefixtures("pictures")
def test_an_unstable_rate_overflows_into_empty_cells() -> None:
    folder, out = predicted("train.learning_rate=1.0", "train.steps=2000", "--widths", "32")
    curve = pd.read_csv(folder / "prediction.csv")
    assert curve["loss"].iloc[:5].notna().all()
    assert curve["loss"].iloc[:5].is_monotonic_increasing
    assert curve[["loss", "loss_low", "loss_median", "loss_high"]].iloc[-1].isna().all()
    assert math.isnan(pd.read_csv(folder / "summary.csv")["final_loss"].item())
    assert pd.read_csv(folder / "times.csv")["step"].isna().all()
    assert out.count("never") == 5
    for path in folder.glob("*.csv"):
        assert not {"inf", "nan"} & set(path.read_text().replace("\n", ",").split(","))


@pytest.mark.parametrize("kernel", ["data", "draw"])
@pytest.mark.parametrize(
    ("code", "given"),
    [
        (0, ["train.steps=0"]),
        (0, ["train.steps=9007199254740992"]),
        (0, ["data={kind: sphere, num_samples: 1, input_dim: 1}"]),
        (0, ["data.num_samples=40"]),
        (0, ["data.num_samples=60", "data.input_dim=2"]),
        (0, ["model.readout_scale=1e-200"]),
        (0, ["model.readout_scale=1e-300", "data.label_scale=1e-300"]),
        (3, ["model.readout_scale=1e200"]),
        (3, ["data.label_scale=1e200"]),
        (3, ["model.sigma_w_sq=30.0"]),
        (2, ["data.num_samples=40", "train.learning_rate=theorem"]),
    ],
    ids=str,
)
def test_no_recipe_is_too_odd_for_a_sentence(code: int, given: list[str], kernel: str) -> None:
    found, out, err = call("predict", "small.yaml", *given, "--from", kernel, "--widths", "24", "--seeds", "0")
    assert found == code
    assert (out == "") == (code != 0)
    assert (err == "") == (code == 0)
    assert "a bug" not in err


def test_without_a_limit_there_is_no_prediction_from_data() -> None:
    code, _, err = call("predict", "small.yaml", "model.sigma_w_sq=1.5")
    assert code == 3
    assert "no limit at sigma_w_sq = 1.5" in err
    assert not Path("outputs").exists()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished sweep; its runs are beside it."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "small.yaml").write_text(SMALL)
    end = api.sweep_width(str(folder / "small.yaml"), out=folder, jobs=1, device="cpu")
    assert not end.end.failed
    return end.folder


def run_of(sweep: Path, width: int, seed: int) -> Path:
    (folder,) = (sweep.parent.parent / "runs").glob(f"w{width:05d}-s{seed:03d}-*")
    return folder


@pytest.mark.parametrize("kernel", ["data", "draw"])
@pytest.mark.parametrize("whole", [True, False], ids=["sweep", "run"])
def test_how_far_measured_runs_are_from_their_prediction(trained: Path, kernel: str, whole: bool) -> None:
    measured = trained if whole else run_of(trained, 32, 1)
    folder, out = predicted("--against", str(measured), "--from", kernel, "train.learning_rate=0.5")
    against = pd.read_csv(folder / "against.csv")
    assert ",".join(against.columns) == (
        f"{KEYS},learning_rate,largest_deviation,largest_deviation_step,final_deviation,share_in_band"
    )
    assert len(against) == (4 if whole else 1)
    curves, loss = pd.read_csv(folder / "prediction.csv"), pd.read_csv(measured / "loss.csv")
    own = pd.read_csv(measured / "prediction.csv")
    for row in against.itertuples():
        both = loss[loss["run_id"] == row.run_id].merge(curves[curves["run_id"] == row.run_id], on="step")
        assert len(both) == 21
        deviations = np.log10(both["loss_x"] / both["loss_y"])
        assert row.largest_deviation == pytest.approx(deviations[deviations.abs().idxmax()], abs=1e-12)
        assert row.largest_deviation_step == both["step"][deviations.abs().idxmax()]
        assert row.final_deviation == pytest.approx(deviations.iloc[-1], abs=1e-12)
        assert row.learning_rate == own[own["run_id"] == row.run_id]["learning_rate"].iloc[0]  # not the recipe's
        if kernel == "draw":
            assert math.isnan(row.share_in_band)
            mine = own[own["run_id"] == row.run_id]
            assert both["loss_y"].to_numpy() == pytest.approx(mine["loss"].to_numpy(), rel=1e-8)
        else:
            assert row.share_in_band == both["loss_x"].between(both["loss_low"], both["loss_high"]).mean()
        assert f"width {row.width}, seed {row.seed}: log10(loss) is at most {abs(row.largest_deviation):.3g}" in out
    assert set(against["kernel"]) == {"H_inf" if kernel == "data" else "H(0)"}


@pytest.mark.usefixtures("pictures")
def test_a_prediction_beside_a_measurement_has_a_folder_of_its_own(trained: Path) -> None:
    beside, _ = predicted("--against", str(trained))
    alone, _ = predicted()
    assert beside.name == f"{alone.name}-against"
    assert {*files_of(alone), "against.csv"} == files_of(beside).keys()
    assert all(files_of(alone)[name] != files_of(beside)[name] for name in FIGURES)


def test_runs_that_the_recipe_does_not_name_are_left_out(trained: Path) -> None:
    folder, _ = predicted("--against", str(trained), "--widths", "16,32", "--seeds", "0,9")
    against = pd.read_csv(folder / "against.csv")
    assert against[["width", "seed"]].to_numpy().tolist() == [[32, 0]]


def test_tables_that_were_altered_are_not_compared_with(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "altered")
    table = tmp_path / "altered" / "loss.csv"
    table.write_text(table.read_text().replace(",converged", "0,converged", 1))
    code, out, err = call("predict", "small.yaml", "--against", str(tmp_path / "altered"))
    assert (code, out) == (4, "")
    assert "altered/loss.csv is not what was written" in err


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--against", "nowhere"], "--against nowhere: it has no recipe.yaml"),
        (["--against", "SWEEP/.."], "it has no recipe.yaml; name the folder of a finished run or sweep"),
        (["--against", "SWEEP", "--widths", "16"], "the recipe names none of what was measured, width 24 seed 0"),
        (["--against", "SWEEP", "--seeds", "7"], "the recipe names none of what was measured"),
        (["--against", "SWEEP", "data.seed=9"], "another data.seed (1, not 9)"),
        (["--against", "SWEEP", "model.sigma_w_sq=0.06", "data.label_scale=2"], "model.sigma_w_sq (0.05, not 0.06)"),
        (["--from", "magic"], "--from magic: a prediction is from data or draw"),
    ],
    ids=str,
)
def test_what_cannot_be_predicted_is_refused_in_a_sentence(trained: Path, given: list[str], words: str) -> None:
    code, out, err = call("predict", "small.yaml", *(each.replace("SWEEP", str(trained)) for each in given))
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1
    assert not Path("outputs").exists()


def test_an_unfinished_run_has_nothing_to_compare_with(trained: Path) -> None:
    half = Path("half")
    half.mkdir()
    for name in ("recipe.yaml", "prediction.csv", "loss.csv"):
        text = (run_of(trained, 32, 1) / name).read_text()
        (half / name).write_text(text.splitlines(keepends=True)[0] if name == "loss.csv" else text)
    write_manifest(half, Manifest(kind="run", id="half", recipe="small", status="interrupted"))
    code, _, err = call("predict", "small.yaml", "--against", "half")
    assert code == 2
    assert "no row of its loss.csv is of a converged step" in err


def test_the_predictions_of_a_sweep_are_those_of_its_runs(trained: Path) -> None:
    parts = [(run_of(trained, width, seed) / "prediction.csv").read_bytes() for width in (24, 32) for seed in (0, 1)]
    lines = [part.splitlines(keepends=True) for part in parts]
    merged = lines[0][:1] + [row for part in lines for row in part[1:]]
    assert (trained / "prediction.csv").read_bytes() == b"".join(merged)
    rows = pd.read_csv(trained / "prediction.csv")
    assert len(rows) == 4 * 21
    assert rows["time"].to_numpy() == pytest.approx((rows["learning_rate"] * rows["width"] * rows["step"]).to_numpy())
    spectral = pd.read_csv(trained / "spectral.csv").merge(rows, on=["run_id", "step"])
    assert len(spectral) == 4 * 5
    assert spectral["loss"].to_numpy() == pytest.approx(spectral["loss_predicted"].to_numpy(), rel=1e-8)


@pytest.mark.parametrize("override", ["log.loss_every=1", "log.loss_every=3", "data.num_samples=1"])
def test_the_results_of_a_run_are_those_of_its_tables(tmp_path: Path, override: str) -> None:
    done = run(small(tmp_path, override, "train.learning_rate=2e-3"), tmp_path, CPU)
    found = done.manifest.results
    G, H, e = start_of(tmp_path, override)
    loss, spectral = (pd.read_csv(done.folder / f"{name}.csv").set_index("step") for name in ("loss", "spectral"))
    later = loss["loss"].iloc[1:]
    over = later / ((1 - 2e-3 * np.linalg.eigvalsh(G)[0] / 2) ** later.index * loss["loss"][0])
    ratio = spectral["lambda_min"] / np.linalg.eigvalsh(G)[0]
    upper = spectral["spectral_norm_upper"]
    for name, worst, step in (
        ("max_spectral_norm_upper", upper.max(), upper.idxmax()),
        ("min_lambda_ratio", ratio.min(), ratio.idxmin()),
        ("max_loss_over_bound", over.max(), over.idxmax()),
    ):
        assert found[name] == pytest.approx(worst, rel=1e-9)
        assert found[f"{name}_step"] == step
    half = loss["loss"].iloc[len(loss) // 2 :]
    span = half.index[-1] - half.index[0]
    assert span >= 8
    assert found["rate_measured"] == pytest.approx(-np.diff(np.log(half)).sum() / span, rel=1e-12)
    first, last = losses(H, np.outer(e, e), 2e-3, [half.index[0], half.index[-1]])
    assert found["rate_kernel"] == pytest.approx(math.log(first / last) / span, rel=1e-6)
    assert found["rate_theorem"] == pytest.approx(-math.log1p(-2e-3 * np.linalg.eigvalsh(G)[0] / 2), rel=1e-9)
    assert found["rate_measured"] > found["rate_theorem"]


def test_results_that_a_run_has_not_are_missing(tmp_path: Path) -> None:
    none = run(small(tmp_path, "train.steps=0"), tmp_path, CPU).manifest.results
    for name in ("max_loss_over_bound", "max_loss_over_bound_step", "rate_measured", "rate_kernel"):
        assert none[name] is None
    assert (none["max_spectral_norm_upper_step"], none["min_lambda_ratio_step"]) == (0, 0)
    narrow = run(small(tmp_path, "data.num_samples=40"), tmp_path, CPU).manifest.results
    assert narrow["min_lambda_ratio"] is narrow["min_lambda_ratio_step"] is None
    assert narrow["rate_measured"] > 0
    assert narrow["rate_theorem"] in (0.0, None)  # nothing is promised
    assert str(narrow["rate_theorem"]) != "-0.0"


def test_a_loss_of_exactly_0_has_no_rate(tmp_path: Path) -> None:
    spec = small(tmp_path)
    folder = run(spec, tmp_path, CPU).folder
    *lines, last = (folder / "loss.csv").read_text().splitlines()
    cells = last.split(",")
    cells[7] = "0.0"
    (folder / "loss.csv").write_text("\n".join([*lines, ",".join(cells)]) + "\n")
    found = results(folder, spec, 4, Baseline.restored(spec, load_checkpoint(folder / "checkpoint.safetensors")))
    assert found["final_loss"] == 0
    assert found["rate_measured"] is None
    assert found["rate_kernel"] > 0


def test_train_prints_the_conclusions_of_theorem_1_and_the_rates() -> None:
    _, out, _ = call("train", "small.yaml")
    document = json.loads(call("train", "small.yaml", "--json")[1])["results"]
    for claim, what, name in (
        ("(i)   ||W||_2 < 1", "largest upper bound", "max_spectral_norm_upper"),
        ("(ii)  lambda_tau > lambda_0/2", "least lambda_tau/lambda_0", "min_lambda_ratio"),
        ("(iii) loss <= loss_bound", "largest loss/loss_bound", "max_loss_over_bound"),
    ):
        where = f"{what} {document[name]:.6g}, at step {document[f'{name}_step']}"
        assert f"{claim}: held at every logged step ({where})\n" in out
    assert (
        f"linear rate: log(loss) falls by {document['rate_measured']:.4g} a step; by Theorem 1 at least "
        f"{document['rate_theorem']:.4g}, by the kernel {document['rate_kernel']:.4g}\n"
    ) in out


def test_train_claims_nothing_that_it_cannot_show() -> None:
    _, out, _ = call("train", "small.yaml", "data.num_samples=40")
    assert "(ii)  lambda_tau > lambda_0/2: nothing to show (lambda_0 is 0)" in out
    _, out, _ = call("train", "small.yaml", "model.sigma_w_sq=0.2")
    assert "(i)   ||W||_2 < 1: not shown at every logged step (largest upper bound 1." in out


@pytest.mark.usefixtures("pictures")
def test_an_api_call_gives_what_the_command_writes(tmp_path: Path) -> None:
    recipe(tmp_path)
    found = api.predict("recipe.yaml", widths=[24], losses=[0.5], out=tmp_path)
    (only,) = found.predicted
    assert only.kernel == "H_inf"
    assert only.times([0.5]) == [(0.5, pd.read_csv(found.folder / "times.csv")["step"].item())]
    assert [path.relative_to(found.folder).as_posix() for path in found.figures] == FIGURES
