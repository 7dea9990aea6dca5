"""What no scale and no width mends: rows that the activation, the samples or the recipe itself decide."""

from __future__ import annotations

from collections.abc import Sequence

from deqcli.deq.activations import ACTIVATIONS
from deqcli.runs.scope import scales
from deqcli.sweep.checks import CheckedDraw
from deqcli.theory.hypotheses import uncovered

OF_THE_DATA = ("truong_derivatives", "truong_coefficients", "truong_population")
"""Inequalities that the activation and the samples decide: no initialisation mends them."""

SCALELESS = (
    "assumption_1", "assumption_2_norms", "assumption_2_parallel", "well_posed", "theorem_2", "truong_sigma_w_sq",
    *OF_THE_DATA,
)  # fmt: skip
"""Inequalities that neither readout_scale nor label_scale enters."""


def hindrances(draws: Sequence[CheckedDraw]) -> list[str]:
    """Why no initialisation of a recipe can pass, or why none is covered: of the recipe, else of its samples."""
    spec = draws[0].spec
    phi = ACTIVATIONS[spec.model.activation]
    if of_the_recipe := uncovered(scales(spec), phi.name, phi.curvature):
        return list(of_the_recipe.values())
    return list(dict.fromkeys(why for each in draws if of_the_data(each) and (why := beyond_scales(each))))


def of_the_data(drawn: CheckedDraw) -> bool:
    """Whether an inequality fails that the activation and the samples decide."""
    return any(each.name in OF_THE_DATA and not each.holds for each in drawn.certificates)


def beyond_scales(drawn: CheckedDraw) -> str | None:
    """What fails that no readout_scale or label_scale can mend, with its numbers."""
    where = f"width {drawn.spec.model.width}, seed {drawn.spec.train.seed}"
    if drawn.error is not None:
        return f"{where}: {drawn.error}"
    if "enough_width" in drawn.outside:
        return f"{where}: {drawn.outside['enough_width']}"
    failed = next((each for each in drawn.certificates if each.name in SCALELESS and not each.holds), None)
    if failed is None:
        return None
    sides = f"{failed.lhs:.6g} against {failed.rhs:.6g}" if failed.rhs is not None else failed.source
    return f"{where}: {failed.name} fails, {sides}"
