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
from deqcli.theory.hypotheses import marked
from deqcli.theory.initial import Initial
from deqcli.theory.population import Population

PAPER = "Ling et al. 2023"
POPULATION, TRUNCATION, TIED, UNTIED = "population_truncation", "truncation", "tied_deviation", "untied_deviation"
SOURCES = {
    POPULATION: f"{PAPER}, Theorem 3",
    TRUNCATION: f"{PAPER}, Theorem 4",
    TIED: f"{PAPER}, Theorem 5",
    UNTIED: f"{PAPER}, Theorem 5, for the weight-untied model",
}
ASSUMED = ("assumption_1", "limit", "model")
"""Names of the hypotheses of these theorems."""

ROUNDING_OF_K = 2.0**-46
"""Of an entry of K and of K^(l), times 1 - s."""

ROUNDING = 1e-11
"""Relative: differences below it are mostly rounding, and no rate is fitted to them."""


@dataclass(frozen=True)
class DepthRow:
    """One quantity at one depth, the bound that the theory gives for it, and the hypotheses that are not met.

    `value` is None where K is not the limit, `bound` where the theory gives none.
    """

    depth: int
    quantity: str
    value: float | None
    bound: float | None
    outside: tuple[str, ...] = ()

    def row(self) -> dict[str, object]:
        """The columns of depth.csv that are about the quantity."""
        return {
            "depth": self.depth,
            "quantity": self.quantity,
            "source": marked(SOURCES[self.quantity], self.outside),
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
    weight-untied one (Theorem 5). K must exist; where it is not the limit, Theorem 4 alone has a value.
    """
    activation, m, scales = draw.network.activation, initial.width, initial.scales
    population = Population.of(draw.X, scales.sigma_w_sq, activation, scales.readout_scale)
    K = population.gram()
    outside = tuple(initial.outside[name] for name in ASSUMED if name in initial.outside)
    layers = zip(
        population.grams(depth),
        tied_layers(draw.params, draw.X, activation, depth),
        untied_layers(drawn, draw.X, activation, depth),
        strict=True,
    )
    for level, (K_l, tied, untied) in enumerate(layers, start=1):
        G_l = gram(tied)
        found: dict[str, float | None] = {
            POPULATION: _distance(K, K_l),
            TRUNCATION: _distance(draw.G, G_l) / m,
            TIED: _distance(G_l / m, K_l),
            UNTIED: _distance(gram(untied) / m, K_l),
        }
        if not scales.gaussian_limit:
            found |= dict.fromkeys((POPULATION, TIED, UNTIED))
        limits = bounds(initial, level)
        yield from (DepthRow(level, quantity, value, limits[quantity], outside) for quantity, value in found.items())


def _distance(A: Float64[Tensor, "n n"], B: Float64[Tensor, "n n"]) -> float:
    return float(torch.linalg.vector_norm(A - B))


def bounds(initial: Initial, depth: int) -> dict[str, float | None]:
    """The theorems' bounds at depth l, with constants; s = sigma_w^2 and r = 2 sqrt2 sigma_w.

    Theorem 3: n s^l (1 + l/pi)/(1 - s), proved for the ReLU and samples of norm sqrt(d); none of another phi.
    Theorem 4: q^l ||Z||_F (2 ||Z||_2 + q^l ||Z||_F)/m with q the upper bound of L ||W(0)||_2, proved for this draw;
    2 n r^l/(1 - s) in the limit. Theorem 5: n r^l, for widths that are large enough for this l, since the left side
    tends to a multiple of m^(-1/2) as l grows; none of another phi than the ReLU, or of other than Gaussian weights.
    The first two have the rounding of what they bound added, which is all that is left at great depth.
    docs/certificates.md derives them.
    """
    n, s = initial.num_samples, initial.scales.sigma_w_sq
    trace, m = max(float(initial.spectra.gram.sum()), 0.0), initial.width
    moved = initial.safe.contraction**depth * math.sqrt(trace)  # >= ||Z - Z^(l)||_F
    rounding = trace * (2 * (m + 2) * UNIT_ROUNDOFF + 3 * (initial.error_bound or 0.0))
    cut = n * (s**depth * (1 + depth / math.pi) + ROUNDING_OF_K) / (1 - s) if s < 1 else math.inf
    limit = initial.scales.spectral_norm_limit if in_the_paper(initial) else None
    wide = None if limit is None else n * limit**depth
    return {
        POPULATION: cut if in_the_paper(initial) else None,
        TRUNCATION: (moved * (2 * initial.safe.spectral_norm_z + moved) + rounding) / m,
        TIED: wide,
        UNTIED: wide,
    }


def in_the_paper(initial: Initial) -> bool:
    """Whether phi is the ReLU, and K the limit."""
    return initial.expansion is None and initial.scales.gaussian_limit


def rates_over_depth(rows: Sequence[DepthRow], initial: Initial) -> list[Rate]:
    """The factor per layer: sigma_w^2 of ||K - K^(l)||, at most 2 sqrt2 sigma_w of ||G - G^(l)||/m.

    With another phi at most 2 sqrt2 sigma_w L of the second, and nothing is known of the first.
    """
    norm = initial.scales.spectral_norm_limit
    limits = {} if norm is None else {TRUNCATION: ("at most", initial.scales.lipschitz * norm)}
    if in_the_paper(initial):
        limits = {POPULATION: ("near", initial.scales.sigma_w_sq)} | limits
    spectra = {TRUNCATION: initial.spectra.gram, POPULATION: initial.spectra.population_gram}
    return [
        Rate(quantity, "depth", _factor(rows, quantity, spectra[quantity], initial.width), relation, expected)
        for quantity, (relation, expected) in limits.items()
    ]


def _factor(rows: Sequence[DepthRow], quantity: str, spectrum: Tensor | None, width: int) -> float | None:
    """exp(slope) of log(value) against depth, over the deeper half of the depths whose value is more than rounding."""
    floor = 0.0 if spectrum is None else ROUNDING * float(torch.linalg.vector_norm(spectrum)) / width
    values = [(float(row.depth), row.value) for row in rows if row.quantity == quantity and row.value is not None]
    measured = [(depth, math.log(value)) for depth, value in values if value > floor]
    chosen = measured[(len(measured) - 1) // 2 :]
    slope = _slope([depth for depth, _ in chosen], [logarithm for _, logarithm in chosen])
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
