"""One published file over HTTP: into a .part beside it, on from there when broken off, never more than is published."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from http.client import IncompleteRead
from pathlib import Path
from typing import TYPE_CHECKING

import deqcli
from deqcli.data.files import file_sha256
from deqcli.data.published import PublishedFile
from deqcli.errors import NO_SPACE, as_refusal

if TYPE_CHECKING:
    from requests import Response

PART = ".part"
CHUNK = 1 << 16
OK, PARTIAL, NOT_SATISFIABLE = 200, 206, 416
PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Answers after which the same request may succeed."""

HEADERS = {"User-Agent": f"deqcli/{deqcli.__version__}", "Accept-Encoding": "identity"}
CONTENT_RANGE = re.compile(r"bytes (\d{1,20})-\d{1,20}/(\d{1,20}|\*)")


@dataclass(frozen=True)
class Patience:
    """How long a mirror is tried: attempts, seconds before the second (each further wait is twice the one before).

    `connect` and `read` are the seconds that it may be silent. In each `read` seconds it must send `slowest` bytes a
    second. An attempt that brings `gain` bytes counts as none.
    """

    attempts: int = 4
    wait: float = 1.0
    connect: float = 10.0
    read: float = 30.0
    slowest: float = 100.0
    gain: int = 1 << 20


@dataclass(frozen=True)
class Progress:
    """How far a file is: `done` of `size` bytes from `url`; `remark` is what has just gone otherwise than hoped."""

    file: str
    size: int
    done: int
    url: str | None = None
    remark: str | None = None


Tell = Callable[[Progress], None]


class BrokenOff(Exception):
    """An attempt ended early; the next may go on from there."""


class MirrorFailed(Exception):
    """A mirror is given up; `wrong` says that it has something else under the file's name."""

    def __init__(self, reason: str, wrong: bool = False) -> None:
        super().__init__(reason)
        self.wrong = wrong


class Download:
    """What pooch is handed to download with, since its own downloaders begin anew each time.

    `part` keeps what has come, whatever ends the download, until all of it is there. It is removed only when its
    SHA-256 is wrong. `resumed` is how many bytes of it an earlier download had left.
    """

    def __init__(self, label: str, file: PublishedFile, part: Path, patience: Patience, tell: Tell) -> None:
        self._file, self._part, self._patience, self._tell = file, part, patience, tell
        self._progress = Progress(label, file.size, 0)
        self._validator: str | None = None
        self._pure = False
        self.resumed = self._have()

    def __call__(self, url: str, output: str | os.PathLike[str], _pooch: object = None) -> None:
        """Leave the verified file at `output`. Raises: MirrorFailed, DiskFull, OSError."""
        self._progress = replace(self._progress, url=url)
        self._validator, self._pure = None, not self._have()
        furthest, tries = self._have(), 0
        while trouble := self._attempt(url):
            have = self._have()
            tries = 1 if have - furthest >= self._patience.gain else tries + 1
            furthest = max(furthest, have)
            if tries >= self._patience.attempts:
                raise MirrorFailed(str(trouble))
            wait = self._patience.wait * 2 ** (tries - 1)
            self._say(f"{trouble}; again in {wait:g} s")
            time.sleep(wait)
        self._part.replace(output)

    def _attempt(self, url: str) -> BrokenOff | None:
        """Download what is missing and verify it: None, or what broke it off. Raises: MirrorFailed, OSError."""
        try:
            if self._have() < self._file.size:
                self._transfer(url)
            if not self._verified():
                self._transfer(url)  # what there was before is none of this mirror's doing
                self._verified()
        except BrokenOff as trouble:
            return trouble
        return None

    def _verified(self) -> bool:
        """Whether the part is the file; if not it is removed, and where all of it is of this mirror, so is the mirror.

        Raises: MirrorFailed.
        """
        found = file_sha256(self._part)
        if found == self._file.sha256:
            return True
        self._part.unlink()
        wrong = f"its SHA-256 is {found}, the published one {self._file.sha256}"
        if self._pure:
            raise MirrorFailed(wrong, wrong=True)
        self._pure, self.resumed = True, 0
        self._say(f"with what was there before {wrong}; from the start")
        return False

    def _have(self) -> int:
        """Bytes of the part. More than are published are none of the file's, and removed."""
        have = self._part.stat().st_size if self._part.exists() else 0
        if have > self._file.size:
            self._part.unlink()
            return 0
        return have

    def _transfer(self, url: str) -> None:
        """Append what is missing, or write all of it where the server begins at the start.

        Raises: BrokenOff, MirrorFailed, DiskFull, OSError.
        """
        have = self._have()
        response = self._get(url, have)
        if have and not _continues(response, have, self._file.size):
            response.close()
            have, response = 0, self._get(url, 0)
        with closing(response):
            start = have if response.status_code == PARTIAL else 0
            self._check(response, have, start)
            self._validator = _validator(response)
            if not start:
                self._pure, self.resumed = True, 0
            with _named(self._part), self._part.open("ab" if start else "wb") as part:
                for chunk in self._chunks(response, self._file.size - start):
                    part.write(chunk)
                    self._say(None, part.tell())
                part.flush()
                os.fsync(part.fileno())

    def _get(self, url: str, have: int) -> Response:
        """Ask for all but the first `have` bytes, if they are still of the same file where that can be asked."""
        import requests

        resume = {"Range": f"bytes={have}-"} if have else {}
        same = {"If-Range": self._validator} if have and self._validator else {}
        timeout = (self._patience.connect, self._patience.read)
        try:
            return requests.get(url, headers=HEADERS | resume | same, stream=True, timeout=timeout)
        except (ValueError, requests.TooManyRedirects) as error:
            raise MirrorFailed(str(error)) from None
        except requests.ConnectTimeout:
            raise BrokenOff(f"no connection within {self._patience.connect:g} s") from None
        except requests.Timeout:
            raise BrokenOff(f"no answer within {self._patience.read:g} s") from None
        except requests.RequestException as error:
            raise BrokenOff(_innermost(error)) from None

    def _check(self, response: Response, have: int, start: int) -> None:
        """Whether the answer may be the file. Raises: BrokenOff, MirrorFailed."""
        status, length = response.status_code, response.headers.get("Content-Length", "")
        if status in PASSING:
            raise BrokenOff(f"it answers {status} {response.reason}")
        if status not in (OK, PARTIAL) or (status == PARTIAL and not have):
            raise MirrorFailed(f"it answers {status} {response.reason}")
        if response.headers.get("Content-Type", "").startswith("text/html"):
            raise MirrorFailed("it sends a web page instead of the file", wrong=True)
        size = start + int(length) if length.isdecimal() else None
        if size is not None and (size > self._file.size or (status == OK and size < self._file.size)):
            raise MirrorFailed(f"it has {size} bytes, {self._file.size} are published", wrong=True)

    def _chunks(self, response: Response, missing: int) -> Iterator[bytes]:
        """So many bytes as they come, as they are, whatever encoding the server gives them. Raises: BrokenOff."""
        since, since_missing = time.monotonic(), missing
        while missing:
            chunk = self._read(response, min(CHUNK, missing))
            if not chunk:
                raise BrokenOff(f"broken off at {self._file.size - missing} of {self._file.size} bytes")
            yield chunk
            missing -= len(chunk)
            if time.monotonic() - since >= self._patience.read:
                pace = (since_missing - missing) / (time.monotonic() - since)
                if missing and pace < self._patience.slowest:
                    raise BrokenOff(f"it sends {pace:.3g} bytes a second")
                since, since_missing = time.monotonic(), missing

    def _read(self, response: Response, most: int) -> bytes:
        from urllib3.exceptions import HTTPError, ReadTimeoutError

        try:
            return bytes(response.raw.read1(most, decode_content=False))
        except ReadTimeoutError:
            raise BrokenOff(f"silent for {self._patience.read:g} s") from None
        except HTTPError as error:
            if any(isinstance(each, IncompleteRead) for each in (error, *error.args)):
                return b""
            raise BrokenOff(_innermost(error)) from None

    def _say(self, remark: str | None, done: int | None = None) -> None:
        self._tell(replace(self._progress, done=self._have() if done is None else done, remark=remark))


def _continues(response: Response, have: int, size: int) -> bool:
    """Whether an answer to a request for the rest can be used: the rest, all of it, or a refusal for other reasons."""
    if response.status_code != PARTIAL:
        return response.status_code != NOT_SATISFIABLE
    found = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    return found is not None and int(found[1]) == have and found[2] in (str(size), "*")


def _validator(response: Response) -> str | None:
    """What says that a file is the same still; a weak ETag does not say it byte for byte."""
    etag = response.headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")


def _innermost(error: BaseException) -> str:
    """What an error comes down to, in the system's words where there are any."""
    inside = (*error.args, getattr(error, "reason", None), error.__cause__)
    for each in inside:
        if isinstance(each, BaseException):
            return _innermost(each)
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Let an error of the system say which file it was about: a full disk does not. Raises: DiskFull, OSError."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        if error.errno in NO_SPACE:
            raise as_refusal(error) from None
        raise
