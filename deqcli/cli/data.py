"""deqcli data: list, fetch. Light: no torch, no pandas, and pooch only where something is to be downloaded."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deqcli.cli.arguments import JsonOption, QuietOption
from deqcli.cli.reporting import reporting
from deqcli.errors import CorruptArtefact, counted

if TYPE_CHECKING:
    from deqcli.data.fetch import Fetched, FetchedFile
    from deqcli.data.holdings import Found
    from deqcli.data.published import Published

app = typer.Typer(no_args_is_help=True, help="List the image sets that recipes can train on, and download them.")


def complete_set(incomplete: str) -> list[str]:
    """Names of image sets for the shell."""
    from deqcli.data.published import PUBLISHED

    return [name for name in PUBLISHED if name.startswith(incomplete)]


RootOption = Annotated[
    Path | None,
    typer.Option(
        "--root", metavar="DIR", help="Folder above NAME/. [default: DEQCLI_DATA, or deqcli in the user's cache]"
    ),
]


@app.command("list")
def list_sets(
    root: RootOption = None,
    check: Annotated[bool, typer.Option("--check", help="Read every file, and compare its SHA-256.")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """List the image sets, what they show, and whether their files are there, where a recipe would read them.

    A file is there if it has the published size; only --check reads it. With --check, the exit code is 4 where a file
    is not as published, as those of a set of your own are.

    Example: deqcli data list
    """
    from deqcli.data.fetch import in_words
    from deqcli.data.holdings import look, need_folder
    from deqcli.data.published import PUBLISHED, data_folder
    from deqcli.show.console import Screen
    from deqcli.show.fitting import fitted

    screen = Screen(quiet, as_json)
    with reporting(screen):
        above = data_folder(root)
        need_folder(above)
        sets = [(each, look(each, above, check)) for each in PUBLISHED.values()]
        rows: list[list[object]] = [[each.name, in_words(each.size), _state(found), each.title] for each, found in sets]
        for line in fitted(["image set", "size", "files", "what it shows"], rows):
            screen.say(line)
        screen.say(f"Folder: {above}/NAME")
        screen.document({"root": str(above), "sets": [_listed(each, found, above) for each, found in sets]})
        for each, found in sets:
            command = f"deqcli data fetch {each.name}{'' if root is None else f' --root {shlex.quote(str(root))}'}"
            for remark in _others(found, above / each.name, command):
                (screen.complain if check else screen.say)(remark)
            for remark in _unsure(found, command):
                screen.say(remark)
        if check and any(file.state == "other" for _, found in sets for file in found):
            raise typer.Exit(CorruptArtefact.exit_code)


def _others(found: Sequence[Found], folder: Path, command: str) -> Iterator[str]:
    """What is not as published, and what fetching into a folder does about it."""
    for each in found:
        for path in each.paths if each.state == "other" else ():
            if not path.is_file():
                yield f"{path} is not a file; remove it"
            elif path == folder / each.file.name:
                yield f"{path} is not as published; `{command}` keeps it beside the published file"
            else:
                yield f"{path} is not as published; `{command}` leaves it, and downloads {each.file.name} into {folder}"


def _unsure(found: Sequence[Found], command: str) -> Iterator[str]:
    """Unpacked files that cannot be compared, and what fetching does about it."""
    if unsure := [path for each in found if each.state == "unpacked" and not each.accepted for path in each.unpacked]:
        names = ", ".join(path.name for path in unsure)
        yield (
            f"{unsure[0].parent}: no SHA-256 of the unpacked {names} is published; a recipe accepts them only with "
            f"`data.sha256`, and `{command}` downloads the published files"
        )


def _state(found: Sequence[Found]) -> str:
    """`complete`, `missing`, or how many files are there, unpacked, partly unpacked, begun or other ones."""
    counts = Counter(each.state for each in found)
    if all(each.accepted for each in found):
        return "complete" if not counts["unpacked"] else "complete, unpacked"
    if counts["missing"] == len(found):
        return "missing"
    return ", ".join(f"{count} {state}" for state, count in counts.items())


def _listed(published: Published, found: Sequence[Found], above: Path) -> dict[str, object]:
    return {
        "name": published.name,
        "title": published.title,
        "page": published.page,
        "bytes": published.size,
        "state": _state(found),
        "folder": str(above / published.name),
        "files": [_file(each) | {"begun_bytes": each.begun, "accepted": each.accepted} for each in found],
    }


def _file(each: Found | FetchedFile) -> dict[str, object]:
    file = {"name": each.file.name, "bytes": each.file.size, "sha256": each.file.sha256}
    return file | {"state": each.state, "path": str(each.path), "unpacked": [str(path) for path in each.unpacked]}


@app.command()
def fetch(
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME", help="Image sets.", autocompletion=complete_set),
    ],
    root: RootOption = None,
    mirror: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Address of a folder with the files of NAME, instead of the published ones."),
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Download the files of image sets, each verified by its published SHA-256.

    What is there already is left alone; another file in the place of one is kept beside it, as NAME.other. A download
    that was broken off or interrupted goes on where it was when the same command is given again.

    Example: deqcli data fetch mnist fashion-mnist
    """
    from deqcli import api
    from deqcli.show.console import Screen
    from deqcli.show.fetching import fetching

    screen = Screen(quiet, as_json)
    with reporting(screen, resumable=True):
        with fetching(screen) as watch:
            done = api.fetch(names, root, mirror, on_progress=watch.hear, on_file=watch.ended)
        for each in done:
            counts = Counter(file.state for file in each.files)
            told = ", ".join(f"{count} {state}" for state, count in counts.items())
            folders = ", ".join(dict.fromkeys(str(file.path.parent) for file in each.files))
            screen.say(f"{each.name}: {counted(len(each.files), 'file')} ({told}) in {folders}")
        screen.document({"status": "complete", "sets": [_fetched(each) for each in done]})


def _fetched(done: Fetched) -> dict[str, object]:
    files = [
        _file(each)
        | {"source": each.source, "resumed_bytes": each.resumed, "replaced_sha256": each.found, "kept": each.kept}
        for each in done.files
    ]
    return {"name": done.name, "folder": str(done.folder), "files": files}
