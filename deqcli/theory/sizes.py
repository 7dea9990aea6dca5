"""The scales of an initialisation, and the numbers of a draw that inequalities are made of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Scales:
    """What the theory is told of a recipe: its initialisation, its activation, and what it departs from.

    `lipschitz` is L of the activation and `at_zero` phi(0). `spectral_norm_limit` is the limit of ||W(0)||_2 as the
    width grows, None where it is not known; NaN, the default, stands for that of a Gaussian W, 2 sqrt2 sigma_w.
    `gaussian_limit`: whether K, M and H_inf of Gaussian weights are the limits of this initialisation.
    `monotonicity`: mu of weights with I - W >= mu I at every step, None of others.
    `departures`: hypotheses that the recipe itself departs from, in words: "model" where it is not Z = phi(W Z + U X),
    y_hat = a^T Z with W, U, a trained; "training" where it is not full-batch gradient descent at one rate on them;
    "proximal" where W is monotone and the activation not one for which that means one equilibrium.
    `features`: whether it is the model of Gao et al. 2022, in their parametrisation.
    Source: Ling et al. 2023, Assumption 1 and Lemma 1.
    """

    sigma_w_sq: float
    readout_scale: float
    lipschitz: float = 1.0
    at_zero: float = 0.0
    spectral_norm_limit: float | None = math.nan
    gaussian_limit: bool = True
    monotonicity: float | None = None
    departures: Mapping[str, str] = field(default_factory=dict)
    features: bool = False

    def __post_init__(self) -> None:
        """Put the Gaussian limit where none was given."""
        limit = self.spectral_norm_limit
        if limit is not None and math.isnan(limit):
            object.__setattr__(self, "spectral_norm_limit", 2 * math.sqrt(2 * self.sigma_w_sq))

    @property
    def largest_sigma_w_sq(self) -> float:
        """1/(8 L^2), which sigma_w^2 stays below: then 2 sqrt2 sigma_w L < 1."""
        return 0.125 / (self.lipschitz * self.lipschitz)

    @property
    def limit_gap(self) -> float:
        """The limit of 1/L - ||W(0)||_2, 0 where it is not known."""
        return 0.0 if self.spectral_norm_limit is None else 1 / self.lipschitz - self.spectral_norm_limit

    @property
    def ratio_of_9(self) -> float:
        """(1/L - lim ||W||)^2/(alpha (1 + |phi(0)|/(sqrt2 L))), 0 without a limit.

        The slack of (9) tends to lambda_*/(2 factor n) times its square; phi(0) adds to c_a what stands beside the 1.
        """
        gap, raised = max(self.limit_gap, 0.0), 1 + abs(self.at_zero) / (math.sqrt(2) * self.lipschitz)
        return gap * gap / (self.readout_scale * raised)


@dataclass(frozen=True)
class Sizes:
    """The numbers that inequalities are made of: ||.||_2 where named spectral, else Euclidean or Frobenius norms.

    `lambda_star` is None where K does not exist, or is not the limit. `lipschitz` is L of the activation, and
    `norm_at_zero` = |phi(0)| sqrt(m n), the norm of a layer whose pre-activations are 0.
    """

    spectral_norm: float
    spectral_norm_u: float
    spectral_norm_x: float
    spectral_norm_z: float
    norm_a: float
    norm_x: float
    norm_e: float
    norm_deviation: float
    largest_cosine: float
    lambda_0: float
    lambda_star: float | None
    lipschitz: float = 1.0
    norm_at_zero: float = 0.0

    @property
    def contraction(self) -> float:
        """L ||W(0)||_2, rounded up: the layer contracts where it is below 1."""
        product = self.lipschitz * self.spectral_norm
        return product if self.lipschitz == 1 else math.nextafter(product, math.inf)

    @property
    def room(self) -> float:
        """1/L - ||W(0)||_2, rounded down: as long as W moves by less than that the layer contracts."""
        most = 1.0 if self.lipschitz == 1 else math.nextafter(1 / self.lipschitz, 0.0)
        return most - self.spectral_norm
