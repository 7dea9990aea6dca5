"""Gradient flow, d theta/dt = -grad Phi, followed from step to step with an estimate of its error."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from deqcli.deq.network import Network, loss
from deqcli.deq.precision import to_float64
from deqcli.deq.solvers import Solution, Status
from deqcli.deq.spectral import gram
from deqcli.theory.ntk import empirical_ntk

LARGEST_GROWTH, SAFETY = 2.0, 0.9
GAINED = 0.5
"""A shorter substep whose error is not smaller by this factor is limited by rounding, and is taken."""

LARGEST = 2.0
"""Of h ||H||_F, a little below 2.5, from where on the method is unstable; error estimates mean nothing there."""

SMALLEST = 1 / 4
"""Of the h at which a fixed kernel would make an error of the tolerance. What is off in shorter substeps is the kink of
an activation, along which a flow may slide, or rounding: the error is then first order in h, or none."""


@dataclass(frozen=True)
class Moved:
    """Where a flow has come to: how both equations were solved last, all products counted, and the prediction error."""

    forward: Solution
    adjoint: Solution | None
    prediction_error: Tensor


class Flow:
    """The third-order Runge-Kutta method of Shu and Osher, in substeps as long as their estimated error allows.

    A substep of length h goes through theta_1 = E(theta_0), theta_2 = 3/4 theta_0 + 1/4 E(theta_1) and theta =
    1/3 theta_0 + 2/3 E(theta_2) with E a gradient step at rate h. Along the flow dPhi/dt = -||grad Phi||^2, so that the
    same method gives Phi_q = Phi_0 - h (g_0 + g_1 + 4 g_2)/6 with g the squared gradient norms at the three. Both Phi_q
    and Phi(theta) are off by the order of h^4: |Phi_q - Phi(theta)|/Phi(theta) is the estimate, three times the true
    error where the kernel is fixed. `error` is its sum over all substeps: the relative error of the loss by now.
    Source: Shu and Osher 1988, J. Comput. Phys. 77, 439.
    """

    def __init__(self, network: Network, y: Tensor, tolerance: float) -> None:
        self.network, self.y, self.tolerance = network, y, tolerance
        self.length, self.error = math.inf, 0.0
        self.forward_seconds = self.adjoint_seconds = 0.0
        self._products = [0, 0]

    def state(self) -> dict[str, float]:
        """What the next step depends on, beside the network."""
        return {"length": self.length, "error": self.error}

    def restore(self, state: Mapping[str, float]) -> None:
        """Take over what `state` gave."""
        self.length, self.error = state["length"], state["error"]

    def follow(self, prediction_error: Tensor, duration: float) -> Moved:
        """Follow the flow for a time, from a solved network; where a solve fails, to there."""
        self._products, self.forward_seconds, self.adjoint_seconds = [0, 0], 0.0, 0.0
        at, left = Moved(_nothing(), _nothing(), prediction_error), duration
        while left > 0:
            at = self._substep(at.prediction_error, left)
            if _failed(at):
                break
            left = 0.0 if self._taken >= left else left - self._taken
        return replace(at, forward=self._counted(at.forward, 0), adjoint=at.adjoint and self._counted(at.adjoint, 1))

    def _counted(self, solution: Solution, which: int) -> Solution:
        return replace(solution, iterations=self._products[which])

    def _substep(self, e: Tensor, left: float) -> Moved:
        """One substep of the length of now, or where its error is too large of a part of that; at most `left`."""
        start = {name: tensor.clone() for name, tensor in self.network.trained().items()}
        shortest, longest = self._lengths()
        h, before = min(max(self.length, shortest), longest, left), math.inf
        while True:
            at, error = self._try(start, e, h)
            if _failed(at) or error <= self.tolerance or not error <= GAINED * before or h <= shortest:
                break
            before, h = error, h / 2
            self.network.blend(start, 1.0)
            self._solve()
        growth = LARGEST_GROWTH if error == 0 else SAFETY * (self.tolerance / error) ** 0.25
        self._taken, self.length = h, h * min(max(growth, 1 / LARGEST_GROWTH), LARGEST_GROWTH)
        self.error += error
        return at

    def _lengths(self) -> tuple[float, float]:
        """The shortest and the longest substep worth trying, by ||H||_F >= lambda_max(H) of the solved network.

        With a fixed kernel the estimate is (h lambda_max)^4/4 at most.
        """
        stiffness = max(float(self._kernel().norm()), sys.float_info.min)
        return SMALLEST * (4 * self.tolerance) ** 0.25 / stiffness, LARGEST / stiffness

    def _kernel(self) -> Tensor:
        cell = self.network.cell(0)
        return empirical_ntk(cell, gram(cell.Z), self.network.X)

    def _try(self, start: Mapping[str, Tensor], e: Tensor, h: float) -> tuple[Moved, float]:
        """The three stages, and the estimated error."""
        network, expected = self.network, loss(e)
        at = Moved(_nothing(), _nothing(), e)
        for weight, share in ((1 / 6, 0.0), (1 / 6, 3 / 4), (4 / 6, 1 / 3)):
            expected -= weight * h * self._gradient_sq(at.prediction_error)
            network.descend(at.prediction_error, h)
            if share:
                network.blend(start, share)
            at = self._solve()
            if _failed(at):
                return at, math.inf
        reached = loss(at.prediction_error)
        return at, abs(expected - reached) / reached if reached > 0 else 0.0

    def _gradient_sq(self, e: Tensor) -> float:
        """||grad Phi||^2 = e^T H e of the solved network, by what is trained."""
        exact = to_float64(e)
        return float(torch.dot(exact, self._kernel() @ exact))

    def _solve(self) -> Moved:
        clock = time.perf_counter()
        forward = self.network.solve_equilibrium()
        self.forward_seconds += time.perf_counter() - clock
        self._products[0] += forward.iterations
        if forward.status is not Status.CONVERGED:
            return Moved(forward, None, self.y)
        clock = time.perf_counter()
        adjoint = self.network.solve_adjoint()
        self.adjoint_seconds += time.perf_counter() - clock
        self._products[1] += adjoint.iterations
        return Moved(forward, adjoint, self.network.prediction_error(self.y))


def _nothing() -> Solution:
    return Solution(0.0, 0, Status.CONVERGED)


def _failed(at: Moved) -> bool:
    return any(each is None or each.status is not Status.CONVERGED for each in (at.forward, at.adjoint))
