"""Data of kind `gaussian_mixture`: its classes as a recipe spells them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import InitErrorDetails

from deqcli.data.dataset import Dataset
from deqcli.data.kind import OfFile, SeedOfData, class_labels, mistake
from deqcli.data.mixture import Mixture, class_counts, not_a_covariance, read_mixture, square_root
from deqcli.deq.streams import stream
from deqcli.errors import Refused
from deqcli.options import Contradiction, Count, Options, Positive

if TYPE_CHECKING:
    import numpy as np


class Toeplitz(Options):
    """C_ij = scale toeplitz^|i - j|, the covariance of a stationary autoregression of order 1."""

    toeplitz: Annotated[float, Field(gt=-1, lt=1)]
    scale: Positive = 1.0

    def matrix(self, d: int) -> np.ndarray:
        """C (d, d)."""
        import numpy as np

        return self.scale * np.power(self.toeplitz, np.abs(np.subtract.outer(np.arange(d), np.arange(d))))


Matrix = list[list[float]]
Covariance = (
    Positive | Annotated[list[Positive], Field(min_length=1)] | Annotated[Matrix, Field(min_length=1)] | Toeplitz
)


class MixtureClass(Options):
    """N(mean, covariance) of one class, and its share of the samples."""

    share: Positive = 1.0
    mean: float | Annotated[list[float], Field(min_length=1)] = 0.0
    covariance: Covariance = 1.0

    @field_validator("covariance")
    @classmethod
    def _covariance(cls, covariance: Covariance) -> Covariance:
        if isinstance(covariance, list) and isinstance(covariance[0], list):
            short = next((index for index, row in enumerate(covariance) if len(row) != len(covariance)), None)
            if short is not None:
                raise mistake(
                    f"is not square: of {len(covariance)} rows, row {short} has {len(covariance[short])} numbers"
                )
            if why := not_a_covariance(covariance):
                raise mistake(why)
        return covariance

    def misfits(self, index: int, d: int) -> Iterator[tuple[str, str]]:
        """(key, why) of what does not fit samples of d numbers."""
        if isinstance(self.mean, list):
            if len(self.mean) != d:
                yield "mean", f"must have input_dim = {d} numbers, got {len(self.mean)}"
        elif self.mean and index >= d:
            yield (
                "mean",
                f"needs an axis {index + 1} of its own, and input_dim is {d}; give its {d} numbers",
            )
        if isinstance(self.covariance, list) and len(self.covariance) != d:
            what = "rows" if isinstance(self.covariance[0], list) else "numbers"
            yield "covariance", f"must have input_dim = {d} {what}, got {len(self.covariance)}"

    def centre(self, index: int, d: int) -> np.ndarray:
        """mu (d,): a number t is t e_a, a the place of the class, so that means are orthogonal."""
        import numpy as np

        if isinstance(self.mean, list):
            return np.array(self.mean)
        axes = np.zeros(d)
        axes[index : index + 1] = self.mean
        return axes

    def root(self, d: int) -> np.ndarray:
        """C^{1/2}: the (d,) diagonal where C is diagonal, else the symmetric (d, d) matrix."""
        import numpy as np

        if isinstance(self.covariance, float):
            return np.full(d, np.sqrt(self.covariance))
        if isinstance(self.covariance, Toeplitz):
            return square_root(self.covariance.matrix(d))
        given = np.array(self.covariance)
        return np.sqrt(given) if given.ndim == 1 else square_root(given)


class GaussianMixture(OfFile):
    """Samples x = mu_a + C_a^{1/2} w, w standard normal, of classes a = 1, 2, ... in turn (Ling et al., ICML 2024)."""

    SUFFIXES: ClassVar[tuple[str, ...]] = (".npz",)

    kind: Literal["gaussian_mixture"]
    num_samples: Annotated[Count, Field(description="n, the number of samples of all classes together")]
    input_dim: Annotated[Count, Field(description="d, the dimension of a sample")]
    classes: Annotated[
        list[MixtureClass] | None,
        Field(
            min_length=2,
            description="a section for each class: `share`, its weight among the samples; `mean`, its d numbers, or a "
            "number t for t e_a with e_a the axis of its own; `covariance`, the matrix C, its diagonal, a number c for "
            "c I, or `toeplitz` and `scale` for C_ij = scale toeplitz^abs(i - j)",
        ),
    ] = None
    path: Annotated[
        str | None, Field(description="in place of classes: NPZ file with means (k, d) and covariances (k, d, d)")
    ] = None
    labels: Annotated[
        Literal["class", "gaussian"],
        Field(description="class: -1 for the first and +1 for the second of two classes; gaussian: N(0, 1)"),
    ] = "class"
    normalise: Annotated[
        bool,
        Field(
            description="true: every sample has norm sqrt(d) (Assumption 2); false: one factor for all, so that the "
            "mean of their squared norms is d, and traces of covariances still differ"
        ),
    ] = True
    seed: SeedOfData = 0

    @field_validator("classes")
    @classmethod
    def _fit(cls, classes: list[MixtureClass] | None, info: ValidationInfo) -> list[MixtureClass] | None:
        d = info.data.get("input_dim")
        wrong = [
            InitErrorDetails(type=mistake(why), loc=(index, key), input=getattr(each, key))
            for index, each in enumerate(classes or [])
            for key, why in (each.misfits(index, d) if d else ())
        ]
        if wrong:
            raise ValidationError.from_exception_data("classes", wrong)
        return classes

    def contradictions(self) -> Iterator[Contradiction]:
        if self.classes is None and self.path is None:
            yield Contradiction(
                ("classes", "path"), "is missing; a mixture has `classes`, or a `path` to a file of them"
            )
        elif self.classes is not None and self.path is not None:
            yield Contradiction(("path", "classes"), "names a file of classes beside `classes`; leave out one of them")
        if self.classes is not None:
            yield from self._of_classes(self.classes)
        if self.input_dim == 1 and self.num_samples > 1:
            yield Contradiction(("input_dim", "num_samples"), "must be at least 2: numbers are parallel to each other")

    def _of_classes(self, classes: Sequence[MixtureClass]) -> Iterator[Contradiction]:
        counts = class_counts([each.share for each in classes], self.num_samples)
        if 0 in counts:
            message = f"leaves data.classes.{counts.index(0)} without a sample, got {self.num_samples}"
            yield Contradiction(("num_samples", "classes"), message)
        if self.labels == "class" and len(classes) != 2:
            message = f"`class` is for two classes, got {len(classes)}; use `gaussian`"
            yield Contradiction(("labels", "classes"), message)

    def shape(self) -> tuple[int, int]:
        return self.num_samples, self.input_dim

    def load(self) -> Dataset:
        """The classes one after the other. Raises: Refused, with what the file should hold."""
        import numpy as np

        mixture = self._mixture()
        if self.labels == "class" and len(mixture.counts) != 2:
            raise Refused(f"{self.path}: data.labels `class` is for two classes, got {len(mixture.counts)}")
        rows = mixture.samples(stream(self.seed, "samples"))
        labels = class_labels(self.labels, self.seed, np.arange(self.num_samples) >= mixture.counts[0], 2)
        return self._dataset(rows, labels, self.path or "data.kind gaussian_mixture", normalise=self.normalise)

    def _mixture(self) -> Mixture:
        n, d, classes = self.num_samples, self.input_dim, self.classes or []
        if self.path is not None:
            return read_mixture(self._unchanged(self.path), n, d)
        means = [each.centre(index, d) for index, each in enumerate(classes)]
        return Mixture(class_counts([each.share for each in classes], n), means, [each.root(d) for each in classes])
