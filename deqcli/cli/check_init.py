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
from deqcli.cli.reporting import reporting
from deqcli.errors import NumericalFailure

if TYPE_CHECKING:
    from deqcli.show.console import Screen
    from deqcli.sweep.checks import Checked, CheckedDraw

COLUMNS = ["lhs >= rhs", "lhs", "rhs", "slack", "holds", "repaired by width"]


def check_init(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    widths: WidthsOption = None,
    seeds: SeedsOption = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 3 unless every inequality but lemma_1 (a limit) holds.")
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
        checked = api.check_init(
            recipe, *given, device=device, out=out, on_draw=lambda drawn: _show_draw(screen, drawn)
        )
        screen.say(f"Files: {checked.folder}")
        screen.document(_document(checked))
        failed = sum(bool(each.failed) for each in checked.draws)
        if strict and failed:
            screen.complain(f"{failed} of {len(checked.draws)} draws fail an inequality.")
        if (strict and failed) or any(each.error for each in checked.draws):
            raise typer.Exit(NumericalFailure.exit_code)


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
    screen.say("")


def _document(checked: Checked) -> dict[str, object]:
    return {
        "folder": str(checked.folder),
        "draws": [
            {
                **each.row(),
                "certificates": [certificate.row() for certificate in each.certificates],
                "failed": [certificate.name for certificate in each.failed],
            }
            for each in checked.draws
        ],
    }
