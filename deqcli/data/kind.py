"""What all kinds of data share: the base of their options, labels, and files that are found and hashed."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from deqcli.data.dataset import Dataset, make_dataset
from deqcli.data.files import file_sha256, is_file
from deqcli.deq.streams import stream
from deqcli.errors import Refused
from deqcli.options import Options, Positive, Seed

if TYPE_CHECKING:
    import numpy as np

SeedOfData = Annotated[Seed, Field(description="decides the samples and the random labels")]
LabelScale = Annotated[Positive, Field(description="a factor on every label")]


class DataKind(Options):
    """Options of a kind of data."""

    SILENT: ClassVar[frozenset[str]] = frozenset({"antipodal"})

    kind: str
    label_scale: LabelScale = 1.0
    antipodal: Annotated[
        bool, Field(description="accept pairs of samples x, -x, which Assumption 2 excludes; never x twice")
    ] = False

    @abstractmethod
    def load(self) -> Dataset:
        """The data set; the same options always give the same one. Raises: Refused."""

    @abstractmethod
    def shape(self) -> tuple[int | None, int | None]:
        """(num_samples, input_dim) as far as they are known before loading."""

    def _dataset(
        self, rows: np.ndarray, labels: np.ndarray, where: str, names: Sequence[str] | None = None,
        normalise: bool = True,
    ) -> Dataset:  # fmt: skip
        import numpy as np

        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused as infinite
            return make_dataset(rows, self.label_scale * labels, where, names, self.antipodal, normalise)


class OfFile(DataKind):
    """A kind of data that a file decides, by its content and wherever it lies."""

    SUFFIXES: ClassVar[tuple[str, ...]]

    path: str | None = None
    sha256: Annotated[
        str | None, Field(validate_default=True, description="SHA-256 of the file; null: filled in, else checked")
    ] = None

    @field_validator("path")
    @classmethod
    def _find(cls, path: str | None, info: ValidationInfo) -> str | None:
        if path is None:
            return None
        folders = [Path((info.context or {}).get("folder", ".")), Path()]
        found = next((folder / path for folder in folders if is_file(folder / path)), None)
        if Path(path).suffix not in cls.SUFFIXES:
            raise mistake(f"must be an {' or a '.join(cls.SUFFIXES)} file, got {path[:200]!r}")
        if found is None:
            looked = "" if Path(path).is_absolute() else "; looked beside the recipe and in the working folder"
            raise mistake(f"there is no file {path[:200]!r}{looked}")
        if not os.access(found, os.R_OK):
            raise mistake(f"the file {path[:200]!r} may not be read")
        return os.path.abspath(found)  # not resolved: a link may name a file without its suffix

    @field_validator("sha256")
    @classmethod
    def _hash(cls, sha256: str | None, info: ValidationInfo) -> str | None:
        if info.data.get("path") is None:
            return sha256
        try:
            found = file_sha256(Path(info.data["path"]))
        except OSError as error:
            raise mistake(f"the file cannot be read: {error.strerror}") from None
        if sha256 is not None and sha256.lower() != found:
            raise mistake(f"must be that of the file, {found}")
        return found

    def identity(self) -> dict[str, object]:
        """The content counts, wherever the file lies."""
        return {key: value for key, value in super().identity().items() if key != "path"}

    def _unchanged(self, path: str) -> Path:
        """The file. Raises: Refused where it is not the one whose hash was taken."""
        if not is_file(path) or file_sha256(Path(path)) != self.sha256:
            raise Refused(f"{path} has changed since the recipe was read")
        return Path(path)


def mistake(why: str) -> PydanticCustomError:
    """A mistake that the checker tells in these words behind its key."""
    return PydanticCustomError("file", "{why}", {"why": why})


def random_labels(kind: str, seed: int, count: int) -> np.ndarray:
    """Labels (count,): `gaussian` N(0, 1), `uniform` on [-1, 1], `signs` -1 or +1 with equal chance."""
    import numpy as np

    generator = stream(seed, "labels")
    if kind == "gaussian":
        return np.asarray(generator.standard_normal(count))
    if kind == "uniform":
        return np.asarray(generator.uniform(-1.0, 1.0, count))
    return np.asarray(generator.choice([-1.0, 1.0], count))


def class_labels(kind: str, seed: int, places: np.ndarray, classes: int) -> np.ndarray:
    """Labels (count,) of samples whose class is at `places` (count,), 0 to k - 1, among k = `classes` of them.

    `class`: -1 + 2 place/(k - 1), evenly from -1 for the first class to +1 for the last; `index`: the place; else
    random ones.
    """
    import numpy as np

    if kind == "class":
        return np.asarray(2.0 * places / (classes - 1) - 1.0)
    return places.astype(np.float64) if kind == "index" else random_labels(kind, seed, len(places))
