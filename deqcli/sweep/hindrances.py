"""What no scale and no width mends: rows that the activation, the samples or the recipe itself decide."""

from __future__ import annotations

from collections.abc import Collection, Sequence

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
    return list(dict.fromkeys(why for each in draws if (why := _first_failing(each, OF_THE_DATA))))


def of_the_data(drawn: CheckedDraw) -> bool:
    """Whether an inequality fails that the activation and the samples decide."""
    return _first_failing(drawn, OF_THE_DATA) is not None


def beyond_scales(drawn: CheckedDraw) -> str | None:
    """What fails that no readout_scale or label_scale can mend, with its numbers."""
    if drawn.error is not None:
        return f"{_where(drawn)}: {drawn.error}"
    if "enough_width" in drawn.outside:
        return f"{_where(drawn)}: {drawn.outside['enough_width']}"
    return _first_failing(drawn, SCALELESS)


def _first_failing(drawn: CheckedDraw, names: Collection[str]) -> str | None:
    """The first inequality of some that fails, with its numbers, or its source where it has none."""
    failed = next((each for each in drawn.certificates if each.name in names and not each.holds), None)
    if failed is None:
        return None
    sides = failed.source if failed.rhs is None else f"{failed.lhs:.6g} against {failed.rhs:.6g}"
    return f"{_where(drawn)}: {failed.name} fails, {sides}"


def _where(drawn: CheckedDraw) -> str:
    return f"width {drawn.spec.model.width}, seed {drawn.spec.train.seed}"
