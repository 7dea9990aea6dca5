"""deqcli predict."""

from __future__ import annotations

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

if TYPE_CHECKING:
    from deqcli.show.console import Screen
    from deqcli.sweep.predict_files import Predictions
    from deqcli.sweep.predictions import Predicted


def predict(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    widths: WidthsOption = None,
    seeds: SeedsOption = None,
    kernel: Annotated[
        str, typer.Option("--from", help="data (H_inf, for every width at once) or draw (H(0) of each width and seed).")
    ] = "data",
    losses: Annotated[
        list[float] | None, typer.Option("--loss", help="A loss to tell the step of; may be given more than once.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Folder of a finished run or sweep to put beside it.")
    ] = None,
    device: DeviceOption = "auto",
    out: OutOption = Path("outputs"),
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Predict the training from the tangent kernel, without training.

    The loss curve at the recipe's learning rate and steps, the largest stable learning rate, the steps to given
    losses, and which eigendirections are left.

    Example: deqcli predict quickstart --widths 250,1000 --loss 0.1
    """
    from deqcli import api
    from deqcli.show.console import Screen

    screen = Screen(quiet, as_json)
    with reporting(screen):
        given = [*(overrides or []), *values_override("sweep.widths", widths), *values_override("sweep.seeds", seeds)]
        memory = api.UNLIMITED if kernel == "data" else None  # no network is drawn, however wide
        found = []
        for values, variant in combinations(api.resolve(recipe, given, device=device, memory=memory)):
            screen.say(heading(values)) if values else None
            predicted = api.run_prediction(variant, out, kernel, losses or (), against, device)
            _show(screen, predicted, losses or [])
            found.append((values, _document(predicted, losses or [])))
        screen.document(one_document(found))


def _show(screen: Screen, found: Predictions, losses: list[float]) -> None:
    from deqcli.runs.scope import outside
    from deqcli.show.console import picture_lines
    from deqcli.sweep.predict_files import summary

    names = [_name(each) for each in found.predicted]
    summaries = [summary(each) for each in found.predicted]
    band = ["final_loss_low", "final_loss_high"] if found.predicted[0].kernel == "H_inf" else []
    shown = ["learning_rate", "learning_rate_largest_stable", "initial_loss", "final_loss", *band, "directions_left"]
    screen.table(
        f"predicted from {found.predicted[0].kernel}, {found.predicted[0].spec.train.steps} steps",
        ["", *shown],
        [[name, *(each[key] for key in shown)] for name, each in zip(names, summaries, strict=True)],
    )
    _show_times(screen, found.predicted, names, losses)
    for name, each in zip(names, found.predicted, strict=True):
        stable = each.mean.stable_rate
        if stable is not None and each.learning_rate > stable:
            screen.say(f"{name}: the learning rate is above the largest stable one, and the loss diverges in the end.")
    for line in _deviations(found.predicted, names):
        screen.say(line)
    for sentence in outside(found.predicted[0].spec):
        screen.say(f"Outside the hypotheses: {sentence}.")
    screen.say(f"Tables:  {found.folder}")
    for line in picture_lines(found.figures):
        screen.say(line)


def _show_times(screen: Screen, predicted: list[Predicted], names: list[str], losses: list[float]) -> None:
    rows: list[list[object]] = [
        [name, loss, "never" if step is None else step]
        for name, each in zip(names, predicted, strict=True)
        for loss, step in each.times(losses)
    ]
    if losses or not any(each.comparison for each in predicted):
        screen.table("steps to a loss", ["", "loss", "step"], rows)


def _name(each: Predicted) -> str:
    seeded = each.kernel == "H(0)" or each.comparison is not None
    return f"width {each.spec.model.width}" + (f", seed {each.spec.train.seed}" if seeded else "")


def _deviations(predicted: list[Predicted], names: list[str]) -> list[str]:
    """A line for each run that the prediction was put beside."""
    lines = []
    for name, each in zip(names, predicted, strict=True):
        if (found := each.comparison) is not None:
            band = "" if found.share_in_band is None else f"; {found.share_in_band:.0%} of its rows are in the band"
            lines.append(
                f"{name}: log10(loss) is at most {abs(found.largest_deviation):.3g} from the prediction (by "
                f"{found.largest_deviation:+.3g} at step {found.largest_deviation_step}, {found.final_deviation:+.3g} "
                f"at the end){band}"
            )
    return lines


def _document(found: Predictions, losses: list[float]) -> dict[str, object]:
    from dataclasses import asdict

    from deqcli.sweep.predict_files import keys, summary

    return {
        "folder": str(found.folder),
        "predictions": [
            {
                **keys(each),
                **summary(each),
                "times": [{"loss": loss, "step": step} for loss, step in each.times(losses)],
                "against": asdict(each.comparison) if each.comparison else None,
            }
            for each in found.predicted
        ],
        "figures": [str(figure) for figure in found.figures],
    }
