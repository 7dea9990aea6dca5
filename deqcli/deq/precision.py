"""Precision: float64 wherever a device has it, and exact rescaling by powers of 2."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

UNIT_ROUNDOFF = 2.0**-53
"""u of float64."""

LARGEST_EXPONENT = 1023


def exact_device(device: torch.device) -> torch.device:
    """The device where float64 is computed: the same one, but for Apple's GPUs, which have none."""
    import torch

    return torch.device("cpu") if device.type == "mps" else device


def to_float64(tensor: Tensor) -> Tensor:
    """The tensor in float64 on its `exact_device`; itself where it is that already."""
    return tensor.to(exact_device(tensor.device)).double()


def to_unit(tensor: Tensor, largest: float) -> tuple[Tensor, float]:
    """(tensor / s, s) with s the power of 2 that brings its `largest` entry, which is not 0, near 1.

    In two steps, as 1/s itself may be beyond the floats; exact for all entries that do not underflow beside 1.
    """
    exponent = min(math.frexp(largest)[1], LARGEST_EXPONENT)
    half = exponent // 2
    return (tensor * 2.0**-half) * 2.0 ** (half - exponent), 2.0**exponent
