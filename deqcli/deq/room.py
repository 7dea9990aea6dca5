"""Memory for stacks of networks: each begins where a tensor of its own would."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

ALIGNMENT = 64
"""Bytes. New tensors begin at multiples of it, and the last bits of a product depend on where its factors begin."""


def room(shape: Sequence[int], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Zeros of a shape, (c, ...) in a stack: its networks are then so far apart that every one of them is aligned."""
    if len(shape) < 3:
        return like.new_zeros(shape, dtype=dtype)
    c, *own = shape
    size, step = math.prod(own), ALIGNMENT // (dtype or like.dtype).itemsize
    padded = like.new_zeros((c, math.ceil(size / step) * step), dtype=dtype)
    return padded[:, :size].view(tuple(shape))


def spaced(tensor: Tensor) -> Tensor:
    """A copy of a stack with room between its networks; a tensor of one network itself."""
    return tensor if tensor.dim() < 3 else room(tensor.shape, tensor).copy_(tensor)
