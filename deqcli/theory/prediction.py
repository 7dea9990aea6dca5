"""The loss curve before it happens: from the tangent kernel at the start, and Theorem 1's bound."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from deqcli.errors import NumericalFailure


@dataclass(frozen=True)
class KernelPrediction:
    """Phi(tau) = 1/2 sum_k (1 - eta h_k)^(2 tau) (v_k . e(0))^2, with H(0) = sum_k h_k v_k v_k^T held fixed.

    `eigenvalues` h_k ascend; `projections` are v_k . e(0). Shapes: (n,), (n,).
    """

    eigenvalues: np.ndarray
    projections: np.ndarray

    @classmethod
    def of(cls, H: Float64[Tensor, "n n"], prediction_error: Float64[Tensor, " n"]) -> KernelPrediction:
        """Diagonalise H (n^3 operations) and project the initial prediction error on its eigenvectors.

        Raises: NumericalFailure where either overflowed.
        """
        if not bool(H.isfinite().all() and prediction_error.square().isfinite().all()):
            raise NumericalFailure(
                "the tangent kernel or the loss of the draw overflows; use a smaller model.readout_scale "
                "or data.label_scale"
            )
        eigenvalues, eigenvectors = torch.linalg.eigh(H.cpu())
        projections = eigenvectors.T @ prediction_error.cpu()
        return cls(eigenvalues.numpy(), projections.numpy())

    def loss(self, learning_rate: float, step: int) -> float | None:
        """The predicted loss at a step; None where it overflows (an unstable learning rate)."""
        with np.errstate(over="ignore", invalid="ignore"):
            factors = np.abs(1 - learning_rate * self.eigenvalues) ** step
            value = 0.5 * float(np.sum((factors * self.projections) ** 2))
        return value if np.isfinite(value) else None

    @property
    def largest_eigenvalue(self) -> float:
        """lambda_max(H(0)), which sets the time scale of training."""
        return float(self.eigenvalues[-1])

    @property
    def auto_rate(self) -> float:
        """1/lambda_max(H(0)): the fastest rate at which no kernel eigendirection oscillates.

        Raises: NumericalFailure where H(0) = 0, as in a network whose units are all dead.
        """
        if not self.largest_eigenvalue > 0:
            raise NumericalFailure(
                "train.learning_rate: auto is 1/lambda_max(H(0)), and H(0) = 0: every unit of this draw is dead; "
                "use another train.seed, a larger model.width, or a number"
            )
        return 1 / self.largest_eigenvalue

    @property
    def stable_rate(self) -> float | None:
        """2/lambda_max(H(0)): gradient descent on the fixed kernel diverges above it; None where H(0) = 0."""
        return 2 / self.largest_eigenvalue if self.largest_eigenvalue > 0 else None


def loss_bound(initial_loss: float, lambda_0: float, learning_rate: float, step: int) -> float:
    """(1 - eta lambda_0 / 2)^tau Phi(0), conclusion (iii) of Theorem 1. Source: Ling et al. 2023, Theorem 1.

    Where eta lambda_0 / 2 exceeds 1 the theorem says nothing and the bound stays at 0^tau Phi(0).
    """
    return max(1 - learning_rate * lambda_0 / 2, 0.0) ** step * initial_loss
