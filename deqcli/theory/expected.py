"""The numbers of a draw that a width leads one to expect, from the data alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jaxtyping import Float64
from torch import Tensor

from deqcli.deq.spectral import spectral_norm
from deqcli.theory.initial import Scales, Sizes, eigenvalues
from deqcli.theory.population import Population


@dataclass(frozen=True)
class Expected:
    """What the expected sizes of every width are made of: `norm_y` = ||y||, eigenvalues and trace of K."""

    scales: Scales
    input_dim: int
    num_samples: int
    spectral_norm_x: float
    norm_y: float
    lambda_star: float
    lambda_largest: float
    trace: float

    @classmethod
    def of(cls, population: Population, X: Float64[Tensor, "d n"], y: Float64[Tensor, " n"]) -> Expected:
        """From samples and labels. Raises: NumericalFailure where K does not exist."""
        spectrum = eigenvalues(population.gram())
        return cls(
            scales=Scales(population.sigma_w_sq, population.readout_scale),
            input_dim=X.shape[0],
            num_samples=X.shape[1],
            spectral_norm_x=spectral_norm(X)[0],
            norm_y=float(y.norm()),
            lambda_star=max(float(spectrum[0]), 0.0),
            lambda_largest=float(spectrum[-1]),
            trace=float(spectrum.sum()),
        )

    @property
    def limit_of_9(self) -> float:
        """lambda_* (1 - 2 sqrt2 sigma_w)^4/(16 n alpha^2), what the slack of (9 with 8) tends to as the width grows."""
        gap = max(1 - self.scales.spectral_norm_limit, 0.0)
        ratio = gap * gap / self.scales.readout_scale
        return self.lambda_star / (16 * self.num_samples) * ratio * ratio

    def sizes(self, width: int) -> Sizes:
        """||W|| -> 2 sqrt2 sigma_w, ||U|| ~ sqrt2 (1 + sqrt(m/d)), ||a|| -> alpha, lambda_0 ~ m lambda_*,
        ||Z||_2^2 ~ m lambda_max(K), E ||e||^2 = alpha^2 tr K + ||y||^2.

        lambda_0 lies below m lambda_* where m is no large multiple of n. Source: Bai and Yin 1993, for ||U||.
        """
        m, d, n, alpha = width, self.input_dim, self.num_samples, self.scales.readout_scale
        return Sizes(
            spectral_norm=self.scales.spectral_norm_limit,
            spectral_norm_u=math.sqrt(2) * (1 + math.sqrt(m / d)),
            spectral_norm_x=self.spectral_norm_x,
            spectral_norm_z=math.sqrt(m * self.lambda_largest),
            norm_a=alpha,
            norm_x=math.sqrt(n * d),
            norm_e=math.hypot(alpha * math.sqrt(self.trace), self.norm_y),
            norm_deviation=0.0,
            largest_cosine=0.0,
            lambda_0=0.0 if n > m else m * self.lambda_star,
            lambda_star=self.lambda_star,
        )
