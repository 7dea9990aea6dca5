"""Options: the base of every recipe section, which is also the constructor of the component it configures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1, le=2**53)]  # the limit keeps sizes in bytes within floats
Seed = Annotated[int, Field(ge=0, lt=2**32)]


@dataclass(frozen=True)
class Contradiction:
    """Values that are fine one by one and impossible together; reported at the first of `keys`."""

    keys: tuple[str, ...]
    message: str


class Options(BaseModel):
    """A frozen set of options: unknown keys, wrong types, NaN and infinity are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def contradictions(self) -> Iterator[Contradiction]:
        """Yield what cannot be true together in this section; `keys` are relative to it."""
        yield from ()

    def identity(self) -> dict[str, object]:
        """What decides the numbers that come out: the part of the options that names a run."""
        return self.model_dump(mode="json")
