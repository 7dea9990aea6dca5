"""What is kept of an equation from one gradient step to the next: its solution, and how that has been moving."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from deqcli.deq.room import room


class Workspace:
    """Buffers of the shape of a point, made once and shared by the two equations of a network.

    What a buffer holds from before is anybody's guess.
    """

    def __init__(self, like: Tensor) -> None:
        self._like = like
        self._buffers: dict[tuple[str, torch.dtype], Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        return self.of(name, self._like.dtype)

    def of(self, name: str, dtype: torch.dtype) -> Tensor:
        """The buffer of this name and precision."""
        if (name, dtype) not in self._buffers:
            self._buffers[name, dtype] = room(self._like.shape, self._like, dtype)
        return self._buffers[name, dtype]

    def clear(self) -> None:
        """Give the memory of all buffers back; they are made again when they are wanted."""
        self._buffers.clear()

    def rows(self, name: str, most: int, shape: Sequence[int] | None = None) -> Tensor:
        """A buffer for at most so many items; each of a shape, or as in a point."""
        key = (f"rows of {name}", self._like.dtype)
        if key not in self._buffers:
            self._buffers[key] = room((most, *(shape or self._like.shape[1:])), self._like)
        return self._buffers[key]


class Track:
    """Point g(P), pre-activation P, and backward differences of P over the last gradient steps.

    With d1 = P_t - P_(t-1) and d2 = d1_t - d1_(t-1), P_(t+1) is guessed as P_t + d1 + d2 (order 2), P_t + d1 (order 1).
    `solved`, `ratio` and `margin` have an entry for each network: solves so far, measured contraction, and the factor
    by which estimates turned out too small, which never comes down again. All of it is state of a run: one that goes on
    must make the same guesses.
    Shapes: (n, m), or (c, n, m) in a stack. Source: Newton's backward differences.
    """

    def __init__(self, like: Tensor, order: int, workspace: Workspace) -> None:
        self.point, self.preactivation = room(like.shape, like), room(like.shape, like)
        self.differences = [room(like.shape, like) for _ in range(order)]
        self.workspace = workspace
        self.networks = like.shape[0] if like.dim() == 3 else 1
        self.solved = np.zeros(self.networks)
        self.ratio = np.zeros(self.networks)
        self.margin = np.ones(self.networks)
        self.jumped: Tensor | None = None

    def predict(self) -> Tensor:
        """P + d1 + d2, in a buffer that stays until `learn`."""
        start = self.workspace["start"].copy_(self.preactivation)
        for difference in self.differences:
            start.add_(difference)
        return start

    def learn(self, start: Tensor) -> None:
        """Update the differences, now that P is solved, by how far the guess was off.

        Rows that `jumped` marks go on as they did: a jump says nothing about the next step. Their second difference is
        forgotten before it comes into the first one: what of it was left there would grow where rows jump again and
        again, until it makes them jump itself.
        """
        missed = torch.sub(self.preactivation, start, out=start)
        if self.jumped is not None:
            steady = torch.where(self.jumped, 0.0, 1.0)
            missed.mul_(steady)
            for difference in self.differences[1:]:
                difference.mul_(steady)
        known = np.minimum(self.solved, len(self.differences)).astype(int)
        if (known == known[0]).all():
            _update(self.differences[: known[0]], missed)
        else:
            for k, order in enumerate(known):
                _update([difference[k] for difference in self.differences[:order]], missed[k])
        self.solved += 1

    def state(self, name: str) -> dict[str, Tensor]:
        """Every tensor of it, by names that begin with `name`."""
        kept = {"point": self.point, "preactivation": self.preactivation}
        kept |= {f"difference_{k}": each for k, each in enumerate(self.differences, start=1)}
        kept |= {key: torch.from_numpy(getattr(self, key)) for key in ("solved", "ratio", "margin")}
        return {f"{name}_{key}": tensor for key, tensor in kept.items()}

    def restore(self, name: str, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave."""
        for key, tensor in self.state(name).items():
            tensor.copy_(state[key])


def _update(differences: list[Tensor], missed: Tensor) -> None:
    """d_k <- d_k + missed for the highest k, then d_j <- d_j + d_(j+1) downwards."""
    above = missed
    for difference in reversed(differences):
        above = difference.add_(above)
