"""The steps of `Newton`: a linear solve, and of it for every sample the longest part that helps."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from deqcli.deq.evaluation import Evaluation, rounding_of
from deqcli.deq.gmres import Gmres

SAFETY = 0.9
"""Factor of the second choice of Eisenstat and Walker."""

AIM = 0.5
"""Share of the tolerance that a linear solve aims at: what is beyond is given away."""

HALVINGS = 6
"""Parts of a step that are tried: 1/2 to 1/64."""

ENOUGH = 1 - 1e-4
"""A residual has become smaller if by this factor."""

NEGLIGIBLE = 0.1
"""Share of the tolerance below which a sample's residual may do what it likes."""


class NewtonSteps:
    """z <- z + t delta with (I - D A) delta = F(z) - z, from an evaluated point until it has ended."""

    def __init__(self, at: Evaluation, tolerance: float, inner: int, forcing: float) -> None:
        self.at, self.tolerance, self.inner, self.forcing = at, tolerance, inner, forcing
        self.linear = at.equation.slope is not None
        self.krylov = Gmres(at.equation, at.point, min(inner, at.most))
        self.slope, self.point = torch.empty_like(at.point), torch.empty_like(at.point)
        self.preactivation = torch.empty_like(at.point)
        self.last = math.inf

    def run(self) -> None:
        """Step until the residual is small enough or is no number, or no product is left."""
        at = self.at
        while not at.ended(self.tolerance):
            if at.left == 1:
                at.point.copy_(at.image)
                at.evaluate()
                return
            self._step()

    def _step(self) -> None:
        at = self.at
        at.equation.derivative(at.preactivation, self.slope)
        norms = _row_norms(at.difference)
        goal = self._goal(float(torch.linalg.vector_norm(at.difference)))
        delta, products = self.krylov.solve(self.slope, at.difference, goal, min(self.inner, at.left - 1))
        at.products += products
        self.point.copy_(at.point)
        self.preactivation.copy_(at.preactivation)
        at.point.add_(delta)
        self.last = at.residual
        at.evaluate()
        self._repair(norms)

    def _goal(self, norm: float) -> float:
        """The residual that the linear systems may keep, all of them together."""
        least = max(AIM * self.tolerance * self.at.size, math.sqrt(rounding_of(self.point)) * norm)
        if self.linear:
            return least
        again = SAFETY * (self.at.residual / self.last) ** 2 if self.last < math.inf else self.forcing
        return max(least, min(self.forcing, again) * norm)

    def _repair(self, norms: Tensor) -> None:
        """Shorten the steps of samples whose residual grew; `norms` are the residuals before."""
        at = self.at
        negligible = NEGLIGIBLE * self.tolerance * at.size / math.sqrt(len(norms))
        now = _row_norms(at.difference)
        bad = (~(now <= ENOUGH * norms) & ~(now <= negligible)).nonzero().squeeze(1)
        if not len(bad) or at.ended(self.tolerance):
            return
        stuck = self._shorten(bad, norms)
        at.judge()
        if (len(stuck) or at.ended(self.tolerance)) and at.left > 0:
            at.point[stuck] = self._image_before(stuck)
            at.evaluate()

    def _image_before(self, samples: Tensor) -> Tensor:
        """F(z) of these samples where the step began."""
        at = self.at
        at.equation.image(self.preactivation, self.slope)
        return self.slope[samples]

    def _shorten(self, bad: Tensor, norms: Tensor) -> Tensor:
        """Halve the steps of these samples until their residuals are smaller than before; returns those that never are.

        P is linear in z, so that no product is needed.
        """
        at, t = self.at, 1.0
        step, slope = at.point[bad] - self.point[bad], at.preactivation[bad] - self.preactivation[bad]
        for _ in range(HALVINGS):
            t /= 2
            z, P = self.point[bad] + t * step, self.preactivation[bad] + t * slope
            at.point[bad], at.preactivation[bad] = z, P
            at.equation.image(at.preactivation, at.image)
            worse = ~(_row_norms(at.image[bad] - z) <= ENOUGH * norms[bad])
            bad, step, slope = bad[worse], step[worse], slope[worse]
            if not len(bad):
                break
        return bad


def _row_norms(tensor: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(tensor, dim=1)
    return norms
