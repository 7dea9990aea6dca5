"""The cropped digits of SVHN: MATLAB files with X (row, column, channel, image) and y (image, 1), digit 0 as 10.

Source: Netzer et al., Reading digits in natural images with unsupervised feature learning, 2011.
"""

from __future__ import annotations

import io
import math
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

from deqcli.data.image_files import CHUNK, MOST_BYTES, reason
from deqcli.data.pictures import Pictures, checked
from deqcli.errors import Refused

HEADER, TAG, COMPRESSED = 128, 8, 15
SIDES = (32, 32, 3)
TEN = 10
"""The label of digit 0."""


def read_svhn(path: Path, content: bytes) -> Pictures:
    """The pictures of a MATLAB file, in the order (image, channel, row, column); nothing in it is run.

    Raises: Refused where it is damaged, or X or y is not there, of another shape or no unsigned bytes.
    """
    import numpy as np
    from scipy.io import loadmat, whosmat

    try:
        with warnings.catch_warnings(action="ignore"):  # of scipy, about what is refused here anyway
            _refuse_bombs(path, content)
            stream: Any = io.BytesIO(content)  # which scipy reads as it does files, though its stubs do not say so
            _expect(path, {name: (shape, kind) for name, shape, kind in whosmat(stream)})
            stream.seek(0)
            read = loadmat(stream, variable_names=["X", "y"])
            X, y = np.asarray(read["X"]), np.asarray(read["y"])
    except Refused:
        raise
    except Exception as error:  # scipy documents no set of what a damaged file raises
        raise Refused(f"{path}: not a MATLAB file with arrays X and y ({reason(error)})") from None
    _expect(path, {"X": (X.shape, str(X.dtype)), "y": (y.shape, str(y.dtype))})
    labels = y[:, 0]
    if (labels == 0).any():
        raise Refused(f"{path}: image {labels.argmin()} has the label 0; digit 0 has the label {TEN}")
    pixels = np.ascontiguousarray(X.transpose(3, 2, 0, 1))
    return checked(str(path), pixels, np.where(labels == TEN, np.uint8(0), labels))


def _refuse_bombs(path: Path, content: bytes) -> None:
    """Refuse a compressed element that unpacks to too much, all of which scipy would hold at once.

    Source: MathWorks, MAT-File Format, level 5: elements of a type, a size and content behind a header of 128 bytes.
    """
    order, at = "<" if content[HEADER - 2 : HEADER] == b"IM" else ">", HEADER
    while at + TAG <= len(content):
        kind, size = struct.unpack_from(f"{order}II", content, at)
        at += TAG + size
        if kind == COMPRESSED and _unpacks_to(memoryview(content)[at - size : at]) > MOST_BYTES:
            raise Refused(f"{path}: unpacks to more than {MOST_BYTES} bytes; no more are read")


def _unpacks_to(packed: memoryview) -> int:
    """Bytes of what zlib packed, counted up to a little beyond the most that is read."""
    engine, count = zlib.decompressobj(), 0
    for start in range(0, len(packed), CHUNK):
        rest: bytes | memoryview = packed[start : start + CHUNK]
        while rest and count <= MOST_BYTES:
            count += len(engine.decompress(rest, CHUNK))
            rest = engine.unconsumed_tail
    return count


def _expect(path: Path, found: dict[str, tuple[tuple[int, ...], str]]) -> None:
    """Refuse what are not n images and n labels in unsigned bytes; a header is not believed beyond a size."""
    (images, kind), (labels, kind_of_labels) = (found.get(name, ((), "nothing")) for name in ("X", "y"))
    n = images[-1] if images else 0
    if not (images == (*SIDES, n) and labels == (n, 1) and kind == kind_of_labels == "uint8"):
        raise Refused(
            f"{path}: X must be (32, 32, 3, n) and y (n, 1), both uint8, got {images} of {kind} and {labels} of "
            f"{kind_of_labels}"
        )
    if (size := math.prod(images)) > MOST_BYTES:
        raise Refused(f"{path}: its header says {n} images, {size} bytes; no more than {MOST_BYTES} are read")
