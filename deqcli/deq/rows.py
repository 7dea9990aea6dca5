"""The rows that a corrector works on: all items of an equation, or some of them gathered into buffers of their own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from deqcli.deq.equations import Equation, taken
from deqcli.deq.track import Track

SHRINK, SHRINK_SMALL = 0.75, 0.5
"""Samples are left out once this share of the rows, or less, is active: gathering them costs time too."""

SMALL = 2**19
"""Entries of a point below which calls cost as much as the numbers."""


class Rows:
    """Point z = g(P), pre-activation P and last change of z, for the items `ids`; items are rows, (ids, m).

    Where all items are there, they are the tensors of the track itself; `gather_back` returns the others to them.
    `correcting` says that products may be corrections, which need P and the change of the rows they work on.
    """

    def __init__(self, equation: Equation, track: Track, correcting: bool) -> None:
        self._whole, self._workspace, self._correcting = equation, track.workspace, correcting
        self._homes = (track.point, track.preactivation, track.workspace["change"])
        self.shrink = SHRINK if track.point.numel() >= SMALL else SHRINK_SMALL
        self._items: Tensor | None = None
        self._take_all()

    def _take_all(self) -> None:
        self.equation, self.ids, self._items = self._whole, np.arange(len(self._homes[0])), None
        self.point, self.preactivation, self.change = self._homes

    def narrow(self, active: np.ndarray) -> None:
        """Leave out what is not active: networks at once, samples once few enough are left."""
        if self._items is not None and not np.isin(active, self.ids).all():
            self.gather_back()
        if len(active) > (len(self.ids) - 1 if self._whole.stacked else self.shrink * len(self.ids)):
            return
        self.gather_back()
        items = torch.from_numpy(active).to(self.point.device)
        names = ("point", "preactivation", "change", "offset", "slope")
        *buffers, offset, slope = (self._buffer(name, len(active)) for name in names)
        for home, buffer in zip(self._homes[: 3 if self._correcting else 1], buffers, strict=False):
            taken(home, items, buffer)
        self.point, self.preactivation, self.change = buffers
        matrix = self._buffer("matrix", len(active), self._whole.matrix.shape[1:]) if self._whole.stacked else offset
        self.equation, self.ids, self._items = self._whole.at(items, matrix, offset, slope), active, items

    def _buffer(self, name: str, items: int, shape: Sequence[int] | None = None) -> Tensor:
        most = len(self._homes[0]) if self._whole.stacked else int(self.shrink * len(self._homes[0]))
        return self._workspace.rows(name, most, shape)[:items]

    def gather_back(self) -> None:
        """Put the rows back among all of them, and work on all."""
        if self._items is not None:
            rows = (self.point, self.preactivation, self.change)[: 3 if self._correcting else 2]
            for home, part in zip(self._homes, rows, strict=False):
                home.index_copy_(0, self._items, part)
        self._take_all()

    def multiply(self) -> None:
        """P <- z A + B."""
        self.equation.preactivation(self.point, self.preactivation)

    def repeat(self, count: int) -> None:
        """So many iterations z <- F(z)."""
        for _ in range(count):
            self.multiply()
            self.equation.image(self.preactivation, self.point)

    def repeat_corrected(self, count: int, low: torch.dtype) -> None:
        """P <- P + (change of z) A, multiplied in low precision, and z <- g(P) so many times; then P once more."""
        self._correct(low)
        for _ in range(count):
            self.advance()
            self._correct(low)

    def _correct(self, low: torch.dtype) -> None:
        change, product = (self._workspace.of(name, low)[: len(self.ids)] for name in ("change", "product"))
        change.copy_(self.change)
        self.equation.correct(self.preactivation, change, product, self._image)

    @property
    def _image(self) -> Tensor:
        return self._workspace["image"][: len(self.ids)]

    def advance(self) -> None:
        """z <- g(P), and the change that this makes."""
        image = self._image
        self.equation.image(self.preactivation, image)
        torch.sub(image, self.point, out=self.change)
        self.point.copy_(image)
