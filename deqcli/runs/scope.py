"""What of the theory is about a run: its scales, and the hypotheses that its recipe departs from."""

from __future__ import annotations

import math
from collections.abc import Iterator

from deqcli.deq.activations import ACTIVATIONS
from deqcli.deq.initialisation import INITIALISATIONS
from deqcli.recipe.schema import RunSpec
from deqcli.theory.hypotheses import of_a_recipe
from deqcli.theory.sizes import Scales


def scales(spec: RunSpec) -> Scales:
    """The scales of the initialisation, the constants of the activation, and what the theory does not cover."""
    model, activation, law = spec.model, ACTIVATIONS[spec.model.activation], INITIALISATIONS[spec.model.init]
    return Scales(
        sigma_w_sq=model.sigma_w_sq,
        readout_scale=model.readout_scale,
        lipschitz=activation.lipschitz,
        at_zero=activation.at_zero,
        spectral_norm_limit=law.norm_limit(model.sigma_w_sq),
        gaussian_limit=law.gaussian_limit and model.injection == "linear" and not model.skip,
        monotonicity=model.monotonicity if model.init == "monotone" else None,
        departures=departures(spec),
        features=_of_gao(spec),
    )


def _of_gao(spec: RunSpec) -> bool:
    """Whether it is the experiment of Gao et al. 2022: their model, and what they train."""
    model, train = spec.model, spec.train
    theirs = (model.activation, model.init, model.injection, model.readout, model.parametrisation)
    plain = train.method == "descent" and not train.momentum and len(train.parameters) == 3
    signs = math.isclose(model.readout_scale, math.sqrt(0.5), rel_tol=1e-6)
    return theirs == ("relu", "gaussian", "rectified", "signs", "ntk") and model.skip and signs and plain


def departures(spec: RunSpec) -> dict[str, str]:
    """The hypotheses of Theorem 1 that the recipe itself departs from: of the model, of the training; in words."""
    found = {
        "model": list(_of_the_model(spec)), "training": list(_of_the_training(spec)), "proximal": list(_proximal(spec)),
    }  # fmt: skip
    return {name: ", ".join(each) for name, each in found.items() if each}


def _of_the_model(spec: RunSpec) -> Iterator[str]:
    model = spec.model
    if model.injection == "rectified":
        yield "model.injection is rectified"
    if model.skip:
        yield "model.skip adds b^T F to the output"
    if model.init == "monotone":
        yield "A and B are trained, not W"
    if model.parametrisation == "ntk":
        yield "model.parametrisation is ntk"


def _proximal(spec: RunSpec) -> Iterator[str]:
    activation = ACTIVATIONS[spec.model.activation]
    if spec.model.init == "monotone" and not (activation.nondecreasing and activation.lipschitz <= 1):
        yield f"{activation.name} is not both nondecreasing and of Lipschitz constant 1 at most"


def _of_the_training(spec: RunSpec) -> Iterator[str]:
    train = spec.train
    if len(train.parameters) < 3:
        yield f"train.parameters are {', '.join(train.parameters)} alone"
    if train.momentum:
        yield f"train.momentum is {train.momentum:g}"


def outside(spec: RunSpec) -> list[str]:
    """The hypotheses of the theory that a recipe does not meet whatever is drawn, in words."""
    activation = ACTIVATIONS[spec.model.activation]
    return of_a_recipe(scales(spec), activation.name, activation.curvature)


def covered(spec: RunSpec) -> bool:
    """Whether conclusion (iii) of Theorem 1 is about this training; each step may have a learning rate of its own."""
    return not departures(spec)
