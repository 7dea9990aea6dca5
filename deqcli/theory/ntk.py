"""The empirical neural tangent kernel, which the unit adjoint gives without a further solve."""

from __future__ import annotations

from jaxtyping import Float64
from torch import Tensor

from deqcli.deq.network import Network
from deqcli.deq.spectral import gram


def empirical_ntk(network: Network, G: Float64[Tensor, "n n"], XtX: Float64[Tensor, "n n"]) -> Float64[Tensor, "n n"]:
    """H = G + (V^T V) * (G + X^T X), elementwise *, with G = Z^T Z and V the unit adjoint.

    e^T H e = ||grad Phi||^2 for every prediction error e, and lambda_min(H) >= lambda_min(G).
    Shapes: all (n, n). Source: Ling et al. 2023, section 2.3 (H1 + H2 + H3).
    """
    return G + gram(network.V) * (G + XtX)
