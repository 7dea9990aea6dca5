"""deqcli train."""

from __future__ import annotations

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
    from deqcli.loaded import Run
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
    from deqcli.show.live import following

    screen = Screen(quiet, as_json)
    given = overrides or []
    with reporting(screen, resumable=True):
        if dry_run:
            resolved = api.resolve(recipe, given, width=width, seed=seed, device=device, alone=True)
            _show_plan(screen, resolved.run(), out)
            return
        with following(screen) as report:
            run = api.train(
                recipe, *given, width=width, seed=seed, device=device, out=out, force=force, threads=threads,
                on_progress=report,
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
    screen.say(f"{folder}: {status}; at least {size} bytes ({size / 1e9:.3g} GB) at its peak")
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
    from deqcli.recipe.schema import RunSpec
    from deqcli.runs.scope import outside
    from deqcli.show.verdicts import run_verdicts

    results = run.manifest.results
    screen.table(run.manifest.id, ["result", "value"], [[name, value] for name, value in results.items()])
    for verdict in run_verdicts(results):
        screen.say(str(verdict))
    for sentence in outside(RunSpec.model_validate(run.recipe)):
        screen.say(f"Outside the hypotheses: {sentence}.")
    if run.manifest.changed:
        screen.say(f"Resumed with other {', '.join(run.manifest.changed)}: the last bits may differ.")
    if not run.computed:
        screen.say("This run was complete already; --force computes it anew.")
    screen.say(f"Files: {run.folder}")
    screen.document({"folder": str(run.folder), "computed": run.computed, **run.manifest.model_dump()})
