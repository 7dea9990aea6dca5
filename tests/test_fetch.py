"""Image sets over HTTP from servers good and bad: what arrives, what is asked for, what is kept, and what is said."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

import deqcli
from deqcli.cli.main import app
from deqcli.data import download
from deqcli.data import fetch as module
from deqcli.data.download import Patience, Progress
from deqcli.data.fetch import Fetched, FetchedFile, fetch_sets, in_words
from deqcli.data.holdings import look
from deqcli.data.published import PUBLISHED, Published, PublishedFile
from deqcli.errors import DiskFull, FolderInUse, Interrupted, Refused, SystemRefused
from deqcli.runs.folder import locked
from deqcli.show import fetching
from deqcli.show.console import Screen
from deqcli.show.fetching import Flow
from tests.data_server import (
    HTML,
    Manner,
    Mirror,
    answers,
    breaks_off,
    endless,
    good,
    in_chunks,
    of_version,
    refusing,
    sends,
    serving,
    stalls,
    trickles,
    unmeasured,
    without_range,
    wrong_range,
)  # fmt: skip
from tests.test_live import FakeTerminal, standard_error
from tests.waiting import wait_for

IMAGES, LABELS = "images.gz", "labels.gz"
CONTENT = {IMAGES: hashlib.shake_256(b"images").digest(50_000), LABELS: hashlib.shake_256(b"labels").digest(300)}
OTHER = {IMAGES: hashlib.shake_256(b"other").digest(50_000), LABELS: CONTENT[LABELS]}
QUICK = Patience(attempts=3, wait=0.001)
SOON = 0.5
"""Seconds of silence after which a test takes a server that says no more for stalled."""

HALF = "bytes=25000-"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def made_up(*mirrors: str, contents: dict[str, dict[str, str]] | None = None) -> Published:
    """An image set of two files."""
    files = [
        PublishedFile(name, sha256(each), len(each), (contents or {}).get(name, {})) for name, each in CONTENT.items()
    ]
    return Published("made-up", "noise, 5 x 5", "http://page.test/", tuple(files), mirrors)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short waits, and no proxy between here and here."""
    monkeypatch.setattr(module, "PATIENCE", QUICK)
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with serving(CONTENT) as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """That of the made-up set."""
    (tmp_path / "made-up").mkdir()
    return tmp_path / "made-up"


@pytest.fixture
def second() -> Iterator[Mirror]:
    with serving(CONTENT) as server:
        yield server


def fetched(folder: Path, *mirrors: Mirror | str, tell: Callable[[Progress], None] = lambda _: None) -> Fetched:
    """The made-up set from these mirrors into its folder, with nobody else about."""
    urls = [each if isinstance(each, str) else each.url for each in mirrors]
    (done,) = fetch_sets([made_up(*urls)], folder.parent, lambda _: nullcontext(), on_progress=tell)
    return done


def part(folder: Path) -> Path:
    return folder / f"{IMAGES}.part"


def begin(folder: Path, content: bytes = CONTENT[IMAGES][:25_000]) -> None:
    """Leave what a broken-off download would."""
    folder.mkdir(exist_ok=True, parents=True)
    part(folder).write_bytes(content)


def assert_complete(folder: Path) -> None:
    """Both files, right to the last byte, and nothing else."""
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENT


# what arrives


def test_files_are_fetched_verified_and_left_alone_when_they_are_there(folder: Path, mirror: Mirror) -> None:
    heard: list[Progress] = []
    done = fetched(folder.parent / "new/made-up", mirror, tell=heard.append)
    assert_complete(done.folder)
    assert [(each.of, each.file.name, each.state, each.resumed) for each in done.files] == [
        ("made-up", IMAGES, "fetched", 0), ("made-up", LABELS, "fetched", 0),
    ]  # fmt: skip
    assert [each.source for each in done.files] == [mirror.url + IMAGES, mirror.url + LABELS]
    assert {path.stat().st_mode & 0o777 for path in done.folder.iterdir()} == {0o666 & ~_umask()}
    images = [each for each in heard if each.file == f"made-up/{IMAGES}"]
    assert [each.done for each in images] == sorted(each.done for each in images)
    assert (images[-1].done, images[-1].size, images[-1].remark) == (50_000, 50_000, None)
    again = fetched(done.folder, mirror)
    assert [each.state for each in again.files] == ["there", "there"]
    assert mirror.ranges(IMAGES) == [None]


def _umask() -> int:
    umask = os.umask(0o022)
    os.umask(umask)
    return umask


def test_a_folder_that_has_all_is_neither_locked_nor_asked_for_pooch(
    folder: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched(folder, mirror)
    monkeypatch.setattr(module, "find_spec", lambda _: None)

    def hold(_: Path) -> nullcontext[None]:
        raise AssertionError("the folder may be one that is only read from")

    (done,) = fetch_sets([made_up(mirror.url)], folder.parent, hold)
    assert [each.state for each in done.files] == ["there", "there"]


RESTARTS: dict[str, list[Manner]] = {
    "no Range": [without_range()],
    "416": [answers(416), good],
    "another start": [wrong_range("bytes 24999-49999/50000")],
    "another size": [wrong_range("bytes 25000-49999/60000")],
    "no words": [wrong_range("everything")],
}


def test_what_an_earlier_fetch_left_is_gone_on_with_and_only_the_rest_is_asked_for(
    folder: Path, mirror: Mirror
) -> None:
    begin(folder)
    done = fetched(folder, mirror)
    assert_complete(folder)
    assert mirror.ranges(IMAGES) == [HALF]
    assert [each.sent for each in mirror.asked] == [25_000, 300]
    assert done.files[0].resumed == 25_000
    assert str(done.files[0]) == f"made-up/{IMAGES}: 50.0 kB fetched from {mirror.url}{IMAGES}, 25.0 kB of it earlier"


@pytest.mark.parametrize("manners", RESTARTS.values(), ids=RESTARTS)
def test_a_server_that_cannot_go_on_sends_it_from_the_start(
    folder: Path, mirror: Mirror, manners: list[Manner]
) -> None:
    begin(folder)
    mirror.behave(IMAGES, *manners)
    done = fetched(folder, mirror)
    assert_complete(folder)
    assert mirror.ranges(IMAGES) in ([HALF], [HALF, None])
    assert done.files[0].resumed == 0


def test_a_part_that_is_complete_is_verified_and_one_that_is_too_long_removed(folder: Path, mirror: Mirror) -> None:
    begin(folder, CONTENT[IMAGES])
    assert fetched(folder, mirror).files[0].resumed == 50_000
    assert mirror.ranges(IMAGES) == []
    (folder / IMAGES).unlink()
    begin(folder, CONTENT[IMAGES] + b"x")
    assert fetched(folder, mirror).files[0].resumed == 0
    assert mirror.ranges(IMAGES) == [None]
    assert_complete(folder)


@pytest.mark.parametrize("left", [OTHER[IMAGES][:25_000], OTHER[IMAGES]], ids=["half", "all"])
def test_a_part_of_something_else_is_no_fault_of_the_mirror(folder: Path, mirror: Mirror, left: bytes) -> None:
    begin(folder, left)
    heard: list[Progress] = []
    fetched(folder, mirror, tell=heard.append)
    assert_complete(folder)
    assert mirror.ranges(IMAGES) == ([HALF, None] if len(left) == 25_000 else [None])
    (remark,) = [each.remark for each in heard if each.remark]
    assert remark.startswith("with what was there before its SHA-256 is ")
    assert remark.endswith(f"the published one {sha256(CONTENT[IMAGES])}; from the start")


BREAKS: dict[str, tuple[Manner, str]] = {
    "closed": (breaks_off(25_000), "broken off at 25000 of 50000 bytes"),
    "silent": (stalls(25_000), f"silent for {SOON} s"),
    "chunks": (in_chunks(25_000), "broken off at 25000 of 50000 bytes"),
    "no length": (unmeasured(CONTENT[IMAGES][:25_000]), "broken off at 25000 of 50000 bytes"),
}  # fmt: skip


@pytest.mark.parametrize(("manner", "words"), BREAKS.values(), ids=BREAKS)
def test_a_connection_that_breaks_is_made_again_for_the_rest(
    folder: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch, manner: Manner, words: str
) -> None:
    mirror.behave(IMAGES, manner, good)
    monkeypatch.setattr(module, "PATIENCE", replace(QUICK, read=SOON) if "silent" in words else QUICK)
    heard: list[Progress] = []
    done = fetched(folder, mirror, tell=heard.append)
    assert_complete(folder)
    assert mirror.ranges(IMAGES) == [None, HALF]
    assert mirror.asked[1].sent == 25_000
    assert [each.remark for each in heard if each.remark] == [f"{words}; again in 0.001 s"]
    assert done.files[0].resumed == 0


def test_a_trickle_is_ended(folder: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", replace(QUICK, read=SOON))
    mirror.behave(IMAGES, trickles, good)
    heard: list[Progress] = []
    fetched(folder, mirror, tell=heard.append)
    assert_complete(folder)
    (remark,) = [each.remark for each in heard if each.remark]
    assert remark.startswith("it sends ")
    assert "bytes a second; again in" in remark


DATE = "Sat, 28 Nov 2026 00:00:00 GMT"
VERSIONS: dict[str, tuple[Manner, Manner, str | None, int]] = {
    "same": (of_version('"a"', 25_000), of_version('"a"'), '"a"', 25_000),
    "changed": (of_version('"a"', 25_000), of_version('"b"'), '"a"', 50_000),
    "weak": (breaks_off(25_000, ETag='W/"a"'), good, None, 25_000),
    "weak, with a date": (breaks_off(25_000, ETag='W/"a"', Last_Modified=DATE), good, DATE, 25_000),
}


@pytest.mark.parametrize("case", VERSIONS)
def test_the_rest_is_asked_for_if_the_file_is_the_same_still(folder: Path, mirror: Mirror, case: str) -> None:
    first, then, asked, sent = VERSIONS[case]
    mirror.behave(IMAGES, first, then)
    fetched(folder, mirror)
    assert_complete(folder)
    assert [(each.range, each.if_range) for each in mirror.asked[:2]] == [(None, None), (HALF, asked)]
    assert mirror.asked[1].sent == sent


def test_whatever_encoding_a_server_names_the_bytes_are_taken_as_they_are(folder: Path, mirror: Mirror) -> None:
    mirror.behave(IMAGES, sends(CONTENT[IMAGES], Content_Encoding="x-gzip"))
    mirror.behave(LABELS, in_chunks())
    fetched(folder, mirror)
    assert_complete(folder)


def test_attempts_end_but_those_that_bring_much_count_as_none(
    folder: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenths = [breaks_off(end) for end in range(5_000, 50_000, 5_000)]
    mirror.behave(IMAGES, *tenths, good)
    with pytest.raises(SystemRefused, match="broken off at 15000 of 50000 bytes"):
        fetched(folder, mirror)
    assert part(folder).stat().st_size == 15_000
    assert len(mirror.asked) == 3
    monkeypatch.setattr(module, "PATIENCE", replace(QUICK, gain=5_000))
    assert fetched(folder, mirror).files[0].resumed == 15_000
    assert_complete(folder)
    assert mirror.ranges(IMAGES) == [None, *(f"bytes={start}-" for start in range(5_000, 50_000, 5_000))]


def test_waits_grow(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(download.time, "sleep", waits.append)
    monkeypatch.setattr(module, "PATIENCE", Patience())
    with pytest.raises(SystemRefused, match="Connection refused"):
        fetched(folder, refusing())
    assert waits == [1.0, 2.0, 4.0]


# mirrors


USELESS: dict[str, tuple[Manner, str, int]] = {
    "404": (answers(404), "it answers 404 Not Found", 1),
    "503": (answers(503), "it answers 503 Service Unavailable", 3),
    "206": (sends(b"x", Content_Length=2), "it has 2 bytes, 50000 are published", 1),
    "short": (sends(CONTENT[IMAGES][:40_000]), "it has 40000 bytes, 50000 are published", 1),
    "long": (sends(CONTENT[IMAGES] + b"x"), "it has 50001 bytes, 50000 are published", 1),
    "page": (unmeasured(HTML, Content_Type="text/html; charset=utf-8"), "it sends a web page instead of the file", 1),
    "bytes": (sends(OTHER[IMAGES]), f"its SHA-256 is {sha256(OTHER[IMAGES])}, the published one ", 1),
    "more": (unmeasured(OTHER[IMAGES] * 9), f"its SHA-256 is {sha256(OTHER[IMAGES])}, the published one ", 1),
    "endless": (endless, f"its SHA-256 is {sha256(bytes(50_000))}, the published one ", 1),
}  # fmt: skip
OF_THE_NET = ("404", "503")


@pytest.mark.parametrize("case", USELESS)
def test_a_mirror_without_the_file_is_left_for_the_next_and_said_if_there_is_none(
    folder: Path, mirror: Mirror, second: Mirror, case: str
) -> None:
    manner, words, requests = USELESS[case]
    mirror.behave(IMAGES, manner)
    with pytest.raises((Refused, SystemRefused)) as refusal:
        fetched(folder, mirror)
    assert type(refusal.value) is (SystemRefused if case in OF_THE_NET else Refused)
    assert len(mirror.asked) == requests
    lines = str(refusal.value).splitlines()
    assert lines[0] == f"made-up/{IMAGES} could not be fetched:"
    assert lines[1].startswith(f"{mirror.url}{IMAGES}: {words}")
    assert list(folder.iterdir()) == []
    done = fetched(folder, mirror, second)
    assert_complete(folder)
    assert [each.source for each in done.files] == [second.url + IMAGES, mirror.url + LABELS]


def test_never_more_than_is_published_is_written(folder: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(module, "PATIENCE", replace(QUICK, attempts=1))
    mirror.behave(IMAGES, endless)
    with pytest.raises(Refused):
        fetched(folder, mirror, tell=lambda progress: sizes.append(part(folder).stat().st_size))
    assert max(sizes) <= 50_000
    assert sizes


def test_a_mirror_goes_on_where_another_broke_off(folder: Path, mirror: Mirror, second: Mirror) -> None:
    mirror.behave(IMAGES, breaks_off(25_000, ETag='"a"'), answers(404))
    fetched(folder, mirror, second)
    assert_complete(folder)
    assert mirror.ranges(IMAGES) == [None, HALF]
    assert [(each.range, each.if_range) for each in second.asked] == [(HALF, None)]


def test_a_busy_server_is_asked_again(folder: Path, mirror: Mirror) -> None:
    mirror.behave(IMAGES, answers(503), answers(429), good)
    fetched(folder, mirror)
    assert_complete(folder)
    assert len(mirror.ranges(IMAGES)) == 3


def test_without_any_mirror_it_is_said_why_and_how_to_do_it_by_hand(folder: Path, mirror: Mirror) -> None:
    away = refusing()
    mirror.behave(IMAGES, sends(OTHER[IMAGES]))
    (folder / LABELS).write_bytes(CONTENT[LABELS])
    with pytest.raises(SystemRefused) as refusal:
        fetched(folder, away, mirror)
    assert str(refusal.value).splitlines() == [
        f"made-up/{IMAGES} could not be fetched:",
        f"{away}{IMAGES}: Connection refused",
        f"{mirror.url}{IMAGES}: its SHA-256 is {sha256(OTHER[IMAGES])}, the published one {sha256(CONTENT[IMAGES])}",
        f"To do it by hand, put 1 file into {folder}:",
        f"  {IMAGES}      50000 bytes  SHA-256 {sha256(CONTENT[IMAGES])}",
        f"from {away} or {mirror.url} (described at http://page.test/).",
    ]


def test_a_redirection_in_a_circle_is_a_failure_of_the_mirror(folder: Path, mirror: Mirror) -> None:
    mirror.behave(IMAGES, lambda reply: reply.head(302, Location=mirror.url + IMAGES, Content_Length=0))
    with pytest.raises(SystemRefused, match="redirects"):
        fetched(folder, mirror)


# what is there


def test_another_file_is_named_and_stays_until_the_right_one_is_there_and_beside_it_then(
    folder: Path, mirror: Mirror
) -> None:
    path, heard, seen = folder / IMAGES, list[Progress](), list[bytes]()
    path.write_bytes(OTHER[IMAGES])
    mirror.behave(IMAGES, answers(404))
    with pytest.raises(SystemRefused):
        fetched(folder, mirror)
    assert path.read_bytes() == OTHER[IMAGES]
    mirror.behave(IMAGES, good)
    done = fetched(folder, mirror, tell=lambda each: (heard.append(each), seen.append(path.read_bytes()))[0])
    kept = folder / f"{IMAGES}.other"
    assert {each.name: each.read_bytes() for each in folder.iterdir()} == CONTENT | {kept.name: OTHER[IMAGES]}
    assert (done.files[0].state, done.files[0].found, done.files[0].kept) == ("replaced", sha256(OTHER[IMAGES]), kept)
    assert str(done.files[0]).endswith(f"50.0 kB replaced from {mirror.url}{IMAGES}; what was there is {kept} now")
    assert heard[0].remark == (
        f"the SHA-256 of {path} is {sha256(OTHER[IMAGES])}, the published one {sha256(CONTENT[IMAGES])}; "
        f"it will be kept as {kept.name}"
    )
    assert set(seen[: [each.file for each in heard].index(f"made-up/{LABELS}")]) == {OTHER[IMAGES]}


def full(_: int) -> None:
    """What the system says to a write that it has no room for."""
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_keeps_what_has_come(folder: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror.behave(IMAGES, breaks_off(25_000), good)

    monkeypatch.setattr(download.os, "fsync", full)
    with pytest.raises(DiskFull, match="No space left on device") as refusal:
        fetched(folder, mirror)
    assert str(part(folder)) in str(refusal.value)
    assert [path.name for path in folder.iterdir()] == [part(folder).name]
    monkeypatch.undo()
    monkeypatch.setenv("NO_PROXY", "*")
    fetched(folder, mirror)
    assert_complete(folder)
    assert mirror.ranges(IMAGES) == [None, HALF]


def test_an_interruption_keeps_what_has_come(folder: Path, mirror: Mirror) -> None:
    def stop(progress: Progress) -> None:
        if progress.done:
            raise Interrupted(signal.SIGINT)

    mirror.behave(IMAGES, stalls(25_000), good)
    with pytest.raises(Interrupted):
        fetched(folder, mirror, tell=stop)
    left = part(folder).read_bytes()
    assert CONTENT[IMAGES].startswith(left)
    assert left
    assert fetched(folder, mirror).files[0].resumed == len(left)
    assert mirror.ranges(IMAGES) == [None, f"bytes={len(left)}-"]
    assert_complete(folder)


def test_what_pooch_leaves_when_it_is_killed_goes_and_what_is_of_others_stays(folder: Path, mirror: Mirror) -> None:
    (folder / "tmp_a1b2c3d").touch()
    (folder / "tmp_of_mine").write_text("mine")
    fetched(folder, mirror)
    assert {path.name for path in folder.iterdir()} == {*CONTENT, "tmp_of_mine"}


def test_what_is_there_is_told_by_size_or_by_content(folder: Path) -> None:
    unpacked = {LABELS: {"labels": sha256(b"labels")}}
    published = made_up(contents=unpacked)

    def states(check: bool = False) -> list[str]:
        return [each.state for each in look(published, folder.parent, check)]

    assert states() == ["missing", "missing"]
    begin(folder)
    assert [each.begun for each in look(published, folder.parent)] == [25_000, 0]
    (folder / "labels").write_bytes(b"labels")
    assert states() == states(check=True) == ["begun", "unpacked"]
    (folder / IMAGES).write_bytes(OTHER[IMAGES])
    (folder / "labels").write_bytes(b"lables")
    assert states() == ["there", "unpacked"]
    assert states(check=True) == ["other", "other"]
    (folder / IMAGES).write_bytes(b"")
    (folder / LABELS).write_bytes(CONTENT[LABELS])
    assert states() == states(check=True) == ["other", "there"]


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_950, "1.0 MB"),
     (182_040_794, "182.0 MB")],
)  # fmt: skip
def test_sizes_in_words(size: int, words: str) -> None:
    assert in_words(size) == words


# the command line, and the API


@pytest.fixture
def catalogue(mirror: Mirror, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The made-up set as the only one, from a good mirror; the folder of its files."""
    monkeypatch.setattr("deqcli.data.published.PUBLISHED", {"made-up": made_up(mirror.url)})
    monkeypatch.setattr(module, "PUBLISHED", {"made-up": made_up(mirror.url)})
    monkeypatch.setattr("deqcli.runs.folder.LOCK_PATIENCE", 0.05)
    monkeypatch.setenv("DEQCLI_DATA", str(tmp_path / "data"))
    return tmp_path / "data/made-up"


def call(*arguments: str) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of a `deqcli data` command."""
    result = CliRunner().invoke(app, ["data", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def test_list_and_fetch_say_what_is_there(catalogue: Path, mirror: Mirror) -> None:
    foot = f"Folder: {catalogue.parent}/NAME\n"
    head = "image set     size    files  what it shows\n"
    assert call("list") == (0, f"{head}made-up    50.3 kB  missing   noise, 5 x 5\n{foot}", "")
    assert call("fetch", "made-up") == (
        0,
        f"made-up: 2 files (2 fetched) in {catalogue}\n",
        f"made-up/{IMAGES}: 50.0 kB fetched from {mirror.url}{IMAGES}\n"
        f"made-up/{LABELS}: 300 bytes fetched from {mirror.url}{LABELS}\n",
    )
    assert "\nmade-up    50.3 kB  complete   noise, 5 x 5\n" in call("list")[1]
    code, out, err = call("fetch", "made-up", "made-up")
    assert (code, out) == (0, f"made-up: 2 files (2 there) in {catalogue}\n")
    assert err.splitlines()[0] == f"made-up/{IMAGES}: there already, with the published SHA-256, in {catalogue}"
    assert len(mirror.asked) == 2
    begin(catalogue)
    (catalogue / IMAGES).unlink()
    assert " 1 begun, 1 there " in call("list")[1]


def test_list_finds_other_files_and_says_what_fetch_does(catalogue: Path) -> None:
    call("fetch", "made-up", "--quiet")
    (catalogue / IMAGES).write_bytes(OTHER[IMAGES])
    assert call("list", "--quiet") == (0, "", "")
    code, out, err = call("list", "--check", "--json")
    (found,) = json.loads(out)["sets"]
    assert (code, found["state"]) == (4, "1 other, 1 there")
    remark = (
        f"{catalogue / IMAGES} is not as published; `deqcli data fetch made-up` keeps it beside the published file\n"
    )
    assert err == remark
    (catalogue / IMAGES).write_bytes(b"a set of my own")
    code, out, err = call("list")
    assert (code, out.endswith(f"/NAME\n{remark}"), err) == (0, True, "")
    (catalogue / IMAGES).write_bytes(OTHER[IMAGES])
    code, out, err = call("fetch", "made-up")
    assert (code, "(1 replaced, 1 there)" in out) == (0, True)
    assert f"the SHA-256 of {catalogue / IMAGES} is {sha256(OTHER[IMAGES])}" in err
    assert call("list", "--check", "--quiet") == (0, "", "")


def test_json_is_one_document_and_quiet_is_silent(catalogue: Path, mirror: Mirror, tmp_path: Path) -> None:
    begin(tmp_path / "elsewhere/made-up")
    code, out, err = call("list", "--json", "--root", str(tmp_path / "elsewhere"))
    document = json.loads(out)
    assert (code, err, document["root"]) == (0, "", str(tmp_path / "elsewhere"))
    (found,) = document["sets"]
    assert (found["bytes"], found["state"]) == (50_300, "1 begun, 1 missing")
    assert (found["files"][0]["begun_bytes"], found["files"][0]["sha256"]) == (25_000, sha256(CONTENT[IMAGES]))
    code, out, err = call("fetch", "made-up", "--json", "--root", str(tmp_path / "elsewhere"))
    document = json.loads(out)
    assert (code, err, document["status"]) == (0, "", "complete")
    assert document["sets"][0]["files"][0] == {
        "name": IMAGES, "bytes": 50_000, "sha256": sha256(CONTENT[IMAGES]), "state": "fetched",
        "path": str(tmp_path / "elsewhere/made-up" / IMAGES), "unpacked": [], "source": mirror.url + IMAGES,
        "resumed_bytes": 25_000, "replaced_sha256": None, "kept": None,
    }  # fmt: skip
    assert not catalogue.exists()
    assert call("fetch", "made-up", "--quiet") == (0, "", "")


def test_failures_have_their_exit_codes(catalogue: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror.behave(IMAGES, answers(404))
    code, out, err = call("fetch", "made-up", "--json")
    assert (code, json.loads(out)["exit_code"]) == (5, 5)
    assert f"To do it by hand, put 2 files into {catalogue}:" in err
    mirror.behave(IMAGES, sends(OTHER[IMAGES]))
    code, _, err = call("fetch", "made-up", "--quiet")
    assert code == 2
    assert sha256(OTHER[IMAGES]) in err
    assert "Traceback" not in err
    mirror.behave(IMAGES, good)
    monkeypatch.setattr(download.os, "fsync", full)
    code, _, err = call("fetch", "made-up")
    assert code == 5
    assert err.startswith(
        f"the system refused {part(catalogue)}: No space left on device; when there is room, the same "
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["made-up", "mad-up"], "there is no image set 'mad-up'; did you mean `made-up`? There are made-up\n"),
        (["zebra"], "there is no image set 'zebra'; There are made-up\n"),
        *(
            (["made-up", "--mirror", url], f"the mirror {url} must be the address of a folder, as http://HOST/... or ")
            for url in ("ftp://a/", "http://", "http:///set/", "http://[bad/", "http://a:port/", "https://a:99999/set/")
        ),
        ([], "Missing argument 'NAME'"),
    ],
)
@pytest.mark.usefixtures("catalogue")
def test_wrong_usage_exits_with_2(arguments: list[str], words: str, mirror: Mirror) -> None:
    code, out, err = call("fetch", *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert mirror.asked == []


def test_a_mirror_is_named_instead_of_the_published_ones(
    catalogue: Path, second: Mirror, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call("fetch", "made-up", "--mirror", second.url.removesuffix("/"))[0] == 0
    assert (len(second.asked), len(mirror.asked)) == (2, 0)
    assert {path.name for path in catalogue.iterdir()} >= set(CONTENT)
    monkeypatch.setitem(module.PUBLISHED, "other", made_up())
    code, _, err = call("fetch", "made-up", "other", "--mirror", second.url)
    assert (code, len(second.asked)) == (2, 2)
    assert err == "a mirror is a folder with the files of one image set; fetch one at a time from it\n"


@pytest.mark.usefixtures("catalogue")
def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pooch", "requests"):
        monkeypatch.setitem(sys.modules, name, None)
    assert call("fetch", "made-up") == (2, "", "data fetch needs pooch and requests: pip install 'deqcli[data]'\n")


def test_two_at_once_are_one_too_many(catalogue: Path, mirror: Mirror) -> None:
    with locked(catalogue):
        code, out, err = call("fetch", "made-up")
        with pytest.raises(FolderInUse):
            deqcli.fetch("made-up")
    assert (code, out) == (6, "")
    assert err == f"{catalogue} is in use by process {os.getpid()} on {os.uname().nodename}\n"
    assert mirror.asked == []


@pytest.mark.usefixtures("catalogue")
def test_the_api_fetches_and_tells(tmp_path: Path) -> None:
    progress, files = list[Progress](), list[FetchedFile]()
    (done,) = deqcli.fetch("made-up", tmp_path, on_progress=progress.append, on_file=files.append)
    assert done.folder == tmp_path / "made-up"
    assert tuple(files) == done.files
    assert {each.file for each in progress} == {f"made-up/{name}" for name in CONTENT}


def test_ctrl_c_keeps_the_part_and_says_how_to_go_on(tmp_path: Path, mirror: Mirror) -> None:
    mirror.behave(
        "train-images-idx3-ubyte.gz", lambda reply: (reply.head(200), reply.body(b"x"), reply.closing.wait(30))[0]
    )
    command = [
        sys.executable,
        "-m",
        "deqcli",
        "data",
        "fetch",
        "mnist",
        "--mirror",
        mirror.url,
        "--root",
        str(tmp_path),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    left = tmp_path / "mnist/train-images-idx3-ubyte.gz.part"
    wait_for(lambda: left.exists())
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.endswith(
        f"interrupted; the same command goes on from there: deqcli data fetch mnist --mirror {mirror.url} "
        f"--root {tmp_path}\n"
    )
    assert {path.name for path in left.parent.iterdir()} == {left.name, ".lock"}


# what is seen of it


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that a display reads."""
    now = [100.0]
    monkeypatch.setattr("deqcli.show.fetching.time.monotonic", lambda: now[0])
    return now


def progress_of(done: int, file: str = "made-up/images.gz", remark: str | None = None) -> Progress:
    return Progress(file, 10_000_000, done, "http://here.test:1/images.gz", remark)


def test_a_line_has_bytes_fraction_pace_and_time_left(clock: list[float]) -> None:
    flow = Flow()
    assert flow.line(100.0) == ""
    flow.hear(progress_of(2_000_000))
    assert flow.line(clock[0]) == "20% made-up/images.gz: 2.0 MB of 10.0 MB"
    for _ in range(50):
        clock[0] += 0.5
        flow.hear(progress_of((flow.now.done if flow.now else 0) + 100_000))
    assert flow.line(clock[0]) == "70% made-up/images.gz: 7.0 MB of 10.0 MB, 15 s left, 200.0 kB/s"
    assert flow.line(clock[0] + 10.0).endswith("30 s left, 100.0 kB/s")
    flow.hear(progress_of(1_000_000))
    assert flow.line(clock[0]) == "10% made-up/images.gz: 1.0 MB of 10.0 MB"


def shown(file: io.StringIO, screen: Screen, clock: list[float]) -> str:
    """What a download of 20 seconds leaves on standard error."""
    with fetching.fetching(screen) as watch:
        for k in range(41):
            watch.hear(progress_of(250_000 * k))
            clock[0] += 0.5
        watch.hear(progress_of(10_000_000, remark="silent for 3 s; again in 1 s"))
        published = made_up().files[0]
        watch.ended(FetchedFile("made-up", published, Path("x"), "fetched", "http://here.test/images.gz"))
    return file.getvalue()


def test_in_a_pipe_there_is_a_plain_line_every_few_seconds(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    with standard_error(monkeypatch, file):
        lines = shown(file, Screen(), clock).splitlines()
    assert lines == [
        "25% made-up/images.gz: 2.5 MB of 10.0 MB, 15 s left, 500.0 kB/s",
        "50% made-up/images.gz: 5.0 MB of 10.0 MB, 10 s left, 500.0 kB/s",
        "75% made-up/images.gz: 7.5 MB of 10.0 MB, 5 s left, 500.0 kB/s",
        "100% made-up/images.gz: 10.0 MB of 10.0 MB, 0 s left, 500.0 kB/s",
        "made-up/images.gz: here.test:1: silent for 3 s; again in 1 s",
        "made-up/images.gz: 50.0 kB fetched from http://here.test/images.gz",
    ]


def test_on_a_terminal_one_line_is_redrawn_and_goes(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    file = FakeTerminal()
    with standard_error(monkeypatch, file):
        with fetching.fetching(Screen()) as watch:
            watch.hear(progress_of(0, remark="a word " * 20))
        text = shown(file, Screen(), clock)
    assert "100% made-up/images.gz: 10.0 MB of 10.0 MB" in text
    assert "\x1b[2K" in text
    assert "made-up/images.gz: 50.0 kB fetched from http://here.test/images.gz" in text
    assert "a word " * 20 + "\n" in text
    assert text.count("\x1b[?25h") >= 1


@pytest.mark.parametrize("screen", [Screen(quiet=True), Screen(as_json=True)], ids=["quiet", "json"])
def test_nothing_is_shown_where_nothing_is_wanted(
    screen: Screen, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = FakeTerminal()
    with standard_error(monkeypatch, file):
        assert shown(file, screen, clock) == ""


def test_that_nobody_reads_is_no_reason_to_stop(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    with standard_error(monkeypatch, Closed()):
        assert shown(io.StringIO(), Screen(), clock) == ""


# the catalogue


def test_the_published_files_are_named_once_with_whole_sums_and_folders_of_the_web() -> None:
    looked = 0
    for name, published in PUBLISHED.items():
        assert (published.name, len(published.files)) == (name, len({each.name for each in published.files}))
        assert all(each.startswith(module.WEB) and each.endswith("/") for each in published.mirrors)
        for file in published.files:
            sums = [file.sha256, *(each for each in file.contents.values() if each is not None)]
            assert all(len(bytes.fromhex(each)) == 32 for each in sums)
            assert file.size > 0
            looked += 1
    assert looked == 15
