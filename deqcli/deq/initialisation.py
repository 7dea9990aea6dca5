"""Initialisations: the law of W(0), with U(0) and a(0) drawn alike under all of them.

To add one, write a subclass of `Initialisation` and name it in `INITIALISATIONS`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from deqcli.deq.streams import stream

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from deqcli.deq.model import Params

ROWS_PER_BLOCK = 512

OnEntries = Callable[[int], None]
"""Told, while W, U and a are drawn, how many entries of them have been since it was told last."""


@dataclass(frozen=True)
class Draw:
    """What a draw depends on, the precision and device that it is stored in, and who hears how far it is.

    `signs` draws the readouts' signs alone; `skip` draws a second readout b; `monotonicity` is mu; `attempt` counts the
    draws of the same seed that were rejected before.
    """

    width: int
    input_dim: int
    sigma_w_sq: float
    readout_scale: float
    seed: int
    dtype: torch.dtype
    device: torch.device
    signs: bool = False
    skip: bool = False
    monotonicity: float = 0.5
    attempt: int = 0
    on_entries: OnEntries = field(default=lambda _: None, compare=False, repr=False)

    @property
    def deviation(self) -> float:
        """sqrt(2 sigma_w^2 / m), the standard deviation of an entry of W under Assumption 1."""
        return math.sqrt(2 * self.sigma_w_sq / self.width)

    def stream_of(self, name: str) -> str:
        """The name of the random stream of a matrix: another one for each attempt."""
        return name if self.attempt == 0 else f"{name}, attempt {self.attempt}"

    def blocks(self, name: str, columns: int, deviation: float, count: int = ROWS_PER_BLOCK) -> Blocks:
        """A Gaussian matrix (m, columns) of this draw, `count` rows at a time."""
        return gaussian_blocks(self.seed, self.stream_of(name), self.width, columns, deviation, count)

    def gaussian(self, name: str, columns: int, deviation: float) -> Tensor:
        """A Gaussian matrix (m, columns), rounded to the precision of the draw."""
        return self.filled(self.blocks(name, columns, deviation), columns)

    def filled(self, blocks: Blocks, columns: int) -> Tensor:
        """The matrix (m, columns) that these blocks make up, in the precision of the draw."""
        import torch

        matrix = torch.empty((self.width, columns), dtype=self.dtype, device=self.device)
        for first, block in blocks:
            matrix[first : first + len(block)] = block
            self.on_entries(block.numel())
        return matrix

    def readout(self, name: str) -> Tensor:
        """A readout (m,): readout_scale times entries N(0, 1/m), or their signs over sqrt(m)."""
        blocks, scale = self.blocks(name, 1, 1.0), self.readout_scale / math.sqrt(self.width)
        scaled = ((first, (block.sign() if self.signs else block).mul_(scale)) for first, block in blocks)
        return self.filled(scaled, 1).reshape(self.width)


Blocks = Iterator[tuple[int, "Tensor"]]
"""(first row, block of rows) of a matrix, in float64 on the CPU."""


def gaussian_blocks(
    seed: int, name: str, rows: int, columns: int, deviation: float, count: int = ROWS_PER_BLOCK
) -> Blocks:
    """Yield (first row, float64 block of `count` rows) of a Gaussian matrix, the same numbers whatever the count.

    So no second copy of it is ever in memory.
    """
    import torch

    generator = stream(seed, name)
    for first in range(0, rows, count):
        block = generator.standard_normal((min(count, rows - first), columns))
        yield first, torch.from_numpy(block).mul_(deviation)


class Initialisation(ABC):
    """A law of W(0). U_ij ~ N(0, 2/d) and a_i ~ readout_scale N(0, 1/m) whatever it is.

    Everything is drawn on the CPU in float64 and rounded, so that a seed gives the same network on every device and a
    float32 network is the rounding of the float64 one. Shapes: W (m, m), U (m, d), a (m,), with a skip b (m,).
    Source: Ling et al. 2023, Assumption 1 (readout_scale = 1).
    """

    name: str
    gaussian_limit: bool = False
    """Whether the limits K, M and H_inf, of G/m, V^T V and H(0), are those of a Gaussian W."""

    by_rows: Callable[[Draw, int], Iterator[Tensor]] | None = None
    """Draws W(0) once more, so many rows at a time; None where it can only be had whole."""

    def __call__(self, draw: Draw) -> Params:
        """The drawn parameters."""
        from deqcli.deq.model import Params

        return Params(
            **self.weights(draw),
            U=draw.gaussian("U", draw.input_dim, math.sqrt(2 / draw.input_dim)),
            a=draw.readout("a"),
            b=draw.readout("b") if draw.skip else None,
        )

    @abstractmethod
    def weights(self, draw: Draw) -> dict[str, Tensor]:
        """W, and what it is made of where that is trained: the fields of `Params` for the implicit layer."""

    @abstractmethod
    def norm_limit(self, sigma_w_sq: float) -> float | None:
        """The limit of ||W(0)||_2 as the width grows; None where no law is known."""


class Gaussian(Initialisation):
    """W_ij ~ N(0, 2 sigma_w^2 / m). Source: Ling et al. 2023, Assumption 1 and Lemma 1."""

    name = "gaussian"
    gaussian_limit = True

    def weights(self, draw: Draw) -> dict[str, Tensor]:
        return {"W": draw.gaussian("W", draw.width, draw.deviation)}

    def norm_limit(self, sigma_w_sq: float) -> float:
        """2 sqrt2 sigma_w."""
        return 2 * math.sqrt(2 * sigma_w_sq)

    @staticmethod
    def by_rows(draw: Draw, count: int) -> Iterator[Tensor]:
        """W(0) once more, `count` rows at a time, in the precision and on the device of the draw."""
        for _, block in draw.blocks("W", draw.width, draw.deviation, count):
            yield block.to(draw.device, draw.dtype)


class Orthogonal(Initialisation):
    """W = sqrt2 sigma_w O with O uniform among the orthogonal matrices: ||W||_2 is sqrt2 sigma_w exactly.

    O is the Q of a Gaussian matrix, its signs such that R has a positive diagonal; 4/3 m^3 operations. G/m, V^T V and
    H have the limits that they have for a Gaussian W, since the entries of O behave as independent ones.
    Source: Mezzadri 2007, Notices of the AMS 54, 592.
    """

    name = "orthogonal"
    gaussian_limit = True

    def weights(self, draw: Draw) -> dict[str, Tensor]:
        import torch

        Q, R = torch.linalg.qr(_whole(draw, "W", 1.0))
        W = Q.mul_(R.diagonal().sign()).mul_(math.sqrt(2 * draw.sigma_w_sq))
        return {"W": _stored(draw, W)}

    def norm_limit(self, sigma_w_sq: float) -> float:
        """sqrt2 sigma_w."""
        return math.sqrt(2 * sigma_w_sq)


class Symmetric(Initialisation):
    """W = (N + N^T)/sqrt2 with N_ij ~ N(0, 2 sigma_w^2 / m), the Gaussian orthogonal ensemble.

    Its spectrum tends to a semicircle of radius 2 sqrt2 sigma_w. W and W^T are not independent of each other, and the
    limits of G/m and H are others than for a Gaussian W.
    Source: Wigner 1958, Ann. Math. 67, 325; Agarwala and Schoenholz 2022, for its use in equilibrium models.
    """

    name = "symmetric"

    def weights(self, draw: Draw) -> dict[str, Tensor]:
        N = _whole(draw, "W", draw.deviation)
        return {"W": _stored(draw, (N + N.T).div_(math.sqrt(2)))}

    def norm_limit(self, sigma_w_sq: float) -> float:
        """2 sqrt2 sigma_w."""
        return 2 * math.sqrt(2 * sigma_w_sq)


class NonNegative(Initialisation):
    """W_ij = 2 sigma_w sqrt(pi) |g_ij| / m with g standard normal, so that ||W||_2 tends to 2 sqrt2 sigma_w.

    Nearly of rank one: its Perron value tends to that norm, the rest is of the order of m^(-1/2). With the rectified
    injection and the ReLU no unit is ever switched off, and Z = (I - W)^-1 phi(U X).
    Source: Gao and Gao 2022 (arXiv 2205.07463), for the model.
    """

    name = "nonnegative"

    def weights(self, draw: Draw) -> dict[str, Tensor]:
        blocks = draw.blocks("W", draw.width, 2 * math.sqrt(math.pi * draw.sigma_w_sq) / draw.width)
        return {"W": draw.filled(((first, block.abs_()) for first, block in blocks), draw.width)}

    def norm_limit(self, sigma_w_sq: float) -> float:
        """2 sqrt2 sigma_w, m times the mean of an entry."""
        return 2 * math.sqrt(2 * sigma_w_sq)


class Monotone(Initialisation):
    """W = (1 - mu) I - A^T A + B - B^T, trained in A and B, whose entries are N(0, 2 sigma_w^2 / m).

    The symmetric part of I - W is mu I + A^T A, so that there is one equilibrium however large ||W||_2 is, for every
    nondecreasing activation of Lipschitz constant 1 at most.
    Source: Winston and Kolter 2020, Monotone operator equilibrium networks, proposition 1.
    """

    name = "monotone"

    def weights(self, draw: Draw) -> dict[str, Tensor]:
        from deqcli.deq.weights import monotone_matrix

        A, B = (draw.gaussian(name, draw.width, draw.deviation) for name in ("A", "B"))
        return {"W": monotone_matrix(A, B, draw.monotonicity), "A": A, "B": B}

    def norm_limit(self, sigma_w_sq: float) -> None:
        """W is a sum of matrices that do not commute; its norm has no simple limit."""
        return


def _whole(draw: Draw, name: str, deviation: float) -> Tensor:
    """A Gaussian matrix (m, m) in float64 on the CPU."""
    import torch

    whole = torch.empty((draw.width, draw.width), dtype=torch.float64)
    for first, block in draw.blocks(name, draw.width, deviation):
        whole[first : first + len(block)] = block
        draw.on_entries(block.numel())
    return whole


def _stored(draw: Draw, W: Tensor) -> Tensor:
    """W in the precision and on the device of the draw."""
    return W.to(draw.device, draw.dtype)


INITIALISATIONS: dict[str, Initialisation] = {
    each.name: each for each in (Gaussian(), Orthogonal(), Symmetric(), NonNegative(), Monotone())
}
