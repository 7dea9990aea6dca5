"""What the draw told, kept for the whole run: learning rate, lambda_0, norm bound, kernel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from deqcli.data.dataset import Dataset
from deqcli.deq.activations import ACTIVATIONS
from deqcli.deq.initialisation import INITIALISATIONS, Draw, OnEntries
from deqcli.deq.model import ALL, Component, Params, Rates
from deqcli.deq.schedule import Schedule
from deqcli.errors import NumericalFailure
from deqcli.recipe.schema import RunSpec
from deqcli.runs.checkpoint import Checkpoint
from deqcli.runs.scope import covered, scales
from deqcli.theory.condition import safe_theorem_rate
from deqcli.theory.draw import OnPart, SolvedDraw
from deqcli.theory.dynamics import Dynamics
from deqcli.theory.initial import Initial, measure_initial
from deqcli.theory.prediction import KernelPrediction, loss_bounds


def draw_of(spec: RunSpec, input_dim: int, device: torch.device, attempt: int = 0) -> Draw:
    """What the draw of a run depends on; `attempt` counts the draws of its seed that were rejected before."""
    model, train = spec.model, spec.train
    return Draw(
        width=model.width,
        input_dim=input_dim,
        sigma_w_sq=model.sigma_w_sq,
        readout_scale=model.readout_scale,
        seed=train.seed,
        dtype=getattr(torch, train.dtype),
        device=device,
        signs=model.readout == "signs",
        skip=model.skip,
        monotonicity=model.monotonicity,
        attempt=attempt,
    )


def drawn_entries(spec: RunSpec, input_dim: int) -> int:
    """How many entries a draw fills."""
    m, model = spec.model.width, spec.model
    return m * (m * (2 if model.init == "monotone" else 1) + input_dim + (2 if model.skip else 1))


def draw(
    spec: RunSpec, input_dim: int, device: torch.device, on_entries: OnEntries = lambda _: None, attempt: int = 0
) -> Params:
    """W(0), U(0), a(0) of a run: the same numbers whenever and wherever they are drawn."""
    drawn = replace(draw_of(spec, input_dim, device, attempt), on_entries=on_entries)
    return INITIALISATIONS[spec.model.init](drawn)


def tensors(dataset: Dataset) -> tuple[Tensor, Tensor]:
    """X (d, n) and y (n,) in float64, copied: memory of numpy's is not always aligned, and bits depend on that."""
    return torch.tensor(dataset.X), torch.tensor(dataset.y)


def solve(spec: RunSpec, params: Params, X: Tensor, y: Tensor, on_part: OnPart = lambda _: None) -> SolvedDraw:
    """The draw `params` solved in float64, on its device; X and y in float64. Raises: NumericalFailure."""
    return SolvedDraw.of(params, X, y, component(spec, X.shape[0]), on_part)


def measure(
    spec: RunSpec, solved: SolvedDraw, against_limit: bool = False, on_part: OnPart = lambda _: None
) -> Initial:
    """What the theory asks of a draw, beside H_inf where that is asked for. Raises: NumericalFailure."""
    initial = measure_initial(solved, scales(spec), against_limit, on_part)
    return replace(initial, kernel=replace(initial.kernel, dynamics=dynamics(spec)))


def component(spec: RunSpec, input_dim: int) -> Component:
    """The activation of a run, its solver with the tolerance in numbers, and what of the network is trained and how."""
    model, tolerance = spec.model, spec.solver.tolerance_for(spec.train.precision)
    return Component(
        ACTIVATIONS[model.activation],
        spec.solver.model_copy(update={"tolerance": tolerance}),
        rectified=model.injection == "rectified",
        monotonicity=model.monotonicity if model.init == "monotone" else None,
        rates=rates(spec, input_dim),
        momentum=spec.train.momentum,
    )


def rates(spec: RunSpec, input_dim: int) -> Rates:
    """1 of what is trained and 0 of the rest; in the tangent-kernel parametrisation times the variance of an entry.

    There W = sqrt(2 sigma_w^2/m) W', U = sqrt(2/d) U' and a = readout_scale/sqrt(m) a', and the entries of W', U' and
    a', which have variance 1, are what gradient descent works on. Source: Jacot et al. 2018.
    """
    model, trained = spec.model, spec.train.parameters
    sizes = ALL
    if model.parametrisation == "ntk":
        m, d, alpha = model.width, input_dim, model.readout_scale
        sizes = Rates(2 * model.sigma_w_sq / m, 2 / d, alpha * alpha / m)
    return Rates(**{name: getattr(sizes, name) if name in trained else 0.0 for name in ("W", "U", "a")})


def dynamics(spec: RunSpec) -> Dynamics:
    """How a fixed kernel would be trained on: schedule, momentum, or flow."""
    train = spec.train
    return Dynamics(schedule(spec), train.momentum, train.method == "flow")


def schedule(spec: RunSpec) -> Schedule:
    """The factors on the learning rate."""
    train = spec.train
    return Schedule(train.schedule, train.steps, train.decay, train.decay_every, train.warmup)


def learning_rate(spec: RunSpec, initial: Initial) -> float:
    """Eta in numbers: as given, `auto` = 1/lambda_max(H(0)), or `theorem` = the largest float below the bound of (10).

    Raises: NumericalFailure where (10) says nothing about the draw.
    """
    wanted = spec.train.learning_rate
    if wanted == "auto":
        return initial.kernel.auto_rate
    if wanted != "theorem":
        return wanted
    bound = safe_theorem_rate(initial.safe)
    if bound is None:
        raise NumericalFailure(
            "train.learning_rate: theorem needs L ||W(0)||_2 < 1 and lambda_0 > 0; this draw has L ||W(0)||_2 <= "
            f"{initial.safe.contraction:.6g} and lambda_0 = {initial.computed.lambda_0:.3g}; use `auto` or a number"
        )
    return math.nextafter(bound, 0.0)


@dataclass(frozen=True)
class Baseline:
    """The scalars of the start that later rows refer to, and the kernel that predicts the loss.

    `bounded`: whether conclusion (iii) of Theorem 1 is about this training.
    """

    learning_rate: float
    initial_loss: float
    lambda_0: float
    spectral_norm_upper: float
    kernel: KernelPrediction
    bounded: bool = True

    @property
    def dynamics(self) -> Dynamics:
        """How the kernel is trained on."""
        return self.kernel.dynamics

    def loss_bounds(self, steps: Sequence[int]) -> list[float | None]:
        """What conclusion (iii) says of the loss at some steps, which ascend; None where it says nothing."""
        if not self.bounded:
            return [None] * len(steps)
        return loss_bounds(self.initial_loss, self.lambda_0, self.learning_rate, steps, self.dynamics)

    @classmethod
    def of(cls, spec: RunSpec, initial: Initial) -> Self:
        """From a measured draw."""
        rate = learning_rate(spec, initial)
        computed, bounded = initial.computed, covered(spec)
        return cls(rate, initial.loss, computed.lambda_0, initial.safe.spectral_norm, initial.kernel, bounded)

    def scalars(self) -> dict[str, float]:
        """What goes into a checkpoint's state; JSON keeps every bit of a float."""
        return {
            "learning_rate": self.learning_rate,
            "initial_loss": self.initial_loss,
            "lambda_0": self.lambda_0,
            "spectral_norm_upper": self.spectral_norm_upper,
        }

    def tensors(self) -> dict[str, Tensor]:
        """What goes among a checkpoint's tensors."""
        return {
            "kernel_eigenvalues": torch.from_numpy(self.kernel.eigenvalues),
            "kernel_projections": torch.from_numpy(self.kernel.projections),
        }

    @classmethod
    def restored(cls, spec: RunSpec, checkpoint: Checkpoint) -> Self:
        """From a checkpoint."""
        scalars: dict[str, Any] = checkpoint.state["baseline"]
        values, projections = (checkpoint.tensors[f"kernel_{name}"].numpy() for name in ("eigenvalues", "projections"))
        kernel = KernelPrediction(values, projections, dynamics(spec))
        return cls(**scalars, kernel=kernel, bounded=covered(spec))
