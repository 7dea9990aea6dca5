"""Initialisations for which Theorem 1's hypotheses hold: scales at a width, or a width at given scales."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from deqcli.deq.activations import ACTIVATIONS
from deqcli.recipe.machine import machine_memory
from deqcli.recipe.memory import spec_bytes
from deqcli.recipe.schema import Recipe
from deqcli.runs.baseline import tensors
from deqcli.runs.scope import scales
from deqcli.sweep.checks import CheckedDraw, CheckOptions, check_draws
from deqcli.sweep.hindrances import beyond_scales, hindrances, of_the_data
from deqcli.theory.certificates import certify
from deqcli.theory.condition import least_slack, safe_theorem_rate
from deqcli.theory.expected import Expected
from deqcli.theory.initial import Initial
from deqcli.theory.population import Population
from deqcli.theory.sizes import Scales

SIGMA_W_SQ = (0.08, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
"""Tried below the recipe's own where that makes W(0) too large."""

SMALL_SIGMA_W_SQ = 0.005
"""Shown beside it otherwise: the smaller W, the larger the scales."""

LARGEST_SCALE = 1e10
GROWTH = 1.5
LARGEST, LARGEST_DRAWN = 2**53, 20_000
"""Widths that a recipe can have, and that networks are drawn of in the search for one."""

SMALLEST_FACTOR, SMALLEST_SCALE = 1e-40, 1e-100
MARGIN = 0.99
TRIES, GROWN = 6, 2.5


SCALES, SIGMA, WIDTH = "suggested.yaml", "suggested-sigma.yaml", "suggested-width.yaml"


@dataclass(frozen=True)
class Suggestion:
    """What was found: sentences with the numbers, and for each answer a recipe whose draws all pass, by file name."""

    sentences: list[str] = field(default_factory=list)
    recipes: dict[str, Recipe] = field(default_factory=dict)


def suggest(recipe: Recipe, draws: Sequence[CheckedDraw], options: CheckOptions) -> Suggestion:
    """Scales at which every inequality holds for the recipe's draws, and the width that its own scales would need.

    Both answers are drawn and checked before they are given. Where no scale helps, since num_samples exceeds the width
    or lambda_0 is too small, a smaller sigma_w_sq is tried, then larger widths, as far as memory goes.
    Nothing is suggested where the theory does not cover the recipe.
    Raises: Refused, NumericalFailure (K does not exist).
    """
    if hindering := hindrances(draws):
        return Suggestion([f"No initialisation is suggested: {sentence}." for sentence in hindering])
    if all(not each.failed and each.error is None for each in draws):
        return Suggestion(["Every inequality holds as it is; nothing is to be changed."])
    found, quiet = Suggestion(), replace(options, depth=None, on_draw=lambda _: None)
    fitting = _fitting(recipe, draws, quiet, found.sentences)
    if fitting is None:
        found.sentences.append("No scales were found: see above what stands in the way at each width.")
    else:
        _suggest_scales(SCALES, *fitting, quiet, found)
        _suggest_sigma(fitting[0], quiet, found)
    _suggest_width(recipe, quiet, found)
    return found


def _suggest_sigma(base: Recipe, options: CheckOptions, found: Suggestion) -> None:
    """The larger scales that a smaller W allows."""
    if SCALES in found.recipes and base.model.sigma_w_sq > SMALL_SIGMA_W_SQ:
        smaller = _with_sigma(base, SMALL_SIGMA_W_SQ)
        drawn = _draws(smaller, options)
        if not any(map(beyond_scales, drawn)):
            _suggest_scales(SIGMA, smaller, [each.initial for each in drawn if each.initial], options, found)


def _suggest_scales(
    name: str, base: Recipe, initials: Sequence[Initial], options: CheckOptions, found: Suggestion
) -> None:  # fmt: skip
    """The largest scales at which every inequality holds for these draws."""
    smallest = max(SMALLEST_FACTOR, SMALLEST_SCALE / min(base.model.readout_scale, base.data.label_scale))
    factor = _largest_factor(initials, smallest)
    for _ in range(TRIES):
        if factor < smallest:
            break
        scaled = _scaled(base, factor)
        if _passes(scaled, options):
            found.recipes[name] = scaled
            found.sentences.append(_scales_sentence(scaled))
            return
        factor = _two_digits(factor / 2)
    failing = ", ".join(_failing(initials, smallest)) or "some inequality, once drawn,"
    found.sentences.append(f"No scales were found: at {smallest:g} times the recipe's, {failing} still fails.")


def _scales_sentence(recipe: Recipe) -> str:
    widths = ", ".join(str(width) for width in recipe.widths)
    return (
        f"With model.readout_scale {recipe.model.readout_scale:g}, data.label_scale {recipe.data.label_scale:g}, "
        f"model.sigma_w_sq {recipe.model.sigma_w_sq:g} and train.learning_rate theorem every inequality holds at width "
        f"{widths}, for each of the {len(recipe.cells())} draws (checked)."
    )


def _fitting(
    recipe: Recipe, draws: Sequence[CheckedDraw], options: CheckOptions, sentences: list[str]
) -> tuple[Recipe, list[Initial]] | None:
    """A recipe, at unchanged scales, whose draws fail nothing that scales cannot mend."""
    for candidate in _candidates(recipe, draws):
        drawn = draws if candidate is recipe else _draws(candidate, options)
        failing: dict[int, str] = {}
        for each in drawn:
            if why := beyond_scales(each):
                failing.setdefault(each.spec.model.width, why)
        sentences += [f"model.sigma_w_sq {candidate.model.sigma_w_sq:g}: {why}." for why in failing.values()]
        widths = [width for width in candidate.widths if width not in failing]
        if any(map(of_the_data, drawn)):
            return None
        if widths:
            kept = [each.initial for each in drawn if each.spec.model.width in widths and each.initial]
            return _with_widths(candidate, widths), kept
    return None


def _candidates(recipe: Recipe, draws: Sequence[CheckedDraw]) -> Iterator[Recipe]:
    """The recipe itself; its widths with a smaller sigma_w_sq; larger widths, while they can be drawn.

    sigma_w_sq is lowered where W(0) is too large, which width does not mend; the rest is a matter of width.
    """
    yield recipe
    if max(recipe.model.readout_scale, recipe.data.label_scale) > LARGEST_SCALE:  # squares overflow
        recipe = _with_scales(recipe, 1.0, 1.0)
        yield recipe
    smaller, samples = [each for each in SIGMA_W_SQ if each < recipe.model.sigma_w_sq], recipe.data.load().num_samples
    lowered = [_with_sigma(recipe, each) for each in smaller if any(map(_too_large, draws))]
    if samples <= max(recipe.widths):
        yield from lowered
    width, base = max(*recipe.widths, samples), lowered[0] if lowered else recipe
    while (width := math.ceil(GROWTH * width)) <= LARGEST_DRAWN and _fits(base, width):
        yield _with_widths(base, [width])


def _too_large(drawn: CheckedDraw) -> bool:
    """Whether ||W(0)||_2 < 1 is not shown."""
    return drawn.error is not None or not {"assumption_1", "well_posed"}.isdisjoint(drawn.outside)


def _fits(recipe: Recipe, width: int) -> bool:
    return spec_bytes(recipe.run(width=width)) <= machine_memory()


def _with_widths(recipe: Recipe, widths: list[int]) -> Recipe:
    """The recipe for these widths; its own run keeps its width if it is one of them."""
    width = recipe.model.width if recipe.model.width in widths else widths[0]
    sweep = recipe.sweep.model_copy(update={"widths": widths})
    return recipe.model_copy(update={"sweep": sweep, "model": recipe.model.model_copy(update={"width": width})})


def _with_sigma(recipe: Recipe, sigma_w_sq: float) -> Recipe:
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"sigma_w_sq": sigma_w_sq})})


def _largest_factor(initials: Sequence[Initial], smallest: float) -> float:
    """The largest common factor of readout_scale and label_scale at which every inequality holds, to two digits.

    Scaling a and y alike scales ||a(0)|| and ||e(0)|| and nothing else, so every slack at a fixed radius falls with it.
    """
    low, high = math.log(smallest), 0.0
    if _all_hold(initials, 1.0):  # only the learning rate was in the way
        return 1.0
    if not _all_hold(initials, smallest):
        return 0.0
    while high - low > 1e-3:
        middle = (low + high) / 2
        low, high = (middle, high) if _all_hold(initials, math.exp(middle)) else (low, middle)
    return _two_digits(MARGIN * math.exp(low))


def _two_digits(value: float) -> float:
    """Rounded down."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.floor(value / unit * (1 + 1e-12)) * unit:.2g}")


def _all_hold(initials: Sequence[Initial], factor: float) -> bool:
    return not any(True for _ in _failing(initials, factor))


def _failing(initials: Sequence[Initial], factor: float) -> Iterator[str]:
    """Each inequality that fails with both scales times a factor, with its slack."""
    for each in initials:
        scaled = replace(
            each,
            safe=replace(each.safe, norm_a=factor * each.safe.norm_a, norm_e=factor * each.safe.norm_e),
            scales=replace(each.scales, readout_scale=factor * each.scales.readout_scale),
        )
        for row in certify(scaled, _rate(scaled)):
            if not (row.holds or row.about_a_limit):
                yield f"{row.name} (slack {row.slack or 0.0:.3g})"


def _rate(initial: Initial) -> float | None:
    """The learning rate `theorem`."""
    bound = safe_theorem_rate(initial.safe)
    return None if bound is None else math.nextafter(bound, 0.0)


def _scaled(recipe: Recipe, factor: float) -> Recipe:
    """The recipe with both scales times a factor, and the learning rate of (10) in a precision that shows its steps."""
    scales = (float(f"{factor * scale:.12g}") for scale in (recipe.model.readout_scale, recipe.data.label_scale))
    train = recipe.train.model_copy(update={"learning_rate": "theorem", "dtype": "float64", "tf32": False})
    return _with_scales(recipe, *scales).model_copy(update={"train": train})


def _with_scales(recipe: Recipe, readout: float, label: float) -> Recipe:
    model = recipe.model.model_copy(update={"readout_scale": readout})
    return recipe.model_copy(update={"model": model, "data": recipe.data.model_copy(update={"label_scale": label})})


def _passes(recipe: Recipe, options: CheckOptions) -> bool:
    """Whether every draw of a recipe passes, as under --strict."""
    return all(each.error is None and not each.failed for each in _draws(recipe, options))


def _draws(recipe: Recipe, options: CheckOptions) -> list[CheckedDraw]:
    options.on_try(f"trying width {', '.join(map(str, recipe.widths))}, sigma_w_sq {recipe.model.sigma_w_sq:g}")
    return check_draws(recipe.cells(), recipe.data.load(), options)


def _suggest_width(recipe: Recipe, options: CheckOptions, found: Suggestion) -> None:
    """The smallest width at which Condition 1 is expected at the recipe's scales, drawn where that is possible."""
    dataset, model, own = recipe.data.load(), recipe.model, scales(recipe.run())
    if own.limit_gap <= 0:
        found.sentences.append(_too_large_at_every_width(own))
        return
    X, y = tensors(dataset)
    population = Population.of(X, model.sigma_w_sq, ACTIVATIONS[model.activation], model.readout_scale)
    expected = Expected.of(population, X, y, own)
    limit = expected.limit_of_9
    if not limit > 1:
        found.sentences.append(
            f"No width is expected to do: with model.readout_scale {model.readout_scale:g} the slack of (9 with 8) "
            f"tends to {limit:.3g}; it passes 1 below a readout_scale of {model.readout_scale * math.sqrt(limit):.3g}."
        )
        return
    width = _expected_width(expected)
    if width is None:
        found.sentences.append(f"No width up to {LARGEST:.3g} is expected to be enough at the recipe's own scales.")
        return
    found.sentences.append(f"At the recipe's own scales Condition 1 is expected from width {width} on.")
    if width > LARGEST_DRAWN or not _fits(recipe, width):
        size = spec_bytes(recipe.run(width=width))
        found.sentences.append(f"It was not drawn: a run of width {width} takes {size} bytes ({size / 1e9:.3g} GB).")
        return
    drawn = _drawn_width(recipe, width, options)
    if drawn is None:
        found.sentences.append(f"Draws of that width, and of up to {GROWN:.1f} times it, fail an inequality.")
        return
    found.recipes[WIDTH] = drawn
    found.sentences.append(f"At width {drawn.model.width} every inequality holds for its draws (checked).")


def _too_large_at_every_width(own: Scales) -> str:
    """The sigma_w_sq from which on the limit of ||W(0)||_2, which is a multiple of sigma_w, is 1/L or more."""
    most = "1" if own.lipschitz == 1 else f"1/L = {1 / own.lipschitz:.6g}"
    if own.spectral_norm_limit is None:
        return f"No width is expected to do: the norm of W(0) is not known to stay below {most}."
    largest = own.sigma_w_sq / (own.lipschitz * own.spectral_norm_limit) ** 2
    named = "1/8" if math.isclose(largest, 0.125) else f"{largest:.6g}"
    return f"No width is expected to do: at sigma_w_sq of {named} or more the norm of W(0) does not stay below {most}."


def _expected_width(expected: Expected) -> int | None:
    """By doubling and bisection: the least slack grows with the width. None beyond every width that can be named."""
    low, high = expected.num_samples - 1, expected.num_samples
    while least_slack(expected.sizes(high)) < 1:
        low, high = high, 2 * high
        if high > LARGEST:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if least_slack(expected.sizes(middle)) >= 1 else (middle, high)
    return high


def _drawn_width(recipe: Recipe, width: int, options: CheckOptions) -> Recipe | None:
    """The recipe at that width, or at one a little larger, whose draws pass; None where none does."""
    for _ in range(TRIES):
        if not _fits(recipe, width):
            return None
        candidate = _scaled(_with_widths(recipe, [width]), 1.0)
        if _passes(candidate, options):
            return candidate
        width = math.ceil(GROWN ** (1 / (TRIES - 1)) * width)
    return None
