"""The population Gram matrix K: what G/m tends to as the width grows."""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

from deqcli.deq.activations import Activation
from deqcli.errors import NumericalFailure

MAX_ITERATIONS = 1000
RELATIVE_CHANGE = 4 * 2.0**-52


def population_gram(
    X: Float64[Tensor, "d n"], sigma_w_sq: float, activation: Activation, depth: int | None = None
) -> Float64[Tensor, "n n"]:
    """K = lim K^(l), with K^(0) = 0, Lambda = 2 (sigma_w^2 K^(l-1) + X^T X / d), K^(l)_ij = E[phi(u) phi(v)].

    (u, v) ~ N(0, Lambda restricted to i, j). For the ReLU this is K = Q(c)/(1 - s) with c = s Q(c) + (1 - s) C.
    With `depth` l, K^(l). Shapes: X (d, n), K (n, n). K is O(1).
    Source: Ling et al. 2023, Definition 1 and Lemma 3, with the 2 of its Gaussian weights inside Lambda.
    Raises: NumericalFailure where the recursion finds no limit in 1000 steps (ReLU: its rate is sigma_w_sq,
    so from about 0.97 on).
    """
    C = X.T @ X / X.shape[0]
    K = torch.zeros_like(C)
    for _ in range(MAX_ITERATIONS if depth is None else depth):
        previous, K = K, activation.dual(2 * (sigma_w_sq * K + C))
        if depth is None and bool((K - previous).abs().max() <= RELATIVE_CHANGE * K.abs().max()):
            return K
    if depth is None:
        raise NumericalFailure(f"the population Gram matrix K was not found: no limit at sigma_w_sq = {sigma_w_sq}")
    return K
