"""The solver that chooses: plain iteration from an extrapolated start while it contracts well, else acceleration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from deqcli.deq.accelerated import Accelerated
from deqcli.deq.anderson import Anderson
from deqcli.deq.continuation import Continuation, Precision
from deqcli.deq.newton import Newton
from deqcli.deq.solvers import Solution, Solver, Status, dtype_name

if TYPE_CHECKING:
    from torch import Tensor

    from deqcli.deq.equations import Equation
    from deqcli.deq.track import Track

SLOW = 0.8
"""Contraction above which acceleration pays: docs/solvers.md has the measurement."""

SLOWER = 0.81
"""What is noted as the contraction of an iteration that took too many products, at least."""

PROBE = 8
"""Products of plain iteration that a network is given whose contraction was slow when it was last measured."""

RETRIED = 32
"""Solves after which such a network is given as many as others: so few as a probe's measure too small a contraction."""

FAR_OFF = 100.0
"""Times the largest entry of P: what plain iteration may have reached for the differences to be kept."""

LOST = 1.0
"""What is noted as the contraction of an iteration that overflowed."""


class Automatic(Solver):
    """`Continuation`, and where that is too slow or fails, `Anderson` for equilibria and `Newton` for adjoints.

    Plain iteration may make as many products as a contraction of 0.8 would need from zero to the tolerance, and at most
    half of `max_iterations`; only 8 if it was slower than that when last seen, but for every 32nd solve. Where they do
    not do, acceleration goes on from the point that they reached, or, if they went astray (a measured contraction of 1
    or more), from where they began.
    What decides are products, residuals and `track.ratio`, never a clock. In a stack every network has the larger
    number of products, and those that need more are then solved one by one.
    """

    kind: Literal["auto"] = "auto"
    corrections: Annotated[Precision, Field(description="of its plain iteration, as in continuation")] = "auto"
    equilibrium_order: ClassVar[int] = Continuation.equilibrium_order
    adjoint_order: ClassVar[int] = Continuation.adjoint_order

    @property
    def stacks(self) -> bool:
        return True

    @property
    def arrays(self) -> int:
        return max(Anderson().arrays, Newton().arrays)

    def solve(self, equation: Equation, track: Track, confirm: Sequence[bool] = (True,)) -> list[Solution]:
        """Plain iteration, and acceleration of the networks that it did not solve."""
        doubtful = ~(track.ratio <= SLOW)
        start = track.predict().clone() if doubtful.any() else None
        probing = bool(doubtful[0]) and not equation.stacked and int(track.solved[0]) % RETRIED != 0
        solutions = self._plainly(equation, track, confirm, probing)
        return [
            solution
            if solution.status is Status.CONVERGED
            else self._go_on(equation, Place(track, k), start if doubtful[k] else None, solution)
            for k, solution in enumerate(solutions)
        ]

    def _plainly(self, equation: Equation, track: Track, confirm: Sequence[bool], probing: bool) -> list[Solution]:
        tolerance = self.tolerance_for(dtype_name(track.point))
        enough = PROBE if probing else math.ceil(math.log(tolerance) / math.log(SLOW))
        most = min(enough, max(self.max_iterations // 2, 1))
        plain = Continuation(tolerance=tolerance, max_iterations=most, corrections=self.corrections)
        return plain.solve(equation, track, confirm)

    def _go_on(self, equation: Equation, place: Place, start: Tensor | None, plain: Solution) -> Solution:
        """Solve one network by acceleration; from its `start`, if that is known, where plain iteration went astray."""
        left = self.max_iterations - plain.iterations
        if left < 1:
            return plain
        reached, contracts = place.preactivation.clone(), place.contracts()
        if plain.status is Status.DIVERGED or not contracts:
            place.begin_again(equation, start)
        solver = self._accelerated(equation, left)
        rest = solver.from_here(equation.of(place.network), place.point, place.preactivation)
        place.learn_more(reached)
        return replace(rest, iterations=plain.iterations + rest.iterations, misses=plain.misses)

    def _accelerated(self, equation: Equation, left: int) -> Accelerated:
        kind = Anderson if equation.slope is None else Newton
        return kind(tolerance=self.tolerance, max_iterations=left)


class Place:
    """One network of a track, as its tensors are seen there, (n, m)."""

    def __init__(self, track: Track, network: int) -> None:
        self.track, self.network = track, network
        self.point, self.preactivation = self.of(track.point), self.of(track.preactivation)

    def of(self, tensor: Tensor) -> Tensor:
        """The part of a tensor that belongs to this network."""
        return tensor[self.network] if tensor.dim() == 3 else tensor

    def contracts(self) -> bool:
        """Whether plain iteration, which failed, contracted at all; notes its contraction as no better than slow."""
        ratio = float(self.track.ratio[self.network])
        self.track.ratio[self.network] = max(ratio, SLOWER) if math.isfinite(ratio) else LOST
        return ratio < LOST

    def begin_again(self, equation: Equation, start: Tensor | None) -> None:
        """Back to P = `start`, or else to 0 as if nothing had been solved before."""
        if start is None:
            self.preactivation.zero_()
        else:
            self.preactivation.copy_(self.of(start))
        equation.of(self.network).image(self.preactivation, self.point)

    def learn_more(self, learned: Tensor) -> None:
        """Update the differences of the track, which took `learned` for the solution, by how far P has moved since.

        `Track.learn` is linear in P: what is added to the highest difference is added to all below it. Where what was
        learned is so far off that rounding spoils the sum, or no number, the differences are forgotten.
        """
        import torch

        track, size = self.track, FAR_OFF * float(self.preactivation.abs().max())
        if not float(learned.abs().max()) <= size:
            self._forget()
            return
        moved = torch.sub(self.preactivation, learned, out=learned)
        if track.jumped is not None:
            moved.masked_fill_(self.of(track.jumped), 0.0)
        known = min(int(track.solved[self.network]) - 1, len(track.differences))
        for difference in track.differences[:known]:
            self.of(difference).add_(moved)

    def _forget(self) -> None:
        for difference in self.track.differences:
            self.of(difference).zero_()
        self.track.solved[self.network] = 1
