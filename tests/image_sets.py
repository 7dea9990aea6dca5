"""Small image sets of random pixels in the formats of the published ones, and what reading them is refused with."""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter
from scipy.io import savemat

from deqcli.data.images import Images
from deqcli.data.kinds import DataOptions
from deqcli.data.published import PUBLISHED, PublishedFile
from deqcli.errors import RecipeRefused, Refused
from deqcli.recipe.loading import load_recipe
from deqcli.recipe.schema import Recipe

BATCH_NAMES = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
PER_CLASS = {"train": 6, "test": 3}
OPTIONS: TypeAdapter[Images] = TypeAdapter(DataOptions)
IDX_PARTS = {"train": "train", "test": "t10k"}


@dataclass(frozen=True)
class Part:
    """One split as it was made: pixels (n, channels, rows, columns) and classes (n,)."""

    pixels: np.ndarray
    classes: np.ndarray

    @property
    def digest(self) -> str:
        """What `sha256: any` is filled in with."""
        return hashlib.sha256(self.pixels.tobytes() + self.classes.tobytes()).hexdigest()


def part(split: str, shape: Sequence[int], seed: int = 0) -> Part:
    """Random pixels, each class as often as the others, in random order."""
    generator = np.random.default_rng([seed, len(split)])
    classes = generator.permutation(np.repeat(np.arange(10, dtype=np.uint8), PER_CLASS[split]))
    return Part(generator.integers(0, 256, (len(classes), *shape), dtype=np.uint8), classes)


def idx(array: np.ndarray) -> bytes:
    """An IDX file of unsigned bytes."""
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_idx(folder: Path, packed: bool = True, seed: int = 0) -> dict[str, Part]:
    """The four files of MNIST, Fashion-MNIST and KMNIST."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = {split: part(split, (1, 28, 28), seed) for split in IDX_PARTS}
    for split, name in IDX_PARTS.items():
        for what, array in (("images-idx3", parts[split].pixels[:, 0]), ("labels-idx1", parts[split].classes)):
            content, file = idx(array), f"{name}-{what}-ubyte"
            (folder / (f"{file}.gz" if packed else file)).write_bytes(
                gzip.compress(content, mtime=0) if packed else content
            )
    return parts


def batches(parts: dict[str, Part]) -> dict[str, bytes]:
    """The batches of CIFAR-10 by name."""
    train, test = (
        np.column_stack([each.classes, each.pixels.reshape(len(each.classes), -1)]) for each in parts.values()
    )
    split = [*np.array_split(train, 5), test]
    return {name: records.tobytes() for name, records in zip(BATCH_NAMES, split, strict=True)}


def tar(members: dict[str, bytes]) -> bytes:
    """A tar.gz archive as CIFAR-10's, with a page beside the batches."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name, each in {"readme.html": b"<html/>", **members}.items():
            entry = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            entry.size = len(each)
            archive.addfile(entry, io.BytesIO(each))
    return gzip.compress(content.getvalue(), mtime=0)


def write_cifar(folder: Path, packed: bool = True, seed: int = 0) -> dict[str, Part]:
    """The archive of CIFAR-10, or its folder of batches."""
    parts = {split: part(split, (3, 32, 32), seed) for split in PER_CLASS}
    below = folder if packed else folder / "cifar-10-batches-bin"
    below.mkdir(parents=True, exist_ok=True)
    files = {"cifar-10-binary.tar.gz": tar(batches(parts))} if packed else batches(parts)
    for name, content in files.items():
        (below / name).write_bytes(content)
    return parts


def mat(each: Part, packed: bool = True, **others: np.ndarray) -> bytes:
    """A file of SVHN: X (row, column, channel, image) and y (image, 1), digit 0 as 10."""
    content = io.BytesIO()
    y = np.where(each.classes == 0, np.uint8(10), each.classes)[:, None]
    savemat(content, {"X": each.pixels.transpose(2, 3, 1, 0), "y": y} | others, do_compression=packed)
    return b"MATLAB 5.0 MAT-file".ljust(116) + content.getvalue()[116:]  # without the time of day


def write_svhn(folder: Path, packed: bool = True, seed: int = 0) -> dict[str, Part]:
    """The two files of SVHN; `packed` within themselves."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = {split: part(split, (3, 32, 32), seed) for split in PER_CLASS}
    for split, each in parts.items():
        (folder / f"{split}_32x32.mat").write_bytes(mat(each, packed))
    return parts


WRITERS = {
    "mnist": write_idx, "fashion-mnist": write_idx, "kmnist": write_idx, "cifar-10": write_cifar, "svhn": write_svhn,
}  # fmt: skip


def publish(monkeypatch: pytest.MonkeyPatch, kind: str, folder: Path, contents: bool = True) -> None:
    """Have the files in a folder be the published ones of a kind, with the sums of what they unpack to."""

    def as_published(file: PublishedFile) -> PublishedFile:
        content = (folder / file.name).read_bytes()
        unpacked = _unpacked(file.name, content) if contents else {}
        sums = {name: hashlib.sha256(each).hexdigest() for name, each in unpacked.items()}
        return PublishedFile(file.name, hashlib.sha256(content).hexdigest(), len(content), sums)

    files = tuple(as_published(each) for each in PUBLISHED[kind].files)
    monkeypatch.setitem(PUBLISHED, kind, replace(PUBLISHED[kind], files=files))  # type: ignore[arg-type]


def _unpacked(name: str, content: bytes) -> dict[str, bytes]:
    if name.endswith(".tar.gz"):
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            files = {Path(each.name).name: archive.extractfile(each) for each in archive}
            return {each: file.read() for each, file in files.items() if file is not None}
    return {name.removesuffix(".gz"): gzip.decompress(content)} if name.endswith(".gz") else {}


def options(folder: Path | None, kind: str, sha256: str | None = None, **given: object) -> Images:
    root = None if folder is None else str(folder)
    return OPTIONS.validate_python({"kind": kind, "num_samples": 10, "root": root, "sha256": sha256, **given})


def refusal(folder: Path | None, kind: str, **given: object) -> str:
    """What loading published files is refused with."""
    with pytest.raises(Refused) as caught:
        options(folder, kind, **given).load()
    assert caught.value.exit_code == 2
    return str(caught.value)


def recipe(folder: Path, data: str, *overrides: str) -> Recipe:
    path = folder / "r.yaml"
    path.write_text(f"name: images\ndata: {{num_samples: 10, {data}}}\nmodel: {{width: 8}}\n", encoding="utf-8")
    return load_recipe(str(path), overrides, 10**12)


def mistake(folder: Path, data: str) -> str:
    """The one mistake of a recipe, behind its place."""
    with pytest.raises(RecipeRefused) as caught:
        recipe(folder, data)
    line, count = str(caught.value).split("\n")
    assert count == "1 error; nothing was run."
    return line.removeprefix(f"{folder / 'r.yaml'}:2:").partition(": ")[2]


def of_any(folder: Path, kind: str, **given: object) -> str:
    """What other files of the format are refused with, when the recipe is read."""
    data = ", ".join(
        f"{key}: {value}" for key, value in {"kind": kind, "root": folder, "sha256": "any", **given}.items()
    )
    text = mistake(folder, data)
    assert text.startswith("data.sha256: ")
    assert text.isprintable()
    return text.removeprefix("data.sha256: ")
