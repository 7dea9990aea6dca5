"""deqcli check-init."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deqcli.cli.arguments import (
    DeviceOption,
    JsonOption,
    OutOption,
    OverridesArgument,
    QuietOption,
    RecipeArgument,
    SeedsOption,
    WidthsOption,
    values_override,
)  # fmt: skip
from deqcli.cli.combinations import combinations, heading, one_document
from deqcli.cli.reporting import reporting
from deqcli.errors import NumericalFailure, counted

if TYPE_CHECKING:
    from deqcli.show.console import Screen
    from deqcli.sweep.check_files import Checked
    from deqcli.sweep.checks import CheckedDraw
    from deqcli.theory.depth import Rate

COLUMNS = ["lhs >= rhs", "lhs", "rhs", "slack", "holds", "repaired by width"]


def check_init(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    widths: WidthsOption = None,
    seeds: SeedsOption = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 3 unless every inequality but lemma_1 (a limit) holds.")
    ] = False,
    depth: Annotated[
        int | None, typer.Option(min=1, help="Measure Theorems 3 to 5 in so many layers, beside untied weights.")
    ] = None,
    suggest: Annotated[
        bool, typer.Option("--suggest", help="Find scales, or a width, at which every inequality holds.")
    ] = False,
    device: DeviceOption = "auto",
    out: OutOption = Path("outputs"),
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Draw the network of each width and seed, and say what the theory says of it.

    Assumptions 1 and 2, Lemma 1, Theorem 2, Condition 1 at its best delta, and the learning rates. A sufficient
    condition that fails is a finding, not an error.

    Example: deqcli check-init theorem-1 --strict
    """
    from deqcli import api
    from deqcli.show.console import Screen

    screen = Screen(quiet, as_json)
    with reporting(screen):
        given = [*(overrides or []), *values_override("sweep.widths", widths), *values_override("sweep.seeds", seeds)]
        resolved = api.resolve(recipe, given, device=device)
        found = []
        for values, variant in combinations(resolved):
            screen.say(heading(values)) if values else None
            checked = api.run_check(
                variant, out, depth, suggest, device, lambda drawn: _show_draw(screen, drawn), screen.note
            )  # fmt: skip
            _show_checked(screen, checked)
            found.append((values, checked))
        screen.document(one_document([(values, _document(checked)) for values, checked in found]))
        draws = [each for _, checked in found for each in checked.draws]
        failed = sum(bool(each.failed) for each in draws)
        if strict and failed:
            screen.complain(f"{failed} of {len(draws)} draws fail an inequality.")
        if (strict and failed) or any(each.error for each in draws):
            raise typer.Exit(NumericalFailure.exit_code)


def _show_checked(screen: Screen, checked: Checked) -> None:
    from deqcli.show.console import picture_lines

    _show_depth(screen, checked)
    _show_pairs(screen, checked)
    for sentence in checked.suggestion.sentences:
        screen.say(sentence)
    for name in checked.suggestion.recipes:
        screen.say(f"Recipe: {checked.folder / name}")
    screen.say(f"Files: {checked.folder}")
    for line in picture_lines(checked.figures):
        screen.say(line)


def _show_pairs(screen: Screen, checked: Checked) -> None:
    """The closest two samples, and how many pairs are near-parallel."""
    from deqcli.data.pairs import NEAR_PARALLEL_BELOW
    from deqcli.show.console import number

    if not checked.pairs:
        return
    first, near = checked.pairs[0], checked.closeness.near_parallel
    names = f" ({first['sample_name']} and {first['other_name']})" if first["sample_name"] else ""
    apart = f"{number(first['angle'], 4)} rad apart{', of opposite sign' if first['opposite'] else ''}"
    screen.say(f"Closest samples: {first['sample']} and {first['other']}{names}, {apart}.")
    if near:
        screen.say(f"{counted(near, 'pair')} less than {NEAR_PARALLEL_BELOW:g} rad apart: pairs.csv.")


def _show_draw(screen: Screen, drawn: CheckedDraw) -> None:
    title = f"width {drawn.spec.model.width}, seed {drawn.spec.train.seed}"
    if drawn.measured is None:
        screen.complain(f"{title}: {drawn.error}")
        return
    measured = asdict(drawn.measured)
    rows: list[list[object]] = [
        [each.name, each.lhs, each.rhs, each.slack, each.holds, each.repaired_by_width] for each in drawn.certificates
    ]
    screen.table(title, COLUMNS, rows, digits=4)
    screen.table("", ["measured", "value"], [[name, value] for name, value in measured.items()])
    for remark in drawn.outside.values():
        screen.say(f"Outside the hypotheses: {remark}.")
    _show_levels(screen, drawn)
    screen.say("")


def _show_levels(screen: Screen, drawn: CheckedDraw) -> None:
    """What finite depth came to, a line for each layer."""
    from deqcli.theory.depth import SOURCES

    if not drawn.depths:
        return
    levels: dict[int, list[object]] = {}
    for row in drawn.depths:
        levels.setdefault(row.depth, [row.depth]).extend((row.value, row.bound))
    columns = ["depth", *(name for quantity in SOURCES for name in (quantity, "bound"))]
    screen.table("", columns, list(levels.values()), digits=3)
    for rate in drawn.rates:
        screen.say(_sentence(rate))


def _show_depth(screen: Screen, checked: Checked) -> None:
    from deqcli.sweep.check_files import width_rates

    for rate in width_rates(checked.draws):
        screen.say(_sentence(rate))


def _sentence(rate: Rate) -> str:
    from deqcli.show.console import number

    what = "per layer" if rate.against == "depth" else "exponent of the width"
    return f"{rate.quantity}: {what} {number(rate.rate, 4)}; the theory says {rate.relation} {rate.expected:.4g}"


def _document(checked: Checked) -> dict[str, object]:
    from deqcli.sweep.check_files import hermite_rows, width_rates

    return {
        "folder": str(checked.folder),
        "suggestion": {
            "sentences": checked.suggestion.sentences,
            "recipes": [str(checked.folder / name) for name in checked.suggestion.recipes],
        },
        "rates": [asdict(rate) for rate in width_rates(checked.draws)],
        "near_parallel": checked.closeness.near_parallel,
        "pairs": checked.pairs,
        "figures": [str(figure) for figure in checked.figures],
        "draws": [
            {
                **each.row(),
                "certificates": [certificate.row() for certificate in each.certificates],
                "failed": [certificate.name for certificate in each.failed],
                "depths": [level.row() for level in each.depths],
                "rates": [asdict(rate) for rate in each.rates],
                "hermite": hermite_rows(each),
            }
            for each in checked.draws
        ],
    }
