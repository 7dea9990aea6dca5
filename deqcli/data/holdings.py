"""What there is of an image set below a folder, found where recipes look for it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deqcli.data.download import PART
from deqcli.data.files import file_sha256, is_file
from deqcli.data.image_files import Wanted, place
from deqcli.data.published import Published, PublishedFile
from deqcli.errors import Refused

State = Literal["there", "unpacked", "partly unpacked", "begun", "missing", "other"]


@dataclass(frozen=True)
class Found:
    """What there is of a published file in a folder: its state, and the bytes of a download that was broken off.

    `path` is where the file is or would be, `paths` are what is there in its place; where the state is `other`, only
    those that are not as published.
    """

    file: PublishedFile
    path: Path
    state: State
    paths: tuple[Path, ...]
    begun: int

    @property
    def unpacked(self) -> tuple[Path, ...]:
        """What came out of the file, where that is there instead."""
        return tuple(path for path in self.paths if path != self.path)

    @property
    def accepted(self) -> bool:
        """Whether recipes accept it as published: unpacked files only if their SHA-256 is known."""
        known = all(self.file.sum_of(path.name) for path in self.paths)
        return self.state in ("there", "unpacked") and known


def look(published: Published, root: Path, check: bool = False) -> list[Found]:
    """What there is of each file of an image set, where a recipe would read it: by size, or with `check` by SHA-256.

    Straight in the root only what recipes accept is the set's: several sets have files of the same names.
    """
    return [found for files in published.parts for found in _together(published, files, root, check)]


def _together(published: Published, files: Sequence[PublishedFile], root: Path, check: bool) -> list[Found]:
    home = root / published.name
    folder = place([_wanted(file) for file in files], published.below(root))
    found = [_look_at(file, folder, home, check) for file in files]
    if folder.is_relative_to(home) or all(each.accepted for each in found):
        return found
    return [_look_at(file, home, home, check) for file in files]


def _wanted(file: PublishedFile) -> Wanted:
    return Wanted(file, tuple(file.contents))


def _look_at(file: PublishedFile, folder: Path, home: Path, check: bool) -> Found:
    path, part = folder / file.name, part_of(home / file.name)
    begun = part.stat().st_size if is_file(part) else 0
    paths = _wanted(file).found(folder)
    if _wanted(file).missing(folder):
        if os.path.lexists(path):
            return Found(file, path, "other", (path,), begun)
        return Found(file, path, "begun" if begun else "partly unpacked" if paths else "missing", paths, begun)
    others = tuple(each for each in paths if not _as_published(file, each, check))
    return Found(file, path, "other" if others else "there" if path in paths else "unpacked", others or paths, begun)


def _as_published(file: PublishedFile, path: Path, check: bool) -> bool:
    """As far as is known: of some unpacked files no sum is published, and of none the size."""
    if path.name == file.name and path.stat().st_size != file.size:
        return False
    expected = file.sum_of(path.name)
    return not check or expected is None or file_sha256(path) == expected


def part_of(path: Path) -> Path:
    """Where a download of a file is kept until all of it is there."""
    return path.with_name(path.name + PART)


def need_folder(folder: Path) -> None:
    """Raises: Refused where something else than a folder is in the way of it."""
    first = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not first.is_dir():
        raise Refused(f"{first} is not a folder")


def need_files(published: Published, folder: Path) -> None:
    """Raises: Refused where something else than a file is where one of the set's, or of its downloads, belongs."""
    for path in _places(published, folder):
        if os.path.lexists(path) and not is_file(path):
            raise Refused(f"{path} is not a file; remove it")


def _places(published: Published, folder: Path) -> Iterator[Path]:
    for file in published.files:
        yield from (folder / file.name, part_of(folder / file.name))
