"""IDX files, in which MNIST was published: numbers of four bytes, the highest first, and then unsigned bytes.

Source: LeCun, Cortes and Burges, The MNIST database of handwritten digits.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from deqcli.data.image_files import MOST_BYTES, take, unpacking
from deqcli.errors import Refused

if TYPE_CHECKING:
    import numpy as np

UNSIGNED_BYTES = 0x08
WORD = 4
GZIP = b"\x1f\x8b"


def read_idx(path: Path, content: bytes, sides: tuple[int, ...] = ()) -> np.ndarray:
    """Unsigned bytes (count, *sides) of an IDX file, gzipped where its name ends in .gz; the sides must be these.

    Raises: Refused, with the magic number, the sides or the number of bytes that it should have.
    """
    import numpy as np

    stream, what = unpacking(path, content), "images" if sides else "labels"
    count = _count(path, take(path, stream, WORD * (2 + len(sides))), sides, what)
    size = count * math.prod(sides)
    if size > MOST_BYTES:
        raise Refused(f"{path}: its header says {count} {what}, {size} bytes; no more than {MOST_BYTES} are read")
    body = take(path, stream, size + 1)  # one more: whether anything follows, and a gzip file's sum is right
    if len(body) != size:
        follow = f"{len(body)} follow" if len(body) < size else "more follow"
        raise Refused(f"{path}: its header says {count} {what}, {size} bytes, and {follow}")
    return np.frombuffer(body, np.uint8).reshape(count, *sides)


def _count(path: Path, header: bytes, sides: tuple[int, ...], what: str) -> int:
    """How many a header says that there are. Raises: Refused where it is no header of these."""
    expected = (UNSIGNED_BYTES << 8) + 1 + len(sides)
    numbers = [int.from_bytes(header[at : at + WORD], "big") for at in range(0, len(header), WORD)]
    if len(header) >= WORD and numbers[0] != expected:
        hint = "; it is gzipped, and its name must end in .gz once" if header.startswith(GZIP) else ""
        raise Refused(f"{path}: begins with the number {numbers[0]}, an IDX file of {what} with {expected}{hint}")
    if len(header) < WORD * (2 + len(sides)):
        raise Refused(f"{path}: ends within its header, after {len(header)} of {WORD * (2 + len(sides))} bytes")
    if tuple(numbers[2:]) != sides:
        found, must = (" x ".join(map(str, each)) for each in (numbers[2:], sides))
        raise Refused(f"{path}: has images of {found}, must be {must}")
    return numbers[1]
