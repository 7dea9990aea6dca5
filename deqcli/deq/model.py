"""What a network is made of: its parameters, and the choices that are not tensors."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from deqcli.deq.activations import Activation
from deqcli.deq.solvers import Solver


@dataclass
class Params:
    """What is trained: W of the implicit layer, U of the input injection, a of the readout.

    Where there are any: b of the skip connection, and A and B, of which a monotone W is made.
    """

    W: Float[Tensor, "*c m m"]
    U: Float[Tensor, "*c m d"]
    a: Float[Tensor, "*c m"]
    b: Float[Tensor, "*c m"] | None = None
    A: Float[Tensor, "*c m m"] | None = None
    B: Float[Tensor, "*c m m"] | None = None

    def given(self) -> dict[str, Tensor]:
        """The tensors that there are, by name."""
        return {each.name: tensor for each in fields(self) if (tensor := getattr(self, each.name)) is not None}

    @property
    def readouts(self) -> Float[Tensor, "*c k"]:
        """The readout a, with b behind it where there is one."""
        return self.a if self.b is None else torch.cat([self.a, self.b], dim=-1)


@dataclass(frozen=True)
class Rates:
    """Factors on the learning rate of W (or A and B), of U, and of the readouts; 0 leaves a parameter where it began.

    A factor c is gradient descent in theta/sqrt(c) at the learning rate itself, as in the tangent-kernel
    parametrisation. Source: Jacot et al. 2018, for that.
    """

    W: float = 1.0
    U: float = 1.0
    a: float = 1.0


ALL = Rates()


@dataclass(frozen=True)
class Component:
    """The choices that are not tensors: activation, solver, how X is injected, how W is made, what is trained.

    `rectified`: X enters as phi(U X) instead of U X. `monotonicity` is mu of a monotone W. `momentum` is beta of the
    heavy ball, theta <- theta - eta grad + beta (theta - theta before). Source: Polyak 1964, for that.
    """

    activation: Activation
    solver: Solver
    rectified: bool = False
    monotonicity: float | None = None
    rates: Rates = ALL
    momentum: float = 0.0

    @property
    def plain_layer(self) -> bool:
        """Whether the layer is Z = phi(W Z + U X) with W itself trained, if anything of it is."""
        return not self.rectified and self.monotonicity is None


@dataclass(frozen=True)
class Cell:
    """One solved network: parameters, equilibrium Z (m, n) and unit adjoint V (m, n), of a component."""

    params: Params
    Z: Float[Tensor, "m n"]
    V: Float[Tensor, "m n"]
    component: Component
