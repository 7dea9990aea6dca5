"""How figures look: a shade, dashes and a marker for each width, text that fits, files that are the same each time.

The rest of the look is in `deqcli.mplstyle`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import style
from matplotlib.cbook import is_math_text
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.mathtext import MathTextParser
from matplotlib.textpath import text_to_path

from deqcli.errors import Refused, one_line
from deqcli.runs.files import replace_file
from deqcli.show.panels import Style

STYLE_FILE = Path(__file__).with_name("deqcli.mplstyle")
FOLDER = "figures"
UNDATED: Mapping[str, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
}
"""What of the metadata of each format is left out, so that the same figure gives the same bytes."""

MOST_PIXELS = 20_000
"""The longer side of a PNG; one of more inches has fewer pixels for each."""

DASHES: tuple[object, ...] = ("-", (0, (5, 1.5)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (7, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LIGHTEST = 0.85
"""Of viridis, from 0 to 1: what is lighter is lost on white paper."""

STROKES: Mapping[Style, Sequence[Mapping[str, Any]]] = {
    "thick": ({"linestyle": "-"},),
    "thin": ({"linestyle": "-", "linewidth": 0.6}, {"linestyle": (0, (8, 3)), "linewidth": 0.6}),
    "dotted": ({"linestyle": (0, (1, 1.5)), "linewidth": 0.9}, {"linestyle": (0, (4, 1.5, 1, 1.5)), "linewidth": 0.9}),
}
"""What tells curves of one width apart: the first, second, ... curve of each kind in a panel."""

MATH = r"\$(?:\\.|[^$\\])*\$"
WORD = rf"(?:\\\$|{MATH}|[^\s$])+"


def styled() -> AbstractContextManager[None]:
    """The context in which figures are made and saved: the style file, whatever matplotlibrc there is."""
    return style.context(["default", STYLE_FILE])


def look(index: int, count: int) -> dict[str, Any]:
    """Colour, dashes and marker of one of so many widths, ascending: from dark to light, and so in grey as well."""
    shade = mpl.colormaps["viridis"](np.linspace(0.0, LIGHTEST, count)[index])
    return {"color": shade, "linestyle": DASHES[index % len(DASHES)], "marker": MARKERS[index % len(MARKERS)]}


def strokes(styles: Mapping[str, Style]) -> dict[str, Mapping[str, Any]]:
    """How the line of each curve of a panel is drawn, those of one kind each in its own way."""
    earlier: dict[Style, int] = {}
    found = {}
    for curve, kind in styles.items():
        found[curve] = STROKES[kind][earlier.get(kind, 0) % len(STROKES[kind])]
        earlier[kind] = earlier.get(kind, 0) + 1
    return found


def plain(text: str) -> str:
    """Words of a user as a figure shows them: no mathematics, and `?` for what its font has not."""
    font = get_font(findfont(FontProperties()))
    printable = "".join(each if each == " " or font.get_char_index(ord(each)) else "?" for each in text)
    return printable.replace("$", r"\$")


def titled(text: str) -> str:
    """A title of a user: mathematics between dollars where matplotlib can read it, else the dollars themselves.

    Raises: Refused where the font has not all its characters.
    """
    text = " ".join(text.split())
    font = get_font(findfont(FontProperties()))
    missing = next((each for each in text if not font.get_char_index(ord(each))), None)
    if missing is not None:
        raise Refused(f"the title has `{one_line(missing)}`, which the font of figures, {font.family_name}, has not")
    return text if is_math_text(text) and _readable(text) else text.replace("$", r"\$")


def _readable(text: str) -> bool:
    try:
        MathTextParser("path").parse(text)
    except (ValueError, RecursionError):
        return False
    return True


def inches(text: str, size: float) -> float:
    """The width of one line at a size in points."""
    math = bool(is_math_text(text))
    drawn = text if math else text.replace(r"\$", "$")
    width, _, _ = text_to_path.get_text_width_height_descent(drawn, FontProperties(size=size), math)
    return float(width) / 72


def fitted(text: str, size: float, most: float) -> str:
    """Lines of text broken at spaces, never within mathematics, so that none is wider than `most` inches, if it can."""
    lines: list[str] = []
    for line in text.splitlines():
        words = [part for word in re.findall(WORD, line) for part in _parts(word, size, most)]
        lines.append("")
        for word in words:
            longer = f"{lines[-1]} {word}".lstrip()
            if lines[-1] and inches(longer, size) > most:
                lines.append(word)
            else:
                lines[-1] = longer
    return "\n".join(lines)


def _parts(word: str, size: float, most: float) -> list[str]:
    """A word, in pieces where it is too long for a line, each of whole mathematics."""
    width = inches(word, size)
    if width <= most:
        return [word]
    units = re.findall(rf"\\\$|{MATH}|.", word)
    length = max(1, int(0.9 * len(units) * most / width))
    return ["".join(units[start : start + length]) for start in range(0, len(units), length)]


def save(figure: Figure, folder: Path, name: str, formats: Sequence[str]) -> list[str]:
    """Write a figure in each format; names relative to the folder. The same figure gives the same bytes.

    Raises: Refused where its panels find no room, OSError.
    """
    _lay_out(figure)
    (folder / FOLDER).mkdir(exist_ok=True)
    return [_save(figure, folder, f"{FOLDER}/{name}.{form}", form) for form in formats]


def _lay_out(figure: Figure) -> None:
    """Find the places of everything once, and not for each format again, which takes longer than drawing."""
    engine = figure.get_layout_engine()
    if engine is None:
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "constrained_layout not applied")
        try:
            engine.execute(figure)
        except UserWarning:
            width, height = figure.get_size_inches()
            raise Refused(
                f"{len(figure.axes)} panels find no room in {width:.3g} x {height:.3g} inches; name a larger size"
            ) from None
    figure.set_layout_engine("none")


def _save(figure: Figure, folder: Path, relative: str, form: str) -> str:
    dpi = min(mpl.rcParams["savefig.dpi"], MOST_PIXELS / max(figure.get_size_inches()))

    def write(beside: Path) -> None:
        figure.savefig(beside, format=form, dpi=dpi, metadata=UNDATED[form])

    replace_file(folder / relative, write)
    return relative
