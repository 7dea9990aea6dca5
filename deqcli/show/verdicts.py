"""The conclusions of Theorem 1 as they came out in a run or in several, in sentences."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from deqcli.show.console import number

Results = Mapping[str, float | int | None]
"""The results of a run by name, as in its manifest."""

State = Literal["yes", "partly", "no", "unknown"]


@dataclass(frozen=True)
class Verdict:
    """A claim, whether it came out, and the numbers that say so."""

    claim: str
    state: State
    text: str

    def __str__(self) -> str:
        return f"{self.claim}: {self.text}"


@dataclass(frozen=True)
class Conclusion:
    """A conclusion of Theorem 1: the result that is its worst value, in words, and what that value must be.

    `worst` chooses the worst of several: the largest, or the least. `by_lipschitz`: the value counts times L of the
    activation, which results name where it is not 1. `estimate` is the result that `name` bounds, told where the bound
    shows nothing.
    """

    claim: str
    what: str
    name: str
    worst: Callable[..., str]
    holds: Callable[[float], bool]
    by_lipschitz: bool = False
    estimate: str | None = None

    def _of(self, results: Results) -> tuple[str, float]:
        """The claim as it reads for the activation, and L as far as it counts."""
        lipschitz = (results.get("lipschitz") or 1.0) if self.by_lipschitz else 1.0
        return (self.claim if lipschitz == 1 else self.claim.replace("||W||", f"{lipschitz:.6g} ||W||")), lipschitz

    def state(self, results: Results) -> State:
        """Whether it held at every logged step."""
        value = results[self.name]
        return "unknown" if value is None else "yes" if self.holds(value * self._of(results)[1]) else "no"

    def unknown(self, results: Results) -> str:
        """Why there is nothing to show."""
        if self.name == "max_loss_over_bound" and not results.get("steps"):
            return "no step was made"
        if self.name == "max_loss_over_bound" and results["lambda_0"] != 0:
            return "Theorem 1 promises nothing of this training"
        return "lambda_0 is 0" if results["lambda_0"] == 0 else f"{self.what} is not defined"

    def verdict(self, results: Results) -> Verdict:
        """Of one run."""
        value, step, state = results[self.name], results[f"{self.name}_step"], self.state(results)
        if state == "unknown":
            return Verdict(self.claim, state, f"nothing to show ({self.unknown(results)})")
        held, (claim, _) = "held" if state == "yes" else "not shown", self._of(results)
        where = f"{self.what} {number(value)}, at step {number(step)}{self._estimated([results])}"
        return Verdict(claim, state, f"{held} at every logged step ({where})")

    def verdict_of_many(self, runs: Mapping[str, Results]) -> Verdict:
        """Of several runs: how many held it, and the worst of them."""
        known = {run: each for run, each in runs.items() if each[self.name] is not None}
        missing = [self.unknown(each) for run, each in runs.items() if run not in known]
        silent = f"nothing to show in {len(missing)} ({', '.join(sorted(set(missing)))})" if missing else ""
        if not known:
            return Verdict(self.claim, "unknown", silent or "nothing to show")
        held = sum(self.state(each) == "yes" for each in known.values())
        whom = out_of(held, len(known)) + (f" that show{'s' * (len(known) == 1)} it" if missing else "")
        worst = self.worst(known, key=lambda run: known[run][self.name])
        value, step = runs[worst][self.name], runs[worst][f"{self.name}_step"]
        where = f"{self.what} {number(value)}, {worst} at step {number(step)}{self._estimated(known.values())}"
        verb = "held" if held == len(known) else "shown"
        text = f"{verb} at every logged step of {whom} ({where})" + (f"; {silent}" if silent else "")
        return Verdict(self.claim, share(held, len(known)), text)

    def _estimated(self, runs: Collection[Results]) -> str:
        """The largest estimate of runs of which the bound does not show all."""
        if self.estimate is None or all(self.state(each) == "yes" for each in runs):
            return ""
        return f"; largest estimate {number(max(each.get(self.estimate) or 0.0 for each in runs))}"


CONCLUSIONS = (
    Conclusion(
        "(i)   ||W||_2 < 1",
        "largest upper bound",
        "max_spectral_norm_upper",
        max,
        lambda value: value < 1,
        by_lipschitz=True,
        estimate="max_spectral_norm",
    ),
    Conclusion(
        "(ii)  lambda_tau > lambda_0/2", "least lambda_tau/lambda_0", "min_lambda_ratio", min, lambda value: value > 0.5
    ),
    Conclusion(
        "(iii) loss <= loss_bound", "largest loss/loss_bound", "max_loss_over_bound", max, lambda value: value <= 1
    ),
)


def run_verdicts(results: Results) -> list[Verdict]:
    """The conclusions of Theorem 1 at the logged steps of a run, and the linear rate beside its promises."""
    return [*(each.verdict(results) for each in CONCLUSIONS), _rates(results)]


def _rates(results: Results) -> Verdict:
    if results.get("rate_measured") is None:
        return Verdict("linear rate", "unknown", "nothing to show (there is no step to measure it by)")
    measured, theorem, kernel = (number(results[f"rate_{name}"], 4) for name in ("measured", "theorem", "kernel"))
    promised = "" if results["rate_theorem"] is None else f"by Theorem 1 at least {theorem}, "
    text = f"log(loss) falls by {measured} a step; {promised}by the kernel {kernel}"
    return Verdict("linear rate", "yes", text)


def share(part: int, whole: int) -> State:
    """Whether all of them, some or none."""
    return "yes" if part == whole else "partly" if part else "no"


def out_of(part: int, whole: int, what: str = "runs") -> str:
    """`all 3 runs`, `2 of 3 runs`, `none of 3 runs`, `the only run`."""
    if part == whole:
        return f"all {whole} {what}" if whole > 1 else f"the only {what.removesuffix('s')}"
    return f"{part or 'none'} of {whole} {what}"
