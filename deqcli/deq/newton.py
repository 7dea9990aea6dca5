"""Semi-smooth Newton: solve the equation with the activations' slopes frozen, by GMRES, and look again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from deqcli.deq.accelerated import Accelerated

if TYPE_CHECKING:
    from deqcli.deq.evaluation import Evaluation


class Newton(Accelerated):
    """(I - D A) delta = F(z) - z with D = g'(P), z <- z + t delta, for each sample on its own.

    The linear systems are solved by GMRES until their residual is below `forcing` times that of the point, less and
    less by (r/r')^2, and never below what the tolerance needs. t = 1 where that makes the residual smaller, else the
    first of 1/2, 1/4, ... that does; where none does a plain step is taken. The adjoint is linear: one system,
    restarted every `inner_iterations`, whose number of buffers of the size of Z is kept.
    Source: Qi and Sun 1993, Math. Program. 58, 353 (semi-smooth Newton); Knoll and Keyes 2004, J. Comput. Phys. 193,
    357 (Newton-Krylov); Eisenstat and Walker 1996, SIAM J. Sci. Comput. 17, 16, choice 2 (forcing); Saad 2003 (GMRES).
    """

    kind: Literal["newton"] = "newton"
    inner_iterations: Annotated[int, Field(ge=1, le=200, description="dimensions of a Krylov space")] = 20
    forcing: Annotated[
        float, Field(gt=0, lt=1, description="largest residual of a linear system, relative to its right side")
    ] = 0.1

    @property
    def arrays(self) -> int:
        return self.inner_iterations + 8

    def accelerate(self, at: Evaluation, tolerance: float) -> None:
        from deqcli.deq.newton_steps import NewtonSteps

        NewtonSteps(at, tolerance, self.inner_iterations, self.forcing).run()
