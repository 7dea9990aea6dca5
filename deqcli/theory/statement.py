"""What a certificate is, and the draw that it is about."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

from deqcli.theory import condition, sharper
from deqcli.theory.hypotheses import OF_THE_LIMIT, OF_TRAINING
from deqcli.theory.initial import Initial
from deqcli.theory.sizes import Sizes


@dataclass(frozen=True)
class Certificate:
    """One inequality, always read lhs >= rhs (or lhs > rhs where `strict`).

    The sides are bounds on the safe side, so that `holds` is a proof up to the failure probability of an upper bound
    of a norm beyond width 8000. A side is None where it does not exist.
    `limit` is what slack tends to as the width grows, None where width does not enter.
    `about_a_limit` marks a comparison with an infinite-width limit, which finite widths may miss on either side.
    `assumes` names the hypotheses of the statement, as in `Initial.outside`.
    A hypothesis that compares no numbers has a `verdict` and no sides.
    """

    name: str
    source: str
    lhs: float | None
    rhs: float | None
    limit: float | None
    strict: bool = False
    about_a_limit: bool = False
    assumes: tuple[str, ...] = ()
    verdict: bool | None = None

    @property
    def slack(self) -> float | None:
        """Lhs / rhs: at least 1 where the inequality holds."""
        return self.lhs / self.rhs if self.lhs is not None and self.rhs else None

    @property
    def holds(self) -> bool:
        """The verdict; an inequality with a side missing does not hold."""
        if self.lhs is None or self.rhs is None:
            return self.verdict is True
        return self.lhs > self.rhs if self.strict else self.lhs >= self.rhs

    @property
    def repaired_by_width(self) -> bool:
        """Whether a large enough width makes the inequality hold, all else fixed."""
        return self.limit is not None and self.limit > 1

    def row(self) -> dict[str, object]:
        """The columns of certificates.csv that are about the inequality."""
        return {
            "certificate": self.name,
            "source": self.source,
            "lhs": self.lhs,
            "rhs": self.rhs,
            "slack": self.slack,
            "holds": self.holds,
            "repaired_by_width": self.repaired_by_width,
        }


@dataclass(frozen=True)
class Statement:
    """A draw and its learning rate; the radii at which its inequalities are stated, None where L ||W(0)|| >= 1."""

    initial: Initial
    learning_rate: float | None

    @property
    def sizes(self) -> Sizes:
        """Bounds on the safe side."""
        return self.initial.safe

    @property
    def lambda_0(self) -> float | None:
        """The lower bound of lambda_0; None where there is none, as nothing bounds the error of Z."""
        return None if self.initial.error_bound is None else self.sizes.lambda_0

    @cached_property
    def delta(self) -> float | None:
        """Of Condition 1."""
        return condition.best_delta(self.sizes)

    @cached_property
    def delta_without_9(self) -> float | None:
        """Of (7) and (8) alone."""
        return condition.best_delta(self.sizes, condition.GRADIENT_FLOW)

    @cached_property
    def radii(self) -> sharper.Radii | None:
        """Of the sharper condition."""
        return sharper.best_radii(self.sizes)

    @cached_property
    def flow_delta(self) -> float | None:
        """Of the sharper condition for gradient flow."""
        return sharper.best_flow_delta(self.sizes)

    @property
    def limit_well_posed(self) -> bool:
        """Whether the infinitely wide network is well-posed, with lambda_* > 0."""
        return self.initial.scales.limit_gap > 0 and (self.initial.computed.lambda_star or 0.0) > 0

    @property
    def limit_of_growing(self) -> float:
        """The limit of a slack that grows like sqrt(m) where the limit is well-posed."""
        return math.inf if self.limit_well_posed else 0.0


def of_lambda_0(s: Statement, name: str, source: str, rhs: float | None, limit: float) -> Certificate:
    """lambda_0 > rhs, of a statement about wide draws; strict, so that nothing is claimed where both are 0."""
    assumes = ("assumption_1", "well_posed", "enough_width", *OF_THE_LIMIT[1:])
    return Certificate(name, source, s.lambda_0, rhs, limit, strict=True, assumes=assumes)


def row(s: Statement, name: str, source: str, rhs: float | None, limit: float) -> Certificate:
    """lambda_0 >= rhs, of a statement about the training of a well-posed network."""
    return Certificate(name, source, s.lambda_0, rhs, limit, assumes=OF_TRAINING)


def to_three_halves(row: Certificate) -> Certificate:
    """The same with lambda_0^(3/2) on the left."""
    return row if row.lhs is None else replace(row, lhs=row.lhs * math.sqrt(row.lhs))


def of_the_rate(s: Statement, name: str, source: str, bound: float | None) -> Certificate:
    """Bound > eta, of a statement about training a well-posed network; without a bound there is no right side."""
    rhs = None if bound is None else s.learning_rate
    return Certificate(name, source, bound, rhs, None, strict=True, assumes=OF_TRAINING)
