"""Small runs for the tests of what runs leave behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from deqcli.recipe.loading import load_recipe
from deqcli.recipe.schema import Recipe, RunSpec
from deqcli.runs.checkpoint import load_checkpoint

SMALL = """
name: small
data: {kind: sphere, num_samples: 6, input_dim: 4, seed: 1}
model: {width: 32, sigma_w_sq: 0.05}
train: {steps: 20, learning_rate: auto, dtype: float64, seed: 2}
log: {loss_every: 1, spectral_every: 5, checkpoint_every: 6}
sweep: {widths: [24, 32], seeds: [0, 1]}
"""
CSV = ("loss.csv", "spectral.csv", "certificates.csv", "prediction.csv")


def recipe(folder: Path, *overrides: str, text: str = SMALL) -> Recipe:
    """A recipe written into `folder` and loaded with overrides."""
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return load_recipe(str(path), overrides)


def small(folder: Path, *overrides: str) -> RunSpec:
    """A run of a fraction of a second."""
    return recipe(folder, *overrides).run()


def tables(folder: Path) -> dict[str, bytes]:
    """The tables whose bytes are a function of the recipe."""
    return {name: (folder / name).read_bytes() for name in CSV}


def weights(folder: Path) -> dict[str, np.ndarray]:
    """W, U, a, and Z and V (m, n), of a run's checkpoint in float64."""
    stored = load_checkpoint(folder / "checkpoint.safetensors").tensors
    stored |= {"Z": stored["equilibrium_point"].T, "V": stored["adjoint_point"].T}
    return {name: stored[name].double().numpy() for name in ("W", "U", "a", "Z", "V")}


def picard(W: np.ndarray, B: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Z = relu(W Z + B), or with a mask Z = mask * (W Z + B), by 300 plain iterations in numpy."""
    Z = np.zeros_like(B)
    for _ in range(300):
        P = W @ Z + B
        Z = np.maximum(P, 0) if mask is None else mask * P
    return Z


def reference_losses(
    start: dict[str, np.ndarray], X: np.ndarray, y: np.ndarray, rate: float, steps: int
) -> list[float]:
    """Losses of gradient descent in numpy float64, the adjoint of the loss itself instead of the unit adjoint."""
    W, U, a = start["W"].copy(), start["U"].copy(), start["a"].copy()
    losses = []
    for _ in range(steps + 1):
        Z = picard(W, U @ X)
        e = a @ Z - y
        losses.append(0.5 * float(e @ e))
        P = picard(W.T, np.outer(a, e), mask=(W @ Z + U @ X >= 0).astype(float))
        W, U, a = W - rate * P @ Z.T, U - rate * P @ X.T, a - rate * Z @ e
    return losses
