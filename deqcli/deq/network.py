"""One DEQ, or a stack of them, on fixed samples: equilibrium, unit adjoint, loss, gradient step; buffers made once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from deqcli.deq.activations import Activation
from deqcli.deq.equations import Equation, subtract_product
from deqcli.deq.injection import Injection
from deqcli.deq.precision import to_float64
from deqcli.deq.room import room, spaced
from deqcli.deq.solvers import Solution, Solver
from deqcli.deq.track import Track, Workspace

JUMP = 0.5
"""Times the Lipschitz constant: a slope that moves by more in one step has crossed a kink."""


@dataclass
class Params:
    """What is trained: W of the implicit layer, U of the input injection, a of the readout."""

    W: Float[Tensor, "*c m m"]
    U: Float[Tensor, "*c m d"]
    a: Float[Tensor, "*c m"]

    def to(self, dtype: torch.dtype) -> Params:
        """The same numbers in another precision; tensors that have it already are shared, not copied."""
        return Params(self.W.to(dtype), self.U.to(dtype), self.a.to(dtype))


@dataclass(frozen=True)
class Component:
    """The two choices that are not tensors: the activation and the solver."""

    activation: Activation
    solver: Solver


@dataclass(frozen=True)
class Cell:
    """One solved network: parameters, equilibrium Z (m, n) and unit adjoint V (m, n)."""

    params: Params
    Z: Float[Tensor, "m n"]
    V: Float[Tensor, "m n"]


class Network:
    """Z = phi(W Z + U X) and y_hat = a^T Z for the n samples in the columns of X.

    Rows are samples inside, (n, m), contiguous; Z and V are seen from outside as in the paper, (m, n).
    With a leading axis of c on W, U, a and X it is a stack of c networks in one batched product.
    Source: Ling et al. 2023, section 2.1.
    """

    def __init__(self, params: Params, X: Float[Tensor, "*c d n"], component: Component) -> None:
        self._W, self._a, self.X = spaced(params.W), params.a, spaced(X.mT.contiguous()).mT
        self.activation, self.solver = component.activation, component.solver
        point = room((*X.shape[:-2], X.shape[-1], params.W.shape[-1]), X)  # (n, m)
        self.workspace = Workspace(point)
        self.equilibrium = Track(point, self.solver.equilibrium_order, self.workspace)
        self.adjoint = Track(point, self.solver.adjoint_order, self.workspace)
        self._slope = torch.zeros_like(point)
        self.injection = Injection(params.U, self.X)
        self._lowered: Tensor | None = None
        self._lowered_fresh = False

    @property
    def params(self) -> Params:
        """W, U and a of now."""
        return Params(self._W, self.injection.U, self._a)

    @property
    def Z(self) -> Tensor:
        """The equilibrium, (m, n)."""
        return self.equilibrium.point.mT

    @property
    def V(self) -> Tensor:
        """The unit adjoint, (m, n)."""
        return self.adjoint.point.mT

    @property
    def slope(self) -> Tensor:
        """D = phi'(W Z + U X), (m, n)."""
        return self._slope.mT

    @property
    def stacked(self) -> bool:
        """Whether this is a stack of networks."""
        return self._W.dim() == 3

    @property
    def size(self) -> int:
        """The number of networks."""
        return self._W.shape[0] if self.stacked else 1

    def cell(self, k: int) -> Cell:
        """One network of a stack, or the only one, seen through its tensors."""
        if not self.stacked:
            return Cell(self.params, self.Z, self.V)
        params = self.params
        return Cell(Params(params.W[k], params.U[k], params.a[k]), self.Z[k], self.V[k])

    def rest(self) -> None:
        """Give back what only the next solve needs, and can make again: half of the memory of a solved network."""
        self.workspace.clear()
        self._lowered = None

    def state(self) -> dict[str, Tensor]:
        """Every tensor that the next step depends on, but for U_0 and X; in a stack each has a row a network."""
        tracks = self.equilibrium.state("equilibrium") | self.adjoint.state("adjoint")
        return {"W": self._W, "a": self._a} | tracks | self.injection.state()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave."""
        self._W.copy_(state["W"])
        self._a.copy_(state["a"])
        self.equilibrium.restore("equilibrium", state)
        self.adjoint.restore("adjoint", state)
        self.injection.restore(state)
        self.activation.slope(self.equilibrium.preactivation, out=self._slope)
        self._lowered_fresh = False

    def solve_equilibrium(self, confirm: bool = True) -> Solution:
        """`solve_equilibria` of a network that is alone."""
        (solution,) = self.solve_equilibria([confirm])
        return solution

    def solve_equilibria(self, confirm: Sequence[bool]) -> list[Solution]:
        """Solve Z = phi(W Z + U X) from the last Z; sets Z and the slope D = phi'(W Z + U X).

        `confirm` says of each network whether its residual must be computed and not estimated.
        ||Z - Z*||_F <= residual / (1 - L ||W||_2) ||F(Z)||_F where L ||W||_2 < 1. Source: Ling et al. 2023, eq. 3.
        """
        solutions = self.solver.solve(self._equation(), self.equilibrium, confirm)
        self._turn_slope()
        return solutions

    def _equation(self) -> Equation:
        return Equation(self._W.mT, self.injection.value, self.activation, lowered=self._lower_transposed)

    def _turn_slope(self) -> None:
        """Set D, and tell the adjoint which samples crossed a kink since the last D: their V jumps there."""
        before, now = self._slope, self.workspace["image"]
        self.activation.slope(self.equilibrium.preactivation, out=now)
        moved = torch.sub(now, before, out=before).abs_()
        self.adjoint.jumped = moved.amax(-1, keepdim=True) > JUMP * self.activation.lipschitz
        before.copy_(now)

    def solve_adjoint(self, confirm: bool = True) -> Solution:
        """`solve_adjoints` of a network that is alone."""
        (solution,) = self.solve_adjoints([confirm])
        return solution

    def solve_adjoints(self, confirm: Sequence[bool]) -> list[Solution]:
        """Solve V = D * (W^T V + a 1^T) for the unit adjoint V, from the last V; sets V.

        D is the slope at the equilibrium, so `solve_equilibria` comes first. The adjoint of the loss is V diag(e)
        with e = y_hat - y: V depends on no label. It contracts as the forward equation does.
        Source: Ling et al. 2023, Lemma 2, without the Kronecker products and with the scalar output used.
        """
        equation = Equation(self._W, self._a.unsqueeze(-2), self.activation, self._slope, self._lower)
        return self.solver.solve(equation, self.adjoint, confirm)

    def _lower(self, dtype: torch.dtype) -> Tensor:
        """W in a lower precision, converted once a step into a buffer made once; W itself where it has that already."""
        if self._W.dtype == dtype:
            return self._W
        if self._lowered is None or self._lowered.dtype != dtype:
            self._lowered, self._lowered_fresh = torch.empty_like(self._W, dtype=dtype), False
        if not self._lowered_fresh:
            self._lowered.copy_(self._W)
            self._lowered_fresh = True
        return self._lowered

    def _lower_transposed(self, dtype: torch.dtype) -> Tensor:
        return self._lower(dtype).mT

    def prediction_error(self, y: Float[Tensor, "*c n"]) -> Float[Tensor, "*c n"]:
        """e = y_hat - y with y_hat = a^T Z."""
        terms = torch.mul(self.equilibrium.point, self._a.unsqueeze(-2), out=self.workspace["image"])  # (n, m)
        return terms.sum(-1) - y

    def descend(self, prediction_error: Float[Tensor, "*c n"], learning_rate: float | Tensor) -> None:
        """One step of full-batch gradient descent on W, U and a, in place; no gradient matrix is ever formed.

        With S = eta V diag(e): W loses S Z^T, U loses S X^T, a loses eta Z e. In a stack each network has its own eta.
        Source: Ling et al. 2023, Lemma 2 and eq. 5.
        """
        Z = self.equilibrium.point  # (n, m)
        scaled = (prediction_error * learning_rate).unsqueeze(-1)  # (n, 1)
        S = torch.mul(self.adjoint.point, scaled, out=self.workspace["image"])  # (n, m)
        subtract_product(self._W, S.mT, Z)
        self.injection.descend(S)
        self._a.sub_(torch.mul(Z, scaled, out=S).sum(-2))
        self._lowered_fresh = False


def loss(prediction_error: Float[Tensor, " n"]) -> float:
    """Phi = 1/2 sum_i (y_hat_i - y_i)^2, a sum and not a mean, accumulated in float64."""
    e = to_float64(prediction_error)
    return 0.5 * float(torch.dot(e, e))


def joined(networks: Sequence[Network]) -> Network:
    """One stack of several stacks of the same shape; the only one itself."""
    if len(networks) == 1:
        return networks[0]
    starts = [network.injection.start for network in networks]
    W, a = (torch.cat([network.state()[name] for network in networks]) for name in ("W", "a"))
    component = Component(networks[0].activation, networks[0].solver)
    stack = Network(Params(W, torch.cat(starts), a), torch.cat([network.X for network in networks]), component)
    states = [network.state() for network in networks]
    stack.restore({name: torch.cat([state[name] for state in states]) for name in states[0]})
    return stack


def part(network: Network, k: int) -> Network:
    """A stack of the one network k of a stack."""
    rows, state = slice(k, k + 1), network.state()
    params = Params(state["W"][rows].clone(), network.injection.start[rows].clone(), state["a"][rows].clone())
    alone = Network(params, network.X[rows], Component(network.activation, network.solver))
    alone.restore({name: tensor[rows] for name, tensor in state.items()})
    return alone
