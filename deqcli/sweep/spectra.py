"""Spectra of the kernels of a trained run, from its checkpoint and its data: did they move, how far is their limit?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING

from deqcli.errors import DeqcliError, NumericalFailure
from deqcli.recipe.schema import RunSpec
from deqcli.runs import files

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from deqcli.sweep.stored import Stored

MOST_SAMPLES = 2000
"""n above which eigenvalues take longer than a look at them is worth: LAPACK needs 1 s at 2000, eight times that at
4000."""

KERNELS = ("H(0)", "H(T)", "G(T)", "m K", "H_inf")
"""At the start, at the last step T, and the limits that the data and the width decide."""


def final_spectra(run: Stored) -> dict[str, np.ndarray]:
    """The eigenvalues, ascending, of each kernel in `KERNELS` that can be had.

    H(0) = G + (V^T V) * (G + X^T X) of the draw is in the checkpoint; G(T) = Z^T Z and H(T) come from the equilibrium Z
    and the unit adjoint V of the last step; m K and H_inf from the data. None of a run without a checkpoint; no more
    than H(0) where n is above `MOST_SAMPLES` or the data are gone.
    Source: Ling et al. 2023, section 2.3. Raises: CorruptArtefact.
    """
    from deqcli.runs.checkpoint import load_checkpoint

    if not run.has(files.CHECKPOINT):
        return {}
    tensors = load_checkpoint(run.folder / files.CHECKPOINT).tensors
    found = {KERNELS[0]: tensors["kernel_eigenvalues"].numpy()}
    X = _samples(run)
    if X is None or X.shape[1] > MOST_SAMPLES:
        return found
    return found | dict(_of_points(_spec(run), X, tensors)) | dict(_limits(_spec(run), X))


def _spec(run: Stored) -> RunSpec:
    return RunSpec.model_validate(run.recipe)


def _samples(run: Stored) -> Tensor | None:
    """X (d, n) in float64; None where the data cannot be had any more."""
    from pydantic import ValidationError

    from deqcli.runs.baseline import tensors

    try:
        return tensors(_spec(run).data.load())[0]
    except (DeqcliError, ValidationError):
        return None


def _of_points(spec: RunSpec, X: Tensor, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, np.ndarray]]:
    from deqcli.deq.model import Cell, Params
    from deqcli.deq.spectral import gram
    from deqcli.runs.baseline import component
    from deqcli.theory.ntk import empirical_ntk

    params = Params(**{each.name: tensors[each.name] for each in fields(Params) if each.name in tensors})
    Z, V = (tensors[f"{name}_point"].T.contiguous() for name in ("equilibrium", "adjoint"))
    G = gram(Z)
    yield KERNELS[2], _eigenvalues(G)
    yield KERNELS[1], _eigenvalues(empirical_ntk(Cell(params, Z, V, component(spec, X.shape[0])), G, X))


def _limits(spec: RunSpec, X: Tensor) -> Iterator[tuple[str, np.ndarray]]:
    from deqcli.deq.activations import ACTIVATIONS
    from deqcli.runs.baseline import rates
    from deqcli.runs.scope import scales
    from deqcli.theory.population import Population

    model = spec.model
    if not scales(spec).gaussian_limit:
        return
    limit = Population.of(X, model.sigma_w_sq, ACTIVATIONS[model.activation], model.readout_scale)
    try:
        K = limit.gram()
        yield KERNELS[3], _eigenvalues(model.width * K)
        yield KERNELS[4], _eigenvalues(limit.ntk(K, model.width, rates(spec, X.shape[0])))
    except NumericalFailure:
        return


def _eigenvalues(kernel: Tensor) -> np.ndarray:
    import torch

    values: np.ndarray = torch.linalg.eigvalsh(kernel).numpy()
    return values
