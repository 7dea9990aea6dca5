"""Exact rescaling by powers of 2, so that squares neither over- nor underflow."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

LARGEST_EXPONENT = 1023


def to_unit(tensor: Tensor, largest: float) -> tuple[Tensor, float]:
    """(tensor / s, s) with s the power of 2 that brings its `largest` entry, which is not 0, near 1.

    In two steps, as 1/s itself may be beyond the floats; exact for all entries that do not underflow beside 1.
    """
    exponent = min(math.frexp(largest)[1], LARGEST_EXPONENT)
    half = exponent // 2
    return (tensor * 2.0**-half) * 2.0 ** (half - exponent), 2.0**exponent
