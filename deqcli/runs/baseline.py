"""What the draw told, kept for the whole run: learning rate, lambda_0, norm bound, kernel."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from deqcli.data.dataset import Dataset
from deqcli.deq.activations import ACTIVATIONS
from deqcli.deq.initialisation import INITIALISATIONS, Draw, OnEntries
from deqcli.deq.network import Component, Params
from deqcli.errors import NumericalFailure
from deqcli.recipe.schema import RunSpec
from deqcli.runs.checkpoint import Checkpoint
from deqcli.theory.condition import safe_theorem_rate
from deqcli.theory.draw import OnPart, SolvedDraw
from deqcli.theory.initial import Initial, Scales, measure_initial
from deqcli.theory.prediction import KernelPrediction


def draw_of(spec: RunSpec, input_dim: int, device: torch.device) -> Draw:
    """What the draw of a run depends on."""
    model, train = spec.model, spec.train
    return Draw(
        width=model.width,
        input_dim=input_dim,
        sigma_w_sq=model.sigma_w_sq,
        readout_scale=model.readout_scale,
        seed=train.seed,
        dtype=getattr(torch, train.dtype),
        device=device,
    )


def draw(spec: RunSpec, input_dim: int, device: torch.device, on_entries: OnEntries = lambda _: None) -> Params:
    """W(0), U(0), a(0) of a run: the same numbers whenever and wherever they are drawn."""
    return INITIALISATIONS[spec.model.init](replace(draw_of(spec, input_dim, device), on_entries=on_entries))


def tensors(dataset: Dataset) -> tuple[Tensor, Tensor]:
    """X (d, n) and y (n,) in float64, copied: memory of numpy's is not always aligned, and bits depend on that."""
    return torch.tensor(dataset.X), torch.tensor(dataset.y)


def solve(spec: RunSpec, params: Params, X: Tensor, y: Tensor, on_part: OnPart = lambda _: None) -> SolvedDraw:
    """The draw `params` solved in float64, on its device; X and y in float64. Raises: NumericalFailure."""
    return SolvedDraw.of(params, X, y, component(spec), on_part)


def measure(
    spec: RunSpec, solved: SolvedDraw, against_limit: bool = False, on_part: OnPart = lambda _: None
) -> Initial:
    """What the theory asks of a draw, beside H_inf where that is asked for. Raises: NumericalFailure."""
    return measure_initial(solved, scales(spec), against_limit, on_part)


def scales(spec: RunSpec) -> Scales:
    """The scales of the initialisation."""
    return Scales(spec.model.sigma_w_sq, spec.model.readout_scale)


def component(spec: RunSpec) -> Component:
    """The activation of a run, and its solver with the tolerance in numbers."""
    tolerance = spec.solver.tolerance_for(spec.train.precision)
    return Component(ACTIVATIONS[spec.model.activation], spec.solver.model_copy(update={"tolerance": tolerance}))


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
            "train.learning_rate: theorem needs ||W(0)||_2 < 1 and lambda_0 > 0; this draw has ||W(0)||_2 <= "
            f"{initial.safe.spectral_norm:.6g} and lambda_0 = {initial.computed.lambda_0:.3g}; use `auto` or a number"
        )
    return math.nextafter(bound, 0.0)


@dataclass(frozen=True)
class Baseline:
    """The scalars of the start that later rows refer to, and the kernel that predicts the loss."""

    learning_rate: float
    initial_loss: float
    lambda_0: float
    spectral_norm_upper: float
    kernel: KernelPrediction

    @classmethod
    def of(cls, spec: RunSpec, initial: Initial) -> Self:
        """From a measured draw."""
        rate = learning_rate(spec, initial)
        return cls(rate, initial.loss, initial.computed.lambda_0, initial.safe.spectral_norm, initial.kernel)

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
    def restored(cls, checkpoint: Checkpoint) -> Self:
        """From a checkpoint."""
        scalars: dict[str, Any] = checkpoint.state["baseline"]
        kernel = KernelPrediction(
            *(checkpoint.tensors[f"kernel_{name}"].numpy() for name in ("eigenvalues", "projections"))
        )
        return cls(**scalars, kernel=kernel)
