"""The kinds of data: each is its options, and loads the data set that they describe.

To add one, write a subclass of `DataKind` and name it in `DataOptions`.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from deqcli.data.dataset import Dataset, make_dataset
from deqcli.data.files import file_sha256, is_file, read_csv, read_npz
from deqcli.deq.streams import stream
from deqcli.errors import Refused
from deqcli.options import Contradiction, Count, Options, Positive, Seed

if TYPE_CHECKING:
    import numpy as np

DIGITS_PER_CLASS = (178, 182, 177, 183, 181, 182, 181, 179, 174, 180)
DIGITS_INPUT_DIM = 64

SeedOfData = Annotated[Seed, Field(description="decides the samples and the random labels")]
LabelScale = Annotated[Positive, Field(description="a factor on every label")]


class DataKind(Options):
    """Options of a kind of data."""

    kind: str
    label_scale: LabelScale = 1.0

    @abstractmethod
    def load(self) -> Dataset:
        """The data set; the same options always give the same one. Raises: Refused."""

    @abstractmethod
    def shape(self) -> tuple[int | None, int | None]:
        """(num_samples, input_dim) as far as they are known before loading."""

    def _dataset(self, rows: np.ndarray, labels: np.ndarray, where: str, names: Sequence[str] | None = None) -> Dataset:
        import numpy as np

        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused as infinite
            return make_dataset(rows, self.label_scale * labels, where, names)


def random_labels(kind: str, seed: int, count: int) -> np.ndarray:
    """Labels (count,): `gaussian` N(0, 1), `uniform` on [-1, 1], `signs` -1 or +1 with equal chance."""
    import numpy as np

    generator = stream(seed, "labels")
    if kind == "gaussian":
        return np.asarray(generator.standard_normal(count))
    if kind == "uniform":
        return np.asarray(generator.uniform(-1.0, 1.0, count))
    return np.asarray(generator.choice([-1.0, 1.0], count))


class Sphere(DataKind):
    """Samples uniform on the sphere of radius sqrt(d) (Ling et al. 2023, section 5, synthetic data)."""

    kind: Literal["sphere"]
    num_samples: Annotated[Count, Field(description="n, the number of samples")]
    input_dim: Annotated[Count, Field(description="d, the dimension of a sample")]
    labels: Annotated[
        Literal["gaussian", "uniform", "signs"],
        Field(description="gaussian: N(0, 1); uniform: on [-1, 1]; signs: -1 or +1 with equal chance"),
    ] = "gaussian"
    seed: SeedOfData = 0

    def shape(self) -> tuple[int, int]:
        return self.num_samples, self.input_dim

    def load(self) -> Dataset:
        """Gaussian vectors scaled to norm sqrt(d), which are uniform on the sphere by rotation invariance."""
        rows = stream(self.seed, "samples").standard_normal((self.num_samples, self.input_dim))
        return self._dataset(rows, random_labels(self.labels, self.seed, self.num_samples), "data.kind sphere")

    def contradictions(self) -> Iterator[Contradiction]:
        if self.input_dim == 1 and self.num_samples > 1:
            yield Contradiction(
                ("num_samples", "input_dim"),
                f"{self.num_samples} samples of input_dim 1 are parallel to each other; only 1 is possible",
            )


class Digits(DataKind):
    """The 8 x 8 handwritten digits bundled with scikit-learn (1797 real images, 64 grey values from 0 to 16)."""

    kind: Literal["digits"]
    num_samples: Annotated[
        Count, Field(description="n, the number of images, split over the classes as evenly as they allow")
    ]
    classes: Annotated[
        list[Annotated[int, Field(ge=0, le=9)]], Field(min_length=2, description="the digits that are drawn from")
    ] = Field(default=[0, 1])
    labels: Annotated[
        Literal["class", "gaussian"],
        Field(description="class: -1 for the first and +1 for the second of two classes; gaussian: N(0, 1)"),
    ] = "class"
    seed: SeedOfData = 0

    def shape(self) -> tuple[int, int]:
        return self.num_samples, DIGITS_INPUT_DIM

    def contradictions(self) -> Iterator[Contradiction]:
        held = sum(DIGITS_PER_CLASS[digit] for digit in set(self.classes))
        if len(set(self.classes)) < len(self.classes):
            yield Contradiction(("classes",), f"names a class twice, got {self.classes}")
        elif self.num_samples > held:
            yield Contradiction(
                ("num_samples", "classes"),
                f"must be at most {held}, what the classes {self.classes} hold, got {self.num_samples}",
            )
        if self.labels == "class" and len(self.classes) != 2:
            yield Contradiction(
                ("labels", "classes"),
                f"`class` is for two classes, got {len(self.classes)}; use `gaussian`",
            )

    def load(self) -> Dataset:
        """Draw without replacement, the classes taking turns as long as they last; the order is part of the draw."""
        import numpy as np
        from sklearn.datasets import load_digits

        images, digits = load_digits(return_X_y=True)
        generator = stream(self.seed, "samples")
        shuffled = [generator.permutation(np.flatnonzero(digits == digit)) for digit in self.classes]
        turns = np.full((max(map(len, shuffled)), len(shuffled)), -1)
        for column, indices in enumerate(shuffled):
            turns[: len(indices), column] = indices
        chosen = turns[turns >= 0][: self.num_samples]
        return self._dataset(images[chosen].astype(np.float64), self._labels(digits[chosen]), "data.kind digits")

    def _labels(self, digits: np.ndarray) -> np.ndarray:
        import numpy as np

        if self.labels == "class":
            return np.where(digits == self.classes[1], 1.0, -1.0)
        return random_labels(self.labels, self.seed, len(digits))


class File(DataKind):
    """Samples of your own: NPZ with X (num_samples, input_dim) and y (num_samples,), or CSV with a label column."""

    kind: Literal["file"]
    path: Annotated[
        str,
        Field(description="NPZ file (X, y) or CSV file (a row a sample), beside the recipe or in the working folder"),
    ]
    label_column: Annotated[str, Field(description="the column of a CSV file that is y; all others are X")] = "y"
    num_samples: Annotated[Count | None, Field(description="n, the first rows of the file; null: all rows")] = None
    sha256: Annotated[
        str | None, Field(validate_default=True, description="SHA-256 of the file; null: filled in, else checked")
    ] = None

    @field_validator("path")
    @classmethod
    def _find(cls, path: str, info: ValidationInfo) -> str:
        folders = [Path((info.context or {}).get("folder", ".")), Path()]
        found = next((folder / path for folder in folders if is_file(folder / path)), None)
        if Path(path).suffix not in (".npz", ".csv"):
            raise _wrong_file(f"must be an .npz or a .csv file, got {path[:200]!r}")
        if found is None:
            looked = "" if Path(path).is_absolute() else "; looked beside the recipe and in the working folder"
            raise _wrong_file(f"there is no file {path[:200]!r}{looked}")
        if not os.access(found, os.R_OK):
            raise _wrong_file(f"the file {path[:200]!r} may not be read")
        return os.path.abspath(found)  # not resolved: a link may name a file without its suffix

    @field_validator("sha256")
    @classmethod
    def _hash(cls, sha256: str | None, info: ValidationInfo) -> str | None:
        if "path" not in info.data:
            return sha256
        try:
            found = file_sha256(Path(info.data["path"]))
        except OSError as error:
            raise _wrong_file(f"the file cannot be read: {error.strerror}") from None
        if sha256 is not None and sha256.lower() != found:
            raise _wrong_file(f"must be that of the file, {found}")
        return found

    def identity(self) -> dict[str, object]:
        """The content counts, wherever the file lies."""
        return self.model_dump(mode="json", exclude={"path"})

    def shape(self) -> tuple[int | None, int | None]:
        return self.num_samples, None

    def load(self) -> Dataset:
        """The first `num_samples` rows. Raises: Refused, with what the file should hold."""
        path = Path(self.path)
        if not is_file(path) or file_sha256(path) != self.sha256:
            raise Refused(f"{path} has changed since the recipe was read")
        samples = read_npz(path) if path.suffix == ".npz" else read_csv(path, self.label_column)
        wanted = len(samples.rows) if self.num_samples is None else self.num_samples
        if len(samples.rows) < wanted:
            raise Refused(f"{path}: data.num_samples asks for {wanted} samples, the file has {len(samples.rows)}")
        return self._dataset(samples.rows[:wanted], samples.labels[:wanted], self.path, samples.names)


def _wrong_file(why: str) -> PydanticCustomError:
    return PydanticCustomError("file", "{why}", {"why": why})


DataOptions = Annotated[Sphere | Digits | File, Field(discriminator="kind")]
