"""The kinds of data: each is its options, and loads the data set that they describe.

To add one, write a subclass of `DataKind`, here or in a file of its own, and name it in `DataOptions`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from deqcli.data.classes import OfClasses
from deqcli.data.dataset import Dataset
from deqcli.data.files import read_csv, read_npz
from deqcli.data.gaussian_mixture import GaussianMixture
from deqcli.data.images import Cifar10, FashionMnist, Kmnist, Mnist, Svhn
from deqcli.data.kind import DataKind, OfFile, SeedOfData, random_labels
from deqcli.deq.streams import stream
from deqcli.errors import Refused
from deqcli.options import Contradiction, Count

DIGITS_PER_CLASS = (178, 182, 177, 183, 181, 182, 181, 179, 174, 180)
DIGITS_INPUT_DIM = 64


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


class Digits(OfClasses):
    """The 8 x 8 handwritten digits bundled with scikit-learn (1797 real images, 64 grey values from 0 to 16)."""

    kind: Literal["digits"]

    def shape(self) -> tuple[int, int]:
        return self.num_samples, DIGITS_INPUT_DIM

    def per_class(self) -> Sequence[int]:
        return DIGITS_PER_CLASS

    def load(self) -> Dataset:
        import numpy as np
        from sklearn.datasets import load_digits

        images, digits = load_digits(return_X_y=True)
        chosen, labels = self._draw(digits, "data.kind digits")
        names = [f"image {index}" for index in chosen]
        return self._dataset(images[chosen].astype(np.float64), labels, "data.kind digits", names)


class File(OfFile):
    """Samples of your own: NPZ with X (num_samples, input_dim) and y (num_samples,), or CSV with a label column."""

    SUFFIXES: ClassVar[tuple[str, ...]] = (".npz", ".csv")

    kind: Literal["file"]
    path: Annotated[
        str,
        Field(description="NPZ file (X, y) or CSV file (a row a sample), beside the recipe or in the working folder"),
    ]
    label_column: Annotated[str, Field(description="the column of a CSV file that is y; all others are X")] = "y"
    num_samples: Annotated[Count | None, Field(description="n, the first rows of the file; null: all rows")] = None

    def shape(self) -> tuple[int | None, int | None]:
        return self.num_samples, None

    def load(self) -> Dataset:
        """The first `num_samples` rows. Raises: Refused, with what the file should hold."""
        path = self._unchanged(self.path)
        samples = read_npz(path) if path.suffix == ".npz" else read_csv(path, self.label_column)
        wanted = len(samples.rows) if self.num_samples is None else self.num_samples
        if len(samples.rows) < wanted:
            raise Refused(f"{path}: data.num_samples asks for {wanted} samples, the file has {len(samples.rows)}")
        return self._dataset(samples.rows[:wanted], samples.labels[:wanted], self.path, samples.names)


DataOptions = Annotated[
    Sphere | Digits | File | GaussianMixture | Mnist | FashionMnist | Kmnist | Cifar10 | Svhn,
    Field(discriminator="kind"),
]
