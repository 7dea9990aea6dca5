"""The folder of a check or a prediction: tables written at once, figures from them, a manifest over both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from deqcli.recipe.schema import Recipe
from deqcli.runs import files
from deqcli.runs.folder import RUNNING, Manifest, Status, clear, hashes, locked, write_manifest


def write_tables(
    folder: Path, note: Manifest, recipe: Recipe, tables: Mapping[str, str], status: Status,
    draw: Callable[[Path], Sequence[str]], former: Iterable[str],
) -> list[str]:  # fmt: skip
    """Write the tables by name and what `draw` draws from them; the names of the figures.

    `former` are names that an earlier call may have left and this one need not write; so are figures.
    `note` is the manifest without status and files. Raises: FolderInUse, OSError.
    """
    note = note.model_copy(update={"status": RUNNING, "versions": files.versions()})
    with locked(folder):
        write_manifest(folder, note)
        clear(folder, [*former, *(str(each.relative_to(folder)) for each in folder.glob("figures/*"))])
        texts = {files.RECIPE: files.recipe_text(recipe), **tables}
        for name, text in texts.items():
            files.replace_text(folder / name, text)
        figures = list(draw(folder))
        digests = hashes(folder, [*texts, *figures])
        write_manifest(folder, note.model_copy(update={"status": status, "files": digests}))
    return figures
