"""Image sets that are damaged, or something else: each refused in exact words, with bounded memory."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from deqcli.data import image_files
from deqcli.data.svhn import _unpacks_to
from deqcli.errors import Refused
from tests.image_sets import BATCH_NAMES, WRITERS, Part, batches, idx, mat, of_any, options, tar

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TAR = "cifar-10-binary.tar.gz"

SHAPE = "X must be (32, 32, 3, n) and y (n, 1), both uint8, got"
PART = Part(
    np.arange(20 * 784, dtype=np.uint32).astype(np.uint8).reshape(20, 1, 28, 28), np.arange(20, dtype="u1") // 2
)
GOOD = {IMAGES: idx(PART.pixels[:, 0]), LABELS: idx(PART.classes)}


def header(count: int, *sides: int, magic: int = 2051) -> bytes:
    return struct.pack(f">{2 + len(sides)}I", magic, count, *sides)


BAD_IDX = {
    "labels for images": (IMAGES, GOOD[LABELS], "begins with the number 2049, an IDX file of images with 2051"),
    "images for labels": (LABELS, GOOD[IMAGES], "begins with the number 2051, an IDX file of labels with 2049"),
    "text": (IMAGES, b"<html>not found</html>", "begins with the number 1013478509, an IDX file of images with 2051"),
    "floats": (
        IMAGES,
        b"\0\0\x0d\3" + GOOD[IMAGES][4:],
        "begins with the number 3331, an IDX file of images with 2051",
    ),
    "gzipped once more": (
        IMAGES,
        gzip.compress(GOOD[IMAGES], mtime=0),
        "begins with the number 529205248, an IDX file of images with 2051; it is gzipped, and its name must end in "
        ".gz once",
    ),
    "empty": (LABELS, b"", "ends within its header, after 0 of 8 bytes"),
    "a header cut short": (IMAGES, GOOD[IMAGES][:13], "ends within its header, after 13 of 16 bytes"),
    "other sides": (IMAGES, header(1, 20, 28) + bytes(560), "has images of 20 x 28, must be 28 x 28"),
    "cut short": (IMAGES, GOOD[IMAGES][:-1], "its header says 20 images, 15680 bytes, and 15679 follow"),
    "too long": (IMAGES, GOOD[IMAGES] + b"\0", "its header says 20 images, 15680 bytes, and more follow"),
    "terabytes": (
        IMAGES,
        header(2**32 - 1, 28, 28),
        "its header says 4294967295 images, 3367254359280 bytes; no more than 536870912 are read",
    ),
    "gigabytes": (
        LABELS,
        header(2**29, magic=2049) + bytes(5),
        "its header says 536870912 labels, 536870912 bytes, and 5 follow",
    ),
    "a label beyond 9": (LABELS, GOOD[LABELS][:-2] + b"\x0a\x63", "image 18 has the label 10, must be 0 to 9"),
}


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(("name", "content", "message"), BAD_IDX.values(), ids=BAD_IDX)
def test_a_damaged_idx_file_is_refused(tmp_path: Path, name: str, content: bytes, message: str, packed: bool) -> None:
    for each, held in (GOOD | {name: content}).items():
        path = tmp_path / (f"{each}.gz" if packed else each)
        path.write_bytes(gzip.compress(held) if packed else held)
    assert of_any(tmp_path, "mnist") == f"{tmp_path / name}{'.gz' if packed else ''}: {message}"


def test_images_and_labels_must_be_as_many(tmp_path: Path) -> None:
    (tmp_path / IMAGES).write_bytes(GOOD[IMAGES])
    (tmp_path / LABELS).write_bytes(idx(PART.classes[:-1]))
    assert of_any(tmp_path, "mnist") == f"{tmp_path / IMAGES} has 20 images, and {tmp_path / LABELS} 19 labels"


PACKED = gzip.compress(GOOD[IMAGES], mtime=0)
BAD_GZIP: dict[str, tuple[bytes, str]] = {
    "cut short": (PACKED[:-20], "Compressed file ended before the end-of-stream marker was reached"),
    "cut in its sum": (PACKED[:-5], "Compressed file ended before the end-of-stream marker was reached"),
    "another sum": (PACKED[:-8] + bytes(4) + PACKED[-4:], "CRC check failed 0x0 != "),
    "another length": (PACKED[:-4] + bytes(4), "Incorrect length of data produced"),
    "not packed": (GOOD[IMAGES], "Not a gzipped file (b'\\x00\\x00')"),
    "garbage within": (PACKED[:10] + b"\xff" * 40 + PACKED[50:], "Error -3 while decompressing data: "),
    "garbage behind": (PACKED + b"garbage", "Not a gzipped file (b'ga')"),
}


@pytest.mark.parametrize(("content", "message"), BAD_GZIP.values(), ids=BAD_GZIP)
def test_a_damaged_gzip_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / f"{IMAGES}.gz").write_bytes(content)
    (tmp_path / LABELS).write_bytes(GOOD[LABELS])
    start = f"{tmp_path / IMAGES}.gz is not a whole gzip file ({message}"
    assert of_any(tmp_path, "mnist").startswith(start)


def test_more_than_a_header_says_is_never_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    take = image_files.take

    def counted(path: Path, stream: object, most: int) -> bytes:
        taken.append(len(found := take(path, stream, most)))  # type: ignore[arg-type]
        return found

    monkeypatch.setattr("deqcli.data.idx.take", counted)
    (tmp_path / f"{IMAGES}.gz").write_bytes(gzip.compress(GOOD[IMAGES] + bytes(50_000_000)))
    (tmp_path / LABELS).write_bytes(GOOD[LABELS])
    assert of_any(tmp_path, "mnist").endswith("its header says 20 images, 15680 bytes, and more follow")
    assert taken == [16, 15681]


def test_no_more_than_a_limit_is_read_or_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("image_files", "cifar", "svhn", "idx"):
        monkeypatch.setattr(f"deqcli.data.{module}.MOST_BYTES", 100_000)
    bomb = tar({name: bytes(3073 * 400) for name in BATCH_NAMES})
    assert len(bomb) < 100_000
    (tmp_path / TAR).write_bytes(bomb)
    expected = f"{tmp_path / TAR}: unpacks to more than 100000 bytes; no more are read"
    assert of_any(tmp_path, "cifar-10") == expected
    (tmp_path / TAR).write_bytes(bytes(100_001))
    assert of_any(tmp_path, "cifar-10") == f"{tmp_path / TAR} has 100001 bytes; no more than 100000 are read"
    black = Part(np.zeros((40, 3, 32, 32), np.uint8), np.ones(40, np.uint8))
    path = tmp_path / "train_32x32.mat"
    path.write_bytes(mat(black))
    assert of_any(tmp_path, "svhn") == f"{path}: unpacks to more than 100000 bytes; no more are read"


CIFAR = batches({split: Part(np.ones((20, 3, 32, 32), np.uint8), PART.classes) for split in ("train", "test")})
MULTIPLE = "must be a multiple of 3073, a label and 3 x 32 x 32 pixels"


def test_a_damaged_batch_is_refused_in_an_archive_and_in_a_folder(tmp_path: Path) -> None:
    bad = CIFAR["data_batch_4.bin"]
    cases = {
        bad[:-1]: f"has 12291 bytes, {MULTIPLE}",
        b"": f"has 0 bytes, {MULTIPLE}",
        b"\x0b" + bad[1:]: "image 0 has the label 11, must be 0 to 9",
    }
    (tmp_path / "folder").mkdir()
    for content, message in cases.items():
        members = CIFAR | {"data_batch_4.bin": content}
        (tmp_path / TAR).write_bytes(tar(members))
        assert of_any(tmp_path, "cifar-10") == f"{tmp_path / TAR}: data_batch_4.bin: {message}"
        for name, each in members.items():
            (tmp_path / "folder" / name).write_bytes(each)
        assert of_any(tmp_path / "folder", "cifar-10") == f"{tmp_path}/folder/data_batch_4.bin: {message}"


def linked(members: dict[str, bytes]) -> bytes:
    """An archive in which a batch is a link to a file of the machine."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name in members:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/hostname"
            archive.addfile(entry)
    return content.getvalue()


WHOLE = "CIFAR-10's binary version has data_batch_1.bin, data_batch_2.bin, data_batch_3.bin, data_batch_4.bin, "
WHOLE += "data_batch_5.bin"
BAD_TAR = {
    "a batch missing": (
        tar({name: each for name, each in CIFAR.items() if "3" not in name}),
        f": has no data_batch_3.bin; {WHOLE}",
    ),
    "a batch in two folders": (tar(CIFAR | {"other/data_batch_2.bin": b""}), ": has data_batch_2.bin twice"),
    "links": (linked(CIFAR), f": has no data_batch_1.bin; {WHOLE}"),
    "cut short within a batch": (
        gzip.compress(gzip.decompress(tar(CIFAR))[:40_000]),
        ": not a whole tar archive (unexpected end of data)",
    ),
    "text": (gzip.compress(b"text" * 500), ": not a whole tar archive ("),
    "gzip cut short": (tar(CIFAR)[:-9], " is not a whole gzip file ("),
    "no gzip": (b"text" * 500, " is not a whole gzip file (Not a gzipped file (b'te'))"),
}


@pytest.mark.parametrize(("content", "message"), BAD_TAR.values(), ids=BAD_TAR)
def test_a_damaged_archive_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / TAR).write_bytes(content)
    assert of_any(tmp_path, "cifar-10").startswith(f"{tmp_path / TAR}{message}")
    assert sorted(path.name for path in tmp_path.iterdir()) == [TAR, "r.yaml"]


def matlab(**arrays: object) -> bytes:
    content = io.BytesIO()
    savemat(content, arrays)
    return content.getvalue()


X, Y = np.ones((32, 32, 3, 4), np.uint8), np.array([[1], [10], [9], [2]], np.uint8)
NO_MATLAB = "not a MATLAB file with arrays X and y ("
BAD_MAT = {
    "no y": (matlab(X=X), f"{SHAPE} (32, 32, 3, 4) of uint8 and () of nothing"),
    "images first": (matlab(X=X.transpose(3, 0, 1, 2), y=Y), f"{SHAPE} (4, 32, 32, 3) of uint8 and (4, 1) of uint8"),
    "fewer labels": (matlab(X=X, y=Y[:3]), f"{SHAPE} (32, 32, 3, 4) of uint8 and (3, 1) of uint8"),
    "floats": (matlab(X=X / 255, y=Y), f"{SHAPE} (32, 32, 3, 4) of double and (4, 1) of uint8"),
    "text": (matlab(X="abc", y=Y), f"{SHAPE} (1,) of char and (4, 1) of uint8"),
    "a label 0": (matlab(X=X, y=Y % 10), "image 1 has the label 0; digit 0 has the label 10"),
    "a label 11": (matlab(X=X, y=Y + 1), "image 1 has the label 11, must be 0 to 9"),
    "empty": (b"", NO_MATLAB),
    "zeros": (bytes(3000), NO_MATLAB),
    "HDF5": (b"MATLAB 7.3 MAT-file" + bytes(105) + b"\0\2IM" + b"\x89HDF\r\n\x1a\n" + bytes(300), NO_MATLAB),
    "cut short": (matlab(X=X, y=Y)[:-30], NO_MATLAB),
    "cut short, packed": (mat(Part(PART.pixels[:, :, :1, :1].repeat(3, 1), PART.classes))[:150], NO_MATLAB),
}


@pytest.mark.parametrize(("content", "message"), BAD_MAT.values(), ids=BAD_MAT)
def test_a_matlab_file_that_holds_something_else_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "train_32x32.mat"
    path.write_bytes(content)
    assert of_any(tmp_path, "svhn").startswith(f"{path}: {message}")
    assert "\n" not in of_any(tmp_path, "svhn")


def outcome(folder: Path, kind: str) -> str | None:
    """None where a set is read, or what is said against it."""
    try:
        options(folder, kind)._pictures(str(folder), "train", of_any=True)
    except Refused as error:
        return str(error)
    return None


def test_no_bit_of_a_file_makes_anything_but_data_or_a_refusal(tmp_path: Path) -> None:
    """Every format, unpacked and packed, with bits turned and ends cut off at seeded places."""
    generator = np.random.default_rng(0)
    looked, refused = 0, 0
    for kind, name in {"mnist": f"{LABELS}.gz", "cifar-10": TAR, "svhn": "train_32x32.mat"}.items():
        WRITERS[kind](tmp_path / kind)
        path = tmp_path / kind / name
        content = path.read_bytes()
        for place in [*range(0, 40, 3), *generator.integers(0, len(content), 25).tolist()]:
            for bad in (content[:place], content[:place] + bytes([content[place] ^ 64]) + content[place + 1 :]):
                path.write_bytes(bad)
                looked += 1
                said = outcome(tmp_path, kind)
                refused += said is not None
                assert said is None or said.startswith(str(tmp_path / kind))
    assert looked == 3 * 2 * 39
    assert refused > 0.8 * looked


def test_elements_of_a_matlab_file_are_counted_as_zlib_unpacks_them() -> None:
    for size in (0, 1, 2**20 - 1, 2**20, 3 * 2**20 + 5):
        assert _unpacks_to(memoryview(zlib.compress(bytes(size)))) == size
