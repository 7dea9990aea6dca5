"""The predicted loss over random initialisations of a width, from the data alone: no network is drawn or solved."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from deqcli.deq.initialisation import ROWS_PER_BLOCK
from deqcli.deq.model import Rates
from deqcli.deq.precision import UNIT_ROUNDOFF
from deqcli.deq.spectral import add_gram
from deqcli.deq.streams import stream
from deqcli.theory.dynamics import PLAIN, Dynamics
from deqcli.theory.population import Population
from deqcli.theory.prediction import KernelPrediction, diagonalise

DRAWS = 400
"""Random initial outputs behind a band, shared out among the random kernels."""

BAND = (0.05, 0.5, 0.95)
MOST_KERNELS, FEWEST_KERNELS, KERNELS_TIMES_SAMPLES = 100, 2, 4000
UNITS_PER_SAMPLE, FEWEST_UNITS, MOST_UNITS = 4, 1000, 8000
"""Units are sampled up to so many; the deviations of wider networks from the limit are theirs, scaled by m^(-1/2)."""

Band = tuple[float | None, float | None, float | None]


@dataclass(frozen=True)
class Member:
    """A random kernel: its eigenvalues (n,), and 1/2 (v_k . e(0))^2 for some random e(0), (n, draws)."""

    eigenvalues: np.ndarray
    parts: np.ndarray


@dataclass(frozen=True)
class Ensemble:
    """`mean` is the prediction of H_inf, in closed form; `members` are random kernels of the width, for a band."""

    mean: KernelPrediction
    members: list[Member]

    def band(self, learning_rate: float, steps: Sequence[int]) -> list[Band]:
        """The 5 %, 50 % and 95 % quantiles of the loss over the draws, at each step; None where it overflows."""
        found = list[Band]()
        dynamics = self.mean.dynamics
        with np.errstate(over="ignore", invalid="ignore"):
            paths = [dynamics.path(learning_rate * each.eigenvalues, steps) for each in self.members]
            for factors in zip(*paths, strict=True):
                losses = [factor**2 @ each.parts for factor, each in zip(factors, self.members, strict=True)]
                low, middle, high = np.quantile(np.concatenate(losses), BAND).tolist()
                found.append((low, middle, high) if math.isfinite(high) else (None, None, None))
        return found


def ensembles(
    population: Population, y: Float64[Tensor, " n"], rates: Mapping[int, Rates], dynamics: Dynamics = PLAIN
) -> dict[int, Ensemble]:
    """An ensemble for each width in `rates`, which has its factors on the learning rate; from fixed streams.

    Mean: H_inf, and E (v_k . e(0))^2 = alpha^2 v_k^T K v_k + (v_k . y)^2, since y_hat(0) tends to N(0, alpha^2 K).
    Members: see `random_kernels`; y_hat(0) ~ N(0, alpha^2 G/m). Shapes: y (n,).
    Source: Neal 1996, for y_hat of a wide network.
    Raises: NumericalFailure where K or H_inf does not exist.
    """
    K, y = population.gram().cpu(), y.cpu()
    M = population.adjoint_gram(K)
    means = {m: _mean(population, K, population.ntk(K, m, factors), y, dynamics) for m, factors in rates.items()}
    members: dict[int, list[Member]] = {width: [] for width in rates}
    count = min(MOST_KERNELS, max(FEWEST_KERNELS, KERNELS_TIMES_SAMPLES // len(y)))
    for index in range(count):
        for width, G, B in random_kernels(population, K, M, list(rates), index):
            H = _kernel(population, width * G, B, rates[width])
            members[width].append(_member(population, H, G, y, index, -(-DRAWS // count)))
    return {width: Ensemble(means[width], members[width]) for width in rates}


def _mean(population: Population, K: Tensor, H: Tensor, y: Tensor, dynamics: Dynamics) -> KernelPrediction:
    eigenvalues, V = diagonalise(H, y)
    squares = (V * (K @ V)).sum(0).mul_(population.readout_scale).mul_(population.readout_scale) + (V.T @ y).square()
    return KernelPrediction(eigenvalues.numpy(), squares.clamp_min(0).sqrt().numpy(), dynamics)


def _kernel(population: Population, G: Tensor, B: Tensor, rates: Rates) -> Tensor:
    """c_a G + B * (c_w G + c_u X^T X), with B standing for V^T V."""
    return rates.a * G + B * (rates.W * G + rates.U * population.input_dim * population.C.cpu())


def _member(population: Population, H: Tensor, G: Tensor, y: Tensor, index: int, draws: int) -> Member:
    """The kernel H, and random prediction errors, of y_hat(0) ~ N(0, alpha^2 G) with G standing for G/m."""
    eigenvalues, V = diagonalise(H, y)
    normal = torch.from_numpy(stream(index, "predicted outputs").standard_normal((len(y), draws)))
    errors = population.readout_scale * (cholesky(G) @ normal) - y[:, None]
    return Member(eigenvalues.numpy(), (V.T @ errors).square_().mul_(0.5).numpy())


def random_kernels(
    population: Population, K: Float64[Tensor, "n n"], M: Float64[Tensor, "n n"], widths: Sequence[int], index: int
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """(m, G/m, V^T V) of one random network of each width, as its units would be in the limit: independent.

    A unit has pre-activations p ~ N(0, 2 (sigma_w^2 K + C)) and, in its row of W^T V + a 1^T times sqrt(m),
    b ~ N(0, alpha^2 + 2 sigma_w^2 M), so that G/m is the mean over m units of phi(p) phi(p)^T and V^T V that of
    (phi'(p) b) (phi'(p) b)^T. A wider network has the units of a narrower one. Costs 4 m n^2 operations.
    """
    n, alpha, s = len(K), population.readout_scale, population.sigma_w_sq
    factors = cholesky(2 * (s * K + population.C.cpu())), cholesky(alpha * alpha + 2 * s * M)
    streams, most = (stream(index, "units"), stream(index, "adjoint units")), most_units(n)
    G, B, units = torch.zeros_like(K), torch.zeros_like(K), 0
    for width in sorted(widths):
        while units < min(width, most):
            rows = min(ROWS_PER_BLOCK, min(width, most) - units)
            normal = (torch.from_numpy(generator.standard_normal((rows, n))) for generator in streams)
            p, b = (each @ factor.T for each, factor in zip(normal, factors, strict=True))
            _add_units(population, G, B, p, b)
            units += rows
        shrink = math.sqrt(units / width)  # 1 up to `most`
        yield width, torch.lerp(K, G / units, shrink), torch.lerp(M, B / units, shrink)


def most_units(n: int) -> int:
    """Units sampled for n samples, however wide the network is."""
    return min(max(UNITS_PER_SAMPLE * n, FEWEST_UNITS), MOST_UNITS)


def _add_units(population: Population, G: Tensor, B: Tensor, p: Tensor, b: Tensor) -> None:
    image = torch.empty_like(p)
    population.activation.value(p, out=image)
    add_gram(G, image)
    population.activation.slope(p, out=image)
    add_gram(B, image.mul_(b))


def cholesky(K: Float64[Tensor, "n n"]) -> Float64[Tensor, "n n"]:
    """L with L L^T = K, up to what rounding makes of a singular K."""
    L: Tensor
    jitter = len(K) * UNIT_ROUNDOFF * max(float(K.trace()), torch.finfo(K.dtype).tiny)
    L, info = torch.linalg.cholesky_ex(K)
    while int(info) != 0:
        L, info = torch.linalg.cholesky_ex(K + jitter * torch.eye(len(K), dtype=K.dtype))
        jitter *= 10
    return L
