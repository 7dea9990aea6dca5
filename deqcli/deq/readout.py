"""The readout, y_hat = a^T Z, or with a skip connection y_hat = a^T Z + b^T F of the injection F."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Readout:
    """a, and b where there is one; shapes (m,), or (c, m) in a stack. Points Z and F are rows, (n, m).

    Source: Ling et al. 2023, section 2.1; Gao et al. 2022 (ICLR), section 2, for the skip connection.
    """

    def __init__(self, a: Tensor, b: Tensor | None = None, momentum: float = 0.0) -> None:
        self.a, self.b, self._momentum = a, b, momentum
        self._velocities = {name: torch.zeros_like(each) for name, each in self._own().items()} if momentum else {}

    def _own(self) -> dict[str, Tensor]:
        return {"a": self.a} if self.b is None else {"a": self.a, "b": self.b}

    def outputs(self, Z: Tensor, F: Tensor, spare: Tensor) -> Tensor:
        """y_hat (n,); `spare` is a buffer of the shape of Z."""
        y_hat = torch.mul(Z, self.a.unsqueeze(-2), out=spare).sum(-1)
        return y_hat if self.b is None else y_hat + torch.mul(F, self.b.unsqueeze(-2), out=spare).sum(-1)

    def descend(self, Z: Tensor, F: Tensor, scaled: Tensor, spare: Tensor) -> None:
        """Take eta Z e from a, and eta F e from b; `scaled` is eta e, (n, 1)."""
        for name, own in self._own().items():
            move = torch.mul(Z if name == "a" else F, scaled, out=spare).sum(-2)
            own.sub_(self._velocities[name].mul_(self._momentum).add_(move) if self._momentum else move)

    def state(self) -> dict[str, Tensor]:
        """Every tensor that the next step depends on."""
        return self._own() | {f"velocity_{name}": each for name, each in self._velocities.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])
