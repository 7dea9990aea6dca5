"""deqcli train."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deqcli.cli.arguments import (
    DeviceOption,
    DryRunOption,
    JsonOption,
    OutOption,
    OverridesArgument,
    QuietOption,
    RecipeArgument,
)  # fmt: skip
from deqcli.cli.reporting import reporting

if TYPE_CHECKING:
    from deqcli.api import Run
    from deqcli.recipe.schema import RunSpec
    from deqcli.show.console import Screen


def train(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    width: Annotated[int | None, typer.Option(help="model.width.")] = None,
    seed: Annotated[int | None, typer.Option(help="train.seed, which decides W, U and a.")] = None,
    device: DeviceOption = "auto",
    threads: Annotated[int | None, typer.Option(min=1, envvar="DEQCLI_THREADS", help="CPU threads of the run.")] = None,
    out: OutOption = Path("outputs"),
    force: Annotated[bool, typer.Option("--force", help="Compute the run anew, even if it is complete.")] = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train one network by exact implicit-gradient descent.

    An interrupted run goes on where it was; a complete one is not computed again.

    Example: deqcli train quickstart train.steps=100 --width 256
    """
    from deqcli import api
    from deqcli.show.console import Screen

    screen = Screen(quiet, as_json)
    given = overrides or []
    with reporting(screen, resumable=True):
        if dry_run:
            resolved = api.resolve(recipe, given, width=width, seed=seed, device=device, alone=True)
            _show_plan(screen, resolved.run(), out)
            return
        with screen.progress() as watch:
            run = api.train(
                recipe, *given, width=width, seed=seed, device=device, out=out, force=force, threads=threads,
                on_progress=watch.progress,
            )  # fmt: skip
        _show_run(screen, run)


def _show_plan(screen: Screen, spec: RunSpec, out: Path) -> None:
    from deqcli.recipe.memory import spec_bytes
    from deqcli.runs.files import recipe_text
    from deqcli.runs.folder import read_manifest, run_folder

    folder, size = run_folder(out, spec), spec_bytes(spec)
    manifest = read_manifest(folder, "run", spec.run_id)
    status = manifest.status if manifest else "not started"
    spec.data.load()
    screen.say(recipe_text(spec).rstrip())
    screen.say(f"{folder}: {status}; {size} bytes ({size / 1e9:.3g} GB) at its peak")
    screen.document(
        {
            "run_id": spec.run_id,
            "folder": str(folder),
            "status": status,
            "bytes": size,
            "recipe": spec.model_dump(mode="json"),
        }
    )


def _show_run(screen: Screen, run: Run) -> None:
    results = run.manifest.results
    screen.table(run.manifest.id, ["result", "value"], [[name, value] for name, value in results.items()])
    for line in _verdicts(results):
        screen.say(line)
    if run.manifest.changed:
        screen.say(f"Resumed with other {', '.join(run.manifest.changed)}: the last bits may differ.")
    if not run.computed:
        screen.say("This run was complete already; --force computes it anew.")
    screen.say(f"Files: {run.folder}")
    screen.document({"folder": str(run.folder), "computed": run.computed, **run.manifest.model_dump()})


def _verdicts(results: dict[str, float | int | None]) -> list[str]:
    """The conclusions of Theorem 1 at the logged steps, one line each, and the linear rate beside its promises."""
    return [
        _verdict(results, "(i)   ||W||_2 < 1", "largest upper bound", "max_spectral_norm_upper"),
        _verdict(results, "(ii)  lambda_tau > lambda_0/2", "least lambda_tau/lambda_0", "min_lambda_ratio"),
        _verdict(results, "(iii) loss <= loss_bound", "largest loss/loss_bound", "max_loss_over_bound"),
        _rates(results),
    ]


HELD: dict[str, Callable[[float], bool]] = {
    "max_spectral_norm_upper": lambda value: value < 1,
    "min_lambda_ratio": lambda value: value > 0.5,
    "max_loss_over_bound": lambda value: value <= 1,
}
"""What the worst value of each conclusion must be."""


def _verdict(results: dict[str, float | int | None], claim: str, what: str, name: str) -> str:
    from deqcli.show.console import number

    value, step = results[name], results[f"{name}_step"]
    if value is None:
        why = "lambda_0 is 0" if results["lambda_0"] == 0 else f"{what} is not defined"
        return f"{claim}: nothing to show ({why})"
    verdict = "held" if HELD[name](value) else "not shown"
    return f"{claim}: {verdict} at every logged step ({what} {number(value)}, at step {step})"


def _rates(results: dict[str, float | int | None]) -> str:
    from deqcli.show.console import number

    if results["rate_measured"] is None:
        return "linear rate: nothing to show (there is no step to measure it by)"
    measured, theorem, kernel = (number(results[f"rate_{name}"], 4) for name in ("measured", "theorem", "kernel"))
    return f"linear rate: log(loss) falls by {measured} a step; by Theorem 1 at least {theorem}, by the kernel {kernel}"
