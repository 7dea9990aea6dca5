"""What is found in runs that are looked at together: the loss beside its prediction, and how far Condition 1 is."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Self

from deqcli.deq.activations import ACTIVATIONS
from deqcli.runs.folder import COMPLETE, FAILED
from deqcli.show.bounds import bounds_at
from deqcli.show.console import number
from deqcli.show.verdicts import CONCLUSIONS, Results, Verdict, out_of, run_verdicts, share

if TYPE_CHECKING:
    import pandas as pd

    from deqcli.sweep.gather import Gathered

REACHED = 0.1
"""Decades that a final loss may be above the predicted one and still has reached it: 26 %."""

CONDITION_1 = ("condition_1_eq_7", "condition_1_eq_8", "condition_1_eq_9_with_8")
"""The certificates that are Condition 1, with the constant that its proof needs in (9)."""


@dataclass(frozen=True)
class Deviation:
    """The last loss that was predicted as well; log10(loss) - log10(predicted loss) there, and where it is largest."""

    step: int
    loss: float
    predicted: float
    final: float
    largest: float
    largest_step: int

    @classmethod
    def of(cls, rows: pd.DataFrame) -> Self:
        """From the rows of a run, with columns step, loss, predicted and decades."""
        steps, losses, predicted, decades = (rows[name].tolist() for name in ("step", "loss", "predicted", "decades"))
        worst = max(range(len(decades)), key=lambda index: abs(decades[index]))
        return cls(steps[-1], losses[-1], predicted[-1], decades[-1], decades[worst], steps[worst])


@dataclass(frozen=True)
class Slack:
    """The least slack of Condition 1 and whose it is; 0, and `missing`, where a side does not exist."""

    certificate: str
    value: float
    missing: bool
    holds: bool

    @classmethod
    def of(cls, rows: pd.DataFrame) -> Self:
        """From the rows of a draw in certificates.csv."""
        values = rows["slack"].fillna(0.0).tolist()
        least = values.index(min(values))
        missing = bool(rows["slack"].isna().iloc[least])
        return cls(str(rows["certificate"].iloc[least]), values[least], missing, all(rows["holds"].tolist()))

    def __str__(self) -> str:
        where = f"least slack {number(self.value, 3)}, {self.certificate}"
        if self.missing:
            where = "||W(0)||_2 < 1 is not proved"
        elif self.value == 0:
            where = "lambda_0 is 0"
        return f"{self.briefly} ({where})"

    @property
    def briefly(self) -> str:
        """How far the draw is from Condition 1."""
        if self.value == 0:
            return "out of reach"
        decades = -math.log10(self.value)
        factor = number(1 / self.value, 3) if decades < 1 else f"10^{decades:.1f}"
        return "holds" if self.holds else f"short by a factor {factor}"


@dataclass(frozen=True)
class Findings:
    """What is said of runs, each part worked out once."""

    gathered: Gathered

    @cached_property
    def verdicts(self) -> list[Verdict]:
        """Did the loss reach what was predicted, did (i), (ii), (iii) hold, how far is Condition 1?"""
        return [_prediction(self.deviations, self.failed), *self._conclusions(), _condition_1(self.slacks)]

    def _conclusions(self) -> Iterator[Verdict]:
        if len(self.outcomes) == 1:
            yield from run_verdicts(*self.outcomes.values())
        elif self.outcomes:
            yield from (each.verdict_of_many(self.outcomes) for each in CONCLUSIONS)

    @cached_property
    def outcomes(self) -> dict[str, Results]:
        """The results of each run that has any: from its manifest, or from the rows that there are so far."""
        told: dict[str, Results] = {}
        for source in self.gathered.sources:
            told |= source.manifest.of_runs
        told |= {run.manifest.id: run.manifest.results for run in self.gathered.stored}
        return {
            run: results
            for run in self.gathered.runs["run_id"]
            if (results := told.get(run) or so_far(*(rows.get(run) for rows in self._rows)))
        }

    @cached_property
    def thinned(self) -> Sequence[str]:
        """A sentence for each folder that does not have every row: of which steps what is said of it is."""
        return [
            f"{each.recipe} {each.id} is {each.thinned}: curves, and what is said of them, are of these and of the "
            f"last step of a run; (i), (ii), (iii) are of every logged step in {len(each.of_runs)} of "
            f"{len(each.cells)} runs."
            for each in (source.manifest for source in self.gathered.sources)
            if each.thinned
        ]

    @cached_property
    def _rows(self) -> list[dict[str, pd.DataFrame]]:
        """The rows of spectral and loss, by run."""
        tables = (self.gathered.spectral, self.gathered.loss)
        return [{str(run): rows for run, rows in table.groupby("run_id", sort=False)} for table in tables]

    @cached_property
    def deviations(self) -> dict[str, Deviation]:
        """The loss beside the predicted one, of each run of which a step after the first has both."""
        import numpy as np

        measured = self.gathered.loss[["run_id", "step", "loss"]]
        predicted = self.gathered.prediction[["run_id", "step", "loss"]].rename(columns={"loss": "predicted"})
        both = measured.merge(predicted, on=["run_id", "step"])
        both = both[(both["loss"] > 0) & (both["predicted"] > 0) & (both["step"] > 0)]
        both = both.assign(decades=np.log10(both["loss"]) - np.log10(both["predicted"]))
        return {str(run): Deviation.of(rows) for run, rows in both.groupby("run_id", sort=False)}

    @cached_property
    def failed(self) -> set[str]:
        """The runs that failed: whatever their rows say up to there, they did not reach what was predicted."""
        runs = self.gathered.runs
        return set(runs[runs["status"] == FAILED]["run_id"])

    @cached_property
    def slacks(self) -> dict[str, Slack]:
        """Condition 1 of each draw that was certified."""
        rows = self.gathered.certificates
        rows = rows[rows["certificate"].isin(CONDITION_1)]
        return {str(run): Slack.of(own) for run, own in rows.groupby("run_id", sort=False)}

    @cached_property
    def unfinished(self) -> Sequence[str]:
        """A line for each run that is not complete: how far it is, and the error that it ended with."""
        runs = self.gathered.runs
        last = self.gathered.all_losses.groupby("run_id")["step"].max()
        return [
            f"{row['run_id']} {_ended(row['status'], last.get(row['run_id']), row['error'])}"
            for row in runs[runs["status"] != COMPLETE].to_dict("records")
        ]


def _ended(status: str, step: int | None, error: object) -> str:
    """`failed: why`, which tells the step; `interrupted at step 9 of 20`; `running, at step 7`."""
    if isinstance(error, str) and error:
        return error if error.startswith(status) else f"{status}: {error}"
    return status if step is None else f"{status}, at step {step}"


def so_far(spectral: pd.DataFrame | None, losses: pd.DataFrame | None) -> Results:
    """What the tables say of a run that is not complete, or whose folder is gone."""
    if spectral is None:
        return {}
    by_step = spectral.set_index("step")
    start = float(by_step["lambda_min"].iloc[0])
    phi = ACTIVATIONS.get(str(spectral["activation"].iloc[0]))
    return {
        **({} if phi is None or phi.lipschitz == 1 else {"lipschitz": phi.lipschitz}),
        "lambda_0": start,
        **_extreme("max_spectral_norm_upper", by_step["spectral_norm_upper"], largest=True),
        **_extreme("min_lambda_ratio", by_step["lambda_ratio"], largest=False),
        **_extreme("max_loss_over_bound", _over_bound(losses, spectral), largest=True),
    }


def _over_bound(losses: pd.DataFrame | None, spectral: pd.DataFrame) -> pd.Series[float] | None:
    """Phi(tau) over what conclusion (iii) says of it, by step, at every step after the first."""
    if losses is None:
        return None
    later = losses[losses["step"] > 0].set_index("step")["loss"]
    found: pd.Series[float] = later / bounds_at(spectral, later.index.to_numpy())
    return found


def _extreme(name: str, values: pd.Series[float] | None, largest: bool) -> Results:
    known = None if values is None else values.dropna()
    if known is None or known.empty:
        return {name: None, f"{name}_step": None}
    place = int(known.argmax() if largest else known.argmin())
    return {name: float(known.iloc[place]), f"{name}_step": int(known.index[place])}


def _prediction(found: Mapping[str, Deviation], failed: Collection[str]) -> Verdict:
    """Did the loss reach what was predicted from H(0)? A run that failed did not."""
    claim = "loss as predicted"
    if not found:
        why = "the run failed" if len(failed) == 1 else "the runs failed"
        if failed:
            return Verdict(claim, "no", f"not reached ({why} before a step could be compared)")
        return Verdict(claim, "unknown", "nothing to compare (no step after the first has a loss and a prediction)")
    reached = sum(each.final <= REACHED and run not in failed for run, each in found.items())
    far = max(found, key=lambda run: abs(found[run].largest))
    way = f"furthest apart on the way: {apart(found[far].largest)}"
    if len({*found, *failed}) == 1:
        (own,) = found.values()
        ends = f"{number(own.loss)} at step {own.step}, predicted from H(0) {number(own.predicted)}"
        text = (
            f"{'reached' if reached else 'not reached'} ({ends}: {apart(own.final)}); {way}, at step {own.largest_step}"
        )
        return Verdict(claim, "yes" if reached else "no", text)
    total = {*found, *failed}
    last = max(found, key=lambda run: abs(found[run].final))
    text = (
        f"reached, up to {REACHED} decades ({100 * (10**REACHED - 1):.0f} %), by {out_of(reached, len(total))}; "
        f"furthest apart at the end: {apart(found[last].final)} ({last}); {way} "
        f"({far} at step {found[far].largest_step})"
    )
    return Verdict(claim, share(reached, len(total)), text)


def apart(decades: float) -> str:
    """A quotient given by its log10, in words: percent when small, else decades."""
    above = "above" if decades > 0 else "below"
    if abs(decades) < math.log10(2):
        return f"{100 * abs(10**decades - 1):.3g} % {above}"
    return f"{abs(decades):.3g} decades {above}"


def _condition_1(found: Mapping[str, Slack]) -> Verdict:
    """How far from Condition 1?"""
    claim = "Condition 1"
    if not found:
        return Verdict(claim, "unknown", "nothing to show (no draw was certified)")
    held = sum(each.holds for each in found.values())
    if len(found) == 1:
        (own,) = found.values()
        return Verdict(claim, "yes" if held else "no", str(own))
    short = sorted((each.value, run) for run, each in found.items() if each.value > 0 and not each.holds)
    parts = [f"holds for {out_of(held, len(found), 'draws')}"]
    if short:
        (_, furthest), (_, nearest) = short[0], short[-1]
        parts.append(f"nearest of the others: {found[nearest].briefly} ({nearest})")
        parts.append(f"furthest: {found[furthest].briefly} ({furthest})")
    gone = sum(each.value == 0 for each in found.values())
    parts += [f"out of reach for {gone}, whose lambda_0 is 0 or whose ||W(0)||_2 < 1 is not proved"] if gone else []
    return Verdict(claim, share(held, len(found)), "; ".join(parts))
