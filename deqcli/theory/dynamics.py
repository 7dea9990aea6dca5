"""Training on a fixed kernel, eigendirection by eigendirection: what each step leaves of the prediction error."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from deqcli.deq.schedule import CONSTANT, Schedule


@dataclass(frozen=True)
class Dynamics:
    """Gradient descent with a schedule s and momentum beta, or with `flow` gradient flow over a time eta a step.

    With x = eta h for an eigenvalue h of the kernel, the prediction error in its direction is multiplied by

        flow        exp(-x tau)
        descent     f(tau), f(t + 1) = f(t) - s(t) x f(t) + beta (f(t) - f(t - 1)), f(0) = f(-1) = 1

    which is (1 - x)^tau without schedule and momentum. Source: Polyak 1964, for the momentum.
    """

    schedule: Schedule = CONSTANT
    momentum: float = 0.0
    flow: bool = False

    @property
    def a_power(self) -> bool:
        """Whether every step multiplies by the same: flow, or descent without schedule and momentum."""
        return self.flow or (self.schedule.constant and self.momentum == 0)

    @property
    def stable(self) -> float | None:
        """The largest x = eta h at which descent does not diverge, 2 (1 + beta); None of a flow, which never does."""
        return None if self.flow else 2 * (1 + self.momentum)

    def factors(self, x: np.ndarray, step: int) -> np.ndarray:
        """|f| at a step."""
        (found,) = self.path(x, [step])
        return found

    def path(self, x: np.ndarray, steps: Sequence[int]) -> Iterator[np.ndarray]:
        """|f| at each of some steps, which ascend."""
        if self.a_power:
            base = np.exp(-x) if self.flow else np.abs(1 - x)
            yield from (base**step for step in steps)
            return
        f = before = np.ones_like(x)
        at = 0
        for step in steps:
            for t in range(at, step):
                f, before = f - self.schedule.factor(t) * x * f + self.momentum * (f - before), f
            at = step
            yield np.abs(f)


PLAIN = Dynamics()
