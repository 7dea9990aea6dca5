"""Options: the base of every recipe section, which is also the constructor of the component it configures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

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

    SILENT: ClassVar[frozenset[str]] = frozenset()
    """Keys that the identity leaves out at their default, so that runs from before these keys keep their names."""

    def contradictions(self) -> Iterator[Contradiction]:
        """Yield what cannot be true together in this section; `keys` are relative to it."""
        yield from ()

    def identity(self) -> dict[str, object]:
        """What decides the numbers that come out: the part of the options that names a run."""
        plain = self.model_dump(mode="json")
        return {key: value for key, value in plain.items() if key not in self.SILENT or not self._at_default(key)}

    def _at_default(self, key: str) -> bool:
        return bool(getattr(self, key) == type(self).model_fields[key].get_default(call_default_factory=True))
