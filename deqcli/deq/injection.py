"""U X along a training, by the cheaper of two forms."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from deqcli.deq.equations import subtract_product
from deqcli.deq.room import room, spaced


class Injection:
    """U_t X for U_t = U_0 - A_t X^T with A_t = S_1 + ... + S_t, S_t = eta V diag(e) of step t.

    Where n < 2 d only A is kept and U_t X = U_0 X - A_t (X^T X): 2 m n^2 operations a step instead of 4 m n d, and
    rounding does not pile up in U_t X. U_t is then made when somebody asks for it. Otherwise U is updated and
    multiplied at every step. Shapes: U (m, d), X (d, n), S and A (n, m), value = U X as rows (n, m); or all of them
    with a leading axis of networks. `start` is U_0, which is left alone.
    """

    def __init__(self, U: Tensor, X: Tensor) -> None:
        self._X = X
        d, n = X.shape[-2:]
        self.summed = n < 2 * d
        self._U = self.start = spaced(U)
        self.value = spaced(torch.matmul(X.mT, self._U.mT.to(X.dtype)))  # (n, m)
        if self.summed:
            self._start = self.value.clone()
            self._sum = room(self.value.shape, self.value)
            self._XtX = spaced(torch.matmul(X.mT, X))
        else:
            self._U = spaced(U.clone())
        self._fresh = True

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
        """U <- U - S^T X^T, and U X with it."""
        if self.summed:
            self._sum.add_(S)
            self._refresh()
        else:
            subtract_product(self._U, S.mT, self._X.mT)
            torch.matmul(self._X.mT, self._U.mT, out=self.value)

    def _refresh(self) -> None:
        self.value.copy_(self._start)
        subtract_product(self.value, self._XtX, self._sum)
        self._fresh = False

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps of it: A, or U itself."""
        return {"injection_sum": self._sum} if self.summed else {"U": self._U}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave; where A is kept, the network began at the same U_0."""
        if self.summed:
            self._sum.copy_(state["injection_sum"])
            self._refresh()
        else:
            self._U.copy_(state["U"])
            torch.matmul(self._X.mT, self._U.mT, out=self.value)
