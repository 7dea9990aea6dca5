"""YAML as the reader takes it: the scalars of YAML 1.2, the place of every key and value, and no surprises."""

import math
from pathlib import Path

import pytest

from deqcli.errors import RecipeRefused
from deqcli.recipe.loading import load_recipe
from deqcli.recipe.reading import MAX_BYTES, MAX_DEPTH, MAX_NODES, MAX_NUMBER_LENGTH, Place, dotted, read_text, scalar

NUMBERS = [
    ("0", 0), ("+7", 7), ("010", 10), ("-012", -12), ("0o10", 8), ("0x1F", 31), ("9007199254740993", 2**53 + 1),
    ("1e-3", 1e-3), ("1E5", 1e5), ("+1e+3", 1e3), ("1.0e-6", 1e-6), ("-2.50", -2.5), (".5", 0.5), ("1.", 1.0),
    ("01.5", 1.5), ("1e999", math.inf), (".inf", math.inf), ("+.Inf", math.inf), ("-.INF", -math.inf),
]  # fmt: skip
TEXTS = [
    "yes", "Yes", "no", "NO", "on", "off", "y", "n", "1:30", "190:20:30.15", "2024-01-01",
    "2001-12-14t21:59:43.10-05:00", "1_000", "0b11", "0O17", "0X1F", "-0x1F", "+0o7", "0x", "0o8", "1e", "e1",
    "1e+", ".", "+", "-", ".e3", "1.2.3", "1,5", "inf", "-inf", "nan", "NaN", ".INf", ".nAn", "tRue", "nULL", "=",
    "<<", "1e3x", "\u0661", "\u00bd", "1d5",
]  # fmt: skip


@pytest.mark.parametrize(("text", "number"), NUMBERS)
def test_a_number_of_yaml_1_2_is_read_as_that_number(text: str, number: float) -> None:
    assert scalar(text) == number
    assert type(scalar(text)) is type(number)


def test_nan_null_and_booleans_have_only_the_spellings_of_yaml_1_2() -> None:
    assert all(scalar(text) is None for text in ("", "~", "null", "Null", "NULL"))
    assert all(scalar(text) is True for text in ("true", "True", "TRUE"))
    assert all(scalar(text) is False for text in ("false", "False", "FALSE"))
    assert all(math.isnan(scalar(text)) for text in (".nan", ".NaN", ".NAN"))


def test_what_yaml_1_1_took_for_booleans_dates_and_sexagesimals_is_text() -> None:
    assert len(TEXTS) == 43
    assert [text for text in TEXTS if scalar(text) != text] == []


def test_a_number_with_more_digits_than_any_use_is_text() -> None:
    assert scalar("9" * MAX_NUMBER_LENGTH) == 10**MAX_NUMBER_LENGTH - 1
    assert scalar("9" * (MAX_NUMBER_LENGTH + 1)) == "9" * (MAX_NUMBER_LENGTH + 1)


@pytest.mark.parametrize("text", ["'5'", '"5"', "|-\n  5", ">-\n  5"])
def test_a_quoted_or_block_scalar_is_text_whatever_it_holds(text: str) -> None:
    assert read_text(f"key: {text}\n", "f").value == {"key": "5"}


@pytest.mark.parametrize("key", ["010", "yes", "~", "1e3", "<<"])
def test_a_key_is_the_text_that_was_written(key: str) -> None:
    assert read_text(f"{key}: {{a: 1}}", "f").value == {key: {"a": 1}}


def places(found: dict[tuple[str | int, ...], Place]) -> str:
    return " ".join(f"{dotted(path)}@{place.line}:{place.column}" for path, place in found.items())


def test_every_key_and_value_knows_its_line_and_column() -> None:
    document = read_text("# comment\nname: é x\ndata: {kind: sphere,\n  list: [1, [2]]}\nmodel:\n  width: 3\n", "f")
    assert document.value == {"name": "é x", "data": {"kind": "sphere", "list": [1, [2]]}, "model": {"width": 3}}
    assert places(document.keys) == "name@2:1 data@3:1 data.kind@3:8 data.list@4:3 model@5:1 model.width@6:3"
    assert places(document.values) == (
        "@2:1 name@2:7 data@3:7 data.kind@3:14 data.list@4:9 data.list.0@4:10 data.list.1@4:13 data.list.1.0@4:14 "
        "model@6:3 model.width@6:10"
    )


def test_on_a_command_line_the_line_is_given_and_the_column_shifted() -> None:
    document = read_text("[1, 2]", "command line", column_offset=13, line=4)
    assert places(document.values) == "@4:14 0@4:15 1@4:18"
    assert {place.source for place in document.values.values()} == {"command line"}


def mistakes(text: str) -> list[str]:
    return [str(mistake) for mistake in read_text(text, "f").mistakes]


INVALID = "not valid YAML:"
REFUSED = [
    ("a: 1\nb: 2\na: 3\n", "3:1: a is given twice, first in line 1"),
    ("s:\n  a: 1\n  'a': 3\n", "3:3: s.a is given twice, first in line 2"),
    ("s: [{a: 1}, {a: 1, a: 2}]\n", "1:20: s.1.a is given twice, first in line 1"),
    ("a: 1\nb: &x 2\n", "2:4: anchors are not allowed (&x)"),
    ("b: &x {c: 2}\n", "1:4: anchors are not allowed (&x)"),
    ("&x b: 2\n", "1:1: anchors are not allowed (&x)"),
    ("a: *x\n", "1:4: aliases are not allowed (*x)"),
    ("*x : 1\n", "1:1: aliases are not allowed (*x)"),
    ("a: {? *x : 1}\n", "1:7: aliases are not allowed (*x)"),
    ("a: !!int 3\n", "1:4: tags are not allowed (tag:yaml.org,2002:int)"),
    ("a: !!python/name:os.system x\n", "1:4: tags are not allowed (tag:yaml.org,2002:python/name:os.system)"),
    ("a: !mine {b: 1}\n", "1:4: tags are not allowed (!mine)"),
    ("a: ! 3\n", "1:4: tags are not allowed (!)"),
    ("? [a]\n: 3\n", "1:3: a key must be a word, not a list or a section"),
    ("{{a: 1}: 3}\n", "1:2: a key must be a word, not a list or a section"),
    ("a: 1\n---\nb: 1\n", f"2:1: {INVALID} expected a single document in the stream but found another document"),
    ("%YAML 2.0\n---\na: 1\n", f"1:1: {INVALID} found incompatible YAML document (version 1.* is required)"),
    ("a: {b: 1\n", f"2:1: {INVALID} while parsing a flow mapping expected ',' or '}}', but got '<stream end>'"),
    ("a: [1\nb: 2\n", f"2:2: {INVALID} while parsing a flow sequence expected ',' or ']', but got ':'"),
    ("a: 'b\n", f"2:1: {INVALID} while scanning a quoted scalar found unexpected end of stream"),
    ("a: b: c\n", f"1:5: {INVALID} mapping values are not allowed here"),
    ("a: 1\n  b: 2\n", f"2:4: {INVALID} mapping values are not allowed here"),
    ("a: @b\n", f"1:4: {INVALID} while scanning for the next token found character '@' that cannot start any token"),
    (
        "a:\n\tb: 1\n",
        f"2:1: {INVALID} while scanning for the next token found character '\\t' that cannot start any token",
    ),
    ("a: 1\nbc\x07d: 2\n", "2:3: the character U+0007 is not allowed in YAML"),
    ("a: \0\n", "1:4: the character U+0000 is not allowed in YAML"),
    ("é: \x1b[31m\n", "1:4: the character U+001B is not allowed in YAML"),
    ("a: \udcff\n", "1:4: the character U+DCFF is not allowed in YAML"),
    ('a: ["\\ud800"]\n', "1:5: half a surrogate pair is not a character"),
    ('"\\udc00": 1\n', "1:1: half a surrogate pair is not a character"),
    ('"a\\nb\\e": 1\n"a\\nb\\e": 2\n', "2:1: a?b? is given twice, first in line 1"),
    ("k" * 999 + ": 1\n" + "k" * 999 + ": 2\n", f"2:1: {'k' * 60}... is given twice, first in line 1"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED, ids=[text[:30] for text, _ in REFUSED])
def test_what_plain_data_cannot_hold_is_refused_with_its_place(text: str, message: str) -> None:
    assert mistakes(text) == [f"f:{message}"]


@pytest.mark.parametrize("decoration", ["!", "&", "*"])
def test_an_endless_name_of_a_tag_an_anchor_or_an_alias_is_cut(decoration: str) -> None:
    (found,) = mistakes(f"a: {decoration}{'n' * 90_000}\n")
    assert found.endswith(f"({decoration}{'n' * (59 if decoration == '!' else 60)}...)")
    assert len(found) < 100


def test_all_anchors_tags_and_keys_given_twice_are_reported_at_once() -> None:
    text = "a: &x 1\na: !y 2\nb: [*x, &z !t 3]\n? {c: 1}\n: 4\n"
    assert mistakes(text) == [
        "f:1:4: anchors are not allowed (&x)",
        "f:2:4: tags are not allowed (!y)",
        "f:3:5: aliases are not allowed (*x)",
        "f:3:9: anchors are not allowed (&z)",
        "f:3:9: tags are not allowed (!t)",
        "f:2:1: a is given twice, first in line 1",
        "f:4:3: a key must be a word, not a list or a section",
    ]


@pytest.mark.parametrize(
    ("opening", "closing", "column"), [("[", "]", MAX_DEPTH + 1), ("{a: ", "}", 4 * MAX_DEPTH - 2)]
)
def test_the_deepest_level_is_read_and_one_more_is_refused(opening: str, closing: str, column: int) -> None:
    deepest = opening * (MAX_DEPTH - 1) + "1" + closing * (MAX_DEPTH - 1)
    assert mistakes(deepest) == []
    deeper = opening * MAX_DEPTH + "1" + closing * MAX_DEPTH
    assert mistakes(deeper) == [f"f:1:{column}: nested deeper than {MAX_DEPTH} levels"]


BOMBS = {
    "brackets": ("[" * 999_999, "1:33"),
    "braces": ("{" * 999_999, "1:33"),
    "dashes": ("- " * 400_000, "1:65"),
    "question marks": ("? " * 400_000, "1:65"),
    "sections": ("{a: " * 200_000, "1:126"),
    "indentation": ("".join(" " * level + "a:\n" for level in range(1_000)), "32:32"),
}


@pytest.mark.parametrize(("bomb", "place"), BOMBS.values(), ids=BOMBS)
def test_a_text_of_endless_depth_is_refused_where_it_gets_too_deep(bomb: str, place: str) -> None:
    assert mistakes(bomb)[-1] == f"f:{place}: nested deeper than {MAX_DEPTH} levels"


def test_the_largest_number_of_values_is_read_and_one_more_is_refused() -> None:
    items = MAX_NODES - 1  # the list counts as well
    assert read_text("[" + "a," * items + "]", "f").value == ["a"] * items
    column = 1 + 2 * items + 1
    assert mistakes("[" + "a," * (items + 1) + "]") == [f"f:1:{column}: more than {MAX_NODES} values"]
    assert mistakes("-\n" * 400_000)[-1].endswith(f": more than {MAX_NODES} values")


def test_a_billion_laughs_are_ten_anchors_and_ninety_aliases_and_expand_to_nothing() -> None:
    lines = ["a0: &a0 lol"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    found = mistakes("\n".join(lines))
    assert len([each for each in found if "anchors are not allowed" in each]) == 10
    assert len([each for each in found if "aliases are not allowed" in each]) == 90
    assert len(found) == 100


def refusal(path: Path) -> str:
    with pytest.raises(RecipeRefused) as caught:
        load_recipe(str(path), memory=10**12)
    return str(caught.value)


def test_a_file_of_just_a_megabyte_is_read_and_a_byte_more_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "big.yaml"
    recipe = b"name: a\ndata: {kind: sphere, num_samples: 3, input_dim: 4}\nmodel: {width: 5}\n"
    path.write_bytes(recipe.ljust(MAX_BYTES, b"#"))
    assert load_recipe(str(path), memory=10**12).model.width == 5
    for size in (MAX_BYTES + 1, 10_000_000):
        path.write_bytes(recipe.ljust(size, b"#"))
        assert refusal(path) == f"{path}:1:1: a recipe has at most {MAX_BYTES} bytes\n1 error; nothing was run."


NOT_UTF_8 = {
    "first": (b"\xff", "1:1: not UTF-8 text (byte 0xff)"),
    "a line further": (b"name: a\ndata: \xe9\n", "2:7: not UTF-8 text (byte 0xe9)"),
    "cut": (b"a: 1\n\n  \xc3(", "3:3: not UTF-8 text (byte 0xc3)"),
    "half a surrogate pair": (b"a: \xed\xa0\x80", "1:4: not UTF-8 text (byte 0xed)"),
    "behind a byte order mark": (b"\xef\xbb\xbfname: \xff\n", "1:7: not UTF-8 text (byte 0xff)"),
    "behind wide characters": ("a: 1\nname: é€ ".encode() + b"\xff\n", "2:10: not UTF-8 text (byte 0xff)"),
}


@pytest.mark.parametrize(("content", "message"), NOT_UTF_8.values(), ids=NOT_UTF_8)
def test_bytes_that_are_not_utf_8_are_refused_with_their_place(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bytes.yaml"
    path.write_bytes(content)
    assert refusal(path) == f"{path}:{message}\n1 error; nothing was run."


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["no mark", "byte order mark"])
def test_line_endings_and_a_byte_order_mark_change_no_place(tmp_path: Path, ending: str, mark: str) -> None:
    lines = ["name: a", "data: {kind: sphere, num_samples: 3, input_dim: 4}", "model: {width: 0}", ""]
    path = tmp_path / "ending.yaml"
    path.write_bytes((mark + ending.join(lines)).encode())
    expected = f"{path}:3:16: model.width must be a whole number, at least 1, got 0\n1 error; nothing was run."
    assert refusal(path) == expected
