"""The empirical neural tangent kernel, which the unit adjoint gives without a further solve."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from deqcli.deq.model import Cell
from deqcli.deq.precision import to_float64
from deqcli.deq.spectral import gram
from deqcli.deq.weights import monotone_kernel


def empirical_ntk(cell: Cell, G: Float64[Tensor, "n n"], X: Float[Tensor, "d n"]) -> Float64[Tensor, "n n"]:
    """H = c_a G + (V^T V) * (c_w G + c_u X^T X), elementwise *, with G = Z^T Z, V the unit adjoint, c the `Rates`.

    e^T H e = sum of c ||grad||^2 over what is trained, for every prediction error e; with all factors 1,
    lambda_min(H) >= lambda_min(G). Where W is monotone, (V^T V) * G gives way to what A and B add; with a skip
    connection F^T F joins G; and X^T X is multiplied by the Gram matrix of D_in * (V + b 1^T), where D_in is the slope
    of a rectified injection. Shapes: all (n, n). Source: Ling et al. 2023, section 2.3 (H1 + H2 + H3).
    """
    params, component, rates = cell.params, cell.component, cell.component.rates
    if component.plain_layer and params.b is None:
        return rates.a * G + gram(cell.V) * (rates.W * G + rates.U * gram(X))
    F, adjoint = _injected(cell, X)
    readouts = G if params.b is None else G + gram(F)
    if params.A is None:
        weights = gram(cell.V) * G
    else:
        weights = monotone_kernel(to_float64(params.A), to_float64(cell.V), to_float64(cell.Z))
    return rates.a * readouts + rates.W * weights + rates.U * gram(adjoint) * gram(X)


def _injected(cell: Cell, X: Tensor) -> tuple[Tensor, Tensor]:
    """F and its adjoint D_in * (V + b 1^T), both (m, n): what X adds to W Z, and how the outputs depend on U X."""
    params, component = cell.params, cell.component
    adjoint = cell.V if params.b is None else cell.V + params.b.unsqueeze(-1)
    F = params.U @ X.to(params.U.dtype)
    if component.rectified:
        slope = torch.empty_like(F)
        component.activation.slope(F, out=slope)
        adjoint = adjoint * slope
        component.activation.value(F.clone(), out=F)
    return F, adjoint
