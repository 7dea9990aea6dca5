"""Networks with a skip from rectified features, as of Gao, Liu, Liu, Rajan and Gao (ICLR 2022): their rate."""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

from deqcli.deq.activations import Activation


def least_feature_eigenvalue(C: Float64[Tensor, "n n"], activation: Activation) -> float:
    """The least eigenvalue of E[phi(w . x_i) phi(w . x_j)], w standard normal, for samples scaled to norm 1.

    It is lambda_0 of that paper: the limit of what training the readout of the features adds to H, in its symbols.
    Shapes: C = X^T X / d (n, n). Source: Gao et al. 2022 (ICLR; arXiv 2110.05645).
    """
    variances = C.diagonal()
    G = activation.dual(C, variances, variances)
    return max(float(torch.linalg.eigvalsh(G.cpu())[0]), 0.0)
