"""The recipe: its sections, their defaults, and what cannot be true together."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import product
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field

from deqcli.data.kinds import DataOptions
from deqcli.deq.activations import ACTIVATIONS
from deqcli.deq.continuation import Continuation
from deqcli.deq.initialisation import INITIALISATIONS
from deqcli.deq.kinds import SolverOptions
from deqcli.deq.solvers import LARGEST, ROUNDING
from deqcli.options import Contradiction, Count, Options, Seed
from deqcli.recipe.axes import Value, order, value_at, with_values
from deqcli.recipe.execution import ExecutionOptions
from deqcli.recipe.model import Model
from deqcli.recipe.training import Train

STACKED_UP_TO = 128
"""Largest width whose runs share one batched product with others of their shape, one thread for all of them.

Not width 1: products of one column are computed otherwise in a batch of one than in a batch of many.
"""

MOST_CELLS = 100_000
SPLITTINGS = ("forward_backward", "peaceman_rachford")
SECTIONS = ("data", "model", "solver", "train", "log", "sweep")


class Log(Options):
    """How often something is written, in gradient steps."""

    loss_every: Annotated[Count, Field(description="gradient steps between rows of loss.csv")] = 1
    spectral_every: Annotated[Count, Field(description="gradient steps between rows of spectral.csv, timing.csv")] = 20
    checkpoint_every: Annotated[Count, Field(description="gradient steps between checkpoints: what a kill costs")] = 200


class Sweep(Options):
    """The product that `sweep-width`, `check-init` and `predict` run over."""

    widths: Annotated[list[Count] | None, Field(min_length=1, description="of runs; null: model.width alone")] = None
    seeds: Annotated[list[Seed] | None, Field(min_length=1, description="of networks; null: train.seed alone")] = None
    over: Annotated[
        dict[str, Annotated[list[Value], Field(min_length=1)]],
        Field(description="further axes: dotted keys of data, model, solver, train or log, each with its values"),
    ] = Field(default={})

    def contradictions(self) -> Iterator[Contradiction]:
        for key, values in (("widths", self.widths), ("seeds", self.seeds)):
            twice = sorted(value for value, times in Counter(values or []).items() if times > 1)
            if twice:
                yield Contradiction((key,), f"names {', '.join(map(str, twice))} twice")
        sizes = {key: len(values) for key, values in self.over.items()}
        cells = math.prod([len(self.widths or [0]), len(self.seeds or [0]), *sizes.values()])
        if cells > MOST_CELLS:
            others = " and ".join(["seeds", *sizes])
            yield Contradiction(
                ("widths", "seeds", "over"), f"with {others} makes {cells} runs; at most {MOST_CELLS} are possible"
            )


DEFAULT_SOLVER = Continuation()


def _of_default_kind(section: object) -> object:
    if isinstance(section, dict) and "kind" not in section:
        return {"kind": DEFAULT_SOLVER.kind, **section}
    return section


class RunSpec(Options):
    """One run: everything that decides its numbers, and nothing else."""

    name: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
            description="names the folder: letters, digits, `.`, `_`, `-`, at most 64, a letter or digit first",
        ),
    ]
    data: DataOptions
    model: Model
    solver: Annotated[SolverOptions, BeforeValidator(_of_default_kind)] = DEFAULT_SOLVER
    train: Train = Train()
    log: Log = Log()

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As pydantic's, without what was worked out from the values before the update."""
        copy = super().model_copy(update=update, deep=deep)
        for name in [name for name in copy.__dict__ if name not in type(self).model_fields]:
            del copy.__dict__[name]
        return copy

    @property
    def stackable(self) -> bool:
        """Whether it may share its products with runs of its shape: small, with a solver that can."""
        exact = ACTIVATIONS[self.model.activation].homogeneous  # others round by their place in memory
        usual = self.train.plain and self.model.usual
        return exact and usual and 1 < self.model.width <= STACKED_UP_TO and self.solver.stacks

    @property
    def hash8(self) -> str:
        """The first 8 hexadecimal digits of the SHA-256 of the options' canonical JSON."""
        return _hash8(self)

    @cached_property
    def run_id(self) -> str:
        """w<width>-s<seed>-<hash8>, the name of the run's folder."""
        return f"w{self.model.width:05d}-s{self.train.seed:03d}-{self.hash8}"


class Recipe(RunSpec):
    """A run with what to sweep over, and where that is computed."""

    sweep: Sweep = Sweep()
    execution: ExecutionOptions = ExecutionOptions()

    @property
    def widths(self) -> list[int]:
        """The widths of the sweep, ascending."""
        return sorted(self.sweep.widths or [self.model.width])

    @property
    def seeds(self) -> list[int]:
        """The network seeds of the sweep, ascending."""
        return sorted(self.sweep.seeds or [self.train.seed])

    @property
    def axes(self) -> list[str]:
        """The keys of `sweep.over`, in the order of their names: columns of the merged tables."""
        return sorted(self.sweep.over)

    def alone(self) -> Recipe:
        """The recipe of its own run: without anything to sweep over."""
        return self.model_copy(update={"sweep": Sweep()})

    def run(self, width: int | None = None, seed: int | None = None) -> RunSpec:
        """The run of one cell: the recipe without its sweep."""
        model = self.model if width is None else self.model.model_copy(update={"width": width})
        train = self.train if seed is None else self.train.model_copy(update={"seed": seed})
        return RunSpec(name=self.name, data=self.data, model=model, solver=self.solver, train=train, log=self.log)

    @property
    def variants(self) -> list[Recipe]:
        """One recipe for each combination of the values of `sweep.over`, which it no longer has.

        Raises: pydantic.ValidationError where a value is none that its key can have.
        """
        if not self.sweep.over:
            return [self]
        return [Recipe.model_validate(plain) for _, plain in self.combinations()]

    def combinations(self) -> Iterator[tuple[dict[str, Value], dict[str, Any]]]:
        """The combinations of the values of `sweep.over`, and with each the recipe in plain data, not checked."""
        plain = self.over_nothing().model_dump(mode="json")
        for each in product(*(sorted(self.sweep.over[key], key=order) for key in self.axes)):
            values = dict(zip(self.axes, each, strict=True))
            yield values, with_values(plain, values)

    def over_nothing(self) -> Recipe:
        """The recipe without its further axes: widths and seeds alone."""
        return self.model_copy(update={"sweep": self.sweep.model_copy(update={"over": {}})})

    @cached_property
    def _cells(self) -> list[RunSpec]:
        return [each.run(width, seed) for each in self.variants for width in self.widths for seed in self.seeds]

    def cells(self) -> list[RunSpec]:
        """One run for each combination, width and seed, in the order of their rows."""
        return list(self._cells)

    def title(self, cell: RunSpec) -> str:
        """What a cell is called among the others: width, seed, and its value on each further axis."""
        values = [f"{key.partition('.')[2]} {value_at(cell, key)}" for key in self.axes]
        return ", ".join([f"width {cell.model.width}", f"seed {cell.train.seed}", *values])

    @cached_property
    def sweep_id(self) -> str:
        """The hash that names the sweep's folder: of its cells, however the recipe spelled them."""
        return hashlib.sha256("\n".join(cell.run_id for cell in self._cells).encode()).hexdigest()[:8]


def _hash8(spec: RunSpec) -> str:
    sections = {name: getattr(spec, name) for name in RunSpec.model_fields}
    plain = {name: value.identity() if isinstance(value, Options) else value for name, value in sections.items()}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:8]


def contradictions(recipe: Recipe) -> Iterator[Contradiction]:
    """Yield what cannot be true together, within a section and between sections; keys are dotted."""
    for section in SECTIONS[:-1]:
        for found in getattr(recipe, section).contradictions():
            yield Contradiction(tuple(f"{section}.{key}" for key in found.keys), found.message)
    yield from _unreachable_tolerance(recipe)
    yield from _unrepresentable_rate(recipe)
    yield from _not_monotone(recipe)
    if recipe.train.learning_rate == "theorem":
        yield from _theorem_without_hypotheses(recipe)


def _unreachable_tolerance(recipe: Recipe) -> Iterator[Contradiction]:
    precision, tolerance = recipe.train.precision, recipe.solver.tolerance
    if tolerance != "auto" and tolerance < ROUNDING[precision]:
        yield Contradiction(
            ("solver.tolerance", "train.tf32" if recipe.train.tf32 else "train.dtype"),
            f"must be at least {ROUNDING[precision]!r}, what {precision} can resolve, got {tolerance!r}",
        )


def _unrepresentable_rate(recipe: Recipe) -> Iterator[Contradiction]:
    dtype, rate = recipe.train.dtype, recipe.train.learning_rate
    if isinstance(rate, float) and rate > LARGEST[dtype]:
        message = f"must be at most {LARGEST[dtype]!r}, the largest {dtype}, got {rate!r}"
        yield Contradiction(("train.learning_rate", "train.dtype"), message)


def _not_monotone(recipe: Recipe) -> Iterator[Contradiction]:
    """A splitting of operators needs a proximal activation: nondecreasing, with Lipschitz constant 1 at most."""
    activation, kind = ACTIVATIONS[recipe.model.activation], recipe.solver.kind
    if kind in SPLITTINGS and not (activation.nondecreasing and activation.lipschitz <= 1):
        fit = ", ".join(name for name, each in ACTIVATIONS.items() if each.nondecreasing and each.lipschitz <= 1)
        yield Contradiction(("solver.kind", "model.activation"), f"{kind} needs one of {fit}, got {activation.name}")


def _theorem_without_hypotheses(recipe: Recipe) -> Iterator[Contradiction]:
    if not (recipe.train.plain and recipe.model.usual):
        message = "`theorem` is for gradient descent at one rate on W, U and a of Z = phi(W Z + U X), y_hat = a^T Z"
        yield Contradiction(("train.learning_rate", "model.init"), message)
    model, lipschitz = recipe.model, ACTIVATIONS[recipe.model.activation].lipschitz
    limit = INITIALISATIONS[model.init].norm_limit(1.0)  # of sigma_w = 1
    if limit is not None and model.sigma_w_sq * (lipschitz * limit) ** 2 >= 1 - 1e-12:
        largest = 1 / (lipschitz * limit) ** 2
        yield Contradiction(
            ("train.learning_rate", "model.sigma_w_sq"),
            f"`theorem` needs sigma_w_sq < {largest:.6g} (Assumption 1), got {model.sigma_w_sq:g}",
        )
    n, least = recipe.data.shape()[0], min(recipe.widths)
    if n is not None and n > least:
        yield Contradiction(
            ("train.learning_rate", "data.num_samples", "model.width", "sweep.widths"),
            f"`theorem` needs lambda_0 > 0, so num_samples <= width, got {n} > {least}; use `auto` or a number",
        )
