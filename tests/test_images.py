"""Image sets: what is drawn, in which order and with which labels, in grey and in other sizes, from every format."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from deqcli.data.classes import balanced
from deqcli.data.dataset import Dataset
from deqcli.data.kind import class_labels
from deqcli.data.kinds import Digits
from deqcli.data.pictures import luma, resized
from deqcli.data.published import PUBLISHED
from deqcli.errors import Refused
from tests.image_sets import OPTIONS, WRITERS, Part, idx, options, publish, write_cifar, write_idx, write_svhn

KINDS = list(PUBLISHED)
COLOUR = ["cifar-10", "svhn"]


def images(folder: Path, kind: str, sha256: str | None = "any", **given: object) -> Dataset:
    return options(folder, kind, sha256, **given).load()


def found_in(data: Dataset, part: Part) -> list[int]:
    """The index of the image that each sample is a multiple of; it is found, and there is only one."""
    flat = part.pixels.reshape(len(part.pixels), -1).astype(np.float64)
    directions = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    cosines = data.X.T @ directions.T / np.sqrt(data.input_dim)
    assert (np.sum(cosines > 1 - 1e-12, axis=1) == 1).all()
    return cosines.argmax(axis=1).tolist()


# What is drawn


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_samples_are_distinct_images_with_the_label_of_their_class(
    tmp_path: Path, kind: str, packed: bool, split: str
) -> None:
    part = WRITERS[kind](tmp_path / kind, packed)[split]
    data = images(tmp_path, kind, split=split, classes=[7, 0, 2], seed=1, labels="index", num_samples=8)
    found = found_in(data, part)
    assert len(set(found)) == data.num_samples == 8
    assert part.classes[found].tolist() == np.array([7, 0, 2])[data.y.astype(int)].tolist()
    assert np.bincount(data.y.astype(int)).tolist() == [3, 3, 2]
    assert data.X.shape == (part.pixels[0].size, data.num_samples)
    np.testing.assert_allclose(np.linalg.norm(data.X, axis=0), np.sqrt(data.input_dim), rtol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_packed_or_not_the_data_are_the_same(tmp_path: Path, kind: str) -> None:
    for packed in (True, False):
        WRITERS[kind](tmp_path / str(packed) / kind, packed)
    one, other = (options(tmp_path / str(packed), kind, "any", seed=4) for packed in (True, False))
    assert one.sha256 == other.sha256
    assert one.identity() == other.identity()
    np.testing.assert_array_equal(one.load().X, other.load().X)
    np.testing.assert_array_equal(one.load().y, other.load().y)


@pytest.mark.parametrize("kind", KINDS)
def test_the_shape_is_known_before_anything_is_read(tmp_path: Path, kind: str) -> None:
    WRITERS[kind](tmp_path / kind)
    given: list[dict[str, object]] = [{}, {"size": 5}, {"size": 1, "num_samples": 1, "classes": [1, 2]}]
    given += [{"grey": True}, {"grey": True, "size": 40}] if kind in COLOUR else []
    for each in given:
        read = images(tmp_path, kind, **each)
        unread = OPTIONS.validate_python({"kind": kind, "num_samples": 10, **each})
        assert unread.shape() == (read.num_samples, read.input_dim)
    assert len(given) == (5 if kind in COLOUR else 3)


def test_a_seed_decides_which_images_are_drawn_and_their_order(tmp_path: Path) -> None:
    part = write_idx(tmp_path)["train"]
    first, again, other = (images(tmp_path, "kmnist", seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.X, again.X)
    assert found_in(first, part) != found_in(other, part)
    everything = images(tmp_path, "kmnist", num_samples=60, classes=list(range(10)), labels="gaussian")
    assert sorted(found_in(everything, part)) == list(range(60))
    fewer = images(tmp_path, "kmnist", num_samples=7, seed=3)
    np.testing.assert_array_equal(fewer.X, first.X[:, :7])


def test_classes_take_turns_as_long_as_they_last() -> None:
    classes = np.array([5] * 2 + [1] * 5 + [3] * 9 + [4] * 9)
    chosen = balanced(classes, [3, 5, 1], 16, seed=0)
    assert classes[chosen].tolist() == [3, 5, 1] * 2 + [3, 1] * 3 + [3] * 4
    assert len(set(chosen.tolist())) == 16
    np.testing.assert_array_equal(balanced(classes, [3, 5, 1], 5, seed=0), chosen[:5])


# Labels


@pytest.mark.parametrize("count", [2, 3, 4, 7, 10])
def test_labels_of_classes_are_even_from_minus_one_to_one_or_count_them(count: int) -> None:
    places = np.arange(count)
    even = class_labels("class", 0, places, count)
    assert (even[0], even[-1]) == (-1.0, 1.0)
    np.testing.assert_allclose(even, np.linspace(-1, 1, count), rtol=0, atol=2**-52)
    np.testing.assert_array_equal(class_labels("index", 0, places, count), np.arange(float(count)))


def test_digits_have_the_same_labels_as_image_sets(tmp_path: Path) -> None:
    write_idx(tmp_path)
    given = {"num_samples": 9, "classes": [4, 8, 1], "label_scale": 0.5}
    for labels, expected in (("class", [-0.5, 0.0, 0.5]), ("index", [0.0, 0.5, 1.0])):
        digits = Digits.model_validate({"kind": "digits", "labels": labels, **given}).load()
        read = images(tmp_path, "mnist", labels=labels, **given)
        assert digits.y.tolist() == read.y.tolist() == expected * 3
    gaussian = [
        each.load().y
        for each in (
            Digits.model_validate({"kind": "digits", "labels": "gaussian", **given}),
            options(tmp_path, "mnist", "any", labels="gaussian", **given),
        )
    ]
    np.testing.assert_array_equal(*gaussian)
    assert len(set(gaussian[0].tolist())) == 9


# Grey, and other sizes


def test_grey_is_the_luma_of_the_three_channels(tmp_path: Path) -> None:
    part = write_cifar(tmp_path)["train"]
    data, colour = (images(tmp_path, "cifar-10", grey=grey) for grey in (True, False))
    chosen = found_in(colour, part)
    expected = np.einsum("nchw,c->nhw", part.pixels[chosen].astype(float), [0.299, 0.587, 0.114]).reshape(10, 1024)
    expected *= 32 / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(data.X.T, expected, rtol=1e-13)
    np.testing.assert_array_equal(data.y, colour.y)
    grey = luma(np.full((1, 3, 1, 1), 200.0))
    np.testing.assert_allclose(grey, [[[[200.0]]]], rtol=1e-15)


def weights(side: int, size: int) -> np.ndarray:
    """What each of `side` pixels weighs in each of `size`: a triangle about its middle, as wide as it must be."""
    scale = side / size
    reach = max(scale, 1.0)
    middles = scale * (np.arange(size)[:, None] + 0.5)
    raw = np.maximum(0, 1 - np.abs(np.arange(side) + 0.5 - middles) / reach)
    return raw / raw.sum(axis=1, keepdims=True)  # there are none beyond the border


@pytest.mark.parametrize("size", [1, 2, 7, 14, 19, 27, 28, 29, 56, 61])
def test_images_are_resized_as_a_product_of_triangles(size: int) -> None:
    pixels = np.random.default_rng(size).uniform(0, 255, (2, 3, 28, 28))
    W = weights(28, size)
    np.testing.assert_allclose(resized(pixels, size), np.einsum("ir,ncrs,js->ncij", W, pixels, W), rtol=1e-12)
    if size == 28:
        np.testing.assert_array_equal(resized(pixels, size), pixels)
    if size == 14:  # by hand: the row 0 of new pixels sees the old ones 0, 1, 2 with the weights 3, 3, 1
        np.testing.assert_allclose(W[0, :4], np.array([3, 3, 1, 0]) / 7, rtol=1e-15)


def test_pixels_become_grey_then_small_then_a_row(tmp_path: Path) -> None:
    part = write_svhn(tmp_path)["test"]
    data = images(tmp_path, "svhn", split="test", num_samples=6, grey=True, size=8)
    chosen = found_in(images(tmp_path, "svhn", split="test", num_samples=6), part)
    W = weights(32, 8)
    grey = np.einsum("nchw,c->nhw", part.pixels[chosen].astype(float), [0.299, 0.587, 0.114])
    expected = np.einsum("ir,nrs,js->nij", W, grey, W).reshape(6, 64)
    expected *= 8 / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(data.X.T, expected, rtol=1e-12)


# What is refused of a draw


def said(folder: Path, kind: str, **given: object) -> str:
    with pytest.raises(Refused) as caught:
        images(folder, kind, **given)
    return str(caught.value)


def test_images_that_are_twice_in_a_set_are_named(tmp_path: Path) -> None:
    part = write_idx(tmp_path, packed=False)["train"]
    pixels = part.pixels[:, 0].copy()
    zeros = np.flatnonzero(part.classes == 0)
    pixels[zeros[4]] = pixels[zeros[2]]
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(pixels))
    pair = re.fullmatch(
        r"data\.kind mnist: image (\d+) of train and image (\d+) of train are parallel to within 1e-06 radians, "
        "which Assumption 2 excludes",
        said(tmp_path, "mnist", num_samples=12),
    )
    assert pair is not None
    assert {int(each) for each in pair.groups()} == {int(zeros[2]), int(zeros[4])}


def test_a_black_image_is_named(tmp_path: Path) -> None:
    part = write_idx(tmp_path, packed=False)["test"]
    pixels = part.pixels[:, 0] * (np.arange(30) != np.flatnonzero(part.classes == 1)[0])[:, None, None]
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(pixels.astype(np.uint8)))
    index = np.flatnonzero(part.classes == 1)[0]
    expected = f"data.kind kmnist: image {index} of test is zero and cannot be scaled to norm sqrt(d)"
    assert said(tmp_path, "kmnist", split="test", num_samples=6) == expected


def test_too_few_images_are_told_with_what_each_class_holds(tmp_path: Path) -> None:
    write_svhn(tmp_path)
    assert said(tmp_path, "svhn", num_samples=19, classes=[3, 1, 9]) == (
        "data.kind svhn, train: data.num_samples asks for 19 of the classes [3, 1, 9], which hold 18 "
        "(6 of 3, 6 of 1, 6 of 9)"
    )
    part = write_idx(tmp_path, packed=False)["train"]
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.where(part.classes == 9, 8, part.classes).astype("u1")))
    assert said(tmp_path, "mnist", num_samples=2, classes=[0, 9]).endswith(
        "there is no image of class 9 of data.classes"
    )


def test_published_sets_have_as_many_images_of_each_class_as_their_papers_say() -> None:
    totals = {"svhn": (73257, 26032), "cifar-10": (50000, 10000)}
    for kind in KINDS:
        unread = [OPTIONS.validate_python({"kind": kind, "num_samples": 1, "split": s}) for s in ("train", "test")]
        assert tuple(sum(each.per_class() or ()) for each in unread) == totals.get(kind, (60000, 10000))
        assert all(len(each.per_class() or ()) == 10 for each in unread)


def test_published_files_need_no_sum_in_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in KINDS:
        WRITERS[kind](tmp_path / kind)
        publish(monkeypatch, kind, tmp_path / kind)
        published, other = (options(tmp_path, kind, sha256) for sha256 in (None, "any"))
        assert published.sha256 is None
        assert published.identity() != other.identity()
        np.testing.assert_array_equal(published.load().X, other.load().X)
