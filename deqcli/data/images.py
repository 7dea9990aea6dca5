"""The kinds of data that are published image sets, read from a folder; each is its options.

To add one, name its files in `PUBLISHED` of `published.py` and write a subclass of `Images`.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field, ValidationInfo, field_validator

from deqcli.data import cifar
from deqcli.data.classes import OfClasses
from deqcli.data.dataset import Dataset
from deqcli.data.idx import read_idx
from deqcli.data.image_files import Wanted, find, read
from deqcli.data.kind import mistake
from deqcli.data.pictures import Pictures, checked
from deqcli.data.published import PUBLISHED, Published
from deqcli.data.svhn import read_svhn
from deqcli.errors import Refused
from deqcli.options import Contradiction, Count

Split = Literal["train", "test"]
Sum = Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$", description="64 hexadecimal digits")]
PerClass = Mapping[str, Sequence[int]]
EVEN = {"train": (6000,) * 10, "test": (1000,) * 10}


class Images(OfClasses):
    """Images of ten classes from the files of a published set."""

    CHANNELS: ClassVar[int] = 1
    SIDE: ClassVar[int] = 28
    PER_CLASS: ClassVar[PerClass] = EVEN

    split: Annotated[Split, Field(description="which of the two published parts is drawn from")] = "train"
    size: Annotated[
        Count | None, Field(description="side in pixels that images are resized to, linearly; null: left as they are")
    ] = None
    root: Annotated[
        str | None,
        Field(
            description="folder of the files, or of a folder named as the kind that has them; null: DEQCLI_DATA, or "
            "`deqcli` in the user's cache"
        ),
    ] = None
    sha256: Annotated[
        Literal["any"] | Sum | None,
        Field(
            description="null: the files must be the published ones; any: other files of the format, whose SHA-256 is "
            "filled in, else checked"
        ),
    ] = None

    @field_validator("root")
    @classmethod
    def _absolute(cls, root: str | None, info: ValidationInfo) -> str | None:
        """Beside the recipe, unless only the working folder has it; it need not be there yet."""
        if root is None:
            return None
        root = os.path.expanduser(root)
        beside = os.path.join((info.context or {}).get("folder", "."), root)
        return os.path.abspath(root if not os.path.isdir(beside) and os.path.isdir(root) else beside)

    @field_validator("sha256")
    @classmethod
    def _digest(cls, sha256: str | None, info: ValidationInfo) -> str | None:
        if sha256 is None or not {"root", "split"} <= info.data.keys():
            return sha256
        root, split = info.data["root"], info.data["split"]
        try:
            stamps = tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in cls._paths(root, split))
            found = _digest_of(cls, root, split, stamps)
        except Refused as error:
            raise mistake(str(error)) from None
        except OSError as error:
            raise mistake(f"{error.filename} cannot be read: {error.strerror}") from None
        if sha256.lower() not in ("any", found):
            raise mistake(f"must be that of the images and labels, {found}")
        return found

    def identity(self) -> dict[str, object]:
        """The content counts, wherever the files lie."""
        return {key: value for key, value in super().identity().items() if key != "root"}

    def per_class(self) -> Sequence[int] | None:
        return self.PER_CLASS[self.split] if self.sha256 is None else None

    def shape(self) -> tuple[int, int]:
        return self.num_samples, self._channels() * (self.size or self.SIDE) ** 2

    def contradictions(self) -> Iterator[Contradiction]:
        yield from super().contradictions()
        if self.shape()[1] == 1 and self.num_samples > 1:
            yield Contradiction(
                ("size", "num_samples"), "must be at least 2: images of 1 pixel are parallel to each other"
            )

    def load(self) -> Dataset:
        """Draw as `balanced` does, make grey and resize as asked. Raises: Refused, naming the file, or images."""
        where = f"data.kind {self.kind}"
        pictures = self._pictures(self.root, self.split, of_any=self.sha256 is not None)
        if self.sha256 is not None and pictures.digest() != self.sha256:
            paths = ", ".join(map(str, self._paths(self.root, self.split)))
            raise Refused(f"{where}: what {paths} hold has changed since the recipe was read")
        chosen, labels = self._draw(pictures.classes, f"{where}, {self.split}")
        rows = pictures.rows(chosen, self._channels() < self.CHANNELS, self.size)
        return self._dataset(rows, labels, where, [f"image {index} of {self.split}" for index in chosen])

    @abstractmethod
    def _channels(self) -> int:
        """Those of the samples."""

    @classmethod
    def published(cls) -> Published:
        """The files as they are published."""
        return PUBLISHED[get_args(cls.model_fields["kind"].annotation)[0]]

    @classmethod
    def _find(cls, root: str | None, split: Split) -> list[tuple[Path, ...]]:
        return find(cls.published(), cls._wanted(split), root)

    @classmethod
    def _paths(cls, root: str | None, split: Split) -> list[Path]:
        return [path for paths in cls._find(root, split) for path in paths]

    @classmethod
    def _pictures(cls, root: str | None, split: Split, of_any: bool) -> Pictures:
        """All images of a split. Raises: Refused, naming the file."""
        found = zip(cls._wanted(split), cls._find(root, split), strict=True)
        contents = {path: read(path, wanted.file, of_any) for wanted, paths in found for path in paths}
        return cls._read(contents, split)

    @classmethod
    def _wanted(cls, split: Split) -> list[Wanted]:
        """The files of a split: those whose names begin as they do."""
        files = [each for each in cls.published().files if each.name.startswith(_BEGIN[split])]
        return [Wanted(each, (each.name.removesuffix(".gz"),) if each.name.endswith(".gz") else ()) for each in files]

    @classmethod
    @abstractmethod
    def _read(cls, contents: Mapping[Path, bytes], split: Split) -> Pictures:
        """The images in the content of the files, those of `_wanted` in its order."""


_BEGIN: Mapping[str, tuple[str, ...]] = {"train": ("train",), "test": ("t10k", "test")}


@lru_cache(maxsize=16)
def _digest_of(kind: type[Images], root: str | None, split: Split, stamps: tuple[tuple[Path, int, int], ...]) -> str:
    """The digest of a split; taken once while its files keep their `stamps`, however many runs of a sweep ask."""
    return kind._pictures(root, split, of_any=True).digest()


class OfIdx(Images):
    """Grey images of 28 x 28 in IDX files."""

    def _channels(self) -> int:
        return self.CHANNELS

    @classmethod
    def _read(cls, contents: Mapping[Path, bytes], split: Split) -> Pictures:
        images, labels = contents
        pixels = read_idx(images, contents[images], (cls.SIDE, cls.SIDE))
        classes = read_idx(labels, contents[labels])
        if len(pixels) != len(classes):
            raise Refused(f"{images} has {len(pixels)} images, and {labels} {len(classes)} labels")
        return checked(str(labels), pixels[:, None], classes)


class OfColour(Images):
    """Images of 32 x 32 in red, green and blue."""

    CHANNELS: ClassVar[int] = 3
    SIDE: ClassVar[int] = 32

    grey: Annotated[bool, Field(description="0.299 R + 0.587 G + 0.114 B in place of three channels")] = False

    def _channels(self) -> int:
        return 1 if self.grey else self.CHANNELS


class Mnist(OfIdx):
    """MNIST: handwritten digits, 28 x 28 pixels (LeCun et al., 1998)."""

    PER_CLASS: ClassVar[PerClass] = {
        "train": (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
        "test": (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009),
    }

    kind: Literal["mnist"]


class FashionMnist(OfIdx):
    """Fashion-MNIST, 28 x 28 pixels; classes 0 to 9 are T-shirt, trousers, pullover, dress, coat, sandal, shirt,
    sneaker, bag and boot (Xiao, Rasul and Vollgraf, 2017).
    """

    kind: Literal["fashion-mnist"]


class Kmnist(OfIdx):
    """Kuzushiji-MNIST, 28 x 28 pixels; classes 0 to 9 are the cursive characters o, ki, su, tsu, na, ha, ma, ya, re
    and wo (Clanuwat et al., 2018).
    """

    kind: Literal["kmnist"]


class Cifar10(OfColour):
    """CIFAR-10, 32 x 32 pixels in colour; classes 0 to 9 are aeroplane, car, bird, cat, deer, dog, frog, horse, ship
    and lorry (Krizhevsky, 2009).
    """

    PER_CLASS: ClassVar[PerClass] = {"train": (5000,) * 10, "test": (1000,) * 10}

    kind: Literal["cifar-10"]

    @classmethod
    def _wanted(cls, split: Split) -> list[Wanted]:
        return [Wanted(cls.published().files[0], cifar.BATCHES[split])]

    @classmethod
    def _read(cls, contents: Mapping[Path, bytes], split: Split) -> Pictures:
        (first, content), *others = contents.items()
        if first.name == cls.published().files[0].name:
            return cifar.read_cifar(cifar.members(first, content, cifar.BATCHES[split]))
        return cifar.read_cifar({str(path): each for path, each in [(first, content), *others]})


class Svhn(OfColour):
    """SVHN: digits in house numbers, cropped to 32 x 32 pixels in colour (Netzer et al., 2011)."""

    PER_CLASS: ClassVar[PerClass] = {
        "train": (4948, 13861, 10585, 8497, 7458, 6882, 5727, 5595, 5045, 4659),
        "test": (1744, 5099, 4149, 2882, 2523, 2384, 1977, 2019, 1660, 1595),
    }

    kind: Literal["svhn"]

    @classmethod
    def _read(cls, contents: Mapping[Path, bytes], split: Split) -> Pictures:
        ((path, content),) = contents.items()
        return read_svhn(path, content)
