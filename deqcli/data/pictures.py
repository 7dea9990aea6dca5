"""Pictures in arrays, as image sets have them: bytes, a class for each, their digest, grey values, other sizes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deqcli.errors import Refused

if TYPE_CHECKING:
    import numpy as np

LAST_CLASS = 9
LUMA = (0.299, 0.587, 0.114)
"""What red, green and blue weigh in a grey value (ITU-R BT.601)."""


@dataclass(frozen=True)
class Pictures:
    """`pixels` (n, channels, rows, columns) and `classes` (n,), both unsigned bytes."""

    pixels: np.ndarray
    classes: np.ndarray

    def digest(self) -> str:
        """SHA-256 of the pixels, in the order (picture, channel, row, column), and then of the classes, a byte each."""
        found = hashlib.sha256()
        for each in (self.pixels, self.classes):
            found.update(each.tobytes())
        return found.hexdigest()

    def rows(self, chosen: np.ndarray, grey: bool, size: int | None) -> np.ndarray:
        """The chosen pictures as rows (num_chosen, d) in float64: made grey, made size x size, channel by channel."""
        import numpy as np

        pixels = self.pixels[chosen].astype(np.float64)
        if grey:
            pixels = luma(pixels)
        if size is not None:
            pixels = resized(pixels, size)
        rows: np.ndarray = pixels.reshape(len(pixels), -1)
        return rows


def checked(where: str, pixels: np.ndarray, classes: np.ndarray) -> Pictures:
    """Pictures whose classes are 0 to 9. Raises: Refused, naming the first that is not."""
    beyond = (classes > LAST_CLASS).nonzero()[0]
    if len(beyond):
        raise Refused(f"{where}: image {beyond[0]} has the label {classes[beyond[0]]}, must be 0 to {LAST_CLASS}")
    return Pictures(pixels, classes)


def luma(pixels: np.ndarray) -> np.ndarray:
    """0.299 R + 0.587 G + 0.114 B: (n, 3, rows, columns) to (n, 1, rows, columns). Source: ITU-R BT.601."""
    red, green, blue = (pixels[:, channel, None] * weight for channel, weight in enumerate(LUMA))
    return red + green + blue


def resized(pixels: np.ndarray, size: int) -> np.ndarray:
    """Pictures (n, channels, size, size) in float64, by linear interpolation in each direction.

    Where they become smaller, each new pixel is the mean of those below a triangle as wide as two new pixels, so that
    nothing between them is left out (torch's `antialias`).
    """
    import numpy as np
    import torch

    given = torch.from_numpy(pixels)
    made = torch.nn.functional.interpolate(given, (size, size), mode="bilinear", align_corners=False, antialias=True)
    return np.asarray(made.numpy())
