"""One DEQ, or a stack of them, on fixed samples: equilibrium, unit adjoint, loss, gradient step; buffers made once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from deqcli.deq.equations import Equation
from deqcli.deq.injection import Injection
from deqcli.deq.model import Cell, Component, Params
from deqcli.deq.precision import to_float64
from deqcli.deq.readout import Readout
from deqcli.deq.room import room, spaced
from deqcli.deq.solvers import Solution
from deqcli.deq.track import Track, Workspace
from deqcli.deq.weights import Free, Monotone, Weights

JUMP = 0.5
"""Times the Lipschitz constant: a slope that moves by more in one step has crossed a kink."""


class Network:
    """Z = phi(W Z + U X) and y_hat = a^T Z for the n samples in the columns of X.

    Rows are samples inside, (n, m), contiguous; Z and V are seen from outside as in the paper, (m, n).
    With a leading axis of c on W, U, a and X it is a stack of c networks in one batched product.
    Source: Ling et al. 2023, section 2.1.
    """

    def __init__(self, params: Params, X: Float[Tensor, "*c d n"], component: Component) -> None:
        self.component, self.X = component, spaced(X.mT.contiguous()).mT
        self.activation, self.solver = component.activation, component.solver
        self.weights = _weights(params, component)
        self.readout = Readout(params.a, params.b, component.momentum)
        point = room((*X.shape[:-2], X.shape[-1], params.W.shape[-1]), X)  # (n, m)
        self.workspace = Workspace(point)
        self.equilibrium = Track(point, self.solver.equilibrium_order, self.workspace)
        self.adjoint = Track(point, self.solver.adjoint_order, self.workspace)
        self._slope = torch.zeros_like(point)
        rectifier = component.activation if component.rectified else None
        self.injection = Injection(params.U, self.X, rectifier, component.momentum)
        self._lowered: Tensor | None = None
        self._lowered_fresh = False

    @property
    def params(self) -> Params:
        """The parameters of now."""
        made_of = {"A": self.weights.A, "B": self.weights.B} if isinstance(self.weights, Monotone) else {}
        return Params(self.W, self.injection.U, self.readout.a, self.readout.b, **made_of)

    @property
    def W(self) -> Tensor:
        """W of now, (m, m)."""
        return self.weights.W

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
        return self.W.dim() == 3

    @property
    def size(self) -> int:
        """The number of networks."""
        return self.W.shape[0] if self.stacked else 1

    def cell(self, k: int) -> Cell:
        """One network of a stack, or the only one, seen through its tensors."""
        if not self.stacked:
            return Cell(self.params, self.Z, self.V, self.component)
        own = {name: tensor[k] for name, tensor in self.params.given().items()}
        return Cell(Params(**own), self.Z[k], self.V[k], self.component)

    def rest(self) -> None:
        """Give back what only the next solve needs, and can make again: half of the memory of a solved network."""
        self.workspace.clear()
        self._lowered = None

    def state(self) -> dict[str, Tensor]:
        """Every tensor that the next step depends on, but for U_0 and X; in a stack each has a row a network."""
        tracks = self.equilibrium.state("equilibrium") | self.adjoint.state("adjoint")
        return self.weights.state() | self.readout.state() | tracks | self.injection.state()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave."""
        self.weights.restore(state)
        self.readout.restore(state)
        self.equilibrium.restore("equilibrium", state)
        self.adjoint.restore("adjoint", state)
        self.injection.restore(state)
        self.activation.slope(self.equilibrium.preactivation, out=self._slope)
        self._lowered_fresh = False

    def trained(self) -> dict[str, Tensor]:
        """The tensors that gradient steps move."""
        return self.weights.state() | self.readout.state() | self.injection.state()

    def blend(self, start: Mapping[str, Tensor], share: float) -> None:
        """theta <- share `start` + (1 - share) theta for all that is trained; the network is then unsolved."""
        for name, tensor in self.trained().items():
            tensor.lerp_(start[name], share)
        for holder in (self.weights, self.injection):
            holder.restore(holder.state())  # what is made of them follows
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
        return Equation(self.W.mT, self.injection.value, self.activation, lowered=self._lower_transposed)

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
        equation = Equation(self.W, self.readout.a.unsqueeze(-2), self.activation, self._slope, self._lower)
        return self.solver.solve(equation, self.adjoint, confirm)

    def _lower(self, dtype: torch.dtype) -> Tensor:
        """W in a lower precision, converted once a step into a buffer made once; W itself where it has that already."""
        if self.W.dtype == dtype:
            return self.W
        if self._lowered is None or self._lowered.dtype != dtype:
            self._lowered, self._lowered_fresh = torch.empty_like(self.W, dtype=dtype), False
        if not self._lowered_fresh:
            self._lowered.copy_(self.W)
            self._lowered_fresh = True
        return self._lowered

    def _lower_transposed(self, dtype: torch.dtype) -> Tensor:
        return self._lower(dtype).mT

    def prediction_error(self, y: Float[Tensor, "*c n"]) -> Float[Tensor, "*c n"]:
        """e = y_hat - y with y_hat = a^T Z, and b^T F where there is a skip connection."""
        return self.readout.outputs(self.equilibrium.point, self.injection.value, self.workspace["image"]) - y

    def descend(self, prediction_error: Float[Tensor, "*c n"], learning_rate: float | Tensor) -> None:
        """One step of full-batch gradient descent on what is trained, in place; no gradient matrix is ever formed.

        With S = eta V diag(e): W loses S Z^T, U loses S X^T, a loses eta Z e, each eta times its factor in `Rates`. In
        a stack each network has its own eta. Source: Ling et al. 2023, Lemma 2 and eq. 5.
        """
        rates, Z = self.component.rates, self.equilibrium.point  # (n, m)
        spare, scaled = self.workspace["image"], (prediction_error * learning_rate).unsqueeze(-1)  # (n, 1)
        if rates.W:
            self.weights.descend(torch.mul(self.adjoint.point, scaled * rates.W, out=spare), Z)
        F = self.injection.value if self.readout.b is None else self.injection.value.clone()  # of before the step
        if rates.U:
            self._descend_injection(scaled * rates.U, reuse=rates.U == rates.W)
        if rates.a:
            self.readout.descend(Z, F, scaled * rates.a, spare)
        self._lowered_fresh = False

    def _descend_injection(self, scaled: Tensor, reuse: bool) -> None:
        """U loses (V + b 1^T) diag(eta e) X^T, the buffer holding V diag(eta e) already where it may be reused."""
        S = self.workspace["image"]
        if self.readout.b is not None:
            torch.add(self.adjoint.point, self.readout.b.unsqueeze(-2), out=S).mul_(scaled)
        elif not reuse:
            torch.mul(self.adjoint.point, scaled, out=S)
        self.injection.descend(S)


def _weights(params: Params, component: Component) -> Weights:
    if component.monotonicity is None:
        return Free(spaced(params.W), component.momentum)
    assert params.A is not None
    assert params.B is not None
    return Monotone(spaced(params.A), spaced(params.B), component.monotonicity, component.momentum)


def loss(prediction_error: Float[Tensor, " n"]) -> float:
    """Phi = 1/2 sum_i (y_hat_i - y_i)^2, a sum and not a mean, accumulated in float64."""
    e = to_float64(prediction_error)
    return 0.5 * float(torch.dot(e, e))


def joined(networks: Sequence[Network]) -> Network:
    """One stack of several stacks of the same shape; the only one itself."""
    if len(networks) == 1:
        return networks[0]
    states = [network.state() for network in networks]
    state = {name: torch.cat([each[name] for each in states]) for name in states[0]}
    starts = torch.cat([network.injection.start for network in networks])
    return _restored(networks[0].component, state, starts, torch.cat([network.X for network in networks]))


def part(network: Network, k: int) -> Network:
    """A stack of the one network k of a stack."""
    rows = slice(k, k + 1)
    state = {name: tensor[rows].clone() for name, tensor in network.state().items()}
    return _restored(network.component, state, network.injection.start[rows].clone(), network.X[rows])


def _restored(component: Component, state: Mapping[str, Tensor], U: Tensor, X: Tensor) -> Network:
    """The stack of this state, which began at `U`."""
    network = Network(Params(state["W"], U, state["a"]), X, component)
    network.restore(state)
    return network
