"""deqcli recipes: list, show, copy, validate, schema, reference. Light: no torch, no pandas."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated

import typer

from deqcli.cli.arguments import JsonOption, OverridesArgument, QuietOption, RecipeArgument
from deqcli.cli.reporting import reporting
from deqcli.errors import Refused, counted

app = typer.Typer(no_args_is_help=True, help="List, show, copy and check recipes.")


@app.command("list")
def list_recipes(as_json: JsonOption = False) -> None:
    """Name the recipes that come along.

    Example: deqcli recipes list
    """
    from deqcli.recipe.library import header, shipped_recipes
    from deqcli.show.console import Screen

    screen = Screen(as_json=as_json)
    with reporting(screen):
        found = {name: header(path)[0] for name, path in shipped_recipes().items()}
        for name, line in found.items():
            screen.say(f"{name:<{max(map(len, found))}}  {line}")
        screen.document(found)


@app.command()
def show(recipe: RecipeArgument) -> None:
    """Print a recipe as it is written, header and all.

    Example: deqcli recipes show quickstart
    """
    from deqcli.recipe.library import find_recipe
    from deqcli.show.console import Screen

    screen = Screen()
    with reporting(screen):
        screen.say(find_recipe(recipe).read_text(encoding="utf-8", errors="replace").rstrip())


@app.command()
def copy(
    recipe: RecipeArgument,
    to: Annotated[
        Path | None, typer.Argument(metavar="[TO]", help="File or folder; RECIPE.yaml here if left out.")
    ] = None,
) -> None:
    """Copy a recipe, to be edited; an existing file is not overwritten.

    Example: deqcli recipes copy quickstart mine.yaml
    """
    from deqcli.recipe.library import find_recipe
    from deqcli.show.console import Screen

    screen = Screen()
    with reporting(screen):
        source = find_recipe(recipe)
        target = to or Path(source.name)
        target = target / source.name if target.is_dir() else target
        if target.exists():
            raise Refused(f"{target} exists already and is left as it is")
        shutil.copyfile(source, target)
        screen.say(f"Copied to {target}")


@app.command()
def validate(
    recipe: RecipeArgument, overrides: OverridesArgument = None, as_json: JsonOption = False, quiet: QuietOption = False
) -> None:
    """Check a recipe, with overrides, and name every mistake; nothing is run.

    Example: deqcli recipes validate mine.yaml train.steps=10
    """
    from deqcli.recipe.loading import load_recipe
    from deqcli.show.console import Screen

    screen = Screen(quiet, as_json)
    with reporting(screen):
        loaded = load_recipe(recipe, overrides or [])
        cells = loaded.cells()
        screen.say(f"{recipe} is a valid recipe: {loaded.name}, {counted(len(cells), 'run')} in a sweep")
        screen.document(
            {"status": "valid", "name": loaded.name, "runs": len(cells), "recipe": loaded.model_dump(mode="json")}
        )


@app.command()
def schema() -> None:
    """Print the JSON schema of a recipe, for editors.

    Example: deqcli recipes schema
    """
    from deqcli.recipe.wording import recipe_schema
    from deqcli.show.console import Screen

    with reporting(Screen()):
        print(json.dumps(recipe_schema(), indent=1))


@app.command()
def reference() -> None:
    """Print what each key of a recipe may be, its default and its meaning, in Markdown: docs/recipe.md.

    Example: deqcli recipes reference > docs/recipe.md
    """
    from deqcli.recipe.reference import reference as markdown
    from deqcli.show.console import Screen

    with reporting(Screen()):
        print(markdown(), end="")
