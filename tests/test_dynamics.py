"""Training on a fixed kernel: factors, losses and first steps against naive products, and what recipes make of them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from deqcli.deq.schedule import Schedule
from deqcli.errors import RecipeRefused
from deqcli.recipe.loading import load_recipe
from deqcli.runs.baseline import dynamics
from deqcli.theory import prediction
from deqcli.theory.dynamics import Dynamics
from deqcli.theory.prediction import KernelPrediction, loss_bounds
from tests.runs import recipe, small

X = np.array([0.0, 1e-3, 0.3, 1.0, 1.7, 2.4])
"""eta h: still, slow, monotone, at once, oscillating, and beyond what plain descent bears."""

LINEAR = Schedule("linear", 30, 0.1)
TRAININGS = {
    "plain": Dynamics(),
    "flow": Dynamics(flow=True),
    "momentum": Dynamics(momentum=0.6),
    "linear": Dynamics(LINEAR),
    "warm momentum": Dynamics(Schedule("cosine", 30, 0.2, warmup=4), 0.9),
}
every_training = pytest.mark.parametrize("name", TRAININGS)


def naive(training: Dynamics, x: float, steps: int) -> list[float]:
    """|f| at every step, by powers of the 2 x 2 matrix of (f, f before); of a flow by exp."""
    if training.flow:
        return [math.exp(-x * step) for step in range(steps + 1)]
    state, found, beta = np.ones(2), [1.0], training.momentum
    for t in range(steps):
        state = np.array([[1 - training.schedule.factor(t) * x + beta, -beta], [1, 0]]) @ state
        found.append(abs(float(state[0])))
    return found


@every_training
def test_the_factors_are_those_of_a_naive_product(name: str) -> None:
    training, steps = TRAININGS[name], [0, 1, 2, 7, 29, 40]
    found = np.array(list(training.path(X, steps)))
    wanted = np.array([naive(training, x, 40) for x in X]).T[steps]
    np.testing.assert_allclose(found, wanted, rtol=1e-11, atol=1e-13)
    for step, factors in zip(steps, found, strict=True):
        np.testing.assert_allclose(training.factors(X, step), factors, rtol=1e-12, atol=1e-14)
    assert training.a_power == (name in ("plain", "flow"))


@pytest.mark.parametrize("beta", [0.0, 0.3, 0.9])
def test_descent_is_stable_up_to_what_is_stated(beta: float) -> None:
    """2 (1 + beta): a little below it |f| shrinks, a little above it grows."""
    training = Dynamics(momentum=beta)
    assert training.stable == 2 * (1 + beta)
    below, above = training.factors(np.array([0.98, 1.02]) * training.stable, 2000)
    assert below < 1e-3
    assert above > 1e3
    assert Dynamics(flow=True).stable is None


def kernel(training: Dynamics) -> KernelPrediction:
    return KernelPrediction(np.array([0.5, 2.0, 8.0]), np.array([1.0, -2.0, 0.5]), training)


@every_training
def test_losses_and_first_steps_are_those_of_the_naive_product(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """1/2 sum (f_k v_k . e)^2 at eta = 0.1; steps_to looks for the first step by itself."""
    monkeypatch.setattr(prediction, "MOST_SCANNED", 500)
    of, training = kernel(TRAININGS[name]), TRAININGS[name]
    paths = np.array([naive(training, 0.1 * h, 60) for h in of.eigenvalues])
    losses = 0.5 * ((paths * of.projections[:, None]) ** 2).sum(axis=0)
    np.testing.assert_allclose(of.losses(0.1, range(61)), losses, rtol=1e-11)
    found = 0
    for target in (3.0, 2.0, 0.3, 0.05, 1e-3):
        wanted = next((step for step, loss in enumerate(losses) if loss <= target), None)
        if wanted is not None:
            assert of.steps_to(target, 0.1) == wanted
            found += 1
    assert found >= 3
    parts = of.parts(0.1, 17)
    assert float(parts.sum()) == pytest.approx(losses[17], rel=1e-11)


def test_a_loss_that_momentum_never_reaches_has_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction, "MOST_SCANNED", 500)
    still = KernelPrediction(np.array([0.0, 1.0]), np.array([1.0, 1.0]), Dynamics(momentum=0.5))
    assert still.steps_to(0.4, 0.1) is None
    assert still.steps_to(0.51, 0.1) is not None


@every_training
def test_bounds_are_products_of_what_each_step_promises(name: str) -> None:
    """Of Theorem 1 with lambda_0 = 3, eta = 0.2; of momentum there is none; steps that promise nothing stay at 0."""
    training, steps = TRAININGS[name], [0, 1, 5, 33]
    found = loss_bounds(2.0, 3.0, 0.2, steps, training)
    if training.momentum:
        assert found == [None] * 4
        return
    each = [math.exp(-0.6) if training.flow else 1 - 0.3 * training.schedule.factor(t) for t in range(33)]
    assert found == pytest.approx([2 * math.prod(each[:step]) for step in steps], rel=1e-12)
    if not training.flow:
        assert loss_bounds(2.0, 30.0, 0.2, [0, 1, 5], training)[1:] == [0.0, 0.0]


def test_a_recipe_says_how_a_fixed_kernel_is_trained_on(tmp_path: Path) -> None:
    options = ["train.schedule=step", "train.decay=0.3", "train.decay_every=4", "train.warmup=2", "train.momentum=0.4"]
    assert dynamics(small(tmp_path, *options)) == Dynamics(Schedule("step", 20, 0.3, 4, 2), 0.4)
    assert dynamics(small(tmp_path, "train.method=flow")).flow
    assert dynamics(small(tmp_path)) == Dynamics(Schedule("constant", 20, 0.1, 100, 0))


def test_keys_at_their_defaults_are_no_part_of_a_run(tmp_path: Path) -> None:
    """The name of a run from before these keys; spelled out at their defaults they change nothing."""
    assert load_recipe("quickstart", ["train.steps=60"]).run(250, 0).hash8 == "774b7963"
    plain = small(tmp_path)
    spelled = ["train.parameters=[W, U, a]", "train.method=descent", "train.momentum=0", "train.schedule=constant"]
    spelled += ["train.warmup=0", "train.stop_at_loss=null", "model.skip=false", "model.injection=linear"]
    spelled += ["model.readout=gaussian", "model.parametrisation=standard", "model.resample=never"]
    assert small(tmp_path, *spelled).run_id == plain.run_id


def test_the_order_of_what_is_trained_does_not_count(tmp_path: Path) -> None:
    one, other = (small(tmp_path, f"train.parameters={each}") for each in ("[a, U]", "[U, a]"))
    assert one.run_id == other.run_id
    assert one.train.parameters == ("U", "a")
    assert small(tmp_path, "train.parameters=[a, W, U]").run_id == small(tmp_path).run_id


CHANGES = [
    "train.parameters=[W]", "train.method=flow", "train.momentum=0.5", "train.schedule=linear", "train.warmup=3",
    "train.stop_at_loss=1", "model.skip=true", "model.injection=rectified",
    "model.parametrisation=ntk", "model.init=monotone", "model.activation=tanh",
]  # fmt: skip


OF_THE_DRAW = [
    "model.init=orthogonal", "model.init=symmetric", "model.init=nonnegative", "model.readout=signs",
    "model.resample=norm", "model.activation=leaky_relu",
]  # fmt: skip


@pytest.mark.parametrize("change", [*CHANGES, *OF_THE_DRAW])
def test_a_variant_is_a_run_of_its_own_and_another_draw_alone_shares_products(tmp_path: Path, change: str) -> None:
    plain, other = small(tmp_path), small(tmp_path, change)
    assert other.run_id != plain.run_id
    assert plain.stackable
    assert other.stackable == (change in OF_THE_DRAW)


REFUSED = {
    "train.momentum": ["train.method=flow", "train.momentum=0.5"],
    "train.schedule": ["train.method=flow", "train.schedule=linear"],
    "train.warmup": ["train.method=flow", "train.warmup=3"],
    "train.parameters": ["train.parameters=[W, W]"],
    "solver.kind": ["solver.kind=peaceman_rachford", "model.activation=sin"],
    "model.resample": ["model.resample=sometimes"],
    "train.decay": ["train.decay=1.5"],
}
THEOREM = ["train.momentum=0.1", "train.method=flow", "model.skip=true", "model.init=monotone", "train.parameters=[W]"]


@pytest.mark.parametrize("key", REFUSED)
def test_what_cannot_be_is_refused_by_name(tmp_path: Path, key: str) -> None:
    with pytest.raises(RecipeRefused, match=key.replace(".", r"\.")):
        recipe(tmp_path, *REFUSED[key])


@pytest.mark.parametrize("change", THEOREM)
def test_the_rate_of_the_theorem_is_for_what_it_is_about(tmp_path: Path, change: str) -> None:
    with pytest.raises(RecipeRefused, match=r"train\.learning_rate: `theorem` is for gradient descent at one rate"):
        recipe(tmp_path, "train.learning_rate=theorem", change)
