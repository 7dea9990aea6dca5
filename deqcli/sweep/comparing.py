"""Runs side by side: what differs in their recipes, their surroundings and their results, and where losses part."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from deqcli.errors import CorruptArtefact, Refused
from deqcli.runs import files
from deqcli.runs.folder import Manifest
from deqcli.runs.records import cell
from deqcli.sweep.gather import CONVERGED, flattened
from deqcli.sweep.query import VERSIONS, is_number
from deqcli.sweep.stored import Stored

TOLERANCE = 1e-6
SURROUNDINGS = ("device", "device_name", "threads", "git")
MOST_WORDS = 3
"""Keys in the name of a run among others; where more differ, its run id names it."""

MARKS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
"""What runs are called in the tables and in the curves of a comparison, which has no more runs than these."""

Losses = Mapping[int, float]
"""The loss by step, of the converged rows."""


@dataclass(frozen=True)
class Difference:
    """A key and the value of each run, None where it has none."""

    key: str
    values: tuple[Any, ...]

    @property
    def differs(self) -> bool:
        """Whether the values are not all the same."""
        return any(value != self.values[0] for value in self.values)

    @property
    def relative(self) -> float | None:
        """(greatest - least) / greatest in size; None where a value is no number, and of counts and steps."""
        if not all(is_number(value) for value in self.values) or all(isinstance(value, int) for value in self.values):
            return None
        return relative_difference(min(self.values), max(self.values))


def relative_difference(a: float, b: float) -> float:
    """|a - b| / max(|a|, |b|), 0 where both are 0."""
    size = max(abs(a), abs(b))
    return abs(a - b) / size if size else 0.0


@dataclass(frozen=True)
class Parting:
    """How the losses of a run compare with those of the first, at the steps that both logged.

    `equal_up_to` is the last of these steps before the losses differ at all, `differ_from` the first at which they do,
    `apart_from` the first at which they differ by more than the tolerance; `largest` is the largest relative
    difference and `largest_step` its first step. None where there is no such step.
    """

    common: int
    last: int | None = None
    equal_up_to: int | None = None
    differ_from: int | None = None
    apart_from: int | None = None
    largest: float | None = None
    largest_step: int | None = None

    def sentence(self, tolerance: float) -> str:
        """It in words."""
        if not self.common:
            return "no logged step in common"
        if self.differ_from is None:
            return f"identical: equal to the last bit at all {self.common} steps in common, up to step {self.last}"
        parts = [] if self.equal_up_to is None else [f"equal to the last bit up to step {self.equal_up_to}"]
        if self.apart_from is None:
            parts.append(f"first different at step {self.differ_from}, never by more than {tolerance:g}")
        elif self.apart_from != self.differ_from:
            parts.append(f"first different at step {self.differ_from}")
        if self.apart_from is not None:
            parts.append(f"first apart by more than {tolerance:g} at step {self.apart_from}")
        return f"{'; '.join(parts)} (largest relative difference {self.largest:.3g}, at step {self.largest_step})"


def parting(first: Losses, other: Losses, tolerance: float = TOLERANCE) -> Parting:
    """Compare the losses of two runs step by step, at the steps that both have."""
    common = sorted(first.keys() & other.keys())
    if not common:
        return Parting(0)
    differing = [step for step in common if first[step] != other[step]]
    if not differing:
        return Parting(len(common), common[-1], common[-1], largest=0.0)
    sizes = {step: relative_difference(first[step], other[step]) for step in differing}
    largest = max(differing, key=sizes.__getitem__)
    before = common.index(differing[0]) - 1
    return Parting(
        len(common),
        common[-1],
        common[before] if before >= 0 else None,
        differing[0],
        next((step for step in differing if sizes[step] > tolerance), None),
        sizes[largest],
        largest,
    )


@dataclass(frozen=True)
class Comparison:
    """Two or more runs, the first of which the others are compared with."""

    runs: Sequence[Stored]
    tolerance: float = TOLERANCE

    @cached_property
    def recipes(self) -> list[Difference]:
        """The keys in which the recipes differ, name and all."""
        return _differences([dict(flattened(run.recipe)) for run in self.runs])

    @cached_property
    def surroundings(self) -> list[Difference]:
        """What else the bits of a run depend on, where it differs: versions, device, threads, commit."""
        return _differences([_surroundings(run.manifest) for run in self.runs])

    @cached_property
    def results(self) -> list[Difference]:
        """The results that some run has, equal or not."""
        found = [{"status": run.state, **run.manifest.results} for run in self.runs]
        return list(_side_by_side(found))

    @cached_property
    def losses(self) -> list[Losses]:
        """The losses of each run. Raises: CorruptArtefact."""
        return [losses_of(run) for run in self.runs]

    @cached_property
    def partings(self) -> list[Parting]:
        """Of each run but the first, from the first."""
        return [parting(self.losses[0], other, self.tolerance) for other in self.losses[1:]]

    @cached_property
    def names(self) -> list[str]:
        """What tells each run from the others: the values in which it differs, else its run id, else its folder."""
        differing = self.recipes
        if 0 < len(differing) <= MOST_WORDS:
            return [
                ", ".join(f"{each.key.rpartition('.')[2]} {cell(each.values[index]) or '-'}" for each in differing)
                for index in range(len(self.runs))
            ]
        ids = [run.manifest.id for run in self.runs]
        return ids if len(set(ids)) == len(ids) else [str(run.folder) for run in self.runs]

    @property
    def marked(self) -> list[str]:
        """The mark and the name of each."""
        return [f"{mark}  {name}" for mark, name in zip(MARKS, self.names, strict=False)]

    @property
    def identity(self) -> str:
        """A hash of the runs that are compared, in their order."""
        return hashlib.sha256("\n".join([run.manifest.id for run in self.runs]).encode()).hexdigest()[:8]


def compare(runs: Sequence[Stored], tolerance: float = TOLERANCE) -> Comparison:
    """Compare two or more runs. Raises: Refused where they are fewer, or more than there are marks for."""
    if not 2 <= len(runs) <= len(MARKS):
        raise Refused(f"a comparison is of 2 to {len(MARKS)} runs, got {len(runs)}")
    return Comparison(runs, tolerance)


def losses_of(run: Stored) -> Losses:
    """The losses of the converged rows by step, to the last bit. Raises: CorruptArtefact."""
    rows = run.rows(files.LOSS) if run.has(files.LOSS) or run.manifest.files else []
    try:
        return {int(row["step"]): float(row["loss"]) for row in rows if row["status"] == CONVERGED}
    except (KeyError, TypeError, ValueError):
        raise CorruptArtefact(f"{run.folder / files.LOSS} is not what was written") from None


def _surroundings(manifest: Manifest) -> dict[str, Any]:
    versions = {f"{VERSIONS}{package}": version for package, version in manifest.versions.items()}
    return {**{name: getattr(manifest, name) for name in SURROUNDINGS}, **versions}


def _side_by_side(found: Sequence[Mapping[str, Any]]) -> Iterable[Difference]:
    keys = dict.fromkeys(key for each in found for key in each)
    return (Difference(key, tuple(each.get(key) for each in found)) for key in keys)


def _differences(found: Sequence[Mapping[str, Any]]) -> list[Difference]:
    return [each for each in _side_by_side(found) if each.differs]
