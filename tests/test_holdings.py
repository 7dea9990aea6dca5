"""Image sets in each layout that recipes read: list and fetch find them there, and what is not as published is kept."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from deqcli.data import fetch as module
from deqcli.data.download import Patience
from deqcli.data.published import PUBLISHED, Published, PublishedFile, data_folder
from tests.data_server import Mirror, refusing, serving
from tests.image_sets import BATCH_NAMES, WRITERS, options, publish
from tests.test_fetch import call

BATCHES = "cifar-10-batches-bin"
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """One attempt, and no proxy between here and here."""
    monkeypatch.setattr(module, "PATIENCE", Patience(attempts=1, wait=0.001))
    monkeypatch.setenv("NO_PROXY", "*")


Serve = Callable[..., Mirror]


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Publishes a small set of a kind, without the sums of unpacked files where asked, on a mirror of its own."""
    servers = []

    def serve(kind: str, unsure: bool = False, seed: int = 0) -> Mirror:
        folder = tmp_path / "published" / kind
        WRITERS[kind](folder, seed=seed)
        publish(monkeypatch, kind, folder)
        servers.append(serving({path.name: path.read_bytes() for path in folder.iterdir()}))
        mirror = servers[-1].__enter__()
        files = tuple(replace(file, contents=sums(file, unsure)) for file in PUBLISHED[kind].files)
        edit(monkeypatch, kind, files=files, mirrors=(mirror.url,))
        return mirror

    yield serve
    for server in servers:
        server.__exit__(None, None, None)


def sums(file: PublishedFile, unsure: bool) -> dict[str, str | None]:
    """Those of what is read of an unpacked file; None where they are not to be known."""
    return {name: None if unsure else each for name, each in file.contents.items() if name != "readme.html"}


def edit(monkeypatch: pytest.MonkeyPatch, kind: str, **given: object) -> None:
    monkeypatch.setitem(PUBLISHED, kind, replace(PUBLISHED[kind], **given))  # type: ignore[arg-type]


def tree(root: Path) -> dict[str, bytes]:
    """All files below a folder, but those of locks."""
    files = (path for path in root.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def state(root: Path, kind: str, *arguments: str) -> tuple[int, str]:
    """The exit code of `data list`, and what it says of the kind."""
    code, out, _ = call("list", "--json", "--root", str(root), *arguments)
    (found,) = [each for each in json.loads(out)["sets"] if each["name"] == kind]
    return code, found["state"]


def read(root: Path, kind: str, **given: object) -> int:
    """How many samples recipes of both splits have."""
    splits = (options(root, kind, split=split, num_samples=6, **given) for split in ("train", "test"))
    return sum(len(each.load().y) for each in splits)


LAYOUTS = {
    "mnist, packed": ("mnist", "mnist", True, "complete"),
    "mnist, in the root": ("mnist", "", True, "complete"),
    "mnist, unpacked": ("mnist", "mnist", False, "complete, unpacked"),
    "mnist, unpacked in the root": ("mnist", "", False, "complete, unpacked"),
    "fashion-mnist, in the root": ("fashion-mnist", "", True, "complete"),
    "cifar-10, in the root": ("cifar-10", "", True, "complete"),
    "cifar-10, unpacked": ("cifar-10", "cifar-10", False, "complete, unpacked"),
    "cifar-10, unpacked in the root": ("cifar-10", "", False, "complete, unpacked"),
    "cifar-10, batches": ("cifar-10", "cifar-10", None, "complete, unpacked"),
    "svhn, in the root": ("svhn", "", True, "complete"),
}


@pytest.mark.parametrize(("kind", "below", "packed", "words"), LAYOUTS.values(), ids=LAYOUTS)
def test_what_a_recipe_reads_is_listed_and_not_fetched_again(
    tmp_path: Path, serve: Serve, kind: str, below: str, packed: bool | None, words: str
) -> None:
    mirror, root = serve(kind), tmp_path / "sets"
    WRITERS[kind](root / below, bool(packed))
    if packed is None:
        for path in list((root / below / BATCHES).iterdir()):
            path.rename(root / below / path.name)
    before = tree(root)
    assert read(root, kind) == 12
    assert state(root, kind) == state(root, kind, "--check") == (0, words)
    code, out, err = call("fetch", kind, "--root", str(root))
    where = root / below / (BATCHES if (kind, packed) == ("cifar-10", False) else "")
    files = f"{len(PUBLISHED[kind].files)} file{'s' if len(PUBLISHED[kind].files) > 1 else ''}"
    assert (code, out) == (0, f"{kind}: {files} ({len(PUBLISHED[kind].files)} there) in {where}\n")
    assert err.splitlines()[0].endswith(f"{'' if packed else ', unpacked'}, with the published SHA-256, in {where}")
    assert (tree(root), mirror.asked) == (before, [])


def test_unpacked_files_without_a_published_sum_are_listed_as_such_and_fetched(tmp_path: Path, serve: Serve) -> None:
    mirror, root = serve("fashion-mnist", unsure=True), tmp_path / "sets"
    WRITERS["fashion-mnist"](root / "fashion-mnist", False)
    assert read(root, "fashion-mnist", sha256="any") == 12
    assert state(root, "fashion-mnist", "--check") == (0, "4 unpacked")
    code, out, err = call("list", "--root", str(root))
    assert (code, err) == (0, "")
    names = ", ".join(file.name.removesuffix(".gz") for file in PUBLISHED["fashion-mnist"].files)
    assert out.splitlines()[-1] == (
        f"{root}/fashion-mnist: no SHA-256 of the unpacked {names} is published; a recipe accepts them only with "
        f"`data.sha256`, and `deqcli data fetch fashion-mnist --root {root}` downloads the published files"
    )
    assert call("fetch", "fashion-mnist", "--root", str(root), "--quiet") == (0, "", "")
    assert len(mirror.asked) == 4
    assert state(root, "fashion-mnist", "--check") == (0, "complete")
    assert read(root, "fashion-mnist") == 12


def test_an_unpacked_file_that_is_not_as_published_is_left_and_the_packed_one_fetched(
    tmp_path: Path, serve: Serve
) -> None:
    mirror, root = serve("mnist"), tmp_path / "sets"
    WRITERS["mnist"](root / "mnist", False)
    path = root / "mnist" / LABELS
    path.write_bytes(path.read_bytes()[:-1] + b"\x0b")
    before = tree(root)
    assert state(root, "mnist") == (0, "complete, unpacked")
    assert state(root, "mnist", "--check") == (4, "3 unpacked, 1 other")
    remark = f"{path} is not as published; `deqcli data fetch mnist --root {root}` leaves it, and downloads "
    assert call("list", "--check", "--quiet", "--root", str(root))[2] == f"{remark}{LABELS}.gz into {root}/mnist\n"
    assert call("fetch", "mnist", "--root", str(root), "--quiet") == (0, "", "")
    assert [each.name for each in mirror.asked] == [f"{LABELS}.gz"]
    assert tree(root) == before | {f"mnist/{LABELS}.gz": gzip.compress(_published(LABELS, tmp_path), mtime=0)}
    assert state(root, "mnist", "--check") == (0, "complete, unpacked")
    assert read(root, "mnist") == 12


def _published(name: str, folder: Path) -> bytes:
    return gzip.decompress((folder / f"published/mnist/{name}.gz").read_bytes())


@pytest.mark.parametrize("packed", [True, False])
def test_what_lies_straight_in_the_root_is_of_one_set(tmp_path: Path, serve: Serve, packed: bool) -> None:
    for seed, kind in enumerate(("mnist", "kmnist", "fashion-mnist")):
        serve(kind, unsure=kind == "fashion-mnist", seed=seed)
    root = tmp_path / "sets"
    WRITERS["mnist"](root, packed)
    expected = {
        "mnist": "complete" if packed else "complete, unpacked",
        "kmnist": "missing",
        "fashion-mnist": "missing",
    }
    assert {kind: state(root, kind, "--check") for kind in expected} == {
        kind: (0, words) for kind, words in expected.items()
    }


def test_a_set_of_ones_own_straight_in_the_root_is_left(tmp_path: Path, serve: Serve) -> None:
    mirror, root = serve("mnist"), tmp_path / "sets"
    WRITERS["mnist"](root, seed=1)
    own = tree(root)
    assert read(root, "mnist", sha256="any") == 12
    assert state(root, "mnist", "--check") == (0, "missing")
    assert call("fetch", "mnist", "--root", str(root), "--quiet") == (0, "", "")
    published = {f"mnist/{name}": content for name, content in tree(tmp_path / "published/mnist").items()}
    assert tree(root) == own | published
    assert (len(mirror.asked), state(root, "mnist", "--check")) == (4, (0, "complete"))
    assert read(root, "mnist") == 12


def test_files_that_are_read_together_are_fetched_into_one_folder(tmp_path: Path, serve: Serve) -> None:
    mirror, root = serve("mnist"), tmp_path / "sets"
    WRITERS["mnist"](root)
    (root / f"{LABELS}.gz").unlink()
    assert state(root, "mnist") == (0, "2 missing, 2 there")
    assert call("fetch", "mnist", "--root", str(root), "--quiet") == (0, "", "")
    assert [each.name for each in mirror.asked] == [f"{IMAGES}.gz", f"{LABELS}.gz"]
    assert read(root, "mnist") == 12


def test_some_batches_are_no_archive(tmp_path: Path, serve: Serve) -> None:
    mirror, root = serve("cifar-10"), tmp_path / "sets"
    WRITERS["cifar-10"](root / "cifar-10", False)
    (root / "cifar-10" / BATCHES / BATCH_NAMES[-1]).unlink()
    assert state(root, "cifar-10") == (0, "1 partly unpacked")
    assert call("fetch", "cifar-10", "--root", str(root), "--quiet") == (0, "", "")
    assert (len(mirror.asked), state(root, "cifar-10", "--check")) == (1, (0, "complete"))


def test_another_file_is_kept_under_a_name_that_is_free(tmp_path: Path, serve: Serve) -> None:
    serve("svhn")
    folder, name = tmp_path / "sets/svhn", "test_32x32.mat"
    for content in (b"one", b"two", b"three"):
        folder.mkdir(exist_ok=True, parents=True)
        (folder / name).write_bytes(content)
        code, _, err = call("fetch", "svhn", "--root", str(tmp_path / "sets"))
        assert code == 0
    assert f"; it will be kept as {name}.other-3\n" in err
    kept = {path.name.removeprefix(name): path.read_bytes() for path in folder.glob(f"{name}.*")}
    assert kept == {".other": b"one", ".other-2": b"two", ".other-3": b"three"}
    assert state(tmp_path / "sets", "svhn", "--check") == (0, "complete")


def test_by_hand_tells_the_missing_files_of_all_sets_that_were_asked_for(
    tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = refusing()
    for kind in ("mnist", "svhn", "cifar-10"):
        serve(kind)
        edit(monkeypatch, kind, mirrors=(away,))
    WRITERS["cifar-10"](tmp_path / "sets")
    (tmp_path / "sets/train_32x32.mat").write_bytes((tmp_path / "published/svhn/train_32x32.mat").read_bytes())
    monkeypatch.chdir(tmp_path)
    code, _, err = call("fetch", "mnist", "svhn", "cifar-10", "--root", "sets")
    assert code == 5
    mnist, svhn = PUBLISHED["mnist"], PUBLISHED["svhn"]
    assert err.splitlines() == [
        f"mnist/{IMAGES}.gz could not be fetched:",
        f"{away}{IMAGES}.gz: Connection refused",
        f"To do it by hand, put 4 files into {tmp_path}/sets/mnist:",
        *_files(mnist, 4),
        f"from {away} (described at {mnist.page}).",
        f"And put 1 file into {tmp_path}/sets/svhn:",
        *_files(svhn, 1),
        f"from {away} (described at {svhn.page}).",
    ]


def _files(published: Published, count: int) -> list[str]:
    """The last so many files of a set, as they are told."""
    files = published.files[-count:]
    width = max(len(file.name) for file in files)
    return [f"  {file.name:<{width}}  {file.size:>9} bytes  SHA-256 {file.sha256}" for file in files]


OBSTACLES: dict[str, Callable[[Path], object]] = {
    "folder": lambda path: path.mkdir(),
    "FIFO": os.mkfifo,
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "loop": lambda path: path.symlink_to(path.name),
}


@pytest.mark.parametrize("name", ["test_32x32.mat", "test_32x32.mat.part"])
@pytest.mark.parametrize("make", OBSTACLES.values(), ids=OBSTACLES)
def test_what_is_no_file_is_refused_at_once(
    tmp_path: Path, serve: Serve, make: Callable[[Path], object], name: str
) -> None:
    mirror, path = serve("svhn"), tmp_path / "sets/svhn" / name
    path.parent.mkdir(parents=True)
    make(path)
    assert call("fetch", "svhn", "--root", str(tmp_path / "sets")) == (2, "", f"{path} is not a file; remove it\n")
    assert mirror.asked == []
    if name.endswith(".mat"):
        code, _, err = call("list", "--check", "--root", str(tmp_path / "sets"))
        assert (code, err) == (4, f"{path} is not a file; remove it\n")


@pytest.mark.parametrize("root", ["file", "file/below"])
def test_a_root_that_is_a_file_is_refused(tmp_path: Path, root: str) -> None:
    (tmp_path / "file").write_text("")
    for command in (["list"], ["fetch", "mnist"]):
        assert call(*command, "--root", str(tmp_path / root)) == (2, "", f"{tmp_path}/file is not a folder\n")
    (tmp_path / "mnist").write_text("")
    assert call("fetch", "mnist", "--root", str(tmp_path)) == (2, "", f"{tmp_path}/mnist is not a folder\n")


def test_the_folder_is_absolute_and_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("DEQCLI_DATA", "~/sets")
    assert data_folder() == tmp_path / "sets"
    assert call("list")[1].endswith(f"Folder: {tmp_path}/sets/NAME\n")
    monkeypatch.delenv("DEQCLI_DATA")
    assert data_folder() == tmp_path / ".cache/deqcli"
    monkeypatch.chdir(tmp_path)
    assert (data_folder("here"), data_folder("~/there")) == (tmp_path / "here", tmp_path / "there")
