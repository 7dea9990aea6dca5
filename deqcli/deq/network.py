"""One DEQ on a fixed set of samples: equilibrium, unit adjoint, loss and gradient step, in buffers made once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from deqcli.deq.activations import Activation
from deqcli.deq.precision import to_float64
from deqcli.deq.solvers import Solution, Solver


@dataclass
class Params:
    """What is trained: W of the implicit layer, U of the input injection, a of the readout."""

    W: Float[Tensor, "m m"]
    U: Float[Tensor, "m d"]
    a: Float[Tensor, " m"]

    def to(self, dtype: torch.dtype) -> Params:
        """The same numbers in another precision; tensors that have it already are shared, not copied."""
        return Params(self.W.to(dtype), self.U.to(dtype), self.a.to(dtype))

    def clone(self) -> Params:
        """A copy that later steps leave alone."""
        return Params(self.W.clone(), self.U.clone(), self.a.clone())


@dataclass(frozen=True)
class Component:
    """The two choices that are not tensors: the activation and the solver."""

    activation: Activation
    solver: Solver


class Network:
    """Z = phi(W Z + U X) and y_hat = a^T Z for the n samples in the columns of X.

    Z and V keep the last equilibrium and unit adjoint: the next solves start from them.
    Shapes: X (d, n); Z, V, slope (m, n). Source: Ling et al. 2023, section 2.1.
    """

    def __init__(self, params: Params, X: Float[Tensor, "d n"], component: Component) -> None:
        self.params, self.X = params, X.T.contiguous().T
        self.activation, self.solver = component.activation, component.solver
        n, m = X.shape[1], params.W.shape[0]
        buffers = [X.new_zeros((n, m)).T for _ in range(6)]  # (m, n) with contiguous samples: faster when few
        self.Z, self.V, self.slope, self._spare, self._UX, self._preactivation = buffers

    def solve_equilibrium(self) -> Solution:
        """Solve Z = phi(W Z + U X) from the last Z; sets Z and the slope D = phi'(W Z + U X).

        ||Z - Z*||_F <= residual / (1 - L ||W||_2) ||F(Z)||_F where L ||W||_2 < 1. Source: Ling et al. 2023, eq. 3.
        """
        torch.mm(self.params.U, self.X, out=self._UX)  # (m, n)
        solution = self.solver.solve(self._layer, self.Z, self._spare)
        self.activation.slope(self._preactivation, out=self.slope)
        return solution

    def _layer(self, Z: Tensor, out: Tensor) -> None:
        torch.addmm(self._UX, self.params.W, Z, out=self._preactivation)  # W Z + U X, (m, n)
        self.activation.value(self._preactivation, out=out)

    def solve_adjoint(self) -> Solution:
        """Solve V = D * (W^T V + a 1^T) for the unit adjoint V, from the last V; sets V.

        D is the slope at the equilibrium, so `solve_equilibrium` comes first. The adjoint of the loss is V diag(e)
        with e = y_hat - y: V depends on no label. It contracts as the forward equation does.
        Source: Ling et al. 2023, Lemma 2, without the Kronecker products and with the scalar output used.
        """
        return self.solver.solve(self._adjoint_layer, self.V, self._spare)

    def _adjoint_layer(self, V: Tensor, out: Tensor) -> None:
        torch.addmm(self.params.a[:, None], self.params.W.T, V, out=out)  # W^T V + a 1^T, (m, n)
        out.mul_(self.slope)

    def prediction_error(self, y: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """e = y_hat - y with y_hat = a^T Z."""
        return torch.mv(self.Z.T, self.params.a) - y

    def descend(self, prediction_error: Float[Tensor, " n"], learning_rate: float) -> None:
        """One step of full-batch gradient descent on W, U and a, in place; no gradient matrix is ever formed.

        With P = V diag(e): grad_W = P Z^T, grad_U = P X^T, grad_a = Z e.
        Source: Ling et al. 2023, Lemma 2 and eq. 5.
        """
        P = torch.mul(self.V, prediction_error, out=self._spare)  # (m, n)
        self.params.W.addmm_(P, self.Z.T, alpha=-learning_rate)
        self.params.U.addmm_(P, self.X.T, alpha=-learning_rate)
        self.params.a.addmv_(self.Z, prediction_error, alpha=-learning_rate)


def loss(prediction_error: Float[Tensor, " n"]) -> float:
    """Phi = 1/2 sum_i (y_hat_i - y_i)^2, a sum and not a mean, accumulated in float64."""
    e = to_float64(prediction_error)
    return 0.5 * float(torch.dot(e, e))
