"""Files of an image set: where they lie, whether they are the published ones, and what they unpack to."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shlex
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from deqcli.data.files import LONGEST_REASON, is_file
from deqcli.data.published import Published, PublishedFile, data_folder
from deqcli.errors import Refused

MOST_BYTES = 2**29
"""No file is read, and nothing unpacked, beyond this."""

CHUNK = 2**20
ANY = "`data.sha256: any` accepts other files of this format"


@dataclass(frozen=True)
class Wanted:
    """A published file, and the names of what is read in its place where it was unpacked."""

    file: PublishedFile
    unpacked: tuple[str, ...] = ()

    def found(self, folder: Path) -> tuple[Path, ...]:
        """The file as published, or else those of the unpacked ones that are in the folder."""
        if is_file(folder / self.file.name):
            return (folder / self.file.name,)
        return tuple(folder / name for name in self.unpacked if is_file(folder / name))

    def missing(self, folder: Path) -> list[str]:
        """What is not in the folder: nothing, the file as published, or some of its unpacked ones."""
        found = {path.name for path in self.found(folder)}
        if not found:
            return [self.file.name]
        return [] if self.file.name in found else [name for name in self.unpacked if name not in found]


def place(wanted: Sequence[Wanted], folders: Sequence[Path]) -> Path:
    """The folder that files are read from together: the first that has them all, or else the one that has most."""
    for folder in folders:
        if not any(each.missing(folder) for each in wanted):
            return folder
    return max(folders, key=lambda folder: _held(wanted, folder))


def _held(wanted: Sequence[Wanted], folder: Path) -> int:
    return sum(len(each.found(folder)) for each in wanted)


def find(published: Published, wanted: Sequence[Wanted], root: str | None = None) -> list[tuple[Path, ...]]:
    """The files of each of the wanted, in the first folder that has them all; `root` is one that a recipe names.

    Raises: Refused, naming what is missing where most of them are, or all folders where none is in any.
    """
    folders = published.below(data_folder(root))
    missing = {folder: [name for each in wanted for name in each.missing(folder)] for folder in folders}
    best = place(wanted, folders)
    if not missing[best]:
        return [each.found(best) for each in wanted]
    for path in (folder / name for folder in folders for name in missing[folder]):
        if os.path.lexists(path):
            raise Refused(f"{path} is not a file")
    looked = ", ".join(map(str, [best] if _held(wanted, best) else folders))
    names, are = missing[best], "is" if len(missing[best]) == 1 else "are"
    fetch = f"deqcli data fetch {published.name}{'' if root is None else f' --root {shlex.quote(root)}'}"
    raise Refused(
        f"{' and '.join(names)} of {published.name} {are} not in {looked}; `{fetch}` downloads the files, or put them "
        f"there by hand from {published.page}"
    )


def read(path: Path, file: PublishedFile, of_any: bool) -> bytes:
    """The bytes of a file, which is the published one, or came out of it, unless those `of_any` file will do.

    Raises: Refused, with both sizes or both sums.
    """
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise Refused(f"{path} has {size} bytes; no more than {MOST_BYTES} are read")
    if not of_any:
        _of_size(path, file, size)
    content = path.read_bytes()
    if not of_any:
        _of_sum(path, file, content)
    return content


def _of_size(path: Path, file: PublishedFile, size: int) -> None:
    if path.name == file.name and size != file.size:
        is_so = "is truncated, or another file" if size < file.size else "is longer than the published file"
        raise Refused(f"{path} {is_so}: it has {size} bytes, that one {file.size}; {ANY}")


def _of_sum(path: Path, file: PublishedFile, content: bytes) -> None:
    expected = file.sha256 if path.name == file.name else file.contents.get(path.name)
    if expected is None:
        raise Refused(f"{path}: no SHA-256 of it is published, only that of {file.name}; use that file, or {ANY}")
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise Refused(f"{path} is not the published file: its SHA-256 is {found}, that one's {expected}; {ANY}")


def unpacking(path: Path, content: bytes) -> BinaryIO:
    """What a file unpacks to as a stream: that of a gzip file where its name ends so, else its own bytes."""
    stream = io.BytesIO(content)
    return cast(BinaryIO, gzip.open(stream)) if path.suffix == ".gz" else stream


def take(path: Path, stream: BinaryIO, most: int) -> bytes:
    """The next bytes of a stream, at most so many, in chunks: what it claims to have is not believed.

    Raises: Refused where a gzip file is damaged.
    """
    taken = bytearray()
    try:
        while len(taken) < most and (chunk := stream.read(min(CHUNK, most - len(taken)))):
            taken += chunk
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise Refused(f"{path} is not a whole gzip file ({reason(error)})") from None
    return bytes(taken)


def reason(error: Exception) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split())[:LONGEST_REASON] or type(error).__name__
