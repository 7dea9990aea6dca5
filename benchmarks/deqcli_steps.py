"""Steps of deqcli as `deqcli train` takes them: through the batch, the trainer and the tables of a run."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.problem import Problem
from deqcli.recipe.schema import RunSpec
from deqcli.runs.attempt import Attempt
from deqcli.runs.batch import Started, Team
from deqcli.runs.device import Execution
from deqcli.runs.standing import Standing


def spec_of(problem: Problem, solver: dict[str, Any]) -> RunSpec:
    """The run of a problem with a solver, its learning rate in numbers."""
    plain = problem.recipe.run().model_dump(mode="json")
    plain["solver"] = {"tolerance": problem.tolerance, **solver}
    plain["train"]["learning_rate"] = problem.learning_rate
    return RunSpec.model_validate(plain)


class DeqcliSteps:
    """One or more runs of deqcli, stopped after every step; several are one stack. `losses` are by seed."""

    def __init__(self, problems: Sequence[Problem], solver: dict[str, Any], threads: int = 2) -> None:
        self.losses: dict[int, list[float]] = {problem.seed: [] for problem in problems}
        self._stack = ExitStack()
        out = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self.attempts = [self._attempt(problem, solver, out, threads) for problem in problems]
        self.team = Team([Started(attempt, *attempt.start()) for attempt in self.attempts])

    def _attempt(self, problem: Problem, solver: dict[str, Any], out: Path, threads: int) -> Attempt:
        spec = spec_of(problem, solver)
        folder = out / spec.run_id
        folder.mkdir()
        return Attempt(spec, folder, problem.recipe.data.load(), Execution("cpu", threads), None, self._note)

    def _note(self, standing: Standing) -> None:
        if standing.step and standing.loss is not None:
            self.losses[standing.spec.train.seed].append(standing.loss)

    def step(self) -> None:
        """One gradient step, its row of loss.csv included."""
        self.team.advance()
        for _, end in self.team.dropped:
            raise RuntimeError(f"a benchmarked run ended: {end}")

    def close(self) -> None:
        """Remove what was written."""
        for attempt in self.attempts:
            attempt.end("interrupted")
        self._stack.close()
