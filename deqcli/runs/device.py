"""The device and the threads that a run gets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from threadpoolctl import threadpool_limits

from deqcli.errors import Refused
from deqcli.recipe.machine import cores, large, machine_memory


@dataclass(frozen=True)
class Execution:
    """Where a run is computed; none of it is part of the recipe. `threads` None: by the size and the `cores` for it."""

    device: str = "auto"
    threads: int | None = None
    cores: int | None = None


def pick_device(name: str) -> torch.device:
    """The torch device of a name; `auto` is the first CUDA device, or else the CPU.

    Raises: Refused, with the devices that there are.
    """
    there = available_devices()
    if name == "auto":
        return torch.device("cuda:0" if "cuda:0" in there else "cpu")
    wanted = f"{name}:0" if name == "cuda" else name
    if wanted not in there:
        raise Refused(f"--device {name}: this machine has {', '.join(there)}")
    return torch.device(wanted)


def available_devices() -> list[str]:
    """The devices that torch can use here."""
    cuda = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return ["cpu", *cuda, *(["mps"] if torch.backends.mps.is_available() else [])]


def device_memory(device: torch.device) -> int:
    """Bytes of memory of a device; Apple's GPUs share the machine's."""
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else machine_memory()


def device_name(device: torch.device) -> str:
    """What the device calls itself."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def threads_for(execution: Execution, width: int, num_samples: int) -> int:
    """Threads of a run."""
    return execution.threads or ((execution.cores or cores()) if large(width, num_samples) else 1)


@contextmanager
def threads_limited(threads: int) -> Iterator[None]:
    """Pin the threads of torch and of the BLAS behind numpy and scipy: the bits of a result depend on them."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(threads):
            yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def matmul_precision(tf32: bool) -> Iterator[None]:
    """Whether CUDA multiplies float32 exactly or rounds what it multiplies to tf32; elsewhere nothing changes.

    Products of bfloat16 are summed in float32 meanwhile, which the bound on what they may be off by takes for granted.
    """
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32, matmul.allow_bf16_reduced_precision_reduction
    matmul.allow_tf32, matmul.allow_bf16_reduced_precision_reduction = tf32, False
    try:
        yield
    finally:
        matmul.allow_tf32, matmul.allow_bf16_reduced_precision_reduction = before
