"""Files of image sets: where they are looked for, which are accepted, and what a recipe says of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from deqcli.cli.main import app
from deqcli.data import image_files
from deqcli.data.published import PUBLISHED, data_folder
from deqcli.errors import RecipeRefused, Refused
from deqcli.recipe.loading import load_recipe
from deqcli.runs.files import recipe_text
from tests.image_sets import WRITERS, mistake, of_any, options, publish, recipe, refusal, write_cifar, write_idx

ANY = "`data.sha256: any` accepts other files of this format"
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


# Where they are looked for


def test_files_are_found_in_a_folder_of_their_kind_and_in_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEQCLI_DATA", str(tmp_path / "by-default"))
    for kind, write in WRITERS.items():
        places = [tmp_path / kind / "1" / kind, tmp_path / kind / "2", tmp_path / "by-default" / kind]
        for place in places:
            write(place)
        publish(monkeypatch, kind, places[0])
        roots = [tmp_path / kind / "1", tmp_path / kind / "2", None]
        loaded = [options(root, kind).load() for root in roots]
        assert len({options(root, kind).model_dump_json(exclude={"root"}) for root in roots}) == 1
        assert len({json.dumps(options(root, kind).identity()) for root in roots}) == 1
        for data in loaded[1:]:
            np.testing.assert_array_equal(data.X, loaded[0].X)


def test_batches_are_found_beside_each_other_and_in_their_folder(tmp_path: Path) -> None:
    digest = write_cifar(tmp_path / "a" / "cifar-10", packed=False)["train"].digest
    write_cifar(tmp_path / "b", packed=False)
    roots = [tmp_path / "a", tmp_path / "a" / "cifar-10", tmp_path / "b", tmp_path / "b" / "cifar-10-batches-bin"]
    assert [options(root, "cifar-10", "any").sha256 for root in roots] == [digest] * 4


def test_without_a_root_files_are_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEQCLI_DATA", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert data_folder() == Path("/caches/deqcli")
    assert refusal(None, "svhn") == (
        "train_32x32.mat of svhn is not in /caches/deqcli/svhn, /caches/deqcli; `deqcli data fetch svhn` downloads the "
        "files, or put them there by hand from http://ufldl.stanford.edu/housenumbers/"
    )


def test_files_that_are_missing_are_named_with_where_they_come_from(tmp_path: Path) -> None:
    hand = "put them there by hand from"
    assert refusal(tmp_path, "mnist") == (
        f"{IMAGES}.gz and {LABELS}.gz of mnist are not in {tmp_path}/mnist, {tmp_path}; `deqcli data fetch mnist "
        f"--root {tmp_path}` downloads the files, or {hand} http://yann.lecun.com/exdb/mnist/"
    )
    write_idx(tmp_path / "kmnist")
    (tmp_path / "kmnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    assert refusal(tmp_path, "kmnist", split="test") == (
        f"t10k-labels-idx1-ubyte.gz of kmnist is not in {tmp_path}/kmnist; `deqcli data fetch kmnist "
        f"--root {tmp_path}` downloads the files, or {hand} https://codh.rois.ac.jp/kmnist/"
    )
    write_cifar(tmp_path, packed=False)
    below = tmp_path / "cifar-10-batches-bin"
    (below / "data_batch_2.bin").unlink()
    (below / "data_batch_5.bin").unlink()
    assert refusal(tmp_path, "cifar-10").startswith(
        f"data_batch_2.bin and data_batch_5.bin of cifar-10 are not in {below}"
    )
    assert options(tmp_path, "cifar-10", "any", split="test", num_samples=6).load().num_samples == 6


@pytest.mark.parametrize("kind", PUBLISHED)
def test_a_recipe_may_be_read_where_published_files_are_not(tmp_path: Path, kind: str) -> None:
    read = recipe(tmp_path, f"kind: {kind}, root: nowhere")
    assert read.data.root == str(tmp_path / "nowhere")
    assert read.data.sha256 is None
    name = PUBLISHED[kind].files[0].name
    assert of_any(tmp_path, kind).startswith(f"{name} ")
    with pytest.raises(Refused, match=f"`deqcli data fetch {kind} --root {tmp_path}/nowhere` downloads the files"):
        read.data.load()


# Which are accepted


def test_a_bit_that_is_not_as_published_is_refused_with_both_sums(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind, write in WRITERS.items():
        folder = tmp_path / kind
        write(folder)
        publish(monkeypatch, kind, folder)
        options(tmp_path, kind).load()
        file = PUBLISHED[kind].files[0]
        content = bytearray((folder / file.name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / file.name).write_bytes(content)
        found = hashlib.sha256(content).hexdigest()
        assert refusal(tmp_path, kind) == (
            f"{folder / file.name} is not the published file: its SHA-256 is {found}, that one's {file.sha256}; {ANY}"
        )
        for change, told in (
            (content[:-7], "is truncated, or another file"),
            (content + bytes(7), "is longer than the published file"),
        ):
            (folder / file.name).write_bytes(change)
            sizes = f"it has {len(change)} bytes, that one {file.size}"
            assert refusal(tmp_path, kind) == f"{folder / file.name} {told}: {sizes}; {ANY}"


@pytest.mark.parametrize("kind", ["mnist", "cifar-10"])
def test_unpacked_files_are_compared_with_the_sums_of_what_unpacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    WRITERS[kind](tmp_path / "packed")
    WRITERS[kind](tmp_path / "unpacked", packed=False)
    publish(monkeypatch, kind, tmp_path / "packed")
    one, other = (options(tmp_path / each, kind).load() for each in ("packed", "unpacked"))
    np.testing.assert_array_equal(one.X, other.X)
    name = {"mnist": IMAGES, "cifar-10": "data_batch_3.bin"}[kind]
    (path,) = (tmp_path / "unpacked").rglob(name)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    expected = f"{path} is not the published file: its SHA-256 is {hashlib.sha256(content).hexdigest()}, that one's "
    assert refusal(tmp_path / "unpacked", kind).startswith(expected)


def test_unpacked_files_without_a_published_sum_are_refused(tmp_path: Path) -> None:
    write_idx(tmp_path, packed=False)
    assert refusal(tmp_path, "fashion-mnist") == (
        f"{tmp_path / IMAGES}: no SHA-256 of it is published, only that of {IMAGES}.gz; use that file, or {ANY}"
    )
    assert options(tmp_path, "fashion-mnist", "any").load().num_samples == 10


def test_the_digest_of_other_files_is_filled_in_and_checked(tmp_path: Path) -> None:
    digest = write_idx(tmp_path)["train"].digest
    for given in ("any", digest, digest.upper()):
        assert recipe(tmp_path, f"kind: mnist, root: ., sha256: {given}").data.sha256 == digest
    expected = f"data.sha256: must be that of the images and labels, {digest}"
    assert mistake(tmp_path, f"kind: mnist, root: ., sha256: {'0' * 63}f") == expected
    words = "data.sha256 must be `any`, text (64 hexadecimal digits) or `null` (default null), got"
    for given, shown in {"abc": "'abc'", "5": "5", f"'{'g' * 64}'": f"'{'g' * 56}..."}.items():
        assert mistake(tmp_path, f"kind: mnist, root: ., sha256: {given}") == f"{words} {shown}"


def test_files_that_change_after_the_recipe_was_read_are_refused(tmp_path: Path) -> None:
    write_idx(tmp_path, packed=False)
    data = options(tmp_path, "kmnist", "any")
    write_idx(tmp_path, packed=False, seed=1)
    with pytest.raises(Refused) as caught:
        data.load()
    paths = f"{tmp_path / IMAGES}, {tmp_path / LABELS}"
    assert str(caught.value) == f"data.kind kmnist: what {paths} hold has changed since the recipe was read"


# In a recipe


def test_a_root_is_beside_the_recipe_or_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert recipe(tmp_path, "kind: mnist, root: sets").data.root == str(tmp_path / "sets")
    write_idx(tmp_path / "elsewhere" / "sets")
    here = recipe(tmp_path, "kind: mnist, root: sets, sha256: any")
    assert here.data.root == str(tmp_path / "elsewhere" / "sets")
    write_idx(tmp_path / "sets" / "mnist")
    beside = recipe(tmp_path, "kind: mnist, root: sets, sha256: any")
    assert beside.data.root == str(tmp_path / "sets")
    assert here.run_id == beside.run_id == recipe(tmp_path, f"kind: mnist, root: {tmp_path}/sets, sha256: any").run_id
    write_idx(tmp_path / "other", seed=1)
    assert recipe(tmp_path, "kind: mnist, root: other, sha256: any").run_id != here.run_id
    assert recipe(tmp_path, "kind: mnist, root: sets").run_id == recipe(tmp_path, "kind: mnist").run_id != here.run_id


@pytest.mark.parametrize("given", ["kind: svhn, grey: true, size: 9", "kind: mnist, sha256: any, classes: [3, 1, 8]"])
def test_a_resolved_recipe_is_read_again_as_it_was(tmp_path: Path, given: str) -> None:
    write_idx(tmp_path)
    loaded = recipe(tmp_path, f"{given}, root: .")
    (tmp_path / "again.yaml").write_text(recipe_text(loaded), encoding="utf-8")
    again = load_recipe(str(tmp_path / "again.yaml"), (), 10**12)
    assert again == loaded
    assert again.run_id == loaded.run_id


CONTRADICTIONS = {
    "kind: mnist, num_samples: 12666": "data.num_samples: must be at most 12665, what the classes [0, 1] hold, got "
    "12666",
    "kind: svhn, split: test, classes: [9, 8], num_samples: 3256": "data.num_samples: must be at most 3255, what the "
    "classes [9, 8] hold, got 3256",
    "kind: cifar-10, num_samples: 2, classes: [3, 3]": "data.classes: names a class twice, got [3, 3]",
    "kind: kmnist, num_samples: 2, size: 1": "data.size: must be at least 2: images of 1 pixel are parallel to each "
    "other",
}


@pytest.mark.parametrize(("data", "message"), CONTRADICTIONS.items())
def test_what_published_sets_cannot_have_is_told_before_they_are_read(data: str, message: str) -> None:
    with pytest.raises(RecipeRefused) as caught:
        load_recipe("quickstart", [f"data={{{data}}}"], 10**12)
    (line,) = caught.value.mistakes
    assert line.message == message


def test_grey_images_have_no_key_for_it_and_kinds_are_an_axis(tmp_path: Path) -> None:
    with pytest.raises(RecipeRefused, match=r"data\.grey is not known; known here: kind \(required\)"):
        recipe(tmp_path, "kind: mnist, grey: true")
    swept = recipe(
        tmp_path, "kind: cifar-10, grey: true", "sweep.over={data.kind: [cifar-10, mnist], data.size: [8, 9]}"
    )
    assert [cell.data.shape() for cell in swept.cells()] == [(10, 64), (10, 81)] * 2


def stat_of(folder: Path) -> str:
    return json.dumps(sorted((str(path), path.stat().st_mtime_ns) for path in folder.rglob("*")))


def test_train_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEQCLI_DEVICE", "cpu")
    monkeypatch.setenv("DEQCLI_DATA", str(tmp_path / "sets"))
    runner = CliRunner()
    given = ["data={kind: mnist, num_samples: 9, classes: [1, 4, 6], size: 7, sha256: any}", "train.steps=3"]
    before = runner.invoke(app, ["train", "quickstart", *given, "--width", "20"])
    assert before.exit_code == 2
    assert "`deqcli data fetch mnist` downloads the files" in before.stderr
    part = write_idx(tmp_path / "sets" / "mnist")["train"]
    was = stat_of(tmp_path / "sets")
    done = runner.invoke(app, ["train", "quickstart", *given, "--width", "20", "--json"])
    assert done.exit_code == 0, done.stderr
    folder = Path(json.loads(done.stdout)["folder"])
    assert f"sha256: {part.digest}" in (folder / "recipe.yaml").read_text()
    assert (folder / "loss.csv").read_text().count("\n") == 1 + 4
    assert stat_of(tmp_path / "sets") == was
    published = runner.invoke(app, ["train", "quickstart", given[0].replace("any", "null"), given[1]])
    assert published.exit_code == 2
    assert f"{tmp_path}/sets/mnist/{IMAGES}.gz is truncated, or another file: it has " in published.stderr


def test_a_sweep_reads_files_for_their_digest_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_idx(tmp_path)
    reads: list[Path] = []
    read: Callable[..., bytes] = image_files.read

    def noted(path: Path, *given: object) -> bytes:
        reads.append(path)
        return read(path, *given)

    monkeypatch.setattr("deqcli.data.images.read", noted)
    swept = recipe(
        tmp_path, "kind: mnist, root: ., sha256: any", "sweep.over={data.size: [4, 5, 6], data.seed: [0, 1]}"
    )
    assert len(swept.cells()) == 6
    assert len(reads) == 2


def test_each_split_of_other_files_has_a_digest_of_its_own(tmp_path: Path) -> None:
    parts = write_idx(tmp_path)
    swept = recipe(tmp_path, "kind: mnist, root: ., sha256: any", "sweep.over={data.split: [train, test]}")
    digests = [getattr(cell.data, "sha256", None) for cell in swept.cells()]
    assert digests == [parts["test"].digest, parts["train"].digest]


def test_kinds_of_other_files_have_digests_of_their_own_and_a_root_is_no_axis(tmp_path: Path) -> None:
    digests = [write_idx(tmp_path / kind, seed=seed)["train"].digest for seed, kind in enumerate(("kmnist", "mnist"))]
    given = "kind: mnist, root: ., sha256: any"
    swept = recipe(tmp_path, given, "sweep.over={data.kind: [mnist, kmnist]}")
    assert [getattr(cell.data, "sha256", None) for cell in swept.cells()] == digests
    with pytest.raises(RecipeRefused, match=r"data\.root is no axis: a run is the same wherever its files lie"):
        recipe(tmp_path, given, "sweep.over={data.root: [., elsewhere]}")


def test_a_digest_that_is_pinned_holds_for_the_split_it_is_of(tmp_path: Path) -> None:
    parts = write_idx(tmp_path)
    given = f"kind: mnist, root: ., sha256: {parts['train'].digest}"
    write_idx(tmp_path, seed=5)
    with pytest.raises(RecipeRefused, match="must be that of the images and labels"):
        recipe(tmp_path, given, "sweep.over={data.split: [train, test]}")


def test_what_is_no_file_is_not_called_missing(tmp_path: Path) -> None:
    write_idx(tmp_path)
    path = tmp_path / f"{IMAGES}.gz"
    path.unlink()
    path.mkdir()
    assert of_any(tmp_path, "mnist") == f"{path} is not a file"
    path.rmdir()
    path.symlink_to(path)
    assert of_any(tmp_path, "mnist") == f"{path} is not a file"


def test_a_root_may_begin_with_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert getattr(recipe(tmp_path, "kind: mnist, root: ~/sets").data, "root", None) == str(tmp_path / "sets")


def test_a_file_that_may_not_be_read_is_a_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    write_idx(tmp_path)
    monkeypatch.setattr(Path, "read_bytes", deny)
    assert of_any(tmp_path, "mnist") == f"{tmp_path}/{IMAGES}.gz cannot be read: Permission denied"
