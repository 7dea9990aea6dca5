"""W of the implicit layer as a function of what is trained: W itself, or the two matrices of a monotone network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from deqcli.deq.room import room

Product = tuple[int, Tensor, Tensor]
"""A sign s and the factors L and R of s L R."""


def add_products(C: Tensor, *products: Product) -> None:
    """C <- C + sum s L R in place, with or without a leading axis of networks."""
    for sign, L, R in products:
        (C.baddbmm_ if C.dim() == 3 else C.addmm_)(L, R, alpha=sign)


class Descent:
    """Gradient descent of one tensor theta in place, or, where momentum beta > 0, Polyak's heavy ball.

    velocity <- beta velocity + eta grad        theta <- theta - velocity
    The velocity starts at 0, and there is none without momentum. Gradients are sums of products that are never formed.
    Source: Polyak 1964, USSR Comput. Math. Math. Phys. 4, 1.
    """

    def __init__(self, theta: Tensor, momentum: float) -> None:
        self.theta, self.momentum = theta, momentum
        self.velocity = room(theta.shape, theta) if momentum > 0 else None

    def step(self, *products: Product) -> None:
        """One step along eta grad = sum s L R."""
        if self.velocity is None:
            add_products(self.theta, *((-sign, L, R) for sign, L, R in products))
        else:
            add_products(self.velocity.mul_(self.momentum), *products)
            self.theta.sub_(self.velocity)

    def state(self, name: str) -> dict[str, Tensor]:
        """theta and its velocity, as `name` and `velocity_name`."""
        return {name: self.theta} | ({} if self.velocity is None else {f"velocity_{name}": self.velocity})


class Weights(ABC):
    """W (m, m) of the implicit layer, made of what is trained."""

    W: Tensor

    @abstractmethod
    def descend(self, S: Tensor, Z: Tensor) -> None:
        """One step of gradient descent on what is trained, in place; W is then that of now, in the same memory.

        S = eta V diag(e) and Z as rows, (n, m): eta grad_W = S^T Z, which is never formed for its own sake.
        """

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Every tensor that the next step depends on."""

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])


class Free(Weights):
    """W itself is trained: W (m, m), or (c, m, m) in a stack. It is updated where it is, and not copied."""

    def __init__(self, W: Float[Tensor, "*c m m"], momentum: float = 0.0) -> None:
        self.W, self._descent = W, Descent(W, momentum)

    def descend(self, S: Tensor, Z: Tensor) -> None:
        """W <- W - S^T Z. Source: Ling et al. 2023, Lemma 2."""
        self._descent.step((1, S.mT, Z))

    def state(self) -> dict[str, Tensor]:
        """W, and its velocity where there is one."""
        return self._descent.state("W")


class Monotone(Weights):
    """W = (1 - mu) I - A^T A + B - B^T, where A and B are trained; all (m, m), or (c, m, m) in a stack.

    The symmetric part of I - W is mu I + A^T A, so Z = phi(W Z + U X) has exactly one solution for mu > 0 and every
    nondecreasing phi with L <= 1, whatever ||W||_2 is. A and B are updated where they are, and not copied. A step takes
    6 m^2 n multiplications, and making W of it m^3.
    Source: Winston and Kolter 2020, Monotone operator equilibrium networks.
    """

    def __init__(
        self, A: Float[Tensor, "*c m m"], B: Float[Tensor, "*c m m"], monotonicity: float, momentum: float = 0.0
    ) -> None:
        self.A, self.B, self.monotonicity = A, B, monotonicity
        self._descents = {"A": Descent(A, momentum), "B": Descent(B, momentum)}
        self.W = monotone_matrix(A, B, monotonicity, out=room(A.shape, A))
        self._images: tuple[Tensor, Tensor] | None = None

    def descend(self, S: Tensor, Z: Tensor) -> None:
        """A and B lose eta grad_A = -A (Q + Q^T) and eta grad_B = Q - Q^T with Q = S^T Z; W follows.

        A Q = (S A^T)^T Z and A Q^T = (Z A^T)^T S.
        """
        AS, AZ = self._multiplied(S, Z)
        self._descents["A"].step((-1, AS.mT, Z), (-1, AZ.mT, S))
        self._descents["B"].step((1, S.mT, Z), (-1, Z.mT, S))
        self._refresh()

    def _multiplied(self, S: Tensor, Z: Tensor) -> tuple[Tensor, Tensor]:
        """S A^T and Z A^T, in buffers that are made once."""
        if self._images is None or self._images[0].shape != S.shape:
            self._images = room(S.shape, S), room(S.shape, S)
        AS, AZ = self._images
        return torch.matmul(S, self.A.mT, out=AS), torch.matmul(Z, self.A.mT, out=AZ)

    def _refresh(self) -> None:
        monotone_matrix(self.A, self.B, self.monotonicity, out=self.W)

    def state(self) -> dict[str, Tensor]:
        """A and B, and their velocities where there are some; W is made of them."""
        return self._descents["A"].state("A") | self._descents["B"].state("B")

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave, and W with it."""
        super().restore(state)
        self._refresh()


def monotone_matrix(A: Tensor, B: Tensor, monotonicity: float, out: Tensor | None = None) -> Tensor:
    """W = (1 - mu) I - A^T A + B - B^T, all (m, m) or (c, m, m); in `out` if it is given.

    The least eigenvalue of the symmetric part of I - W is at least mu. Source: Winston and Kolter 2020.
    """
    W = torch.sub(B, B.mT, out=out)
    add_products(W, (-1, A.mT, A))
    W.diagonal(dim1=-2, dim2=-1).add_(1 - monotonicity)
    return W


def monotone_kernel(
    A: Float64[Tensor, "m m"], V: Float64[Tensor, "m n"], Z: Float64[Tensor, "m n"]
) -> Float64[Tensor, "n n"]:
    """What A and B add to the tangent kernel: sum over their entries of (d y_hat_i/d theta)(d y_hat_j/d theta).

    V is the unit adjoint: d y_hat_i/d A = -A (v_i z_i^T + z_i v_i^T) and d y_hat_i/d B = v_i z_i^T - z_i v_i^T. So with
    C = V^T Z and elementwise *:
    by A    (AV)^T AV * Z^T Z + (AV)^T AZ * C^T + (AZ)^T AV * C + (AZ)^T AZ * V^T V
    by B    2 (V^T V * Z^T Z - C * C^T)
    """
    AV, AZ, VtV, ZtZ, C = A @ V, A @ Z, V.mT @ V, Z.mT @ Z, V.mT @ Z
    mixed = (AZ.mT @ AV).mul_(C)  # the other mixed term is its transpose
    by_A = (AV.mT @ AV).mul_(ZtZ).add_(mixed).add_(mixed.mT).add_((AZ.mT @ AZ).mul_(VtV))
    return by_A.add_(VtV.mul_(ZtZ).sub_(C * C.mT), alpha=2)
