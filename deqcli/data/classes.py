"""Kinds of data that draw from classes: which samples, their labels, and how many there are."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from deqcli.data.kind import DataKind, SeedOfData, class_labels
from deqcli.deq.streams import stream
from deqcli.errors import Refused
from deqcli.options import Contradiction, Count

if TYPE_CHECKING:
    import numpy as np


class OfClasses(DataKind):
    """A kind of data that draws from ten classes without replacement."""

    num_samples: Annotated[
        Count, Field(description="n, the number of images, split over the classes as evenly as they allow")
    ]
    classes: Annotated[
        list[Annotated[int, Field(ge=0, le=9)]], Field(min_length=2, description="the classes that are drawn from")
    ] = Field(default=[0, 1])
    labels: Annotated[
        Literal["class", "index", "gaussian"],
        Field(
            description="class: evenly from -1 for the first of the classes to +1 for the last; "
            "index: 0, 1, 2, ... in their order; gaussian: N(0, 1)"
        ),
    ] = "class"
    seed: SeedOfData = 0

    @abstractmethod
    def per_class(self) -> Sequence[int] | None:
        """How many samples each of the ten classes holds; None where only the files know."""

    def contradictions(self) -> Iterator[Contradiction]:
        per_class = self.per_class()
        held = None if per_class is None else sum(per_class[each] for each in set(self.classes))
        if len(set(self.classes)) < len(self.classes):
            yield Contradiction(("classes",), f"names a class twice, got {self.classes}")
        elif held is not None and self.num_samples > held:
            yield Contradiction(
                ("num_samples", "classes"),
                f"must be at most {held}, what the classes {self.classes} hold, got {self.num_samples}",
            )

    def _draw(self, classes: np.ndarray, where: str) -> tuple[np.ndarray, np.ndarray]:
        """Indices and labels (n,) of the samples that are drawn from those of these classes (num_held,).

        Raises: Refused where there are too few of them, or none of a class.
        """
        held = [int((classes == each).sum()) for each in self.classes]
        if 0 in held:
            raise Refused(f"{where}: there is no image of class {self.classes[held.index(0)]} of data.classes")
        if sum(held) < self.num_samples:
            each = ", ".join(f"{count} of {name}" for name, count in zip(self.classes, held, strict=True))
            raise Refused(
                f"{where}: data.num_samples asks for {self.num_samples} of the classes {self.classes}, which hold "
                f"{sum(held)} ({each})"
            )
        chosen = balanced(classes, self.classes, self.num_samples, self.seed)
        places = (classes[chosen, None] == self.classes).argmax(axis=1)
        return chosen, class_labels(self.labels, self.seed, places, len(self.classes))


def balanced(classes: np.ndarray, of: Sequence[int], num_samples: int, seed: int) -> np.ndarray:
    """Indices of samples without replacement, the classes `of` taking turns as long as they last.

    `classes` (num_held,) has the class of each sample; the order is part of the draw.
    """
    import numpy as np

    generator = stream(seed, "samples")
    shuffled = [generator.permutation(np.flatnonzero(classes == each)) for each in of]
    turns = np.full((max(map(len, shuffled)), len(shuffled)), -1)
    for column, indices in enumerate(shuffled):
        turns[: len(indices), column] = indices
    return turns[turns >= 0][:num_samples]
