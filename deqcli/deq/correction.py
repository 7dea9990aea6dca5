"""The corrector of `Continuation`: plain iteration on the items that still need it, as precise as they need it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import torch
from torch import Tensor

from deqcli.deq.equations import Equation
from deqcli.deq.ledger import HEADROOM, HEADROOM_SMALL, SMALL, Ledger, norm
from deqcli.deq.rows import Rows
from deqcli.deq.solvers import Picard, Solution, Solver, Status, dtype_name, ratio_of_norms
from deqcli.deq.track import Track

LEAST_SIZE = 2**16
"""Entries of a point below which multiplying in low precision gains nothing."""

LOW_ROUNDING = {torch.float32: 2.0**-22, torch.bfloat16: 2.0**-8}
"""What a product in low precision may be off by, relative to what is multiplied."""

DRIFT_SHARE = 0.25
"""Largest part of the next change that the rounding of low precision may be."""

MOST_LOW = 20
"""Corrections between two full products."""

MISSED = 1.25
"""Factor on the margin that a missed tolerance calls for."""


class Correction:
    """One solve of an equation, from where `track` predicts its solution; `corrections` names their precision."""

    def __init__(self, solver: Solver, corrections: str, equation: Equation, track: Track) -> None:
        self.solver, self.equation, self.track = solver, equation, track
        self.tolerance = solver.tolerance_for(dtype_name(track.point))
        headroom = HEADROOM if track.point.numel() >= SMALL * track.networks else HEADROOM_SMALL
        self.ledger = Ledger(
            equation.stacked, len(track.point), track.ratio, track.margin, np.zeros(track.networks), headroom
        )
        self.sizes, self.largest = np.zeros(len(track.point)), np.zeros(track.networks)
        zeros = (np.zeros(track.networks, dtype=int) for _ in range(4))
        self.iterations, self.misses, self.plan, self.left = zeros
        self.ended: dict[int, Solution] = {}
        self.low = self._low_precision(corrections)
        self.start = track.predict()
        equation.image(self.start, track.point)
        self.rows = Rows(equation, track, correcting=self.low is not None)

    def _low_precision(self, wanted: str) -> torch.dtype | None:
        dtype = self.track.point.dtype
        if self.equation.stacked or self.equation.lowered is None or self.track.point.numel() < LEAST_SIZE:
            return None
        if wanted == "auto":
            return torch.float32 if dtype == torch.float64 else fast_bfloat16(self.track.point.device)
        low: torch.dtype | None = None if wanted == "full" else getattr(torch, wanted)
        return None if low == dtype else low

    @np.errstate(over="ignore", invalid="ignore")  # an iteration that overflows says so by its status
    def run(self, confirm: Sequence[bool]) -> list[Solution]:
        """Iterate until every network has ended: by estimate, and by its true residual where it is to be confirmed."""
        self._iterate(1, full=True)
        self._set_odd_ones_apart()
        self._plan(self.rows.ids)
        while True:
            while len(active := self._active()):
                self._go_on(active)
            self.rows.gather_back()
            due = [k for k in range(self.track.networks) if k not in self.ended and (confirm[k] or self._exhausted(k))]
            if not (due and self._missed(due)):
                break
        self.track.learn(self.start)
        return [self.ended.get(k) or self._estimated(k) for k in range(self.track.networks)]

    def _active(self) -> np.ndarray:
        active = self.ledger.active(self.rows.ids)
        going = np.array([k not in self.ended and not self._exhausted(k) for k in range(self.track.networks)])
        return active[going[active]] if self.equation.stacked else active[: len(active) * going[0]]

    def _exhausted(self, network: int) -> bool:
        return bool(self.iterations[network] >= self.solver.max_iterations - 1)  # one is left to confirm

    def _go_on(self, active: np.ndarray) -> None:
        if self.equation.stacked:
            self._until_due(active)
            return
        self.rows.narrow(active)
        planned = min(self.ledger.planned_on(self.rows.ids, self.rows.shrink), self._left(0))
        lowered = self._low_products()
        self._iterate(min(planned, lowered or planned), full=not lowered)

    def _left(self, network: int) -> int:
        return max(self.solver.max_iterations - 1 - int(self.iterations[network]), 1)

    def _planned(self) -> np.ndarray:
        """How many products each network needs, and still has, before its change is looked at again."""
        left = np.maximum(self.solver.max_iterations - 1 - self.iterations, 1)
        return np.asarray(np.minimum(self.ledger.planned(), left))

    def _iterate(self, count: int, full: bool) -> None:
        """So many products of the working rows, in full or low precision, and what the last change of z tells."""
        ids = self.rows.ids
        if full:
            self.rows.repeat(count - 1)
            self.rows.multiply()
            self.ledger.drift[ids] = 0.0
        else:
            assert self.low is not None
            self.rows.repeat_corrected(count - 1, self.low)
            self.ledger.drift[ids] += self._drift(count)
        self.rows.advance()
        change, self.sizes[ids] = _norms(self.rows.change, self.rows.point)
        self.iterations[ids if self.equation.stacked else 0] += count
        self._observe(ids, change, count)

    def _until_due(self, active: np.ndarray) -> None:
        """Iterate the active networks of a stack until one of them has had the products that it planned.

        Each is observed after its own number of products, whatever the others in the stack need.
        """
        self.rows.narrow(active)
        ids = self.rows.ids
        count = int(self.left[ids].min())
        self.rows.repeat(count - 1)
        self.rows.multiply()
        self.rows.advance()
        self.left[ids] -= count
        self.iterations[ids] += count
        change, size = _norms(self.rows.change, self.rows.point)
        due = self.left[ids] == 0
        self.sizes[ids[due]] = size[due]
        self._observe(ids[due], change[due], self.plan[ids[due]])
        self._plan(ids[due])

    def _plan(self, networks: np.ndarray) -> None:
        if self.equation.stacked:
            self.plan[networks] = self.left[networks] = self._planned()[networks]

    def _observe(self, items: np.ndarray, change: np.ndarray, count: int | np.ndarray = 1) -> None:
        sizes = self._of_networks(self.sizes)
        self.largest = np.fmax(self.largest, np.where(np.isfinite(sizes), sizes, 0.0))
        self.ledger.allowed = self.tolerance * sizes
        self.ledger.observe(items, change, count)
        for k in np.flatnonzero(~np.isfinite(self.ledger.residual + self.ledger.allowed)):
            solution = Solution(math.nan, int(self.iterations[k]), Status.DIVERGED, norm=self._norm(int(k)))
            self.ended.setdefault(int(k), solution)

    def _of_networks(self, values: np.ndarray) -> np.ndarray:
        return values.copy() if self.equation.stacked else np.array([norm(values)])

    def _set_odd_ones_apart(self) -> None:
        """Solve plainly the networks whose entries are so small, or large, that squares of changes leave the floats.

        Changes may come down to a thousandth of the tolerance; the solution may be a thousand times the first image.
        """
        finfo, entries = torch.finfo(self.track.point.dtype), self.track.point.numel() / self.track.networks
        least, most = math.sqrt(finfo.tiny * entries) / (self.tolerance * 1e-3), math.sqrt(finfo.max) * 1e-3
        sizes = self._of_networks(self.sizes)
        for k in np.flatnonzero(~((sizes > least) & (sizes < most))):
            plain = Picard(tolerance=self.tolerance, max_iterations=max(self.solver.max_iterations - 1, 1))
            tensors = (self.track.point, self.track.preactivation, self.track.workspace["image"])
            own = [tensor[k] for tensor in tensors] if self.equation.stacked else tensors
            solution = plain.plainly(self.equation.of(int(k)), *own)
            self.ended[int(k)] = replace(solution, iterations=1 + solution.iterations)

    def _low_products(self) -> int:
        """How many products in low precision pay: what they put into P stays well below the changes they make."""
        if self.low is None or self.misses.any() or not (0 < self.ledger.ratio[0] < 1 and self._fits(self.low)):
            return 0
        ratio, change = float(self.ledger.ratio[0]), norm(self.ledger.change[self.rows.ids])
        least = norm(self.ledger.drift[self.rows.ids] + self._drift(MOST_LOW)) / DRIFT_SHARE
        return min(MOST_LOW, math.floor(math.log(least / change) / math.log(ratio))) if least < change * ratio else 0

    def _fits(self, low: torch.dtype) -> bool:
        """Whether changes down to a thousandth of the tolerance, and their products, are floats of low precision."""
        finfo, root = torch.finfo(low), math.sqrt(self.track.point.numel())
        least = finfo.tiny * root / (LOW_ROUNDING[low] * self.tolerance * 1e-3)
        return least < norm(self.sizes) < finfo.max * 1e-3

    def _drift(self, count: int) -> np.ndarray:
        """What the rounding of so many corrections comes to in F(z): of products that shrink by the ratio each."""
        assert self.low is not None
        ratio = float(self.ledger.ratio[0])
        products = ratio * (1 - ratio**count) / (1 - ratio)
        return LOW_ROUNDING[self.low] * products * self.ledger.change[self.rows.ids]

    def _missed(self, due: list[int]) -> bool:
        """Compute the residuals of these networks; one that is too large costs an iteration, and the solve goes on."""
        point, probe, image = self.track.point, self.track.workspace["change"], self.track.workspace["image"]
        self.equation.preactivation(point, probe)
        self.equation.image(probe, image)
        change, sizes = _norms(image - point, image)
        norms = self._of_networks(change).tolist(), self._of_networks(sizes).tolist()
        residuals = [ratio_of_norms(*each) for each in zip(*norms, strict=True)]
        self.iterations[due] += 1
        missed = [k for k in due if residuals[k] > self.tolerance and not self._exhausted(k)]
        for k in set(due).difference(missed):
            self.ended[k] = self._confirmed(k, residuals[k])
        for k in missed:
            self.misses[k] += 1
            self.track.margin[k] *= MISSED * max(1.0, ratio_of_norms(residuals[k], self._estimate(k)))
            items = slice(k, k + 1) if self.equation.stacked else slice(None)
            point[items], self.track.preactivation[items] = image[items], probe[items]
            self.ledger.drift[items] = 0.0
            self._observe(np.arange(len(change))[items], change[items])
            self._plan(np.array([k]))
        return bool(missed)

    def _estimate(self, network: int) -> float:
        size = float(self.ledger.allowed[network]) / self.tolerance
        return ratio_of_norms(float(self.ledger.residual[network]), size)

    def _confirmed(self, network: int, residual: float) -> Solution:
        status = Status.CONVERGED if residual <= self.tolerance else Status.EXHAUSTED
        status = Status.DIVERGED if math.isnan(residual) else status
        norm = None if status is Status.CONVERGED else self._norm(network)
        return Solution(residual, int(self.iterations[network]), status, misses=int(self.misses[network]), norm=norm)

    def _norm(self, network: int) -> float:
        """The largest finite norm of F(Z) that was seen."""
        return float(self.largest[network])

    def _estimated(self, network: int) -> Solution:
        return Solution(self._estimate(network), int(self.iterations[network]), Status.CONVERGED, confirmed=False)


@cache
def fast_bfloat16(device: torch.device) -> torch.dtype | None:
    """bfloat16 where the device has it faster than float32: CUDA from Ampere on, CPUs with an instruction for it."""
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        known = torch.cpu.get_capabilities() if device.type == "cpu" else {}
        fast = bool(known.get("avx512_bf16") or known.get("amx_bf16"))
    return torch.bfloat16 if fast else None


def _norms(*tensors: Tensor) -> np.ndarray:
    """The norm of every item of each tensor, read from the device in one transfer."""
    axes = tuple(range(1, tensors[0].dim()))
    norms = torch.stack([torch.linalg.vector_norm(tensor, dim=axes) for tensor in tensors])
    return norms.cpu().double().numpy()
