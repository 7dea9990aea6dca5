"""Finite depth: the layers from Z^(0) = 0, with the same weights in each, or with weights of its own."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float64
from torch import Tensor

from deqcli.deq.activations import Activation
from deqcli.deq.initialisation import ROWS_PER_BLOCK, Draw, gaussian_blocks
from deqcli.deq.model import Params
from deqcli.deq.precision import to_float64


def tied_layers(
    params: Params, X: Float64[Tensor, "d n"], activation: Activation, depth: int
) -> Iterator[Float64[Tensor, "m n"]]:
    """Z^(1), ..., Z^(depth) of Z^(l) = phi(W Z^(l-1) + U X), Z^(0) = 0; each is overwritten by the one after the next.

    Source: Ling et al. 2023, eq. 1.
    """
    UX = params.U @ X
    Z, spare = torch.zeros_like(UX), torch.empty_like(UX)
    for _ in range(depth):
        for first in range(0, len(UX), ROWS_PER_BLOCK):
            block = slice(first, first + ROWS_PER_BLOCK)
            activation.value(torch.addmm(UX[block], to_float64(params.W[block]), Z), out=spare[block])
        Z, spare = spare, Z
        yield Z


def untied_layers(
    draw: Draw, X: Float64[Tensor, "d n"], activation: Activation, depth: int
) -> Iterator[Float64[Tensor, "m n"]]:
    """The same with fresh W^(l) and U^(l) in each layer, Gaussian as in Assumption 1; no W is ever held whole.

    Its G^(l)/m has the same limit K^(l). Source: Ling et al. 2023, section 4, the weight-untied model.
    """
    m, d = draw.width, draw.input_dim
    Z = torch.zeros((m, X.shape[1]), dtype=torch.float64, device=X.device)
    spare = torch.empty_like(Z)
    for layer in range(1, depth + 1):
        U = gaussian_blocks(draw.seed, f"U untied {layer}", m, d, math.sqrt(2 / d))
        W = gaussian_blocks(draw.seed, f"W untied {layer}", m, m, math.sqrt(2 * draw.sigma_w_sq / m))
        for (first, rows_u), (_, rows_w) in zip(U, W, strict=True):
            preactivation = torch.addmm(rows_u.to(X.device) @ X, rows_w.to(X.device), Z)
            activation.value(preactivation, out=spare[first : first + len(rows_u)])
        Z, spare = spare, Z
        yield Z
