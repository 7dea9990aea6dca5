"""Theorems 3, 4 and 5 as measurements: what is cut off at depth l, and how near a finite width is to its limit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from deqcli.deq.initialisation import Draw
from deqcli.deq.layers import tied_layers, untied_layers
from deqcli.deq.precision import UNIT_ROUNDOFF
from deqcli.deq.spectral import gram
from deqcli.theory.draw import SolvedDraw
from deqcli.theory.initial import Initial, marked
from deqcli.theory.population import Population

PAPER = "Ling et al. 2023"
POPULATION, TRUNCATION, TIED, UNTIED = "population_truncation", "truncation", "tied_deviation", "untied_deviation"
SOURCES = {
    POPULATION: f"{PAPER}, Theorem 3",
    TRUNCATION: f"{PAPER}, Theorem 4",
    TIED: f"{PAPER}, Theorem 5",
    UNTIED: f"{PAPER}, Theorem 5, for the weight-untied model",
}
ROUNDING_OF_K = 2.0**-46
"""Of an entry of K and of K^(l), times 1 - s."""

ROUNDING = 1e-11
"""Relative: differences below it are mostly rounding, and no rate is fitted to them."""


@dataclass(frozen=True)
class DepthRow:
    """One quantity at one depth, the bound that the theory gives for it, and the hypothesis that is not met."""

    depth: int
    quantity: str
    value: float
    bound: float
    outside: str | None = None

    def row(self) -> dict[str, object]:
        """The columns of depth.csv that are about the quantity."""
        return {
            "depth": self.depth,
            "quantity": self.quantity,
            "source": marked(SOURCES[self.quantity], [self.outside] if self.outside else []),
            "value": self.value,
            "bound": self.bound,
        }


@dataclass(frozen=True)
class Rate:
    """What fits log(value) by least squares: against depth the factor per layer, against log(width) the exponent.

    `expected` is what the theory says: the rate `is` near it, or at most it.
    """

    quantity: str
    against: str
    rate: float | None
    relation: str
    expected: float


def depth_rows(draw: SolvedDraw, drawn: Draw, initial: Initial, depth: int) -> Iterator[DepthRow]:
    """Four rows for each l = 1, ..., depth; ||.|| is the Frobenius norm.

    ||K - K^(l)|| (Theorem 3), ||G - G^(l)||/m (Theorem 4), ||G^(l)/m - K^(l)|| of the tied network and of the
    weight-untied one (Theorem 5). K must exist.
    """
    activation, m = draw.network.activation, initial.width
    population = Population.of(draw.X, initial.scales.sigma_w_sq, activation, initial.scales.readout_scale)
    K = population.gram()
    layers = zip(
        population.grams(depth),
        tied_layers(draw.params, draw.X, activation, depth),
        untied_layers(drawn, draw.X, activation, depth),
        strict=True,
    )
    for level, (K_l, tied, untied) in enumerate(layers, start=1):
        G_l = gram(tied)
        found = {
            POPULATION: _distance(K, K_l),
            TRUNCATION: _distance(draw.G, G_l) / m,
            TIED: _distance(G_l / m, K_l),
            UNTIED: _distance(gram(untied) / m, K_l),
        }
        limits = bounds(initial, level)
        outside = initial.outside.get("assumption_1")
        yield from (DepthRow(level, quantity, value, limits[quantity], outside) for quantity, value in found.items())


def _distance(A: Float64[Tensor, "n n"], B: Float64[Tensor, "n n"]) -> float:
    return float(torch.linalg.vector_norm(A - B))


def bounds(initial: Initial, depth: int) -> dict[str, float]:
    """The theorems' bounds at depth l, with constants; s = sigma_w^2 and r = 2 sqrt2 sigma_w.

    Theorem 3: n s^l (1 + l/pi)/(1 - s), proved for the ReLU and samples of norm sqrt(d).
    Theorem 4: w^l ||Z||_F (2 ||Z||_2 + w^l ||Z||_F)/m with w the upper bound of ||W(0)||_2, proved for this draw;
    2 n r^l/(1 - s) in the limit. Theorem 5: n r^l, for widths that are large enough for this l, since the left side
    tends to a multiple of m^(-1/2) as l grows.
    The first two have the rounding of what they bound added, which is all that is left at great depth.
    docs/certificates.md derives them.
    """
    n, s = initial.num_samples, initial.scales.sigma_w_sq
    trace, m = max(float(initial.spectra.gram.sum()), 0.0), initial.width
    moved = initial.safe.spectral_norm**depth * math.sqrt(trace)  # >= ||Z - Z^(l)||_F
    rounding = trace * (2 * (m + 2) * UNIT_ROUNDOFF + 3 * (initial.error_bound or 0.0))
    wide = n * initial.scales.spectral_norm_limit**depth
    return {
        POPULATION: n * (s**depth * (1 + depth / math.pi) + ROUNDING_OF_K) / (1 - s) if s < 1 else math.inf,
        TRUNCATION: (moved * (2 * initial.safe.spectral_norm_z + moved) + rounding) / m,
        TIED: wide,
        UNTIED: wide,
    }


def rates_over_depth(rows: Sequence[DepthRow], initial: Initial) -> list[Rate]:
    """The factor per layer: sigma_w^2 of ||K - K^(l)||, at most 2 sqrt2 sigma_w of ||G - G^(l)||/m."""
    limits = {
        POPULATION: ("near", initial.scales.sigma_w_sq),
        TRUNCATION: ("at most", initial.scales.spectral_norm_limit),
    }
    sizes = {TRUNCATION: initial.spectra.gram, POPULATION: initial.spectra.population_gram}
    return [
        Rate(quantity, "depth", _factor(rows, quantity, sizes[quantity], initial.width), relation, expected)
        for quantity, (relation, expected) in limits.items()
    ]


def _factor(rows: Sequence[DepthRow], quantity: str, spectrum: Tensor | None, width: int) -> float | None:
    """exp(slope) of log(value) against depth, over the deeper half of the depths whose value is more than rounding."""
    floor = 0.0 if spectrum is None else ROUNDING * float(torch.linalg.vector_norm(spectrum)) / width
    measured = [row for row in rows if row.quantity == quantity and row.value > floor]
    chosen = measured[(len(measured) - 1) // 2 :]
    slope = _slope([float(row.depth) for row in chosen], [math.log(row.value) for row in chosen])
    return None if slope is None else math.exp(slope)


def rates_over_width(values: dict[str, list[tuple[int, float]]]) -> list[Rate]:
    """The exponent of m in both deviations, from (width, value) of each draw at one depth: -1/2."""
    return [
        Rate(quantity, "width", slope, "near", -0.5)
        for quantity, pairs in values.items()
        if (slope := _slope(*_logarithms(pairs))) is not None
    ]


def _logarithms(pairs: Sequence[tuple[int, float]]) -> tuple[list[float], list[float]]:
    positive = [(m, value) for m, value in pairs if value > 0]
    return [math.log(m) for m, _ in positive], [math.log(value) for _, value in positive]


def _slope(x: Sequence[float], y: Sequence[float]) -> float | None:
    """The slope of the least-squares line; None of fewer than two abscissae."""
    if len(set(x)) < 2:
        return None
    return float(np.polyfit(x, y, 1)[0])
