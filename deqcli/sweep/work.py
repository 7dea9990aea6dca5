"""What an executor is given: cells, the folder above their runs, and who listens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deqcli.recipe.execution import ExecutionOptions
from deqcli.recipe.schema import Recipe, RunSpec
from deqcli.sweep.drive import Listener


@dataclass(frozen=True)
class Work:
    """Cells of a recipe to be computed by `deqcli.runs.run` in their folders below `out`, whatever executes them.

    `folder` is that of the sweep.
    """

    recipe: Recipe
    cells: Sequence[RunSpec]
    out: Path
    folder: Path
    device: str
    listener: Listener

    @property
    def execution(self) -> ExecutionOptions:
        """How the cells are to be computed."""
        return self.recipe.execution
