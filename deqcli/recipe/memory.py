"""A size that cannot fit the device is a mistake of the recipe, told in bytes before anything is drawn."""

from __future__ import annotations

from collections.abc import Iterator

from deqcli.deq.memory import run_bytes
from deqcli.options import Contradiction
from deqcli.recipe.machine import machine_memory
from deqcli.recipe.schema import Recipe, RunSpec

ITEMSIZE = {"float32": 4, "float64": 8}
FLOAT64_OF_A_DRAW = {"orthogonal": 4, "symmetric": 2}
"""Matrices of the size of W, in float64, that a draw takes at its peak where it is not filled by rows."""


def spec_bytes(
    spec: RunSpec, num_samples: int | None = None, input_dim: int | None = None, keeps_start: bool = False
) -> int:
    """Bytes that a run takes at its peak, at least; sizes that only the data file knows count as given, or as 1."""
    n, d = spec.data.shape()
    shape = (spec.model.width, d or input_dim or 1, n or num_samples or 1)
    matrices = matrices_beside_w(spec), FLOAT64_OF_A_DRAW.get(spec.model.init, 0)
    return run_bytes(*shape, ITEMSIZE[spec.train.dtype], spec.solver.arrays, keeps_start, matrices)


def matrices_beside_w(spec: RunSpec) -> int:
    """Matrices of the size of W beside W: A and B, velocities, the start of a substep of the flow, an LU."""
    made_of = 2 if spec.model.init == "monotone" else 0
    trained = max(made_of, 1)
    kept = (1 if spec.train.momentum else 0) + (1 if spec.train.method == "flow" else 0)
    return made_of + trained * kept + (2 if spec.solver.kind == "peaceman_rachford" else 0)


def too_large(recipe: Recipe, memory: int | None = None) -> Iterator[Contradiction]:
    """Yield a contradiction where the widest run does not fit the device's memory."""
    has = machine_memory() if memory is None else memory
    widest = max(recipe.widths)
    needed = spec_bytes(recipe.run(width=widest))
    if needed > has:
        key = "sweep.widths" if recipe.sweep.widths else "model.width"
        message = bytes_message(widest, recipe.data.shape(), recipe.train.dtype, needed, has)
        yield Contradiction((key, "data.num_samples", "data.input_dim"), message)


def bytes_message(width: int, shape: tuple[int | None, int | None], dtype: str, needed: int, has: int) -> str:
    """What takes how many bytes, and how many there are; sizes that are not known yet are not named."""
    sizes = {"width": width, "num_samples": shape[0], "input_dim": shape[1]}
    named = ", ".join(f"{name} {size}" for name, size in sizes.items() if size is not None)
    return (
        f"{named} in {dtype} take {needed} bytes ({needed / 1e9:.3g} GB), "
        f"the device has {has} bytes ({has / 1e9:.3g} GB)"
    )
