"""The image sets that deqcli knows: their files as published, with size and SHA-256, and where these are to be had.

To add one, name it in `PUBLISHED`; a kind of data that reads its files is a subclass of `Images`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

DATA = "DEQCLI_DATA"
CACHE = "XDG_CACHE_HOME"


@dataclass(frozen=True)
class PublishedFile:
    """A file as it is published: its name, SHA-256 and size in bytes.

    `contents` are the SHA-256 of the files that come out of it when it is unpacked, by name; None: not published.
    """

    name: str
    sha256: str
    size: int
    contents: Mapping[str, str | None] = field(default_factory=dict)

    def sum_of(self, name: str) -> str | None:
        """The published SHA-256 of the file itself or of one that comes out of it."""
        return self.sha256 if name == self.name else self.contents.get(name)


@dataclass(frozen=True)
class Published:
    """An image set: the name of its kind of data, what it shows, its page, its files, and the mirrors that have them.

    `mirrors` are the addresses of folders, in the order in which they are tried; `folders` are those in which the files
    may lie, below one named as the set and below the root.
    """

    name: str
    title: str
    page: str
    files: tuple[PublishedFile, ...]
    mirrors: tuple[str, ...]
    folders: tuple[str, ...] = ("",)

    def below(self, root: Path) -> list[Path]:
        """The folders in which the set is looked for, in this order."""
        return [each / folder for each in (root / self.name, root) for folder in self.folders]

    @property
    def parts(self) -> list[tuple[PublishedFile, ...]]:
        """The files that are read together, from one folder; their names begin alike, as those of train-images do."""
        return [tuple(files) for _, files in groupby(self.files, lambda file: file.name.partition("-")[0])]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(each.size for each in self.files)


def data_folder(root: str | os.PathLike[str] | None = None) -> Path:
    """The folder of image sets, absolute: the one named, or else DEQCLI_DATA, or `deqcli` in the user's cache."""
    cache = os.environ.get(CACHE) or "~/.cache"
    default = os.environ.get(DATA) or os.path.join(cache, "deqcli")
    return Path(os.path.abspath(os.path.expanduser(default if root is None else root)))


def _idx(part: str, sha256: str, size: int, unpacked: str | None = None) -> PublishedFile:
    name = f"{part}-ubyte"
    return PublishedFile(f"{name}.gz", sha256, size, {name: unpacked})


TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3", "train-labels-idx1"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3", "t10k-labels-idx1"

MNIST = Published(
    "mnist",
    "handwritten digits, 28 x 28 grey",
    "http://yann.lecun.com/exdb/mnist/",
    (
        _idx(
            TRAIN_IMAGES,
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            9912422,
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        ),
        _idx(
            TRAIN_LABELS,
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            28881,
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        ),
        _idx(
            TEST_IMAGES,
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            1648877,
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        ),
        _idx(
            TEST_LABELS,
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            4542,
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
    ("https://storage.googleapis.com/cvdf-datasets/mnist/", "https://ossci-datasets.s3.amazonaws.com/mnist/"),
)

FASHION_MNIST = Published(
    "fashion-mnist",
    "articles of clothing, 28 x 28 grey",
    "https://github.com/zalandoresearch/fashion-mnist",
    (
        _idx(TRAIN_IMAGES, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84", 26421880),
        _idx(TRAIN_LABELS, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845", 29515),
        _idx(TEST_IMAGES, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073", 4422102),
        _idx(TEST_LABELS, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5", 5148),
    ),
    (
        "https://fashion-mnist.s3.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    ),
)

KMNIST = Published(
    "kmnist",
    "cursive Japanese characters (Kuzushiji-MNIST), 28 x 28 grey",
    "https://codh.rois.ac.jp/kmnist/",
    (
        _idx(TRAIN_IMAGES, "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4", 18165135),
        _idx(TRAIN_LABELS, "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17", 29497),
        _idx(TEST_IMAGES, "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5", 3041136),
        _idx(TEST_LABELS, "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c", 5120),
    ),
    ("https://codh.rois.ac.jp/kmnist/dataset/kmnist/", "http://codh.rois.ac.jp/kmnist/dataset/kmnist/"),
)

CIFAR_10 = Published(
    "cifar-10",
    "photographs of ten kinds of things, 32 x 32 in colour (binary version)",
    "https://www.cs.toronto.edu/~kriz/cifar.html",
    (
        PublishedFile(
            "cifar-10-binary.tar.gz",
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            170052171,
            {
                "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
                "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
                "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
                "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
                "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
                "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
            },
        ),
    ),
    ("https://www.cs.toronto.edu/~kriz/",),
    ("", "cifar-10-batches-bin"),
)

SVHN = Published(
    "svhn",
    "house numbers in street photographs, cropped digits, 32 x 32 in colour",
    "http://ufldl.stanford.edu/housenumbers/",
    (
        PublishedFile("train_32x32.mat", "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8", 182040794),
        PublishedFile("test_32x32.mat", "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b", 64275384),
    ),
    ("http://ufldl.stanford.edu/housenumbers/",),
)

PUBLISHED: Mapping[str, Published] = {each.name: each for each in (MNIST, FASHION_MNIST, KMNIST, CIFAR_10, SVHN)}
