"""What runs, sweeps, checks and predictions left, as Python objects: tables as DataFrames, pictures, notebooks."""

from __future__ import annotations

import html
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from deqcli.runs.folder import Manifest
from deqcli.sweep.stored import Stored

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from deqcli.sweep.gather import Gathered
    from deqcli.sweep.sweep import SweepEnd

MOST_ROWS = 20
"""Of a table in a notebook's display."""


@dataclass(frozen=True, repr=False)
class Loaded(ABC):
    """A folder that deqcli left. Every table is checked against the SHA-256 of its manifest when it is read.

    A table that the folder does not have raises CorruptArtefact, as does one that was altered.
    """

    stored: Stored
    kind: ClassVar[str]

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self.stored.folder

    @property
    def manifest(self) -> Manifest:
        """manifest.json."""
        return self.stored.manifest

    @property
    def status(self) -> str:
        """complete, running, interrupted, failed, or submitted."""
        return self.stored.state

    @property
    def recipe(self) -> Mapping[str, Any]:
        """The resolved recipe by section."""
        return self.stored.recipe

    def table(self, name: str) -> pd.DataFrame:
        """A CSV file by its name without suffix."""
        return self.stored.table(f"{name}.csv")

    def __repr__(self) -> str:
        return f"<deqcli {self.kind} {self.manifest.id}: {self._how_far}, {self.folder}>"

    @property
    def _how_far(self) -> str:
        """The status, and whether its tables lack steps."""
        return ", ".join(filter(None, [self.status, self.manifest.thinned]))

    @abstractmethod
    def _rows(self) -> pd.DataFrame:
        """What is worth a look in a notebook."""

    def _repr_html_(self) -> str:
        """Name, state, folder and a table, for notebooks."""
        rows = self._rows()
        more = f"<p>and {len(rows) - MOST_ROWS} more rows</p>" if len(rows) > MOST_ROWS else ""
        why = f" ({self.manifest.error})" if self.manifest.error else ""
        head = f"{self.kind} {self.manifest.id}: {self._how_far}{why}"
        return (
            f"<p><b>{html.escape(head)}</b><br><code>{html.escape(str(self.folder))}</code></p>"
            f"{rows.head(MOST_ROWS).to_html(border=0, index=False, na_rep='-')}{more}"
        )


class _Trained(Loaded):
    """What runs and sweeps have in common."""

    @cached_property
    def _gathered(self) -> Gathered:
        from deqcli.sweep.gather import gather

        return gather([self.stored])

    @property
    def loss(self) -> pd.DataFrame:
        """loss.csv: a row for each logged step."""
        return self.table("loss")

    @property
    def spectral(self) -> pd.DataFrame:
        """spectral.csv: norms, least eigenvalues and distances."""
        return self.table("spectral")

    @property
    def certificates(self) -> pd.DataFrame:
        """certificates.csv: the inequalities of the theory for the draw."""
        return self.table("certificates")

    @property
    def prediction(self) -> pd.DataFrame:
        """prediction.csv: the loss that the tangent kernel of the draw predicts."""
        return self.table("prediction")

    def plot(self, figure: str = "figure-1", *, size: str | None = None, title: str | None = None) -> Figure:
        """A figure by its name, as `deqcli report` writes it; a notebook shows it.

        `size` is that of a venue, or inches as `3.25x4`. Raises: Refused where there is no such figure or size.
        """
        from deqcli.show.figures import plot

        return plot(self._gathered, figure, size, title)


@dataclass(frozen=True, repr=False)
class Run(_Trained):
    """A run: one network, trained. `computed` says whether the call that returned it did so, and not an earlier one."""

    computed: bool = False
    kind = "run"

    @property
    def results(self) -> Mapping[str, float | int | None]:
        """The numbers that sum it up, by the names of the manifest."""
        return self.manifest.results

    @property
    def timing(self) -> pd.DataFrame:
        """timing.csv: seconds of each logged step."""
        return self.table("timing")

    def _rows(self) -> pd.DataFrame:
        import pandas as pd

        return pd.DataFrame(list(self.results.items()), columns=["result", "value"])


@dataclass(frozen=True, repr=False)
class Sweep(_Trained):
    """A sweep: its merged tables and its runs. `end` is how each cell ended, of a sweep that this process made."""

    end: SweepEnd | None = None
    kind = "sweep"

    @property
    def runs(self) -> pd.DataFrame:
        """runs.csv: a row for each run."""
        return self.table("runs")

    def __iter__(self) -> Iterator[Run]:
        """The runs that have begun, in the order of their rows."""
        return (Run(stored) for stored in self.stored.runs())

    def _rows(self) -> pd.DataFrame:
        return self.runs


class Check(Loaded):
    """What check-init found."""

    kind = "check"

    @property
    def draws(self) -> pd.DataFrame:
        """draws.csv: the numbers of each draw."""
        return self.table("draws")

    @property
    def certificates(self) -> pd.DataFrame:
        """certificates.csv: the inequalities of each draw."""
        return self.table("certificates")

    @property
    def spectra(self) -> pd.DataFrame:
        """spectra.csv: the eigenvalues of the kernels of each draw."""
        return self.table("spectra")

    def _rows(self) -> pd.DataFrame:
        return self.certificates


class Prediction(Loaded):
    """What predict foretold."""

    kind = "prediction"

    @property
    def prediction(self) -> pd.DataFrame:
        """prediction.csv: the predicted loss curves."""
        return self.table("prediction")

    @property
    def summary(self) -> pd.DataFrame:
        """summary.csv: learning rates and losses."""
        return self.table("summary")

    @property
    def times(self) -> pd.DataFrame:
        """times.csv: the first step at which each loss is reached."""
        return self.table("times")

    def _rows(self) -> pd.DataFrame:
        return self.summary


KINDS: dict[str, type[Loaded]] = {each.kind: each for each in (Run, Sweep, Check, Prediction)}
