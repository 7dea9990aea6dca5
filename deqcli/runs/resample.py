"""Draws that are repeated until they meet a hypothesis: Truong's rejection sampling of the initial weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from deqcli.deq.activations import ACTIVATIONS
from deqcli.deq.initialisation import OnEntries
from deqcli.deq.model import Params
from deqcli.deq.spectral import spectral_norm, spectral_norm_upper
from deqcli.errors import NumericalFailure
from deqcli.recipe.schema import RunSpec
from deqcli.runs.baseline import draw, measure, solve
from deqcli.theory.condition import least_slack


@dataclass(frozen=True)
class Drawn:
    """Parameters, and how many draws it took: the last of `draws` attempts was accepted."""

    params: Params
    draws: int


def drawn(
    spec: RunSpec, X: Tensor, y: Tensor, device: torch.device, on_entries: OnEntries = lambda _: None, draws: int = 0
) -> Drawn:
    """The first draw of the seed that `model.resample` accepts, or draw number `draws` where that is known.

    norm: L ||W(0)||_2 < 1 is proved; condition: Condition 1 holds as well, with the 8 of its proof.
    Shapes: X (d, n), y (n,), float64. Source: Truong 2023 (arXiv 2302.05797), the initialisation by rejection.
    Raises: NumericalFailure where none of `model.most_draws` is accepted.
    """
    d = X.shape[0]
    if draws or spec.model.resample == "never":
        return Drawn(draw(spec, d, device, on_entries, max(draws - 1, 0)), max(draws, 1))
    for attempt in range(spec.model.most_draws):
        params = draw(spec, d, device, on_entries, attempt)
        refused = _refused(spec, params, X, y)
        if refused is None:
            return Drawn(params, attempt + 1)
    raise NumericalFailure(
        f"model.resample: none of {spec.model.most_draws} draws was accepted; the last had {refused}. Use a smaller "
        "model.sigma_w_sq, a larger model.most_draws, or what check-init --suggest says"
    )


def _refused(spec: RunSpec, params: Params, X: Tensor, y: Tensor) -> str | None:
    """Why a draw is rejected, in words; None where it is not."""
    lipschitz = ACTIVATIONS[spec.model.activation].lipschitz
    upper = lipschitz * spectral_norm_upper(params.W, spectral_norm(params.W)[0])
    if not upper < 1:
        return f"L ||W(0)||_2 <= {upper:.6g}, not below 1"
    if spec.model.resample == "norm":
        return None
    slack = least_slack(measure(spec, solve(spec, params, X, y)).safe)
    return None if slack >= 1 else f"a least slack of {slack:.3g} in Condition 1"
