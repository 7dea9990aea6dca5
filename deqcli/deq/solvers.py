"""Fixed-point solvers. A solver is its options; its outcome is a value with a status.

To add one, write a subclass of `Solver` and name it in `SolverOptions`.
"""

from __future__ import annotations

import math
import sys
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from deqcli.deq.precision import to_unit
from deqcli.options import Count, Options

if TYPE_CHECKING:
    from torch import Tensor

Map = Callable[["Tensor", "Tensor"], None]
"""A fixed-point map F, called as F(point, out): writes F(point) into `out`."""

AUTO_TOLERANCE = {"float32": 1e-6, "float64": 1e-12}
SAFE_NORM = 1e-12
"""Above it, squares that underflow in float32 (below 1e-38 each) do not matter."""
LARGEST = {"float32": (2 - 2.0**-23) * 2.0**127, "float64": sys.float_info.max}
ROUNDING = {"float32": 2.0**-23, "float64": 2.0**-52}

Tolerance = Literal["auto"] | Annotated[float, Field(gt=0, lt=1)]


class Status(StrEnum):
    """How a solve ended."""

    CONVERGED = "converged"
    EXHAUSTED = "iterations_exhausted"
    DIVERGED = "diverged"

    @property
    def sentence(self) -> str:
        """The status in words."""
        return {
            Status.CONVERGED: "the residual met its tolerance",
            Status.EXHAUSTED: "the iterations ran out before the residual met its tolerance",
            Status.DIVERGED: "the iteration overflowed or became NaN",
        }[self]


@dataclass(frozen=True)
class Solution:
    """What a solver returns: a point, the residual of that very point, and how the solve ended."""

    point: Tensor
    residual: float
    iterations: int
    status: Status


def error_bound(residual: float, contraction: float, rounding: float) -> float | None:
    """(residual + rounding) / (1 - q), a bound on ||Z - Z*||_F / ||F(Z)||_F; None where q >= 1 and none exists.

    q bounds the Lipschitz constant of F: L ||W||_2 for an equilibrium and for its adjoint. The residual is that of
    the layer as computed; `rounding` bounds how far that is from F(Z), relative to ||F(Z)||_F.
    Source: Banach's fixed-point theorem.
    """
    return (residual + rounding) / (1 - contraction) if contraction < 1 else None


def usual_rounding(width: int, input_dim: int, dtype: str) -> float:
    """sqrt(m + d) eps, what the rounding of a layer comes to: statistically, not in the worst case.

    Source: Higham and Mary 2019, SIAM J. Sci. Comput. 41, A2815.
    """
    return math.sqrt(width + input_dim) * ROUNDING[dtype]


class Solver(Options):
    """Options and method of a fixed-point solver."""

    kind: str
    tolerance: Annotated[Tolerance, Field(description="largest relative residual accepted; auto: by train.dtype")] = (
        "auto"
    )
    max_iterations: Annotated[Count, Field(description="evaluations of the layer before a solve gives up")] = 500

    def tolerance_for(self, dtype: str) -> float:
        """The tolerance in numbers: `auto` is 1e-6 in float32 and 1e-12 in float64."""
        return AUTO_TOLERANCE[dtype] if self.tolerance == "auto" else self.tolerance

    @abstractmethod
    def solve(self, layer: Map, point: Tensor, spare: Tensor) -> Solution:
        """Solve point = F(point) in place, starting from `point`; `spare` is a buffer of the same shape.

        The last evaluation of F is at the point returned, so whatever F left in its own buffers belongs to it.
        """


class Picard(Solver):
    """Plain iteration point <- F(point)."""

    kind: Literal["picard"] = "picard"

    def solve(self, layer: Map, point: Tensor, spare: Tensor) -> Solution:
        """Iterate until ||F(Z) - Z||_F <= tolerance ||F(Z)||_F; no norm over- or underflows.

        A norm that is not finite is a divergence, never a small ratio.
        """
        tolerance = self.tolerance_for(str(point.dtype).removeprefix("torch."))
        start, image = point, spare
        residual, status = math.inf, Status.EXHAUSTED
        for iteration in range(1, self.max_iterations + 1):
            layer(point, image)
            residual = relative_residual(point, image)
            if residual <= tolerance:
                status = Status.CONVERGED
                break
            if math.isnan(residual):
                status = Status.DIVERGED
                break
            if iteration < self.max_iterations:
                point, image = image, point
        if point is not start:
            start.copy_(point)
        return Solution(start, residual, iteration, status)


def relative_residual(point: Tensor, image: Tensor) -> float:
    """||image - point||_F / ||image||_F; 0 where the two agree, NaN where a norm is not finite.

    Infinite where the image is exactly 0 and the point is not, as on the way to the equilibrium of dead units.
    """
    size, distance = frobenius_norms(image, image - point)
    if not (math.isfinite(size) and math.isfinite(distance)):
        return math.nan
    if distance == 0:
        return 0.0
    return distance / size if size > 0 else math.inf


def frobenius_norms(*tensors: Tensor) -> list[float]:
    """Frobenius norms, read from the device in one transfer, free of over- and underflow.

    Squares are summed as they are, and once more with the largest entry scaled to 1 where a sum left the range in
    which no square can have been lost.
    """
    import torch

    norms = [float(norm) for norm in torch.stack([torch.linalg.vector_norm(t) for t in tensors]).tolist()]
    return [
        norm if SAFE_NORM < norm < math.inf else _scaled_norm(tensor)
        for norm, tensor in zip(norms, tensors, strict=True)
    ]


def _scaled_norm(tensor: Tensor) -> float:
    import torch

    largest = float(tensor.abs().max())
    if largest == 0 or not math.isfinite(largest):
        return largest
    unit, scale = to_unit(tensor, largest)
    return scale * float(torch.linalg.vector_norm(unit))


SolverOptions = Picard
