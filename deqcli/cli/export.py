"""deqcli export."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from deqcli.cli.arguments import JsonOption, QuietOption
from deqcli.cli.reporting import reporting


def export(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Folders of runs or sweeps.")],
    to: Annotated[str, typer.Option("--to", metavar="TOOL", help="parquet, tensorboard, mlflow or thinned.")],
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="DIR", help="Folder to write into, or MLflow's tracking URI; PATH/export/TOOL."),
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Hand runs to another tool: their tables, recipes, certificates and how they ended.

    `thinned` is no tool but the folder of a sweep in small, for `deqcli report` and `deqcli.load`, to be committed
    beside a paper.

    What an earlier export left is replaced; what is not deqcli's is left as it is, and refused.

    Example: deqcli export outputs/quickstart/sweeps/5edc5c7f --to parquet
    """
    from deqcli import api
    from deqcli.show.console import Screen

    screen = Screen(quiet, as_json)
    with reporting(screen):
        done = api.export(paths, to, out, on_item=lambda item: screen.note(str(item)))
        counts = Counter(item.state for item in done.items)
        what = done.what if len(done.items) != 1 else done.what.removesuffix("s")
        screen.say(f"{len(done.items)} {what}: {', '.join(f'{count} {state}' for state, count in counts.items())}")
        for remark in done.remarks:
            screen.say(remark)
        screen.say(f"Place: {done.place}")
        screen.say(f"Open:  {done.opens}")
        screen.document({"status": "exported", **vars(done), "items": [vars(item) for item in done.items]})
