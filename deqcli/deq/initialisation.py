"""Initialisations: how W, U and a are drawn.

To add one, write a function like `draw_gaussian` and name it in `INITIALISATIONS`; one like `gaussian_rows_of_w`, named
in `ROWS_OF_W`, spares the memory of a second W.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from deqcli.deq.streams import stream

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from deqcli.deq.network import Params

ROWS_PER_BLOCK = 512

OnEntries = Callable[[int], None]
"""Told, while W, U and a are drawn, how many entries of them have been since it was told last."""


@dataclass(frozen=True)
class Draw:
    """What a draw depends on, the precision and device that it is stored in, and who hears how far it is."""

    width: int
    input_dim: int
    sigma_w_sq: float
    readout_scale: float
    seed: int
    dtype: torch.dtype
    device: torch.device
    on_entries: OnEntries = field(default=lambda _: None, compare=False, repr=False)


def gaussian_blocks(
    seed: int, name: str, rows: int, columns: int, deviation: float, count: int = ROWS_PER_BLOCK
) -> Iterator[tuple[int, Tensor]]:
    """Yield (first row, float64 block of `count` rows) of a Gaussian matrix, the same numbers whatever the count.

    So no second copy of it is ever in memory.
    """
    import torch

    generator = stream(seed, name)
    for first in range(0, rows, count):
        block = generator.standard_normal((min(count, rows - first), columns))
        yield first, torch.from_numpy(block).mul_(deviation)


def _gaussian(draw: Draw, name: str, columns: int, deviation: float) -> Tensor:
    import torch

    matrix = torch.empty((draw.width, columns), dtype=draw.dtype, device=draw.device)
    for first, block in gaussian_blocks(draw.seed, name, draw.width, columns, deviation):
        matrix[first : first + len(block)] = block
        draw.on_entries(block.numel())
    return matrix


def draw_gaussian(draw: Draw) -> Params:
    """W_ij ~ N(0, 2 sigma_w^2 / m), U_ij ~ N(0, 2/d), a_i ~ readout_scale N(0, 1/m).

    Drawn on the CPU in float64 and rounded, so that a seed gives the same network on every device and a float32
    network is the rounding of the float64 one. Shapes: W (m, m), U (m, d), a (m,).
    Source: Ling et al. 2023, Assumption 1 (readout_scale = 1).
    """
    from deqcli.deq.network import Params

    m, d = draw.width, draw.input_dim
    return Params(
        W=_gaussian(draw, "W", m, _deviation_of_w(draw)),
        U=_gaussian(draw, "U", d, math.sqrt(2 / d)),
        a=_gaussian(draw, "a", 1, draw.readout_scale / math.sqrt(m)).reshape(m),
    )


def gaussian_rows_of_w(draw: Draw, count: int) -> Iterator[Tensor]:
    """W(0) once more, `count` rows at a time, in the precision and on the device of the draw."""
    for _, block in gaussian_blocks(draw.seed, "W", draw.width, draw.width, _deviation_of_w(draw), count):
        yield block.to(draw.device, draw.dtype)


def _deviation_of_w(draw: Draw) -> float:
    return math.sqrt(2 * draw.sigma_w_sq / draw.width)


INITIALISATIONS: dict[str, Callable[[Draw], Params]] = {"gaussian": draw_gaussian}
ROWS_OF_W: dict[str, Callable[[Draw, int], Iterator[Tensor]]] = {"gaussian": gaussian_rows_of_w}
"""Initialisations whose W(0) can be drawn again by rows, and need not be kept."""
