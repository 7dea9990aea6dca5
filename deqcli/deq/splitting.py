"""Operator splitting: solvers of monotone networks, whose W may have any norm."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from deqcli.deq.accelerated import Accelerated
from deqcli.deq.solvers import Solution, dtype_name, frobenius_norms

if TYPE_CHECKING:
    from torch import Tensor

    from deqcli.deq.equations import Equation
    from deqcli.deq.evaluation import Evaluation

WINDOW = 5
"""Products within which the residual must have become smaller for an `auto` step to be kept."""

GROWTH = 2.0
"""Factor by which a residual may grow within a window; above, the step is halved at once."""


LEAST = 2.0**-20
"""Step that is not halved again: it would take a million products."""

SLOW = 0.5
"""Fall of the residual over a window that is worth a trial of half the step."""

PATIENCE = 8
"""Windows between a trial that failed and the next."""


ROUNDINGS = 8.0
"""Times eps (1 + 1/alpha): a residual without a product that is smaller than that may be all rounding."""


class Splitting(Accelerated):
    """0 in M(z) + T(z), M(z) = z (I - A) - B affine, T monotone with g = (I + T)^-1: both equations P = g(P) A + B.

    For the equilibrium g = phi, nondecreasing with L <= 1; for the adjoint the product with a slope between 0 and 1.
    Where the symmetric part of I - A is at least mu I with mu > 0 there is exactly one solution. The residual is that
    of the plain layer, ||F(z) - z||_F / ||F(z)||_F with F(z) = g(z A + B), as it is for every solver.
    Source: Winston and Kolter 2020, Monotone operator equilibrium networks.
    """

    def from_here(self, equation: Equation, point: Tensor, preactivation: Tensor) -> Solution:
        """Solve the equation of one network from `point`, in place; `preactivation` gets the P that belongs to it.

        At any scale: no square of an entry is taken that `frobenius_norms` does not guard. Plain iteration, which
        others fall back to, would diverge here.
        """
        from deqcli.deq.evaluation import Evaluation

        tolerance = self.tolerance_for(dtype_name(point))
        at = Evaluation(equation, point, preactivation, self.max_iterations)
        at.evaluate()
        if not at.ended(tolerance):
            self.accelerate(at, tolerance)
        return at.solution(tolerance)


class ForwardBackward(Splitting):
    """z <- (I + alpha T)^-1 ((1 - alpha) z + alpha P) with P = z A + B; alpha = 1 is plain iteration.

    Contracts by sqrt(1 - 2 alpha mu + alpha^2 l^2) with l = ||I - A||_2, so for 0 < alpha < 2 mu / l^2, and often
    beyond. `auto` starts at 1. It halves alpha, and goes back to where the window began, where ||F(z) - z||_F has more
    than doubled, or is no smaller after 5 products. Where it falls slowly half of alpha is tried for 5 products, and
    what falls faster is kept. (The authors halve alpha too, by whole solves from time to time.)
    One product an iteration; one buffer of the size of Z for `auto`.
    Source: Winston and Kolter 2020, forward-backward splitting.
    """

    kind: Literal["forward_backward"] = "forward_backward"
    alpha: Annotated[
        Literal["auto"] | Annotated[float, Field(gt=0, le=1)],
        Field(description="step; auto: 1, halved where the residual grows, or falls faster for it"),
    ] = "auto"

    @property
    def arrays(self) -> int:
        return 3 if self.alpha == "auto" else 2

    def accelerate(self, at: Evaluation, tolerance: float) -> None:
        """Step with the alpha that is given, or with the largest that works."""
        if self.alpha != "auto":
            while not at.ended(tolerance):
                forward_backward_step(at, self.alpha)
            return
        pace = Pace(at)
        while not at.ended(tolerance):
            forward_backward_step(at, pace.alpha)
            pace.learn(tolerance)


def forward_backward_step(at: Evaluation, alpha: float) -> None:
    """z <- (I + alpha T)^-1 (z + alpha (P - z)), and F at the new z; for one product."""
    import torch

    v = torch.lerp(at.point, at.preactivation, alpha, out=at.image)
    at.equation.resolvent(v, alpha, out=at.point)
    at.evaluate()


class Pace:
    """The step of forward-backward iteration, found by halving, and the point to which a failed one goes back."""

    def __init__(self, at: Evaluation) -> None:
        self.at, self.alpha, self.begun = at, 1.0, at.point.clone()
        self.waiting, self.before = 0, math.inf
        self._open()

    def _open(self) -> None:
        self.distance, self.since = _distance(self.at), self.at.products

    def learn(self, tolerance: float) -> None:
        """Look at the residual, and go back if it grew; at the end of a window also at how fast it fell."""
        at = self.at
        if at.ended(tolerance):
            return
        fall, over = _distance(at) / self.distance, at.products - self.since >= WINDOW
        if not fall <= GROWTH or (over and not fall < 1):
            self._go_back()
        elif over:
            self._compare(fall)
            self.begun.copy_(at.point)
            self._open()

    def _go_back(self) -> None:
        self.alpha, self.before = max(self.alpha / 2, LEAST), math.inf
        self.at.point.copy_(self.begun)
        self.at.evaluate()
        self._open()

    def _compare(self, fall: float) -> None:
        """Try half of alpha for a window where the residual falls slowly, and keep it if it then falls faster."""
        if self.before < math.inf:
            if fall > self.before:
                self.alpha, self.waiting = 2 * self.alpha, PATIENCE
            self.before = math.inf
        elif self.waiting > 0:
            self.waiting -= 1
        elif fall > SLOW and self.alpha > LEAST:
            self.alpha, self.before = self.alpha / 2, fall


def _distance(at: Evaluation) -> float:
    """||F(z) - z||_F, of which the residual knows nothing where F(z) = 0."""
    return at.residual * at.size if at.size > 0 else frobenius_norms(at.difference)[0]


class PeacemanRachford(Splitting):
    """u <- R_T R_M u, with R_T u = 2 (I + alpha T)^-1 u - u and R_M u = 2 (u + alpha B) (I + alpha (I - A))^-1 - u.

    Converges for every alpha > 0; the fastest lies near 1/sqrt(mu l) with l = ||I - A||_2. I + alpha (I - A) is
    factored once a solve: 2 m^3/3 operations, as many as m/(3 n) products take, and not counted. Solving with its
    factors counts as a product. As w = (u + alpha B) (I + alpha (I - A))^-1 has w A + B = ((1 + alpha) w - u)/alpha,
    the residual at w takes none; one product confirms it once it is small enough. Where it does not, w is refined by
    another solve and product, as rounding may be all that is left.
    One buffer of the size of Z, and two (m, m) while factoring, one after.
    Source: Peaceman and Rachford 1955, J. SIAM 3, 28; Winston and Kolter 2020, Peaceman-Rachford splitting.
    """

    kind: Literal["peaceman_rachford"] = "peaceman_rachford"
    alpha: Annotated[float, Field(gt=0, description="step of both resolvents")] = 1.0

    @property
    def arrays(self) -> int:
        return 3

    def accelerate(self, at: Evaluation, tolerance: float) -> None:
        from deqcli.deq.evaluation import rounding_of

        reflections = Reflections(at, self.alpha)
        enough = max(tolerance, ROUNDINGS * (1 + 1 / self.alpha) * rounding_of(at.point))
        while at.left > 1 and not at.ended(tolerance):
            reflections.step()
            if not at.residual > enough or at.left == 1:
                at.evaluate()
                if at.left > 1 and not at.ended(tolerance):
                    reflections.refine()
                    at.evaluate()


class Reflections:
    """u of Peaceman and Rachford (n, m), from an evaluated point z at u = z + alpha (P - z), and the factors of M."""

    def __init__(self, at: Evaluation, alpha: float) -> None:
        import torch

        self.at, self.alpha = at, alpha
        self.u = torch.lerp(at.point, at.preactivation, alpha)
        M = torch.mul(at.equation.matrix.to(at.point.dtype), -alpha)
        M.diagonal().add_(1 + alpha)
        self.factors, self.pivots, _ = torch.linalg.lu_factor_ex(M)  # a singular one gives no number, and so DIVERGED

    def step(self) -> None:
        """One reflection each; leaves the w of it as the point, with its P, F(w) and residual, for no product."""
        import torch

        at, u, alpha = self.at, self.u, self.alpha
        at.equation.resolvent(u, alpha, out=at.point)
        u.neg_().add_(at.point, alpha=2)
        right = torch.add(u, at.equation.offset, alpha=alpha, out=at.image)
        w = self._solve(right, out=at.point)
        torch.mul(w, 1 + alpha, out=at.preactivation).sub_(u).div_(alpha)
        u.neg_().add_(w, alpha=2)
        at.judge()

    def refine(self) -> None:
        """Correct w by the residual of its linear system, w + alpha (w - P) = u before, now that P = w A + B is known.

        What rounding has put into w and into the new u = 2 w - u goes out of both. Another solve with the factors.
        """
        import torch

        at = self.at
        missed = torch.lerp(at.point, at.preactivation, self.alpha, out=at.image).sub_(self.u)
        correction = self._solve(missed, out=at.difference)
        at.point.add_(correction)
        self.u.add_(correction, alpha=2)

    def _solve(self, right: Tensor, out: Tensor) -> Tensor:
        """right (I + alpha (I - A))^-1, which counts as a product."""
        import torch

        self.at.products += 1
        solution: Tensor = torch.linalg.lu_solve(self.factors, self.pivots, right, left=False, out=out)
        return solution
