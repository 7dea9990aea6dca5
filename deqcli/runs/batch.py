"""Runs in lockstep: one gradient step of every network at a time, small ones of a shape in one batched product."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from deqcli.deq.network import Network, joined, part
from deqcli.deq.solvers import Solution
from deqcli.errors import Interrupted
from deqcli.recipe.schema import RunSpec
from deqcli.runs.attempt import Attempt, Outcome
from deqcli.runs.device import matmul_precision, threads_limited
from deqcli.runs.flow import Flow
from deqcli.runs.folder import INTERRUPTED
from deqcli.runs.signals import StopSignals
from deqcli.runs.trainer import Seconds, Step

OnRunEnd = Callable[[RunSpec, Outcome | Exception], None]
"""Told of each run how it ended: its outcome, or what it raised."""


@dataclass
class Started:
    """A run at a solved step: its network, alone, and the prediction error of that step."""

    attempt: Attempt
    network: Network
    prediction_error: Tensor


class Batch:
    """The attempts at one or more runs, computed together; those of a batch agree in device, threads and precision."""

    def __init__(self, attempts: Sequence[Attempt], on_end: OnRunEnd) -> None:
        self._attempts, self._on_end = list(attempts), on_end
        self._signals = StopSignals()

    def compute(self) -> None:
        """Run every attempt to its end and say in its manifest how it ended, whatever happens.

        Raises: Interrupted after a signal, once what was started has its checkpoint.
        """
        first = self._attempts[0]
        precision = matmul_precision(first.spec.train.tf32)
        with self._signals.installed(), threads_limited(first.threads), precision:
            try:
                self._train([started for attempt in list(self._attempts) if (started := self._start(attempt))])
            except Interrupted as stop:
                for attempt in self._attempts:
                    attempt.end(INTERRUPTED, str(stop))
                raise
        if self._signals.pending is not None:
            raise Interrupted(self._signals.pending, "interrupted when the run was complete")

    def _start(self, attempt: Attempt) -> Started | None:
        try:
            return Started(attempt, *attempt.start())
        except Exception as error:
            self._fail(attempt, error)
            return None

    def _fail(self, attempt: Attempt, error: Exception) -> None:
        attempt.fail(error)
        self._ended(attempt, error)

    def _ended(self, attempt: Attempt, end: Outcome | Exception) -> None:
        self._attempts.remove(attempt)
        self._on_end(attempt.spec, end)

    def _train(self, started: list[Started]) -> None:
        with self._signals.deferred():
            while started:
                team = Team(started)
                while not team.dropped:
                    if self._signals.pending is not None:
                        self._stop(team, self._signals.pending)
                    self._advance(team)
                for attempt, end in team.dropped:
                    if isinstance(end, Exception):
                        self._fail(attempt, end)
                    else:
                        self._ended(attempt, end)
                started = team.left()

    def _advance(self, team: Team) -> None:
        """One step; what fails in a product of all networks, such as memory that runs out, fails them all."""
        try:
            team.advance()
        except Exception as error:
            ended = [attempt for attempt, _ in team.dropped]
            team.dropped += [(attempt, error) for attempt in team.attempts if attempt not in ended]

    def _stop(self, team: Team, signum: int) -> None:
        """Checkpoint every run, whether or not that of another fails."""
        for k, attempt in enumerate(team.attempts):
            try:
                attempt.enter("writing the checkpoint")
                attempt.checkpoint(team.network, k)
            except Exception as error:
                self._fail(attempt, error)
        reached = sorted({attempt.trainer.step for attempt in team.attempts})
        where = f"step {reached[0]}" if len(reached) == 1 else f"steps {reached[0]} to {reached[-1]}"
        raise Interrupted(signum, f"interrupted at {where} of {team.attempts[0].spec.train.steps}")


class Team:
    """Networks that take their steps together, until one of them ends."""

    def __init__(self, members: Sequence[Started]) -> None:
        self.attempts = [member.attempt for member in members]
        self.network = joined([member.network for member in members])
        self.dropped: list[tuple[Attempt, Outcome | Exception]] = []
        errors = [member.prediction_error for member in members]
        rates = [attempt.metrics.baseline.learning_rate for attempt in self.attempts]
        self._rate: float | Tensor = rates[0]
        self._e, self._y = errors[0], self.attempts[0].y
        if self.network.stacked:
            self._e, self._y = torch.cat(errors), torch.cat([attempt.rows_y for attempt in self.attempts])
            self._rate = self._e.new_tensor(rates).unsqueeze(-1)
        for k, attempt in enumerate(self.attempts):
            if attempt.trainer.finished:
                self._settle(k, partial(attempt.finish, self.network, k))

    def _settle(self, k: int, act: Callable[[], Outcome | None]) -> None:
        """Do what may end a run, and note the end if it does."""
        try:
            end: Outcome | Exception | None = act()
        except Exception as error:
            end = error
        if end is not None:
            self.dropped.append((self.attempts[k], end))

    def advance(self) -> None:
        """One gradient step of every network, or of the flow; those that fail or finish are then in `dropped`."""
        if self.attempts[0].flow is not None:
            self._follow(self.attempts[0].flow)
            return
        clock = [time.perf_counter()]
        self.network.descend(self._e, self._rate_now())
        for attempt in self.attempts:
            attempt.trainer.step += 1
        clock.append(time.perf_counter())
        confirm = [attempt.trainer.logs_spectra(attempt.trainer.step) for attempt in self.attempts]
        forward = self.network.solve_equilibria(confirm)
        clock.append(time.perf_counter())
        for k, solution in enumerate(forward):
            self._settle(k, partial(self.attempts[k].trainer.accept_equilibrium, solution))
        if len(self.dropped) == len(self.attempts):
            return
        adjoint = self.network.solve_adjoints(confirm)
        clock.append(time.perf_counter())
        self._e = self.network.prediction_error(self._y)
        failed = [attempt for attempt, _ in self.dropped]
        for k, attempt in enumerate(self.attempts):
            if attempt not in failed:
                attempt.trainer.seconds = self._seconds(clock)
                self._settle(k, partial(self._take, k, forward[k], adjoint[k]))

    def _rate_now(self) -> float | Tensor:
        """The learning rate of this step; runs with a schedule are alone."""
        dynamics = self.attempts[0].metrics.baseline.dynamics
        constant = dynamics.schedule.constant
        return self._rate if constant else self._rate * dynamics.schedule.factor(self.attempts[0].trainer.step)

    def _follow(self, flow: Flow) -> None:
        """One step of a flow, whose network is alone."""
        trainer = self.attempts[0].trainer
        trainer.step += 1
        moved = flow.follow(self._e, self.attempts[0].metrics.baseline.learning_rate)
        self._e = moved.prediction_error
        trainer.seconds = Seconds(0.0, flow.forward_seconds, flow.adjoint_seconds)
        self._settle(0, partial(trainer.accept_equilibrium, moved.forward))
        if not self.dropped:
            assert moved.adjoint is not None
            self._settle(0, partial(self._take, 0, moved.forward, moved.adjoint))

    def _seconds(self, clock: list[float]) -> Seconds:
        return Seconds(*((after - before) / self.network.size for before, after in pairwise(clock)))

    def _take(self, k: int, forward: Solution, adjoint: Solution) -> Outcome | None:
        """Log a solved step of network k; its outcome where that was the last."""
        attempt, trainer = self.attempts[k], self.attempts[k].trainer
        e = self._e[k].clone() if self.network.stacked else self._e  # in memory of its own, aligned as if it were alone
        solved = trainer.accept(forward, adjoint, e)
        if trainer.stop_if_reached(solved):
            solved = self._confirmed(attempt)
        trainer.log(solved, lambda: self.network.cell(k), attempt.metrics)
        attempt.tell(solved)
        if trainer.finished:
            return attempt.finish(self.network, k)
        if trainer.step % attempt.spec.log.checkpoint_every == 0:
            attempt.checkpoint(self.network, k)
        return None

    def _confirmed(self, attempt: Attempt) -> Step:
        """The step once more, its residuals computed: it was not known to be the last. Such runs are alone."""
        forward = self.network.solve_equilibrium()
        attempt.trainer.accept_equilibrium(forward)
        adjoint = self.network.solve_adjoint()
        self._e = self.network.prediction_error(self._y)
        return attempt.trainer.accept(forward, adjoint, self._e)

    def left(self) -> list[Started]:
        """Those that have not ended, each alone again."""
        ended = [attempt for attempt, _ in self.dropped]
        going = [k for k, attempt in enumerate(self.attempts) if attempt not in ended]
        return [Started(self.attempts[k], part(self.network, k), self._e[k : k + 1]) for k in going]
