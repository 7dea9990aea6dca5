"""Trainings beyond gradient descent at one rate on everything: against closed forms and plain numpy loops."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deqcli.deq.schedule import Schedule
from deqcli.errors import NumericalFailure
from deqcli.runs.run import Outcome, run
from tests.runs import small, tables
from tests.test_resume import CPU, interrupted
from tests.training import shapes_unchecked
from tests.variants import Variant, descent, variant_of

ALL = {"W": 1.0, "U": 1.0, "a": 1.0}
EXACT = ["solver.tolerance=1e-14", "solver.kind=picard", "log.spectral_every=1"]
LOOP = 1e-9
"""Relative, of losses: the solver's 1e-14 a step, which 20 steps enlarge by some decades at most."""


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    """Whole runs take many small steps."""
    with shapes_unchecked():
        yield


def done(folder: Path, *overrides: str) -> tuple[Outcome, Variant]:
    """A finished run solved to rounding, and what it started from."""
    spec = small(folder, *EXACT, *overrides)
    return run(spec, folder / "runs", CPU), variant_of(spec)


def column(outcome: Outcome, name: str = "loss", file: str = "loss.csv") -> np.ndarray:
    found = pd.read_csv(outcome.folder / file)[name].to_numpy()
    assert len(found) > 1
    return found


def rate_of(outcome: Outcome) -> float:
    return float(outcome.manifest.results["learning_rate"])


@pytest.mark.parametrize(
    "options", [[], ["model.skip=true"], ["model.injection=rectified", "model.skip=true"]], ids=str
)
def test_of_the_readout_alone_the_training_is_linear(tmp_path: Path, options: list[str]) -> None:
    """Convex: Phi(tau) = 1/2 ||(I - eta G)^tau e(0)||^2, eta = 1/lambda_max(G), G with F^T F where b is trained too."""
    outcome, p = done(tmp_path, "train.parameters=[a]", *options)
    features = np.concatenate([p.equilibrium(), p.F]) if "b" in p.theta else p.equilibrium()
    G, e = features.T @ features, p.prediction() - p.y
    eta = 1 / np.linalg.eigvalsh(G)[-1]
    assert rate_of(outcome) == pytest.approx(eta, rel=1e-12)
    shrink = np.eye(len(e)) - eta * G
    wanted = [0.5 * float(np.sum((np.linalg.matrix_power(shrink, tau) @ e) ** 2)) for tau in range(21)]
    np.testing.assert_allclose(column(outcome), wanted, rtol=1e-11)
    np.testing.assert_allclose(column(outcome, "loss_predicted", "spectral.csv"), wanted, rtol=1e-11)
    for name in ("distance_w", "distance_u"):
        assert not column(outcome, name, "spectral.csv").any()


@pytest.mark.parametrize("parameters", ["[W]", "[U]", "[W, U]", "[U, a]"])
def test_what_is_not_trained_stays(tmp_path: Path, parameters: str) -> None:
    outcome, p = done(tmp_path, f"train.parameters={parameters}", "train.learning_rate=2e-3")
    factors = {name: 1.0 for name in ALL if name in parameters}
    np.testing.assert_allclose(column(outcome), descent(p, lambda _: 2e-3, 20, factors), rtol=LOOP)
    for name in ALL:
        moved = column(outcome, f"distance_{name.lower()}", "spectral.csv")[1:]
        assert (moved > 0).all() if name in factors else not moved.any()


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["model.activation=tanh", "model.skip=true"],
        ["model.init=monotone", "model.activation=softplus"],
        ["model.injection=rectified", "model.skip=true", "data.num_samples=12"],
        ["model.init=nonnegative", "model.readout=signs"],
    ],
    ids=str,
)
@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_a_run_is_the_plain_loop(tmp_path: Path, options: list[str], momentum: float) -> None:
    """theta <- theta - eta grad + beta (theta - theta before), dense, for variants of the model."""
    outcome, p = done(tmp_path, f"train.momentum={momentum}", "train.learning_rate=1e-3", *options)
    wanted = descent(p, lambda _: 1e-3, 20, dict.fromkeys(p.theta, 1.0), momentum)
    np.testing.assert_allclose(column(outcome), wanted, rtol=LOOP)
    assert wanted[-1] < 0.9 * wanted[0]


def test_momentum_on_a_fixed_kernel_is_what_is_predicted(tmp_path: Path) -> None:
    """Of the readout alone the kernel is fixed: the loss is predicted to rounding, and that of the dense recursion."""
    outcome, p = done(tmp_path, "train.parameters=[a]", "train.momentum=0.7", "train.schedule=linear")
    losses, eta = column(outcome), rate_of(outcome)
    np.testing.assert_allclose(column(outcome, "loss_predicted", "spectral.csv"), losses, rtol=1e-10)
    np.testing.assert_allclose(column(outcome, file="prediction.csv"), losses, rtol=1e-10)
    rate = [eta * (1 - 0.9 * t / 19) for t in range(20)]
    np.testing.assert_allclose(losses, descent(p, rate.__getitem__, 20, {"a": 1.0}, 0.7), rtol=1e-10)
    assert pd.read_csv(outcome.folder / "spectral.csv")["loss_bound"].isna().all()


HALF = math.sqrt(0.5)
BY_HAND = {
    Schedule(): [1.0, 1.0, 1.0, 1.0, 1.0],
    Schedule("linear", 5, 0.2): [1.0, 0.8, 0.6, 0.4, 0.2],
    Schedule("cosine", 5, 0.0): [1.0, (1 + HALF) / 2, 0.5, (1 - HALF) / 2, 0.0],
    Schedule("step", 5, 0.5, 2): [1.0, 1.0, 0.5, 0.5, 0.25],
    Schedule("constant", 5, warmup=4): [0.25, 0.5, 0.75, 1.0, 1.0],
    Schedule("linear", 5, 0.2, warmup=2): [0.5, 0.8, 0.6, 0.4, 0.2],
    Schedule("linear", 1, 0.2): [1.0, 0.2, 0.2, 0.2, 0.2],
}


@pytest.mark.parametrize("schedule", BY_HAND, ids=str)
def test_the_factors_of_a_schedule_by_hand(schedule: Schedule) -> None:
    assert [schedule.factor(t) for t in range(5)] == pytest.approx(BY_HAND[schedule], rel=1e-15, abs=1e-16)
    assert schedule.constant == (schedule == Schedule())


SCHEDULES = {
    "linear": (["train.schedule=linear", "train.decay=0.2"], lambda t: 1 - 0.8 * t / 19),
    "cosine": (["train.schedule=cosine", "train.decay=0"], lambda t: (1 + math.cos(math.pi * t / 19)) / 2),
    "step": (["train.schedule=step", "train.decay=0.5", "train.decay_every=7"], lambda t: 0.5 ** (t // 7)),
    "warmup": (["train.warmup=5"], lambda t: min((t + 1) / 5, 1)),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_is_a_rate_of_each_step(tmp_path: Path, name: str) -> None:
    """The run is the loop with eta_t, and loss_bound the product of what each step promises."""
    options, factor = SCHEDULES[name]
    outcome, p = done(tmp_path, *options)
    eta = rate_of(outcome)
    np.testing.assert_allclose(column(outcome), descent(p, lambda t: eta * factor(t), 20, ALL), rtol=LOOP)
    least = float(np.linalg.eigvalsh(p.equilibrium().T @ p.equilibrium())[0])
    bounds = [p.loss() * math.prod(1 - factor(t) * eta * least / 2 for t in range(tau)) for tau in range(21)]
    np.testing.assert_allclose(column(outcome, "loss_bound", "spectral.csv"), bounds, rtol=1e-10)
    assert outcome.manifest.results["max_loss_over_bound"] <= 1


@pytest.mark.parametrize("skip", [False, True])
def test_the_tangent_kernel_parametrisation_descends_in_normalised_matrices(tmp_path: Path, skip: bool) -> None:
    """theta = s theta' with theta' of variance 1: theta' <- theta' - eta d Phi/d theta', written out."""
    options = ["model.parametrisation=ntk", "model.readout_scale=0.5", f"model.skip={str(skip).lower()}"]
    outcome, p = done(tmp_path, *options)
    m, d, eta = 32, 4, rate_of(outcome)
    size = {"W": math.sqrt(0.1 / m), "U": math.sqrt(2 / d), "a": 0.5 / math.sqrt(m), "b": 0.5 / math.sqrt(m)}
    normal = {name: each / size[name] for name, each in p.theta.items()}
    assert normal["W"].std() == pytest.approx(1, abs=0.1)
    losses = [p.loss()]
    for _ in range(20):
        gradient = p.gradient()
        normal = {name: each - eta * size[name] * gradient[name] for name, each in normal.items()}
        p = p.with_theta(**{name: size[name] * each for name, each in normal.items()})
        losses.append(p.loss())
    np.testing.assert_allclose(column(outcome), losses, rtol=LOOP)
    assert losses[-1] < 0.5 * losses[0]


SMOOTH_FLOW = ["train.method=flow", "model.activation=tanh"]


@pytest.mark.parametrize("options", [[], SMOOTH_FLOW, ["train.momentum=0.5"], ["model.width=130"]], ids=str)
def test_training_stops_at_the_first_step_whose_loss_is_low_enough(tmp_path: Path, options: list[str]) -> None:
    whole = run(small(tmp_path, "log.spectral_every=50", *options), tmp_path, CPU)
    losses = column(whole)
    stop = 0.5 * (losses[12] + losses[13])
    first = int(np.flatnonzero(losses <= stop)[0])
    assert 0 < first < 20
    stopped = run(
        small(tmp_path, "log.spectral_every=50", f"train.stop_at_loss={float(stop)!r}", *options), tmp_path, CPU
    )
    np.testing.assert_allclose(column(stopped), losses[: first + 1], rtol=1e-9)
    assert stopped.manifest.status == "complete"
    assert stopped.manifest.results["steps"] == first
    assert stopped.manifest.results["final_loss"] == column(stopped)[-1] <= stop
    assert list(column(stopped, "step", "spectral.csv")) == [0, first]
    last = pd.read_csv(stopped.folder / "loss.csv").iloc[-1]
    assert 0 < last["residual"] <= 1e-12
    assert 0 < last["adjoint_residual"] <= 1e-12
    assert stopped.manifest.results["max_error_bound"] > 0


def test_training_may_stop_before_its_first_step(tmp_path: Path) -> None:
    outcome = run(small(tmp_path, "train.stop_at_loss=1e6"), tmp_path, CPU)
    assert (outcome.manifest.status, outcome.manifest.results["steps"]) == ("complete", 0)
    for name in ("loss.csv", "spectral.csv"):
        assert list(pd.read_csv(outcome.folder / name)["step"]) == [0]
    assert not run(small(tmp_path, "train.stop_at_loss=1e6"), tmp_path, CPU).computed


def test_a_loss_that_is_never_reached_stops_nothing(tmp_path: Path) -> None:
    outcome = run(small(tmp_path, "train.stop_at_loss=1e-30"), tmp_path, CPU)
    assert outcome.manifest.results["steps"] == 20


RESUMED = {
    "momentum": ["train.momentum=0.9"],
    "momentum, U kept": ["train.momentum=0.9", "data.num_samples=40"],
    "schedule": ["train.schedule=cosine", "train.warmup=12"],
    "flow": ["train.method=flow", "train.flow_tolerance=1e-2"],
    "flow, monotone": ["train.method=flow", "model.init=monotone", "model.activation=tanh", "data.num_samples=40"],
    "stop": ["train.stop_at_loss=0.1"],
    "monotone": ["model.init=monotone", "train.momentum=0.5"],
    "skip": ["model.skip=true", "model.injection=rectified"],
    "skip, U kept": ["model.skip=true", "model.injection=rectified", "data.num_samples=40", "train.momentum=0.5"],
    "resample": ["model.resample=norm", "model.sigma_w_sq=0.11"],
    "some": ["train.parameters=[W]", "model.parametrisation=ntk"],
    "float32": ["train.momentum=0.9", "train.dtype=float32", "model.skip=true"],
}


@pytest.mark.parametrize("name", RESUMED)
def test_what_was_interrupted_goes_on_byte_for_byte(tmp_path: Path, name: str) -> None:
    spec = small(tmp_path, *RESUMED[name])
    folder = interrupted(spec, tmp_path / "parts", 3)
    interrupted(spec, tmp_path / "parts", 9, signal.SIGINT)
    assert run(spec, tmp_path / "parts", CPU).manifest.status == "complete"
    whole = run(spec, tmp_path / "whole", CPU)
    assert tables(folder) == tables(whole.folder)
    assert (folder / "checkpoint.safetensors").read_bytes() == (whole.folder / "checkpoint.safetensors").read_bytes()


def test_a_diverging_run_names_the_largest_stable_rate(tmp_path: Path) -> None:
    """With momentum that is 2 (1 + beta)/lambda_max."""
    with pytest.raises(NumericalFailure, match=r"diverged|not solved") as failed:
        run(small(tmp_path, "train.momentum=0.5", "train.learning_rate=10"), tmp_path, CPU)
    assert failed.value.exit_code == NumericalFailure.exit_code
    usual = run(small(tmp_path, "train.steps=0"), tmp_path, CPU).manifest.results["largest_stable_learning_rate"]
    assert f"{1.5 * usual:.6g}" in str(failed.value)
