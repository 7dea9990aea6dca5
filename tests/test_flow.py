"""Gradient flow against closed forms and scipy's integrators; and draws that are repeated until they are accepted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.integrate
import torch

from deqcli.errors import NumericalFailure
from deqcli.recipe.schema import RunSpec
from deqcli.runs.baseline import draw, measure, solve
from deqcli.runs.resample import drawn
from deqcli.runs.run import Outcome, run
from deqcli.theory.condition import least_slack
from tests.runs import small
from tests.test_resume import CPU
from tests.training import shapes_unchecked
from tests.variants import Variant, variant_of

TINY = ["model.width=10", "data.num_samples=4", "train.method=flow", "solver.tolerance=1e-14", "solver.kind=picard"]


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    """A flow takes many small solves."""
    with shapes_unchecked():
        yield


def followed(folder: Path, *overrides: str) -> tuple[Outcome, np.ndarray, Variant]:
    """A run along the flow, its losses, and what it started from."""
    spec = small(folder, *TINY, *overrides)
    outcome = run(spec, folder / "runs", CPU)
    losses = pd.read_csv(outcome.folder / "loss.csv")["loss"].to_numpy()
    assert len(losses) == spec.train.steps + 1 > 2
    return outcome, losses, variant_of(spec)


def integrated(p: Variant, times: np.ndarray) -> np.ndarray:
    """Losses along d theta/dt = -grad Phi of the dense network by scipy's eighth-order method, to 1e-10."""
    names, sizes = list(p.theta), np.cumsum([each.size for each in p.theta.values()])[:-1]

    def at(flat: np.ndarray) -> Variant:
        parts = zip(names, np.split(flat, sizes), strict=True)
        return p.with_theta(**{name: part.reshape(p.theta[name].shape) for name, part in parts})

    def velocity(_: float, flat: np.ndarray) -> np.ndarray:
        gradient = at(flat).gradient()
        return -np.concatenate([gradient[name].ravel() for name in names])

    start = np.concatenate([each.ravel() for each in p.theta.values()])
    found = scipy.integrate.solve_ivp(velocity, (0, times[-1]), start, "DOP853", times, rtol=1e-10, atol=1e-11)
    assert found.success
    return np.array([at(flat).loss() for flat in found.y.T])


SMOOTH = {
    "tanh": ["model.activation=tanh"],
    "softplus, rectified, skip": ["model.activation=softplus", "model.injection=rectified", "model.skip=true"],
    "monotone": ["model.init=monotone", "model.activation=tanh"],
}


@pytest.mark.parametrize("tolerance", [1e-3, 1e-7])
@pytest.mark.parametrize("name", SMOOTH)
def test_a_smooth_flow_is_off_by_less_than_it_says(tmp_path: Path, name: str, tolerance: float) -> None:
    """flow_error is an upper estimate: three times the error where the kernel is fixed; scipy's own error is 1e-8."""
    options = [*SMOOTH[name], f"train.flow_tolerance={tolerance}", "train.steps=8"]
    outcome, losses, p = followed(tmp_path, *options)
    wanted = integrated(p, outcome.manifest.results["learning_rate"] * np.arange(9))
    error = outcome.manifest.results["flow_error"]
    assert 0 < error <= 1000 * tolerance
    assert np.abs(losses / wanted - 1).max() <= error + 1e-8
    assert losses[-1] < 0.5 * losses[0]


def test_a_finer_tolerance_is_a_smaller_error(tmp_path: Path) -> None:
    errors = []
    for tolerance in (1e-3, 1e-5, 1e-7):
        options = ["model.activation=tanh", "train.steps=6", f"train.flow_tolerance={tolerance}"]
        errors.append(followed(tmp_path, *options)[0].manifest.results["flow_error"])
    assert errors[0] > 10 * errors[1] > 100 * errors[2] > 0


def test_a_flow_of_the_readout_alone_is_an_exponential(tmp_path: Path) -> None:
    """Phi(tau) = 1/2 ||exp(-eta G tau) e(0)||^2: the prediction is exact, the flow as exact as it says."""
    outcome, losses, p = followed(tmp_path, "train.parameters=[a]", "train.flow_tolerance=1e-7")
    Z, e = p.equilibrium(), p.prediction() - p.y
    h, v = np.linalg.eigh(Z.T @ Z)
    times = outcome.manifest.results["learning_rate"] * np.arange(21)
    wanted = 0.5 * ((np.exp(-np.outer(times, h)) * (v.T @ e)) ** 2).sum(axis=1)
    error = outcome.manifest.results["flow_error"]
    assert 0 < error < 1e-4
    assert np.abs(losses / wanted - 1).max() <= error
    np.testing.assert_allclose(pd.read_csv(outcome.folder / "prediction.csv")["loss"], wanted, rtol=1e-10)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("times", [0.5, 10])
def test_along_a_flow_the_loss_falls_at_any_rate(tmp_path: Path, activation: str, times: float) -> None:
    """Of 2/lambda_max(H(0)), from where on descent diverges: a step is then many substeps."""
    options = [f"model.activation={activation}", "train.flow_tolerance=0.1", "train.steps=2"]
    first, _, _ = followed(tmp_path, *options)
    rate = times * 2 * first.manifest.results["learning_rate"]  # auto is 1/lambda_max
    outcome, losses, p = followed(tmp_path, *options, f"train.learning_rate={rate!r}")
    assert losses[0] == pytest.approx(p.loss(), rel=1e-11)
    assert (np.diff(losses) < 0).all()
    assert outcome.manifest.results["largest_stable_learning_rate"] is None


def test_where_a_flow_slides_along_a_kink_the_error_is_small_and_so_is_the_work(tmp_path: Path) -> None:
    """A unit of a ReLU that both sides push to 0 makes every substep an error of the first order, honestly counted."""
    options = ["train.method=flow", "train.steps=8"]
    coarse, fine = (
        run(small(tmp_path, *options, f"train.flow_tolerance={each}"), tmp_path, CPU) for each in (1e-2, 1e-4)
    )
    apart = abs(coarse.manifest.results["final_loss"] / fine.manifest.results["final_loss"] - 1)
    assert apart <= 0.1 * coarse.manifest.results["flow_error"]
    products = pd.read_csv(fine.folder / "loss.csv")["iterations"]
    assert 0 < products.iloc[1:].max() < 5000


def by_hand(spec: RunSpec, accepted: object) -> int:
    """The number of the first attempt that is accepted."""
    d = spec.data.load().X.shape[0]
    return next(k + 1 for k in range(100) if accepted(draw(spec, d, torch.device("cpu"), attempt=k)))


@pytest.mark.parametrize("seed", [0, 3, 5])
def test_the_first_draw_that_contracts_is_taken(tmp_path: Path, seed: int) -> None:
    """||W(0)||_2 < 1 by LAPACK, of one attempt after the other."""
    spec = small(tmp_path, "model.resample=norm", "model.sigma_w_sq=0.14", f"train.seed={seed}", "train.steps=1")
    wanted = by_hand(spec, lambda params: np.linalg.norm(params.W.numpy(), 2) < 1)
    outcome = run(spec, tmp_path, CPU)
    assert outcome.manifest.results["draws"] == wanted
    first = pd.read_csv(outcome.folder / "spectral.csv")["spectral_norm"][0]
    kept = draw(spec, 4, torch.device("cpu"), attempt=wanted - 1)
    assert first == pytest.approx(np.linalg.norm(kept.W.numpy(), 2), rel=1e-9)
    found = drawn(spec, torch.tensor(spec.data.load().X), torch.tensor(spec.data.load().y), torch.device("cpu"))
    assert found.draws == wanted
    assert torch.equal(found.params.W, kept.W)


def test_some_seed_needs_several_draws(tmp_path: Path) -> None:
    """Or the test before would say nothing; most_draws ends it as a numerical failure."""
    X, y = torch.zeros((4, 6), dtype=torch.float64), torch.zeros(6, dtype=torch.float64)
    options = ["model.resample=norm", "model.sigma_w_sq=0.14"]
    specs = [small(tmp_path, *options, f"train.seed={seed}") for seed in range(6)]
    counts = [drawn(spec, X, y, torch.device("cpu")).draws for spec in specs]
    assert max(counts) > 2
    hardest = specs[int(np.argmax(counts))]
    fewer = hardest.model_copy(update={"model": hardest.model.model_copy(update={"most_draws": max(counts) - 1})})
    with pytest.raises(NumericalFailure, match=f"none of {max(counts) - 1} draws") as failed:
        run(fewer, tmp_path, CPU)
    assert failed.value.exit_code == NumericalFailure.exit_code


def test_the_first_draw_of_condition_1_is_taken(tmp_path: Path) -> None:
    """Scales at which Condition 1 holds of some draws: the slack of (7), (8) and (9), one attempt after the other."""
    options = ["model.sigma_w_sq=0.005", "model.readout_scale=0.03", "data.label_scale=0.01", "data.num_samples=2"]
    options += ["model.resample=condition", "model.width=600", "data.input_dim=50", "train.steps=1"]
    spec = small(tmp_path, *options)
    data = spec.data.load()
    X, y = torch.tensor(data.X), torch.tensor(data.y)
    wanted = by_hand(spec, lambda params: least_slack(measure(spec, solve(spec, params, X, y)).safe) >= 1)
    assert run(spec, tmp_path, CPU).manifest.results["draws"] == wanted
