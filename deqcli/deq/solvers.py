"""What a fixed-point solver promises, and the plain one. A solver is its options; its outcome a value with a status.

To add one, write a subclass of `Solver` in a file of its own and name it in `SolverOptions` of `deqcli.deq.kinds`.
"""

from __future__ import annotations

import math
import sys
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from deqcli.deq.precision import to_unit
from deqcli.options import Count, Options

if TYPE_CHECKING:
    from torch import Tensor

    from deqcli.deq.equations import Equation
    from deqcli.deq.track import Track

Map = Callable[["Tensor", "Tensor"], None]
"""A fixed-point map F, called as F(point, out): writes F(point) into `out`."""

AUTO_TOLERANCE = {"tf32": 2e-3, "float32": 1e-6, "float64": 1e-12}
SAFE_NORM = 1e-12
"""Above it, squares that underflow in float32 (below 1e-38 each) do not matter."""
LARGEST = {"float32": (2 - 2.0**-23) * 2.0**127, "float64": sys.float_info.max}
ROUNDING = {"tf32": 2.0**-10, "float32": 2.0**-23, "float64": 2.0**-52}

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
    """How a solve ended: the relative residual of the point that it left, and what that took.

    `confirmed`: the residual was computed at that very point; otherwise it is an estimate.
    `misses`: how often a residual so computed was above the tolerance where the estimate had been below.
    `norm`: of a solve that failed, the largest finite ||F(Z)||_F that was seen; None where none was looked at.
    """

    residual: float
    iterations: int
    status: Status
    confirmed: bool = True
    misses: int = 0
    norm: float | None = None

    @property
    def norm_reached(self) -> str:
        """The norm in words, to go on with."""
        return "" if self.norm is None else f", norm reached {self.norm:.3g}"


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


def _name_the_kind(schema: dict[str, Any], solver: type[Solver]) -> None:
    """Say in the JSON schema that `kind` may be left out for one solver only."""
    if not solver.unnamed:
        schema["required"] = ["kind"]


class Solver(Options):
    """Options and method of a fixed-point solver."""

    model_config = ConfigDict(json_schema_extra=_name_the_kind)
    unnamed: ClassVar[bool] = False
    """Whether a recipe that names no kind means this one."""

    kind: str
    tolerance: Annotated[
        Tolerance,
        Field(
            description="largest relative residual accepted, no less than the precision resolves; auto: "
            + ", ".join(f"{value:g} in {precision}" for precision, value in sorted(AUTO_TOLERANCE.items()))
        ),
    ] = "auto"
    max_iterations: Annotated[Count, Field(description="products with W that a solve may take")] = 500

    def tolerance_for(self, precision: str) -> float:
        """The tolerance in numbers: `auto` is 1e-6 in float32, 1e-12 in float64, 2e-3 where float32 is cut to tf32."""
        return AUTO_TOLERANCE[precision] if self.tolerance == "auto" else self.tolerance

    equilibrium_order: ClassVar[int] = 0
    """Backward differences of P that the solver keeps for the equilibrium, and for the adjoint."""
    adjoint_order: ClassVar[int] = 0

    @property
    def stacks(self) -> bool:
        """Whether it solves a stack of networks as one."""
        return False

    @property
    def arrays(self) -> int:
        """Arrays of the size of Z that it holds while it solves, beside those that every solver has."""
        return 0

    @abstractmethod
    def solve(self, equation: Equation, track: Track, confirm: Sequence[bool]) -> list[Solution]:
        """Solve P = g(P) A + B from where `track` is, and leave g(P) and P there; a solution for each network.

        `confirm` says of each network whether its residual must be computed and not estimated.
        """


class Picard(Solver):
    """Plain iteration g <- F(g), from the last point; its residual is always computed."""

    kind: Literal["picard"] = "picard"

    def solve(self, equation: Equation, track: Track, confirm: Sequence[bool] = ()) -> list[Solution]:
        """Iterate; the last evaluation of F is at the point returned, so P belongs to it."""
        return [self.plainly(equation, track.point, track.preactivation, track.workspace["image"])]

    def plainly(self, equation: Equation, point: Tensor, preactivation: Tensor, spare: Tensor) -> Solution:
        """Solve the equation of one network; `point` and `preactivation` get the solution."""

        def layer(at: Tensor, out: Tensor) -> None:
            equation.preactivation(at, preactivation)
            equation.image(preactivation, out)

        return self.iterate(layer, point, spare)

    def iterate(self, layer: Map, point: Tensor, spare: Tensor) -> Solution:
        """Iterate point <- F(point) in place until ||F(Z) - Z||_F <= tolerance ||F(Z)||_F; no norm over- or underflows.

        `spare` is a buffer of the same shape. A norm that is not finite is a divergence, never a small ratio.
        """
        tolerance = self.tolerance_for(dtype_name(point))
        start, image = point, spare
        residual, status, largest = math.inf, Status.EXHAUSTED, Largest()
        for iteration in range(1, self.max_iterations + 1):
            layer(point, image)
            size, distance = frobenius_norms(image, image - point)
            residual = ratio_of_norms(distance, largest.see(size))
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
        return Solution(residual, iteration, status, norm=largest.unless(status))


class Largest:
    """The largest finite norm seen so far."""

    def __init__(self) -> None:
        self.norm: float | None = None

    def see(self, norm: float) -> float:
        """Take note of a norm, and give it back."""
        if math.isfinite(norm):
            self.norm = norm if self.norm is None else max(self.norm, norm)
        return norm

    def unless(self, status: Status) -> float | None:
        """The norm of a solve that failed."""
        return None if status is Status.CONVERGED else self.norm


def dtype_name(tensor: Tensor) -> str:
    """`float32` or `float64`."""
    return str(tensor.dtype).removeprefix("torch.")


def ratio_of_norms(distance: float, size: float) -> float:
    """distance / size; 0 where nothing differs, NaN where a norm is not finite.

    Infinite where an image is exactly 0 and the point is not, as on the way to the equilibrium of dead units.
    """
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
