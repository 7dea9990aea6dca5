"""The injection of X along a training, U X or phi(U X), by the cheaper of two forms."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from deqcli.deq.activations import Activation
from deqcli.deq.equations import subtract_product
from deqcli.deq.room import room, spaced


class Injection:
    """U_t X for U_t = U_0 - A_t X^T with A_t = S_1 + ... + S_t, S_t = eta V diag(e) of step t.

    Where n < 2 d only A is kept and U_t X = U_0 X - A_t (X^T X): 2 m n^2 operations a step instead of 4 m n d, and
    rounding does not pile up in U_t X. U_t is then made when somebody asks for it. Otherwise U is updated and
    multiplied at every step. Shapes: U (m, d), X (d, n), S and A (n, m), `value` = U X as rows (n, m); or all of them
    with a leading axis of networks. `start` is U_0, which is left alone. With an `activation` phi the value is
    phi(U X), and S is multiplied by its slope. With momentum beta, S_t is eta V diag(e) + beta S_(t-1).
    """

    def __init__(self, U: Tensor, X: Tensor, activation: Activation | None = None, momentum: float = 0.0) -> None:
        self._X, self._activation, self._momentum = X, activation, momentum
        d, n = X.shape[-2:]
        self.summed = n < 2 * d
        self._U = self.start = spaced(U)
        self._linear = self.value = spaced(torch.matmul(X.mT, self._U.mT.to(X.dtype)))  # (n, m)
        if self.summed:
            self._start = self._linear.clone()
            self._sum = room(self._linear.shape, self._linear)
            self._XtX = spaced(torch.matmul(X.mT, X))
        else:
            self._U = spaced(U.clone())
        self._velocity = torch.zeros_like(self._sum if self.summed else self._U) if momentum else None
        self._fresh = True
        if activation is not None:
            self.value, self._slope = torch.empty_like(self._linear), torch.empty_like(self._linear)
            self._rectify()

    def _rectify(self) -> None:
        if self._activation is not None:
            self._activation.value(self._linear, out=self.value)
            self._activation.slope(self._linear, out=self._slope)

    @property
    def U(self) -> Tensor:
        """U of now."""
        if not self._fresh:
            if self._U is self.start:
                self._U = room(self.start.shape, self.start)
            self._U.copy_(self.start)
            subtract_product(self._U, self._sum.mT, self._X.mT)
            self._fresh = True
        return self._U

    def descend(self, S: Tensor) -> None:
        """U <- U - S^T X^T, and U X with it; S is overwritten where it is multiplied by a slope."""
        if self._activation is not None:
            S.mul_(self._slope)
        if self._velocity is not None:
            self._roll(S)
        elif self.summed:
            self._sum.add_(S)
        else:
            subtract_product(self._U, S.mT, self._X.mT)
        self._changed()

    def _roll(self, S: Tensor) -> None:
        """The velocity with this step in it, taken from U; in either form."""
        assert self._velocity is not None
        self._velocity.mul_(self._momentum)
        if self.summed:
            self._sum.add_(self._velocity.add_(S))
        else:
            self._U.sub_(self._velocity.addmm_(S.mT, self._X.mT))

    def _changed(self) -> None:
        """U X after a step."""
        if self.summed:
            self._refresh()
        else:
            torch.matmul(self._X.mT, self._U.mT, out=self._linear)
        self._rectify()

    def _refresh(self) -> None:
        self._linear.copy_(self._start)
        subtract_product(self._linear, self._XtX, self._sum)
        self._fresh = False

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps of it: A, or U itself."""
        own = {"injection_sum": self._sum} if self.summed else {"U": self._U}
        return own if self._velocity is None else own | {"velocity_U": self._velocity}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave; where A is kept, the network began at the same U_0."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])
        self._changed()
