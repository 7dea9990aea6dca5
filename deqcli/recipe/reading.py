"""YAML as plain data with the place of every key and value: YAML 1.2 scalars, nothing that surprises."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

from deqcli.errors import Mistake, one_line

MAX_BYTES = 1_000_000
MAX_DEPTH = 32
MAX_NODES = 20_000
MAX_NUMBER_LENGTH = 400
LONGEST_NAME = 60
SPOILED = "spoiled"

Mark = Any  # PyYAML has two classes of marks, of the same shape
Path = tuple[str | int, ...]

_CONSTANTS: dict[str, object] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
}
_INTEGER = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


@dataclass(frozen=True)
class Place:
    """Where something stands; lines and columns count from 1."""

    source: str
    line: int = 1
    column: int = 1


@dataclass
class Document:
    """Plain data, the places of its keys and values, and what was wrong with the text.

    `readable` is False where the text gave no data; `spoiled` are paths whose values stand for something refused.
    """

    source: str
    value: Any = None
    readable: bool = True
    keys: dict[Path, Place] = field(default_factory=dict)
    values: dict[Path, Place] = field(default_factory=dict)
    spoiled: set[Path] = field(default_factory=set)
    mistakes: list[Mistake] = field(default_factory=list)

    def blame(self, place: Place, message: str, key: str = "") -> None:
        """Note a mistake; its message is one line, whatever it quotes."""
        self.mistakes.append(Mistake(place.source, place.line, place.column, one_line(message), one_line(key)))


def scalar(text: str) -> object:
    """A plain scalar by the core schema of YAML 1.2 (10.3.2): `1e-3` is a number, `yes` and `1:30` are text."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if len(text) > MAX_NUMBER_LENGTH:
        return text
    if _INTEGER.fullmatch(text):
        return int(text)
    if _BASED.fullmatch(text):
        return int(text, 0)
    return float(text) if _FLOAT.fullmatch(text) else text


class _Refusal(Exception):
    def __init__(self, mark: Mark, message: str) -> None:
        super().__init__(message)
        self.mark = mark


class _Composer(yaml.SafeLoader):
    """Composes nodes without aliases, anchors and tags, up to a depth and a number of nodes."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.refused: list[_Refusal] = []
        self._depth = self._nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        self._nodes += 1
        if self._depth >= MAX_DEPTH:
            raise _Refusal(event.start_mark, f"nested deeper than {MAX_DEPTH} levels")
        if self._nodes > MAX_NODES:
            raise _Refusal(event.start_mark, f"more than {MAX_NODES} values")
        if isinstance(event, yaml.AliasEvent):
            self.get_event()  # type: ignore[no-untyped-call]
            mark: Any = event.start_mark
            self.refused.append(_Refusal(mark, f"aliases are not allowed (*{_short(str(event.anchor))})"))
            return yaml.ScalarNode(SPOILED, "", mark, mark)
        self._refuse_decoration(event)
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def _refuse_decoration(self, event: Any) -> None:
        if event.anchor is not None:
            self.refused.append(_Refusal(event.start_mark, f"anchors are not allowed (&{_short(event.anchor)})"))
            event.anchor = None
        tag = getattr(event, "tag", None)
        if tag is not None:
            self.refused.append(_Refusal(event.start_mark, f"tags are not allowed ({_short(tag)})"))
            event.tag = None


def read_text(text: str, source: str, column_offset: int = 0, line: int | None = None) -> Document:
    """Compose `text`; on a command line, `line` and `column_offset` say where in it the text stands."""
    document = Document(source, readable=False)

    def place(mark: Mark | None) -> Place:
        if mark is None:
            return Place(source, line or 1, 1 + column_offset)
        return Place(source, line or mark.line + 1, mark.column + 1 + column_offset)

    try:
        node, refused = _compose(text)
    except _Refusal as refusal:
        document.blame(place(refusal.mark), str(refusal))
        return document
    document.readable = True
    for each in refused:
        document.blame(place(each.mark), str(each))
    document.value = None if node is None else _Plain(document, place).of(node, ())
    return document


def _compose(text: str) -> tuple[yaml.Node | None, list[_Refusal]]:
    """The root node, None for an empty text, and what was refused without stopping."""
    composer = None
    try:
        composer = _Composer(text)
        return composer.get_single_node(), composer.refused
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        mark = _TextMark(before.count("\n"), error.position - before.rfind("\n") - 1)
        raise _Refusal(mark, f"the character {_name(error.character)} is not allowed in YAML") from None
    except yaml.MarkedYAMLError as error:
        message = " ".join(filter(None, (error.context, error.problem)))
        raise _Refusal(error.problem_mark or error.context_mark, f"not valid YAML: {message}") from None
    except (ValueError, OverflowError):  # PyYAML's own
        place = composer.get_mark() if composer else None
        raise _Refusal(place, "not valid YAML: an escape or a version number is out of range") from None


@dataclass(frozen=True)
class _TextMark:
    """A mark as PyYAML's, counted from 0."""

    line: int
    column: int


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}..."


def _name(character: object) -> str:
    code = character if isinstance(character, int) else ord(str(character)[:1] or "\0")
    return f"U+{code:04X}"


class _Plain:
    """Turns nodes into plain data, noting places and what plain data cannot hold."""

    def __init__(self, document: Document, place: Callable[[Mark], Place]) -> None:
        self._document, self._place = document, place

    def of(self, node: Any, path: Path) -> object:
        self._document.values[path] = self._place(node.start_mark)
        if node.tag == SPOILED or not self._encodable(node):
            self._document.spoiled.add(path)
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.of(item, (*path, index)) for index, item in enumerate(node.value)]
        return scalar(node.value) if node.style is None else node.value

    def _encodable(self, node: Any) -> bool:
        """Whether a scalar is text that UTF-8 can hold: escaped surrogate pairs are put together, halves refused."""
        if isinstance(node, yaml.ScalarNode):
            try:
                node.value = node.value.encode("utf-16", "surrogatepass").decode("utf-16")
            except UnicodeDecodeError:
                self._document.blame(self._place(node.start_mark), "half a surrogate pair is not a character")
                return False
        return True

    def _mapping(self, node: Any, path: Path) -> dict[str, object]:
        result: dict[str, object] = {}
        for key_node, value_node in node.value:
            place, key = self._place(key_node.start_mark), key_node.value
            if key_node.tag == SPOILED or not self._encodable(key_node):
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self._document.blame(place, "a key must be a word, not a list or a section")
            elif key in result:
                first = self._document.keys[*path, key]
                self._document.blame(place, f"{dotted((*path, key))} is given twice, first in line {first.line}")
            else:
                self._document.keys[*path, key] = place
                result[key] = self.of(value_node, (*path, key))
        return result


def dotted(path: Path) -> str:
    """('sweep', 'widths', 0) as `sweep.widths.0`, the way a user writes it."""
    return ".".join(_short(str(part)) or "''" for part in path)
