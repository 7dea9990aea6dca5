"""A drawn network solved in float64, whatever the training precision is: what the theory is measured on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

from jaxtyping import Float, Float64
from torch import Tensor

from deqcli.deq.memory import CHOLESKY_UP_TO
from deqcli.deq.model import Component, Params
from deqcli.deq.network import Network
from deqcli.deq.precision import to_float64
from deqcli.deq.solvers import Status
from deqcli.deq.spectral import gram
from deqcli.errors import NumericalFailure
from deqcli.theory.ntk import empirical_ntk

TOLERANCE = 1e-13
MAX_ITERATIONS = 20_000

OnPart = Callable[[str], None]
"""Told the name of each part of a measurement as it begins."""


@dataclass(frozen=True)
class SolvedDraw:
    """W(0), U(0), a(0) with their equilibrium and unit adjoint, both solved to a relative residual of 1e-13.

    `residual` is that of the equilibrium. Shapes: X (d, n), y (n,).
    """

    network: Network
    X: Float64[Tensor, "d n"]
    y: Float64[Tensor, " n"]
    residual: float

    @classmethod
    def of(
        cls, params: Params, X: Float[Tensor, "d n"], y: Float[Tensor, " n"], component: Component,
        on_part: OnPart = lambda _: None,
    ) -> SolvedDraw:  # fmt: skip
        """Solve a draw. A W of more than 8000 rows stays in its own precision, and is converted as it is multiplied.

        Raises: NumericalFailure where the equilibrium or its adjoint cannot be solved.
        """
        on_part("equilibrium in float64")
        W = params.W if max(params.W.shape) > CHOLESKY_UP_TO else to_float64(params.W)
        X, y = (to_float64(each).to(W.device) for each in (X, y))
        patient = component.solver.model_copy(update={"tolerance": TOLERANCE, "max_iterations": MAX_ITERATIONS})
        others = {name: to_float64(each) for name, each in params.given().items() if name != "W"}
        exact = Params(W=W, **others)
        network = Network(exact, X, replace(component, solver=patient))
        equilibrium = network.solve_equilibrium()
        on_part("adjoint in float64")
        solutions = equilibrium, network.solve_adjoint()
        for name, solution in zip(("equilibrium", "adjoint"), solutions, strict=True):
            if solution.status is not Status.CONVERGED:
                reached = f"residual {solution.residual:.3g}, tolerance {TOLERANCE:g}{solution.norm_reached}"
                raise NumericalFailure(
                    f"the {name} of the initial draw was not solved in float64: {solution.status.sentence} "
                    f"({reached}); a smaller model.sigma_w_sq contracts"
                )
        network.rest()
        return cls(network, X, y, solutions[0].residual)

    @property
    def params(self) -> Params:
        """W, U, a."""
        return self.network.params

    @property
    def Z(self) -> Float64[Tensor, "m n"]:
        """The equilibrium."""
        return self.network.Z

    @cached_property
    def prediction_error(self) -> Float64[Tensor, " n"]:
        """e(0) = a^T Z - y."""
        return self.network.prediction_error(self.y)

    @cached_property
    def G(self) -> Float64[Tensor, "n n"]:
        """Z^T Z."""
        return gram(self.Z)

    @cached_property
    def H(self) -> Float64[Tensor, "n n"]:
        """The tangent kernel H(0)."""
        return empirical_ntk(self.network.cell(0), self.G, self.X)
