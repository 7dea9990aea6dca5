"""What may be asked of the figures of a paper: which, in what formats, how large, under what title. Light to import."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from deqcli.errors import Refused, one_line
from deqcli.show.panels import MEASURED, PANELS, PREDICTED

FORMATS = ("png", "svg", "pdf")
POINTS = 72.27
"""TeX's points in an inch."""

SIZES = {
    "aistats": 3.25, "aistats-text": 6.75, "icml": 3.25, "icml-text": 6.75, "neurips": 5.5, "iclr": 5.5, "jmlr": 6.0,
    "colt": 6.0, "tmlr": 6.5, "ieee": 252 / POINTS, "ieee-text": 516 / POINTS, "lncs": 12.2 / 2.54,
}  # fmt: skip
"""Widths in inches, by venue: of a column, or of the text where that is one column or `-text` asks for both.

Sources: the style files of the venues themselves, as docs/figures.md names them.
"""

LEAST_INCHES, MOST_INCHES = 1.5, 30.0
LONGEST_TITLE = 300
LEAST_LIKENESS = 0.65
INCHES = r"(\d+(?:\.\d*)?|\.\d+)"


@dataclass(frozen=True)
class Layout:
    """The panels of a figure, row by row; of their curves only those named, where any are."""

    rows: tuple[tuple[str, ...], ...]
    curves: tuple[str, ...] | None = None


COMBINED = {
    "figure-1": Layout((("loss",), ("spectral_norm",)), (MEASURED, PREDICTED)),
    "rescaled": Layout((("loss", "loss_rescaled"),), (MEASURED, PREDICTED)),
}
"""Figures of several panels. The first is Figure 1 of Ling et al. 2023, which shows no bounds."""


@dataclass(frozen=True)
class FigureOptions:
    """How figures are written: formats; width and height in inches, or a width alone; a title.

    Without a size a panel is 3.4 inches wide. Without a title the recipe, the data and the activation stand there; an
    empty one leaves no line.
    """

    formats: Sequence[str] = FORMATS
    size: tuple[float, float | None] | None = None
    title: str | None = None

    def __post_init__(self) -> None:
        if self.title is not None and len(self.title) > LONGEST_TITLE:
            raise Refused(f"a title of {len(self.title)} characters; at most {LONGEST_TITLE} find room in a figure")


def layout_of(name: str) -> Layout:
    """The panels of a figure by its name, which is known."""
    return COMBINED.get(name) or Layout(((name,),))


def figure_names() -> tuple[str, ...]:
    """Every figure: the combined ones, then one for each panel."""
    return (*COMBINED, *PANELS)


def known_names(names: Iterable[str] | None) -> Sequence[str]:
    """The names of figures, each once; None: all of them. Raises: Refused where one is not known."""
    wanted = list(dict.fromkeys(figure_names() if names is None else names))
    for name in wanted:
        if name not in figure_names():
            raise Refused(_unknown("figure", name, figure_names()))
    return wanted


def parse_formats(text: str) -> tuple[str, ...]:
    """`png,pdf` as formats, each once. Raises: Refused where one is not known, or none is named."""
    wanted = tuple(dict.fromkeys(part.strip().lower() for part in text.split(",") if part.strip()))
    for form in wanted:
        if form not in FORMATS:
            raise Refused(_unknown("format", form, FORMATS))
    if not wanted:
        raise Refused(f"no format is named; known are {', '.join(FORMATS)}, several with commas between them")
    return wanted


def parse_size(text: str) -> tuple[float, float | None]:
    """`icml`, `3.25` or `3.25x2.5` as width and height in inches, None where the height follows from the panels.

    Raises: Refused, with the names that are known and the nearest of them.
    """
    word = text.strip().lower()
    if word in SIZES:
        return SIZES[word], None
    found = re.fullmatch(rf"{INCHES}(?:x{INCHES})?(?:in)?", word)
    if found is None:
        raise Refused(f"{_unknown('size', text, SIZES)}, and W or WxH in inches, as 3.25 or 3.25x2.5")
    width, height = float(found[1]), None if found[2] is None else float(found[2])
    for inches in (width, height):
        if inches is not None and not LEAST_INCHES <= inches <= MOST_INCHES:
            raise Refused(f"size {word}: {inches:g} inches are not between {LEAST_INCHES:g} and {MOST_INCHES:g}")
    return width, height


def _unknown(kind: str, text: str, names: Iterable[str]) -> str:
    known = list(names)
    near = difflib.get_close_matches(text.strip().lower(), known, n=1, cutoff=LEAST_LIKENESS)
    question = f"did you mean `{near[0]}`? " if near else ""
    return f"{kind} `{one_line(text)}` is not known; {question}known are {', '.join(known)}"
