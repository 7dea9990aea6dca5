"""Named random streams: adding one never shifts another, and none depends on what was drawn before."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def stream(seed: int, name: str) -> np.random.Generator:
    """The random generator of (seed, name): PCG64DXSM from numpy's SeedSequence with the name as spawn key."""
    import numpy as np

    sequence = np.random.SeedSequence(seed, spawn_key=(zlib.crc32(name.encode()),))
    return np.random.Generator(np.random.PCG64DXSM(sequence))
