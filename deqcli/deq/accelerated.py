"""What solvers that are faster than plain iteration share: their start, and when they leave the work to it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from deqcli.deq.solvers import Picard, Solution, Solver, dtype_name

if TYPE_CHECKING:
    from torch import Tensor

    from deqcli.deq.equations import Equation
    from deqcli.deq.evaluation import Evaluation
    from deqcli.deq.track import Track


class Accelerated(Solver):
    """Solves one network from where its track predicts the solution; the residual is always computed."""

    equilibrium_order: ClassVar[int] = 1  # as Continuation keeps them
    adjoint_order: ClassVar[int] = 2

    def solve(self, equation: Equation, track: Track, confirm: Sequence[bool] = ()) -> list[Solution]:
        """Predict, solve, and take note of how far the guess was off."""
        start = track.predict()
        equation.image(start, track.point)
        solution = self.from_here(equation, track.point, track.preactivation)
        track.learn(start)
        return [solution]

    def from_here(self, equation: Equation, point: Tensor, preactivation: Tensor) -> Solution:
        """Solve the equation of one network from `point`, in place; `preactivation` gets the P that belongs to it.

        A network whose entries are so small, or large, that squares leave the floats is iterated plainly.
        """
        from deqcli.deq.evaluation import Evaluation

        tolerance = self.tolerance_for(dtype_name(point))
        at = Evaluation(equation, point, preactivation, self.max_iterations)
        at.evaluate()
        if at.ended(tolerance):
            return at.solution(tolerance)
        if not at.can_be_squared(tolerance):
            return self._plainly(at)
        self.accelerate(at, tolerance)
        return at.solution(tolerance)

    def _plainly(self, at: Evaluation) -> Solution:
        """Plain iteration, from the image that is there."""
        at.point.copy_(at.image)
        plain = Picard(tolerance=self.tolerance, max_iterations=at.left)
        rest = plain.plainly(at.equation, at.point, at.preactivation, at.image)
        return replace(rest, iterations=at.products + rest.iterations)

    @abstractmethod
    def accelerate(self, at: Evaluation, tolerance: float) -> None:
        """Improve the point until `at.ended(tolerance)`; what was evaluated last is the point that is there."""
