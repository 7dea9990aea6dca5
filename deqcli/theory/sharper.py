"""Condition 1 made sharper by the same proof, and what gradient flow needs: docs/certificates.md derives both."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from scipy.optimize import brentq

from deqcli.theory.sizes import Sizes

MOVES = (2 - math.sqrt(2)) / 2
"""||Z(tau) - Z(0)||_F may reach this times sqrt(lambda_0): then lambda_tau >= lambda_0/2."""

LOG_LEAST, LOG_MOST = -230.0, 230.0
"""Logarithms of slacks that are looked at."""


@dataclass(frozen=True)
class Radii:
    """How far W and a may go: ||W(tau) - W(0)||_F <= w, ||a(tau) - a(0)|| <= a. No bound rests on how far U goes."""

    w: float
    a: float


@dataclass(frozen=True)
class Sharp:
    """c = rho_a/g with g = 1/L - rho_w, rho_w = ||W(0)||_2 + w, rho_a = ||a(0)|| + a, and z >= ||Z(tau)||_2.

    ||adjoint||_F <= c ||e||, so ||grad_W||_F <= c z ||e||, ||grad_U||_F <= c ||X||_2 ||e|| and ||grad_a|| <= z ||e||;
    z = ||Z(0)||_2 + (2 - sqrt2)/2 sqrt(lambda_0).
    """

    sizes: Sizes
    c: float
    gap: float

    @classmethod
    def at(cls, sizes: Sizes, radii: Radii) -> Sharp:
        """The constants at these radii, 0 < w < 1/L - ||W(0)||."""
        gap = sizes.room - radii.w
        return cls(sizes, (sizes.norm_a + radii.a) / gap, gap)

    @property
    def z(self) -> float:
        """The bound of ||Z(tau)||_2."""
        return reach(self.sizes)

    @property
    def hidden(self) -> float:
        """c^2 (z^2 + ||X||_2^2), which bounds what moving W and U adds to the change of the loss."""
        z, x = self.z, self.sizes.spectral_norm_x
        return self.c * self.c * (z * z + x * x)

    @property
    def rhs_8(self) -> float:
        """4 (2 + sqrt2) (c/g) (z ||Z(0)||_2 + ||X||_2^2) ||e(0)||."""
        s = self.sizes
        sizes_of_z = self.z * s.spectral_norm_z + s.spectral_norm_x * s.spectral_norm_x
        return 4 * (2 + math.sqrt(2)) * self.c / self.gap * sizes_of_z * s.norm_e

    @property
    def rate(self) -> float:
        """2 (lambda_0/4 - A)/(A + z^2)^2 with A = c^2 (z^2 + ||X||_2^2): learning rates up to it are covered."""
        room, total = self.sizes.lambda_0 / 4 - self.hidden, self.hidden + self.z * self.z
        return 2 * room / total / total if room > 0 else 0.0


def reach(sizes: Sizes) -> float:
    """||Z(0)||_2 + (2 - sqrt2)/2 sqrt(lambda_0), which bounds ||Z(tau)||_2."""
    return sizes.spectral_norm_z + MOVES * math.sqrt(sizes.lambda_0)


def rhs_7_w(sizes: Sizes, radii: Radii) -> float:
    """(4/w) c z ||e(0)||: the path of W, at most 4/lambda_0 c z ||e(0)||, stays within w."""
    sharp = Sharp.at(sizes, radii)
    return 4 / radii.w * sharp.c * sharp.z * sizes.norm_e


def rhs_7_a(sizes: Sizes, radii: Radii) -> float:
    """(4/a) z ||e(0)||: the path of a stays within its radius."""
    return 4 / radii.a * reach(sizes) * sizes.norm_e


def within_reach(sizes: Sizes) -> Sizes:
    """The same, each norm and lambda_0 no further from 1 than 1e40: radii chosen for these are as good as any."""
    names = ("spectral_norm_x", "spectral_norm_z", "norm_a", "norm_e", "lambda_0")
    return replace(sizes, **{name: min(max(getattr(sizes, name), 1e-40), 1e40) for name in names})


def best_radii(sizes: Sizes) -> Radii | None:
    """The radii that maximise the least of the four slacks; None where L ||W(0)|| >= 1.

    At a common slack t of both rows of (7) the radii are given, and the least, since the other two rows fall with
    either radius: a = t 4 z ||e(0)||/lambda_0, and w the smaller root of w (room - w) = rho_a a. So the best t is the
    largest one that the slacks of (8) and (9) still reach.
    """
    room = sizes.room
    if room <= 0:
        return None
    if sizes.lambda_0 == 0 or sizes.norm_e == 0:
        return Radii(room / 2, max(sizes.norm_a, 1.0) * room / 2)
    sizes = within_reach(sizes)

    def excess(log_slack: float) -> float:
        radii = _radii_at(sizes, room, log_slack)
        sharp = Sharp.at(sizes, radii)
        slack_8 = 1.5 * math.log(sizes.lambda_0) - math.log(sharp.rhs_8)
        slack_9 = math.log(sizes.lambda_0) - math.log(4 * sharp.hidden)
        return min(slack_8, slack_9) - log_slack

    most = _log_largest_slack_7(sizes, room)
    if not excess(LOG_LEAST) > 0 or most <= LOG_LEAST:
        return _radii_at(sizes, room, min(LOG_LEAST, most))
    best = most if excess(most) >= 0 else float(brentq(excess, LOG_LEAST, most, xtol=1e-13, rtol=1e-13))
    return _radii_at(sizes, room, best)


def _unit(sizes: Sizes) -> float:
    """4 z ||e(0)||/lambda_0, the path of a."""
    return 4 * reach(sizes) * sizes.norm_e / sizes.lambda_0


def _radii_at(sizes: Sizes, room: float, log_slack: float) -> Radii:
    """The radii at which both rows of (7) have this slack."""
    a = math.exp(log_slack) * _unit(sizes)
    q = (sizes.norm_a + a) * a
    root = math.sqrt(max(room * room - 4 * q, 0.0))
    return Radii(2 * q / (room + root), a)


def _log_largest_slack_7(sizes: Sizes, room: float) -> float:
    """Log of the slack at which w (room - w) = (||a|| + a) a has one root: a (||a|| + a) = room^2/4."""
    a = room * room / 2 / (sizes.norm_a + math.hypot(sizes.norm_a, room))
    return min(math.log(a) - math.log(_unit(sizes)), LOG_MOST) - 1e-12


def rhs_flow_7(sizes: Sizes, delta: float) -> float:
    """2 ||e(0)||^2/delta^2: the path of all parameters together, sqrt(2/lambda_0) ||e(0)|| at most, is within delta."""
    ratio = sizes.norm_e / delta  # a product overflows to infinity, a power raises
    return 2 * ratio * ratio


def rhs_flow_8(sizes: Sizes, delta: float) -> float:
    """2 (1 + sqrt2) sqrt(||Z(0)||_2^2 + ||X||_2^2)/(1/L - ||W(0)||_2 - delta) ||e(0)||."""
    size = math.hypot(sizes.spectral_norm_z, sizes.spectral_norm_x)
    return 2 * (1 + math.sqrt(2)) * size / (sizes.room - delta) * sizes.norm_e


def best_flow_delta(sizes: Sizes) -> float | None:
    """The delta at which the two rows of gradient flow meet: one slack rises from 0, the other falls to 0."""
    room = sizes.room
    if room <= 0:
        return None
    if sizes.norm_e == 0:
        return room / 2
    sizes = within_reach(sizes)

    def excess(log_delta: float) -> float:
        delta = math.exp(log_delta)
        return math.log(rhs_flow_8(sizes, delta)) - math.log(rhs_flow_7(sizes, delta))

    lowest, highest = math.log(room) - 300, math.log(room) - 1e-9
    if excess(lowest) >= 0 or excess(highest) <= 0:
        return math.exp(lowest if excess(lowest) >= 0 else highest)
    return math.exp(float(brentq(excess, lowest, highest, xtol=1e-14, rtol=1e-14)))
