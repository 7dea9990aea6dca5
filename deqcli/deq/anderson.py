"""Anderson acceleration: combine the last iterates of every sample so that their residuals cancel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from deqcli.deq.accelerated import Accelerated

if TYPE_CHECKING:
    from deqcli.deq.evaluation import Evaluation

WORSE = 2.0
"""Factor by which a step may enlarge the residual of a sample; above, the step is taken back and shortened."""


class Anderson(Accelerated):
    """z <- F(z) - DG gamma with gamma = argmin ||f - DF gamma||, f = F(z) - z, for each sample on its own.

    DF and DG hold the last `memory` changes of f and of F(z). A sample whose residual more than doubles goes back and
    takes a quarter of the mixed step beside the plain one; that share doubles with every step that is not taken back.
    One product an iteration; 2 `memory` buffers of the size of Z.
    Source: Anderson 1965, J. ACM 12, 547; Walker and Ni 2011, SIAM J. Numer. Anal. 49, 1715.
    """

    kind: Literal["anderson"] = "anderson"
    memory: Annotated[int, Field(ge=1, le=50, description="iterates combined, beside the last")] = 5
    regularisation: Annotated[
        float,
        Field(ge=0, lt=1, description="ridge of the least squares, relative to their normal matrix; at least rounding"),
    ] = 0.0
    mixing: Annotated[float, Field(gt=0, le=1, description="beta: share of the combined residual that is added")] = 1.0

    @property
    def arrays(self) -> int:
        return 2 * self.memory + 5

    def accelerate(self, at: Evaluation, tolerance: float) -> None:
        """Mix, with shorter steps where they failed."""
        from deqcli.deq.mixing import Before, Mixing

        mixing = Mixing(at.point, self.memory, self.regularisation, self.mixing)
        before = Before(at)
        at.point.copy_(at.image)
        before.swap(at)
        at.evaluate()
        while not at.ended(tolerance):
            mixing.remember(at.difference, at.image, before.difference, before.image)
            mixing.reject(before.restore_worse(at, WORSE))
            mixing.step(at.difference, at.image, at.point)
            before.swap(at)
            at.evaluate()
