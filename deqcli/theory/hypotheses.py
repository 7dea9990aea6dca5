"""What theorems assume of a recipe and of a draw, and the words for what is not met."""

from __future__ import annotations

from collections.abc import Sequence

from deqcli.theory.expansion import Expansion
from deqcli.theory.sizes import Scales, Sizes

RELU = "relu"
"""Whose K the paper is about."""

OF_TRAINING = ("well_posed", "enough_width", "model", "training")
"""Names of what Condition 1 and its relatives assume."""

OF_THE_LIMIT = ("assumption_1", "derivatives", "antipodal", "limit", "model")
"""Names of what statements about K assume."""


def missing(scales: Scales, safe: Sizes, width: int, num_samples: int, phi: Expansion | None) -> dict[str, str]:
    """The hypotheses that a draw does not meet, by name, in words; `phi` is the expansion of any phi but the ReLU."""
    n, m = num_samples, width
    found = {
        "assumption_1": _assumption_1(scales),
        "well_posed": _well_posed(safe),
        "enough_width": (
            f"num_samples {n} > width {m}: lambda_0 is exactly 0, and no width below {n} can pass" if n > m else None
        ),
        "antipodal": _antipodal(phi),
    }
    of_the_recipe = uncovered(scales) if phi is None else uncovered(scales, phi.name, phi.curvature)
    return {name: sentence for name, sentence in found.items() if sentence} | of_the_recipe


def uncovered(scales: Scales, activation: str = RELU, curvature: float | None = None) -> dict[str, str]:
    """The hypotheses that a recipe departs from whatever is drawn, by name, in words; `curvature` is sup |phi''|."""
    found = dict[str, str]()
    if activation != RELU and curvature is None:
        found["derivatives"] = f"the slope of {activation} jumps: no bound of its second derivative (Truong 2023)"
    if not scales.gaussian_limit:
        found["limit"] = "K and H_inf are the limits of Gaussian W, not of this initialisation"
    return found | dict(scales.departures)


def of_a_recipe(scales: Scales, activation: str, curvature: float | None) -> list[str]:
    """The hypotheses of the theory that a recipe does not meet whatever is drawn, in words."""
    first = _assumption_1(scales)
    return ([first] if first else []) + list(uncovered(scales, activation, curvature).values())


def _assumption_1(scales: Scales) -> str | None:
    if scales.sigma_w_sq < scales.largest_sigma_w_sq:
        return None
    of_l = "1/8" if scales.lipschitz == 1 else f"1/(8 L^2) = {scales.largest_sigma_w_sq:.6g}"
    return f"sigma_w_sq = {scales.sigma_w_sq:g} is not below {of_l} (Assumption 1)"


def _well_posed(safe: Sizes) -> str | None:
    if safe.contraction < 1:
        return None
    if safe.lipschitz == 1:
        return f"||W(0)||_2 <= {safe.spectral_norm:.6g} is not below 1, so Condition 1 has no delta"
    return f"L ||W(0)||_2 <= {safe.contraction:.6g} is not below 1, L = {safe.lipschitz:.6g}: Condition 1 has no delta"


def _antipodal(expansion: Expansion | None) -> str | None:
    if expansion is None or not expansion.vanishes:
        return None
    if expansion.rank is not None:
        return (
            f"{expansion.name} is linear and there are more samples than input_dim {expansion.rank}, the rank of K and "
            "of Z: lambda_* and lambda_0 are exactly 0"
        )
    assert expansion.antipodal is not None
    i, j = expansion.antipodal
    return (
        f"samples {i} and {j} are antipodal and {expansion.name} is odd: z(-x) = -z(x), so lambda_* and lambda_0 are "
        "exactly 0"
    )


def marked(source: str, sentences: Sequence[str]) -> str:
    """The source of a statement, with the hypotheses that the draw does not meet."""
    return f"{source}; outside its hypotheses: {', '.join(sentences)}" if sentences else source
