"""The problem that all contestants train on: sphere data, a Gaussian draw, one learning rate."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from deqcli.api import resolve
from deqcli.deq.model import Params
from deqcli.deq.network import Network
from deqcli.deq.spectral import gram, spectral_norm
from deqcli.recipe.schema import Recipe
from deqcli.runs.baseline import component, draw, tensors
from deqcli.theory.ntk import empirical_ntk

TOLERANCE = {"float32": 1e-6, "float64": 1e-10}
"""Largest relative residual of the equilibrium and of the adjoint, the same for every contestant."""

RECIPE = """
name: benchmark
data: {{kind: sphere, num_samples: {n}, input_dim: {d}, labels: gaussian, seed: 0}}
model: {{width: {m}, sigma_w_sq: 0.08, activation: {activation}}}
solver: {{kind: picard, tolerance: {tolerance}}}
train: {{steps: 1000000, learning_rate: auto, dtype: {dtype}, seed: 0}}
log: {{loss_every: 1, spectral_every: 1000000, checkpoint_every: 1000000}}
"""


@dataclass(frozen=True)
class Shape:
    """n samples, d inputs, m units, and the precision."""

    n: int
    d: int
    m: int
    dtype: str = "float32"

    def __str__(self) -> str:
        return f"n={self.n} d={self.d} m={self.m} {self.dtype}"


@dataclass(frozen=True)
class Problem:
    """A shape with its tensors, in the precision of training; eta is `factor`/lambda_max(H(0)), or `rate`."""

    shape: Shape
    factor: float = 1.0
    seed: int = 0
    rate: float | None = None
    activation: str = "relu"

    @property
    def tolerance(self) -> float:
        """Of both solves."""
        return TOLERANCE[self.shape.dtype]

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe; contestants give it their solver, and the learning rate in numbers."""
        s = self.shape
        text = RECIPE.format(n=s.n, d=s.d, m=s.m, dtype=s.dtype, tolerance=self.tolerance, activation=self.activation)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "benchmark.yaml"
            path.write_text(text)
            return resolve(str(path), seed=self.seed)

    @cached_property
    def params(self) -> Params:
        """W, U and a of the draw."""
        return draw(self.recipe.run(), self.shape.d, torch.device("cpu"))

    @cached_property
    def data(self) -> tuple[Tensor, Tensor]:
        """X (d, n) and y (n,)."""
        dtype = getattr(torch, self.shape.dtype)
        X, y = tensors(self.recipe.data.load())
        return X.to(dtype), y.to(dtype)

    @cached_property
    def learning_rate(self) -> float:
        """Eta."""
        if self.rate is not None:
            return self.rate
        X, _ = self.data
        network = Network(trainable_copy(self.params), X, component(self.recipe, X.shape[0]))
        network.solve_equilibrium()
        network.solve_adjoint()
        H = empirical_ntk(network.cell(0), gram(network.Z), X)
        return self.factor / spectral_norm(H)[0]


def trainable_copy(params: Params) -> Params:
    """The same numbers for a network to train: copies of W and a, and U itself, which it leaves alone."""
    return Params(params.W.clone(), params.U, params.a.clone())
