"""The numbers of a draw that a width leads one to expect, from the data alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jaxtyping import Float64
from torch import Tensor

from deqcli.deq.spectral import spectral_norm
from deqcli.theory.initial import eigenvalues
from deqcli.theory.population import Population
from deqcli.theory.sizes import Scales, Sizes


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
    def of(
        cls, population: Population, X: Float64[Tensor, "d n"], y: Float64[Tensor, " n"], scales: Scales | None = None
    ) -> Expected:
        """From samples and labels; without `scales`, of Gaussian weights.

        Raises: NumericalFailure where K does not exist.
        """
        spectrum, phi = eigenvalues(population.gram()), population.activation
        gaussian = Scales(population.sigma_w_sq, population.readout_scale, phi.lipschitz, phi.at_zero)
        return cls(
            scales=scales or gaussian,
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
        """lambda_*/(16 n) times the square of `Scales.ratio_of_9`: the slack of (9 with 8) tends to it with the width.

        For the ReLU and Gaussian weights it is lambda_* (1 - 2 sqrt2 sigma_w)^4/(16 n alpha^2).
        """
        ratio = self.scales.ratio_of_9
        return self.lambda_star / (16 * self.num_samples) * ratio * ratio

    def sizes(self, width: int) -> Sizes:
        """||W|| -> its limit, ||U|| ~ sqrt2 (1 + sqrt(m/d)), ||a|| -> alpha, lambda_0 ~ m lambda_*,
        ||Z||_2^2 ~ m lambda_max(K), E ||e||^2 = alpha^2 tr K + ||y||^2.

        lambda_0 lies below m lambda_* where m is no large multiple of n. A norm of W without a known limit is infinite.
        Source: Bai and Yin 1993, for ||U||.
        """
        m, d, n, alpha = width, self.input_dim, self.num_samples, self.scales.readout_scale
        limit = self.scales.spectral_norm_limit
        return Sizes(
            spectral_norm=math.inf if limit is None else limit,
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
            lipschitz=self.scales.lipschitz,
            norm_at_zero=abs(self.scales.at_zero) * math.sqrt(m * n),
        )
