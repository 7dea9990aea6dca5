"""Image sets: which of their files are there, and fetching those that are not from the mirrors that have them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from deqcli.data.download import PART, Download, MirrorFailed, Patience, Progress, Tell
from deqcli.data.files import file_sha256
from deqcli.data.published import PUBLISHED, Published, PublishedFile
from deqcli.errors import Refused, SystemRefused, counted, one_line

PATIENCE = Patience()
NEEDED = ("pooch", "requests")
WEB = ("http://", "https://")
TEMPORARY = "tmp????????"

State = Literal["there", "unpacked", "begun", "missing", "damaged"]
Origin = Literal["there", "fetched", "replaced"]


@dataclass(frozen=True)
class Found:
    """What there is of a published file at `path`: its state, and the bytes of a download that was broken off."""

    file: PublishedFile
    path: Path
    state: State
    begun: int


@dataclass(frozen=True)
class FetchedFile:
    """A file that is there, verified: whether it was before, from where it came, how much an earlier fetch had left.

    `found` is the SHA-256 of what it replaced.
    """

    of: str
    file: PublishedFile
    path: Path
    state: Origin
    source: str | None = None
    resumed: int = 0
    found: str | None = None

    def __str__(self) -> str:
        if self.state == "there":
            return f"{self.of}/{self.file.name}: there already, with the published SHA-256"
        earlier = f", {in_words(self.resumed)} of it earlier" if self.resumed else ""
        return f"{self.of}/{self.file.name}: {in_words(self.file.size)} {self.state} from {self.source}{earlier}"


@dataclass(frozen=True)
class Fetched:
    """An image set whose files are all in `folder`, verified."""

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


def look(published: Published, folder: Path, check: bool = False) -> list[Found]:
    """What there is of each file of an image set in its folder: by its size, or with `check` by its SHA-256."""
    return [_look_at(file, folder / file.name, check) for file in published.files]


def _look_at(file: PublishedFile, path: Path, check: bool) -> Found:
    part = _part(path)
    begun = part.stat().st_size if part.is_file() else 0
    if path.is_file():
        good = path.stat().st_size == file.size and (not check or file_sha256(path) == file.sha256)
        return Found(file, path, "there" if good else "damaged", begun)
    unpacked = {path.with_name(name): sha256 for name, sha256 in file.contents.items()}
    if unpacked and all(each.is_file() for each in unpacked):
        good = not check or all(file_sha256(each) == sha256 for each, sha256 in unpacked.items())
        return Found(file, path, "unpacked" if good else "damaged", begun)
    return Found(file, path, "begun" if begun else "missing", begun)


def _part(path: Path) -> Path:
    return path.with_name(path.name + PART)


def fetch_set(
    published: Published, folder: Path, hold: Hold, mirrors: Sequence[str] = (), patience: Patience | None = None,
    on_progress: Tell = lambda _: None, on_file: OnFile = lambda _: None,
) -> Fetched:  # fmt: skip
    """Download the files of an image set into a folder, each verified by its SHA-256 before it is put in its place.

    What is there and right is left alone; what is there and wrong is replaced. The mirrors (those published, where none
    are named) are tried one after another. `hold` owns the folder for a block and is not asked where nothing is
    missing, so that a folder may be one that only others can write to.
    Raises: SystemRefused where no mirror has been of use, Refused where all of them have something else or pooch is not
    installed, DiskFull, OSError, what `hold` raises. What has come by then is kept; the next call goes on from there.
    """
    fetching = _Fetching(published, folder, _addresses(mirrors or published.mirrors), patience or PATIENCE, on_progress)
    complete = all(_sum(folder / file.name) == file.sha256 for file in published.files)
    if not complete:
        _need_installed()
    files = []
    with nullcontext() if complete else hold(folder):
        for file in published.files:
            files.append(fetching.file(file))
            on_file(files[-1])
    return Fetched(published.name, folder, tuple(files))


def _sum(path: Path) -> str | None:
    return file_sha256(path) if path.is_file() else None


def _addresses(mirrors: Sequence[str]) -> list[str]:
    for mirror in mirrors:
        if not mirror.lower().startswith(WEB):
            raise Refused(f"the mirror {one_line(mirror)} must be the address of a folder, {' or '.join(WEB)}...")
    return [mirror if mirror.endswith("/") else f"{mirror}/" for mirror in mirrors]


def _need_installed() -> None:
    missing = [module for module in NEEDED if find_spec(module) is None]
    if missing:
        raise Refused(f"data fetch needs {' and '.join(missing)}: pip install 'deqcli[data]'")


def _sweep(folder: Path) -> None:
    """Remove the empty files that pooch leaves beside the one it waits for when the process is killed."""
    for path in folder.glob(TEMPORARY):
        if path.is_file() and not path.stat().st_size:
            path.unlink()


@dataclass(frozen=True)
class _Fetching:
    """What is fetched where, from which mirrors, and who hears of it."""

    published: Published
    folder: Path
    mirrors: Sequence[str]
    patience: Patience
    tell: Tell

    def file(self, file: PublishedFile) -> FetchedFile:
        """A file that is there now. It is looked at under the lock: somebody else may have fetched it a moment ago."""
        path = self.folder / file.name
        found = _sum(path)
        if found == file.sha256:
            return FetchedFile(self.published.name, file, path, "there")
        if found is not None:
            wrong = f"the SHA-256 of {path} is {found}, the published one {file.sha256}; it is replaced"
            self.tell(Progress(self._label(file), file.size, 0, remark=wrong))
        _sweep(self.folder)
        download = Download(self._label(file), file, _part(path), self.patience, self.tell)
        source = self._from_any(file, path, download)
        state: Origin = "fetched" if found is None else "replaced"
        return FetchedFile(self.published.name, file, path, state, source, download.resumed, found)

    def _from_any(self, file: PublishedFile, path: Path, download: Download) -> str:
        """The address that the file came from. Raises: SystemRefused, Refused."""
        failed: dict[str, MirrorFailed] = {}
        for mirror in self.mirrors:
            url = mirror + file.name
            try:
                _retrieve(url, file, path, download)
            except MirrorFailed as failure:
                failed[url] = failure
            else:
                return url
        text = "\n".join([
            f"{self._label(file)} could not be fetched:",
            *(f"{url}: {failure}" for url, failure in failed.items()),
            *self._by_hand(),
        ])  # fmt: skip
        raise Refused(text) if all(each.wrong for each in failed.values()) else SystemRefused(text)

    def _by_hand(self) -> Iterator[str]:
        """How a person gets what is missing, in another way or on another machine."""
        missing = [found for found in look(self.published, self.folder, check=True) if found.state != "there"]
        width = max(len(found.file.name) for found in missing)
        yield f"To do it by hand, put {counted(len(missing), 'file')} into {self.folder}:"
        for found in missing:
            yield f"  {found.file.name:<{width}}  {found.file.size:>9} bytes  SHA-256 {found.file.sha256}"
        yield f"from {' or '.join(self.published.mirrors)} (described at {self.published.page})."

    def _label(self, file: PublishedFile) -> str:
        return f"{self.published.name}/{file.name}"


def _retrieve(url: str, file: PublishedFile, path: Path, download: Download) -> None:
    """Let pooch verify what was downloaded and move it into its place. Raises: MirrorFailed, OSError."""
    import pooch

    with _silent():
        pooch.retrieve(url, f"sha256:{file.sha256}", path.name, path.parent, downloader=download)


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
