"""How the learning rate changes over the steps."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """A factor on the learning rate of each step, between 0 and 1.

    constant: 1. linear and cosine: from 1 at step 0 to `decay` at the last of `steps`, on a line or half a cosine.
    step: `decay` to the power of how often `every` steps have passed. Over the first `warmup` steps it rises on a line
    from 1/warmup, on top of that. Source: Loshchilov and Hutter 2017, for the cosine.
    """

    kind: str = "constant"
    steps: int = 0
    decay: float = 0.1
    every: int = 1
    warmup: int = 0

    @property
    def constant(self) -> bool:
        """Whether every step has the learning rate itself."""
        return self.kind == "constant" and self.warmup == 0

    def factor(self, step: int) -> float:
        """The factor of the step that leads from `step` to the next."""
        rising = min((step + 1) / self.warmup, 1.0) if self.warmup else 1.0
        return rising * self._decayed(step)

    def _decayed(self, step: int) -> float:
        if self.kind == "constant":
            return 1.0
        if self.kind == "step":
            return float(self.decay ** (step // self.every))
        past = min(step / max(self.steps - 1, 1), 1.0)
        left = 1 - past if self.kind == "linear" else (1 + math.cos(math.pi * past)) / 2
        return self.decay + (1 - self.decay) * left


CONSTANT = Schedule()
