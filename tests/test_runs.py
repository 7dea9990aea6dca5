"""What a run leaves: the files of the contract, with numbers that an independent implementation confirms."""

from __future__ import annotations

import csv
import json
import math
from copy import deepcopy
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from deqcli.data.files import file_sha256
from deqcli.deq.activations import ACTIVATIONS
from deqcli.deq.initialisation import INITIALISATIONS
from deqcli.deq.model import Cell, Component, Params
from deqcli.deq.solvers import Picard
from deqcli.errors import NumericalFailure, Refused
from deqcli.recipe.memory import spec_bytes
from deqcli.runs import attempt, metrics
from deqcli.runs.baseline import Baseline
from deqcli.runs.checkpoint import load_checkpoint
from deqcli.runs.device import Execution
from deqcli.runs.metrics import Metrics, Snapshot, Start, distance
from deqcli.runs.run import run
from deqcli.theory.prediction import KernelPrediction
from tests.runs import picard, reference_losses, small, tables, weights

CPU = Execution("cpu", 1)
TINY = ["model.readout_scale=1e-4", "data.label_scale=1e-4"]  # a loss that can grow while the weights stay
LOSS = (
    "run_id,recipe,dataset,activation,width,seed,step,loss,residual,iterations,adjoint_residual,"
    "adjoint_iterations,status"
)
SPECTRAL = (
    "run_id,recipe,dataset,activation,width,seed,step,spectral_norm,spectral_norm_upper,lambda_min,gradient_norm,"
    "pl_ratio,distance_w,distance_u,distance_a,loss_bound,loss_predicted"
)
CERTIFICATES = "run_id,recipe,dataset,activation,width,seed,certificate,source,lhs,rhs,slack,holds,repaired_by_width"
PREDICTION = (
    "run_id,recipe,dataset,activation,width,seed,kernel,learning_rate,step,time,loss,loss_low,loss_median,loss_high"
)
TIMING = "run_id,step,seconds,forward_seconds,adjoint_seconds"


def test_files_and_columns_are_those_of_the_contract(tmp_path: Path) -> None:
    folder = run(small(tmp_path), tmp_path, CPU).folder
    expected = {
        "recipe.yaml", "manifest.json", "loss.csv", "spectral.csv", "timing.csv", "certificates.csv", "prediction.csv",
        "run.log", "checkpoint.safetensors",
    }  # fmt: skip
    assert {path.name for path in folder.iterdir() if not path.name.startswith(".")} == expected
    headers = {"loss": LOSS, "spectral": SPECTRAL, "certificates": CERTIFICATES, "timing": TIMING}
    headers["prediction"] = PREDICTION
    for name, header in headers.items():
        assert (folder / f"{name}.csv").read_text().splitlines()[0] == header


def test_loss_has_a_row_for_step_0_to_steps_and_spectra_at_logged_steps(tmp_path: Path) -> None:
    folder = run(small(tmp_path, "log.spectral_every=7"), tmp_path, CPU).folder
    assert pd.read_csv(folder / "loss.csv")["step"].tolist() == list(range(21))
    assert pd.read_csv(folder / "spectral.csv")["step"].tolist() == [0, 7, 14, 20]
    assert pd.read_csv(folder / "timing.csv")["step"].tolist() == [0, 7, 14, 20]


def test_manifest_lists_the_hash_of_every_result(tmp_path: Path) -> None:
    folder = run(small(tmp_path), tmp_path, CPU).folder
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["status"] == "complete"
    assert manifest["threads"] == 1
    assert len(manifest["files"]) == 7
    for name, digest in manifest["files"].items():
        assert file_sha256(folder / name) == digest


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-8), ("float32", 1e-4)])
@pytest.mark.parametrize("samples", [6, 40, 1])
@pytest.mark.parametrize("width", [32, 130])
def test_losses_agree_with_an_independent_float64_implementation(
    tmp_path: Path, width: int, samples: int, dtype: str, tolerance: float
) -> None:
    """In a stack of networks and alone."""
    given = {"model.width": width, "data.num_samples": samples, "train.dtype": dtype, "train.learning_rate": "1e-3"}
    overrides = [f"{key}={value}" for key, value in given.items()]
    spec = small(tmp_path, *overrides)
    start = weights(run(small(tmp_path, *overrides, "train.steps=0"), tmp_path, CPU).folder)
    done = run(spec, tmp_path, CPU)
    dataset = spec.data.load()
    expected = reference_losses(start, dataset.X, dataset.y, done.manifest.results["learning_rate"], 20)
    measured = pd.read_csv(done.folder / "loss.csv")["loss"].to_numpy()
    assert len(measured) == 21
    assert measured == pytest.approx(expected, rel=tolerance)
    assert measured[-1] < measured[0]


@pytest.mark.parametrize(
    "override", ["solver.kind=continuation", "solver.kind=picard", "model.width=130", "data.num_samples=40"]
)
def test_checkpoint_holds_the_equilibrium_and_the_adjoint_of_its_weights(tmp_path: Path, override: str) -> None:
    """In a stack of networks, alone, and with U itself instead of its change kept."""
    spec = small(tmp_path, override)
    end, X = weights(run(spec, tmp_path, CPU).folder), spec.data.load().X
    Z = picard(end["W"], end["U"] @ X)
    slope = (end["W"] @ Z + end["U"] @ X >= 0).astype(float)
    assert end["Z"] == pytest.approx(Z, abs=1e-10)
    assert end["V"] == pytest.approx(picard(end["W"].T, np.repeat(end["a"][:, None], len(Z.T), 1), slope), abs=1e-10)


def test_spectral_rows_agree_with_dense_linear_algebra(tmp_path: Path) -> None:
    spec = small(tmp_path)
    start = weights(run(small(tmp_path, "train.steps=0"), tmp_path, CPU).folder)
    done = run(spec, tmp_path, CPU)
    end, dataset = weights(done.folder), spec.data.load()
    row = pd.read_csv(done.folder / "spectral.csv").iloc[-1]
    gram = end["Z"].T @ end["Z"]
    e = end["a"] @ end["Z"] - dataset.y
    P = end["V"] * e
    gradient = math.sqrt(sum((g**2).sum() for g in (P @ end["Z"].T, P @ dataset.X.T, end["Z"] @ e)))
    loss = 0.5 * e @ e
    assert row["spectral_norm"] == pytest.approx(np.linalg.norm(end["W"], 2), rel=1e-9)
    assert row["spectral_norm_upper"] >= np.linalg.norm(end["W"], 2)
    assert row["lambda_min"] == pytest.approx(np.linalg.eigvalsh(gram)[0], rel=1e-9)
    assert row["gradient_norm"] == pytest.approx(gradient, rel=1e-9)
    assert row["pl_ratio"] == pytest.approx(gradient**2 / (2 * loss * np.linalg.eigvalsh(gram)[0]), rel=1e-8)
    for name in "WUa":
        assert row[f"distance_{name.lower()}"] == pytest.approx(np.linalg.norm(end[name] - start[name]), rel=1e-9)
    rate, lambda_0 = done.manifest.results["learning_rate"], np.linalg.eigvalsh(start["Z"].T @ start["Z"])[0]
    initial = pd.read_csv(done.folder / "loss.csv")["loss"][0]
    assert row["loss_bound"] == pytest.approx((1 - rate * lambda_0 / 2) ** 20 * initial, rel=1e-8)


RELU = Component(ACTIVATIONS["relu"], Picard())


def solved_cell(m: int, n: int, d: int, scale: float) -> tuple[Cell, torch.Tensor, torch.Tensor]:
    """A cell in the shape of a solved one, its X and a prediction error; any numbers do for what follows."""
    generator = np.random.default_rng(m)
    W, U, a, Z, V, X, e = (
        torch.tensor(generator.standard_normal(shape)) for shape in ((m, m), (m, d), (m,), (n, m), (n, m), (d, n), (n,))
    )
    return Cell(Params(W, U, a), Z.relu().T, 1e-2 * (V + 1).T, RELU), X, scale * e


def start_of(params: Params) -> Start:
    return Start(partial(torch.split, params.W), params.U, params.a)


def measured(cell: Cell, X: torch.Tensor, e: torch.Tensor, dtype: torch.dtype) -> tuple[Metrics, Snapshot]:
    """Its metrics and a snapshot in a precision."""
    kernel = KernelPrediction.of(torch.eye(len(e), dtype=torch.float64), e)
    params = Params(**{name: each.to(dtype) for name, each in cell.params.given().items()})
    found = Metrics(start_of(deepcopy(params)), X.to(dtype), Baseline(1e-3, 1.0, 1.0, 1.0, kernel), None)
    return found, Snapshot(found, Cell(params, cell.Z.to(dtype), cell.V.to(dtype), RELU), e.to(dtype), 1, 1.0)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-11)])
@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e12, 0.0])
@pytest.mark.parametrize("shape", [(150, 120, 30), (30, 120, 150), (1, 1, 1)])
def test_the_gradient_norm_is_that_of_the_three_gradients(
    shape: tuple[int, int, int], scale: float, dtype: torch.dtype, tolerance: float
) -> None:
    cell, X, e = solved_cell(*shape, scale)
    P = cell.V * e
    gradients = (P @ cell.Z.T, P @ X.T, cell.Z @ e)
    expected = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients))
    assert measured(cell, X, e, dtype)[1].gradient_norm == pytest.approx(expected, rel=tolerance)


def test_networks_of_a_stack_are_measured_in_aligned_memory() -> None:
    """Wherever the memory of a network begins, its numbers are the same."""
    cell, X, e = solved_cell(90, 31, 8, 1.0)
    rows = []
    for offset in (0, 1, 3, 8):
        shifted = [torch.cat([torch.zeros(offset).double(), each.flatten()])[offset:] for each in (cell.Z.T, cell.V.T)]
        Z, V = (each.reshape(31, 90).T for each in shifted)
        snapshot = measured(Cell(cell.params, Z, V, RELU), X, e, torch.float64)[1]
        rows.append((snapshot.lambda_min, snapshot.gradient_norm, snapshot.spectral_norm))
    assert rows == rows[:1] * 4


def test_norms_start_from_the_last_vectors_and_now_and_then_afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    starts, norm = [], metrics.spectral_norm

    def recorded(W: torch.Tensor, start: np.ndarray | None, tolerance: float) -> tuple[float, np.ndarray]:
        starts.append(start is not None)
        return norm(W, start, tolerance)

    monkeypatch.setattr(metrics, "spectral_norm", recorded)
    cell, X, e = solved_cell(80, 5, 8, 1.0)
    found, _ = measured(cell, X, e, torch.float64)
    steps = [0, 20, 180, 200, 220, 400]
    assert len({found.row(cell, e, step, 1.0)["spectral_norm"] for step in steps}) <= len(steps)
    assert starts == [False, True, True, False, True, False]


@pytest.mark.parametrize("entries", [1, 7, 10**6])
@pytest.mark.parametrize("shape", [(13,), (9, 4), (5, 30)])
def test_distances_are_the_same_in_whatever_blocks(
    shape: tuple[int, ...], entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(metrics.ENTRIES_PER_BLOCK, "cpu", entries)
    now, start = torch.rand(shape, dtype=torch.float64), torch.ones(shape, dtype=torch.float64)
    assert distance(now, partial(torch.split, start)) == pytest.approx(float((now - start).norm()), rel=1e-14)
    assert distance(now.float(), partial(torch.split, now.float())) == 0


@pytest.mark.parametrize("overrides", [(), ("train.dtype=float32", "model.width=150")])
def test_where_memory_is_short_w_is_drawn_again_and_nothing_changes(
    overrides: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every table and every tensor of the checkpoint has the same bytes."""
    spec, kept, lean = small(tmp_path, *overrides), tmp_path / "kept", tmp_path / "lean"
    usual = tables(run(spec, kept, CPU).folder)
    least, most = (spec_bytes(spec, 6, 4, keeps_start=keeps) for keeps in (False, True))
    monkeypatch.setattr(attempt, "device_memory", lambda _: (least + most) / 2 if least < most else most - 1)
    gaussian, redrawn, rows_of_w = INITIALISATIONS["gaussian"], [], INITIALISATIONS["gaussian"].by_rows
    monkeypatch.setattr(gaussian, "by_rows", lambda *given: redrawn.append(given) or rows_of_w(*given))
    folder = run(spec, lean, CPU).folder
    assert tables(folder) == usual
    assert len(redrawn) == 5  # the logged steps
    path = folder.relative_to(lean) / "checkpoint.safetensors"
    found, wanted = load_checkpoint(lean / path), load_checkpoint(kept / path)
    assert len(found.tensors) == len(wanted.tensors) > 5
    assert all(torch.equal(found.tensors[name], wanted.tensors[name]) for name in wanted.tensors)


def test_upper_bound_of_the_norm_is_never_below_the_norm(tmp_path: Path) -> None:
    rows = pd.read_csv(run(small(tmp_path, "train.steps=60"), tmp_path, CPU).folder / "spectral.csv")
    assert len(rows) == 13
    assert (rows["spectral_norm_upper"] >= rows["spectral_norm"]).all()
    assert (rows["pl_ratio"] >= 1).all()


def test_more_samples_than_units_have_lambda_0_of_exactly_0_and_no_pl_ratio(tmp_path: Path) -> None:
    folder = run(small(tmp_path, "data.num_samples=40"), tmp_path, CPU).folder
    rows = pd.read_csv(folder / "spectral.csv")
    assert (rows["lambda_min"] == 0).all()
    assert rows["pl_ratio"].isna().all()


def test_no_steps_leave_the_initial_state(tmp_path: Path) -> None:
    folder = run(small(tmp_path, "train.steps=0"), tmp_path, CPU).folder
    assert len(pd.read_csv(folder / "loss.csv")) == len(pd.read_csv(folder / "spectral.csv")) == 1


def test_the_same_recipe_gives_the_same_bytes(tmp_path: Path) -> None:
    spec = small(tmp_path)
    assert tables(run(spec, tmp_path / "a", CPU).folder) == tables(run(spec, tmp_path / "b", CPU).folder)


def test_learning_rates(tmp_path: Path) -> None:
    auto = run(small(tmp_path), tmp_path, CPU).manifest.results
    assert auto["learning_rate"] == auto["largest_stable_learning_rate"] / 2
    theorem = run(small(tmp_path, "train.learning_rate=theorem"), tmp_path, CPU)
    row = pd.read_csv(theorem.folder / "certificates.csv").set_index("certificate").loc["theorem_1_eq_10"]
    assert row["holds"]
    assert row["rhs"] == theorem.manifest.results["learning_rate"] < row["lhs"] < auto["learning_rate"]
    given = run(small(tmp_path, "train.learning_rate=1e-3"), tmp_path, CPU)
    assert given.manifest.results["learning_rate"] == 1e-3


def _failed_rows(folder: Path, spec_id: str) -> list[dict[str, str]]:
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["status"] == "failed"
    assert manifest["id"] == spec_id
    with (folder / "loss.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("overrides", "status", "words"),
    [
        (["solver.max_iterations=3"], "iterations_exhausted", "smaller model.sigma_w_sq"),
        (["train.learning_rate=1e6"], "diverged", "smaller train.learning_rate"),
        ([*TINY, "train.learning_rate=0.03"], "loss_diverged", "the largest stable one of the initial kernel is"),
        (["model.sigma_w_sq=40.0", "train.dtype=float32"], "diverged", "smaller model.sigma_w_sq"),
    ],
)
def test_what_is_not_converged_is_a_row_that_says_so_and_a_failure(
    tmp_path: Path, overrides: list[str], status: str, words: str
) -> None:
    spec = small(tmp_path, *overrides)
    with pytest.raises(NumericalFailure, match=words):
        run(spec, tmp_path, CPU)
    *good, last = _failed_rows(tmp_path / "small" / "runs" / spec.run_id, spec.run_id)
    assert {row["status"] for row in good} <= {"converged"}
    assert last["status"] == status
    assert (last["loss"] == "") == (status != "loss_diverged")


def test_a_failed_run_fails_again_with_the_same_rows(tmp_path: Path) -> None:
    spec = small(tmp_path, *TINY, "train.learning_rate=0.03")
    found = []
    for _ in range(2):
        with pytest.raises(NumericalFailure):
            run(spec, tmp_path, CPU)
        found.append((tmp_path / "small" / "runs" / spec.run_id / "loss.csv").read_bytes())
    assert found[0] == found[1]


def test_a_refused_data_set_leaves_nothing(tmp_path: Path) -> None:
    np.savez(tmp_path / "bad.npz", X=np.zeros((3, 2)), y=np.zeros(3))
    spec = small(tmp_path, f"data={{kind: file, path: {tmp_path}/bad.npz}}")
    with pytest.raises(Refused, match="row 0 is zero"):
        run(spec, tmp_path / "out", CPU)
    assert not (tmp_path / "out").exists()


def test_float32_starts_from_the_rounding_of_the_float64_network(tmp_path: Path) -> None:
    both = [
        weights(run(small(tmp_path, "train.steps=0", f"train.dtype={dtype}"), tmp_path, CPU).folder)
        for dtype in ("float32", "float64")
    ]
    for name in "WUa":
        assert (both[0][name] == both[1][name].astype(np.float32)).all()


def test_a_bound_that_says_nothing_is_not_held(tmp_path: Path) -> None:
    """Where eta lambda_0 / 2 > 1 the theorem makes no claim, and the loss may even have grown."""
    done = run(small(tmp_path, "data.num_samples=1", "train.learning_rate=0.2", "train.steps=3"), tmp_path, CPU)
    results = done.manifest.results
    assert results["learning_rate"] * results["lambda_0"] / 2 > 1
    assert results["max_loss_over_bound"] is None
