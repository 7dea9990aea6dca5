"""Fetching the files of image sets that are not there, from the mirrors that have them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import count
from os.path import lexists
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from deqcli.data.download import Download, MirrorFailed, Patience, Progress, Tell
from deqcli.data.files import file_sha256, is_file
from deqcli.data.holdings import Found, look, need_files, need_folder, part_of
from deqcli.data.published import PUBLISHED, Published, PublishedFile
from deqcli.errors import Refused, SystemRefused, counted, one_line

PATIENCE = Patience()
NEEDED = ("pooch", "requests")
WEB = ("http://", "https://")
TEMPORARY = "tmp????????"
OTHER = ".other"
"""What follows the name of a file that was in the place of a published one."""

Origin = Literal["there", "fetched", "replaced"]


@dataclass(frozen=True)
class FetchedFile:
    """A file that is there, verified: whether it was before, from where it came, how much an earlier fetch had left.

    `path` is where it is, or would be beside what came out of it and is there `unpacked`. `found` is the SHA-256 of
    what it replaced, which is `kept` now.
    """

    of: str
    file: PublishedFile
    path: Path
    state: Origin
    source: str | None = None
    resumed: int = 0
    found: str | None = None
    kept: Path | None = None
    unpacked: tuple[Path, ...] = ()

    def __str__(self) -> str:
        name = f"{self.of}/{self.file.name}"
        if self.state == "there":
            unpacked = ", unpacked" if self.unpacked else ""
            return f"{name}: there already{unpacked}, with the published SHA-256, in {self.path.parent}"
        earlier = f", {in_words(self.resumed)} of it earlier" if self.resumed else ""
        kept = f"; what was there is {self.kept} now" if self.kept else ""
        return f"{name}: {in_words(self.file.size)} {self.state} from {self.source}{earlier}{kept}"


@dataclass(frozen=True)
class Fetched:
    """An image set whose files are all there, verified; `folder` is where those are that were not there before."""

    name: str
    folder: Path
    files: tuple[FetchedFile, ...]


OnFile = Callable[[FetchedFile], None]
Hold = Callable[[Path], AbstractContextManager[None]]


def find_published(names: Sequence[str]) -> list[Published]:
    """The image sets of these names, each once. Raises: Refused, with the nearest name and all there are."""
    for name in names:
        if name not in PUBLISHED:
            near = difflib.get_close_matches(name, PUBLISHED, n=1)
            guess = f"did you mean `{near[0]}`? " if near else ""
            raise Refused(f"there is no image set {one_line(name)!r}; {guess}There are {', '.join(PUBLISHED)}")
    return [PUBLISHED[name] for name in dict.fromkeys(names)]


def in_words(size: float) -> str:
    """Bytes for a person: 812 bytes, 29.5 kB, 182.0 MB."""
    if size < 1000:
        return f"{size:.0f} bytes"
    return f"{size / 1e3:.1f} kB" if size < 999_950 else f"{size / 1e6:.1f} MB"


def fetch_sets(
    sets: Sequence[Published], root: Path, hold: Hold, mirrors: Sequence[str] = (), patience: Patience | None = None,
    on_progress: Tell = lambda _: None, on_file: OnFile = lambda _: None,
) -> list[Fetched]:  # fmt: skip
    """Download the files of image sets into <root>/<name>, each verified by its SHA-256 before it is put in its place.

    What is there and right is left alone, wherever below the root a recipe finds it; what is in the place of a file and
    is not as published is kept beside it. The mirrors (those published, where none are named) are tried one after
    another. `hold` owns the folder of a set for a block and is not asked where nothing is missing, so that a folder may
    be one that only others can write to.
    Raises: SystemRefused where no mirror has been of use, Refused where all of them have something else, pooch is not
    installed or what is no file is in the way, DiskFull, OSError, what `hold` raises. What has come by then is kept;
    the next call goes on from there.
    """
    addresses = _addresses(mirrors)
    for each in sets:
        need_folder(root / each.name)
        need_files(each, root / each.name)
    fetchings = [
        _Fetching(each, root, sets, addresses or each.mirrors, patience or PATIENCE, on_progress) for each in sets
    ]
    return [fetching.all(hold, on_file) for fetching in fetchings]


def _addresses(mirrors: Sequence[str]) -> list[str]:
    for mirror in mirrors:
        if not _is_address(mirror):
            as_in = " or ".join(f"{each}HOST/..." for each in WEB)
            raise Refused(f"the mirror {one_line(mirror)} must be the address of a folder, as {as_in}")
    return [mirror if mirror.endswith("/") else f"{mirror}/" for mirror in mirrors]


def _is_address(mirror: str) -> bool:
    """Whether it names a host of the web, at a port that there can be."""
    try:
        parts = urlsplit(mirror)
        return mirror.lower().startswith(WEB) and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _need_installed() -> None:
    missing = [module for module in NEEDED if find_spec(module) is None]
    if missing:
        raise Refused(f"data fetch needs {' and '.join(missing)}: pip install 'deqcli[data]'")


def _aside(path: Path) -> Path:
    """Where what is in the place of a file can be kept: a name beside it that is free."""
    names = (f"{path.name}{OTHER}{f'-{number}' if number > 1 else ''}" for number in count(1))
    return next(other for name in names if not lexists(other := path.with_name(name)))


def _by_hand(sets: Sequence[Published], root: Path) -> Iterator[str]:
    """How a person gets what is missing of all sets, in another way or on another machine."""
    so = "To do it by hand, put"
    for each in sets:
        if missing := [found.file for found in look(each, root, check=True) if not found.accepted]:
            yield f"{so} {counted(len(missing), 'file')} into {root / each.name}:"
            width = max(len(file.name) for file in missing)
            yield from (f"  {file.name:<{width}}  {file.size:>9} bytes  SHA-256 {file.sha256}" for file in missing)
            yield f"from {' or '.join(each.mirrors)} (described at {each.page})."
            so = "And put"


def _sweep(folder: Path) -> None:
    """Remove the empty files that pooch leaves beside the one it waits for when the process is killed."""
    for path in folder.glob(TEMPORARY):
        if path.is_file() and not path.stat().st_size:
            path.unlink()


@dataclass(frozen=True)
class _Fetching:
    """What is fetched below which root, together with which sets, from which mirrors, and who hears of it."""

    published: Published
    root: Path
    asked: Sequence[Published]
    mirrors: Sequence[str]
    patience: Patience
    tell: Tell

    def all(self, hold: Hold, on_file: OnFile) -> Fetched:
        """All files, there now. What is missing is looked for again under the lock: another fetch may have had it."""
        folder, files = self.root / self.published.name, []
        found = self._look()
        complete = all(each.accepted for each in found)
        if not complete:
            _need_installed()
        with nullcontext() if complete else hold(folder):
            for each in found if complete else self._look():
                files.append(self._there(each) if each.accepted else self._fetched(each.file, folder / each.file.name))
                on_file(files[-1])
        return Fetched(self.published.name, folder, tuple(files))

    def _look(self) -> list[Found]:
        return look(self.published, self.root, check=True)

    def _there(self, found: Found) -> FetchedFile:
        return FetchedFile(self.published.name, found.file, found.path, "there", unpacked=found.unpacked)

    def _fetched(self, file: PublishedFile, path: Path) -> FetchedFile:
        other, kept = None, None
        if is_file(path):
            other, kept = file_sha256(path), _aside(path)
            wrong = f"the SHA-256 of {path} is {other}, the published one {file.sha256}; it will be kept as {kept.name}"
            self.tell(Progress(self._label(file), file.size, 0, remark=wrong))
        _sweep(path.parent)
        download = Download(self._label(file), file, part_of(path), self.patience, self.tell)
        source = self._from_any(file, path, download, kept)
        state: Origin = "replaced" if kept else "fetched"
        return FetchedFile(self.published.name, file, path, state, source, download.resumed, other, kept)

    def _from_any(self, file: PublishedFile, path: Path, download: Download, kept: Path | None) -> str:
        """The address that the file came from. Raises: SystemRefused, Refused."""
        failed: dict[str, MirrorFailed] = {}
        for mirror in self.mirrors:
            url = mirror + file.name
            try:
                _retrieve(url, file, path, download, kept)
            except MirrorFailed as failure:
                failed[url] = failure
            else:
                return url
        text = "\n".join([
            f"{self._label(file)} could not be fetched:",
            *(f"{url}: {failure}" for url, failure in failed.items()),
            *_by_hand(self.asked, self.root),
        ])  # fmt: skip
        raise Refused(text) if all(each.wrong for each in failed.values()) else SystemRefused(text)

    def _label(self, file: PublishedFile) -> str:
        return f"{self.published.name}/{file.name}"


def _retrieve(url: str, file: PublishedFile, path: Path, download: Download, kept: Path | None) -> None:
    """Let pooch verify what was downloaded and move it into its place, which is cleared only then.

    Raises: MirrorFailed, OSError.
    """
    import pooch

    def downloaded(url: str, output: str, _pooch: object) -> None:
        download(url, output)
        if kept is not None:
            path.rename(kept)

    with _silent():
        pooch.retrieve(url, f"sha256:{file.sha256}", path.name, path.parent, downloader=downloaded)


@contextmanager
def _silent() -> Iterator[None]:
    """Keep what pooch logs, which is said elsewhere, from standard error."""
    import pooch

    log = pooch.get_logger()
    before = log.level
    log.setLevel("ERROR")
    try:
        yield
    finally:
        log.setLevel(before)
