"""A size that cannot fit the device is a mistake of the recipe, told in bytes before anything is drawn."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from deqcli.deq.memory import run_bytes
from deqcli.options import Contradiction
from deqcli.recipe.schema import Recipe, RunSpec

ITEMSIZE = {"float32": 4, "float64": 8}
CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def machine_memory() -> int:
    """Bytes of memory that this machine, or the container it is, has."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([physical, *_cgroup_limits()])


def _cgroup_limits() -> Iterator[int]:
    for path in CGROUP_LIMITS:
        try:
            yield int(Path(path).read_text())
        except (OSError, ValueError):
            continue


def spec_bytes(spec: RunSpec, num_samples: int | None = None, input_dim: int | None = None) -> int:
    """Bytes that a run takes at its peak; sizes that only the data file knows count as given, or as 1."""
    n, d = spec.data.shape()
    return run_bytes(spec.model.width, d or input_dim or 1, n or num_samples or 1, ITEMSIZE[spec.train.dtype])


def too_large(recipe: Recipe, memory: int | None = None) -> Iterator[Contradiction]:
    """Yield a contradiction where the widest run does not fit the device's memory."""
    has = machine_memory() if memory is None else memory
    widest = max(recipe.model.width, *recipe.widths)
    needed = spec_bytes(recipe.run(width=widest))
    if needed > has:
        key = "model.width" if widest == recipe.model.width else "sweep.widths"
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
