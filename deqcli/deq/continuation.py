"""The fast exact solver: extrapolate from the last steps, then iterate only where and as precisely as it is needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from deqcli.deq.solvers import Solution, Solver

if TYPE_CHECKING:
    from deqcli.deq.equations import Equation
    from deqcli.deq.track import Track

Precision = Literal["auto", "full", "float32", "bfloat16"]


class Continuation(Solver):
    """Predictor and corrector: P is extrapolated over the gradient steps, and plain iteration corrects the guess.

    Items (samples of one network, networks of a stack) whose estimated residual is small enough are left out of the
    product; the solve ends when the estimate, last change times measured contraction, meets the tolerance. Where
    `confirm` asks for it the residual is computed, and a miss is corrected. Corrections of P may be multiplied in a
    lower precision while what that puts into P is well below the tolerance.
    Source: Allgower and Georg 1990, Numerical Continuation Methods, chapter 1 (predictor and corrector).
    """

    kind: Literal["continuation"] = "continuation"
    corrections: Annotated[
        Precision,
        Field(
            description="precision of the products that correct a full one; auto: float32 below float64, bfloat16 "
            "below float32 where the device multiplies it faster; full: none is lower"
        ),
    ] = "auto"
    unnamed: ClassVar[bool] = True
    equilibrium_order: ClassVar[int] = 1  # P is only piecewise smooth: a second difference adds noise
    adjoint_order: ClassVar[int] = 2

    @property
    def stacks(self) -> bool:
        return True

    def solve(self, equation: Equation, track: Track, confirm: Sequence[bool] = (True,)) -> list[Solution]:
        """Predict, correct, and take note of how far the guess was off."""
        from deqcli.deq.correction import Correction

        return Correction(self, self.corrections, equation, track).run(confirm)
