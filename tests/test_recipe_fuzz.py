"""Generated and mutated recipes: a recipe comes out or a refusal with places that exist, never anything else.

Every case is a function of its number alone.
"""

import json
import random
import re
from collections import Counter
from pathlib import Path

import pytest

from deqcli.errors import Mistake, RecipeRefused, Refused
from deqcli.recipe.library import shipped_recipes
from deqcli.recipe.loading import load_recipe
from deqcli.recipe.schema import Recipe

BATCHES, BATCH = 10, 80
ENOUGH = 10**12
LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
PLACED = re.compile(r"(?P<source>.+?):(?P<line>\d+):(?P<column>\d+): (?P<message>.+)")


def outcome(path: Path, content: bytes, overrides: list[str]) -> str:
    """`recipe` or `refused`; whatever else the loader raises fails the test, and so does a place that is not there."""
    path.write_bytes(content)
    try:
        loaded: Recipe | Refused = load_recipe(str(path), overrides, ENOUGH)
    except Refused as refusal:
        loaded = refusal
    if isinstance(loaded, Recipe):
        return "recipe"
    assert isinstance(loaded, RecipeRefused), "a recipe that is there was refused without a place"
    *lines, count = str(loaded).split("\n")
    assert count == f"{len(lines)} error{'s' if len(lines) > 1 else ''}; nothing was run."
    assert len(lines) == len(loaded.mistakes) >= 1
    for line, mistake in zip(lines, loaded.mistakes, strict=True):
        assert PLACED.fullmatch(line), line
        assert line.isprintable(), line
        assert exists(mistake, path, content, overrides), (content, overrides, line)
    return "refused"


def exists(mistake: Mistake, path: Path, content: bytes, overrides: list[str]) -> bool:
    """Whether the place is in the text or just behind its end."""
    if mistake.source == "command line":
        return mistake.line <= len(overrides) and mistake.column <= len(overrides[mistake.line - 1]) + 1
    if mistake.message.startswith("not UTF-8"):
        lines = [line.decode("latin-1") for line in content.split(b"\n")]
    elif mistake.message.startswith("the character"):
        lines = content.decode("utf-8-sig").split("\n")
    else:
        lines = LINE_BREAK.split(content.decode("utf-8-sig"))
    inside = 1 <= mistake.line <= len(lines) and 1 <= mistake.column <= len(lines[mistake.line - 1]) + 1
    return mistake.source == str(path) and inside


SECTIONS = {
    "data": ["kind", "num_samples", "input_dim", "labels", "seed", "label_scale", "classes", "path", "sha256"],
    "model": ["width", "activation", "init", "sigma_w_sq", "readout_scale"],
    "solver": ["kind", "tolerance", "max_iterations"],
    "train": ["steps", "learning_rate", "dtype", "seed"],
    "log": ["loss_every", "spectral_every", "checkpoint_every"],
    "sweep": ["widths", "seeds"],
}
WORDS = """
0 1 -1 3 64 1e-3 1e999 .nan -.inf 010 0x1F 1_000 1:30 0.08 1.0 2 1e-300 1e300 4294967296 9007199254740993
yes true null ~ 2024-01-01 auto theorem relu tanh gaussian signs class sphere digits file picard float32 half ../x x.csv
é << &a *a !!str !x @ ` % | > , : - ? [ ] { } # '5' "" '' "\\t" "\\e[0m" "\\ud800" 'it''s'
"""
SCALARS = WORDS.split()


def any_scalar(dice: random.Random) -> str:
    return dice.choice(SCALARS) if dice.random() < 0.9 else "9" * dice.randrange(1, 500)


def any_value(dice: random.Random, depth: int = 0) -> str:
    shape = dice.random()
    if depth > 2 or shape < 0.8:
        return any_scalar(dice)
    items = [any_value(dice, depth + 1) for _ in range(dice.randrange(4))]
    if shape < 0.92:
        return "[" + ", ".join(items) + "]"
    return "{" + ", ".join(f"{any_key(dice)}: {item}" for item in items) + "}"


def any_key(dice: random.Random) -> str:
    known = [*SECTIONS, "name", *(key for keys in SECTIONS.values() for key in keys)]
    key = dice.choice(known)
    if dice.random() < 0.2:
        place = dice.randrange(len(key))
        key = key[:place] + dice.choice("abcdefgh_. ") + key[place + 1 :]
    return key


def any_section(dice: random.Random, name: str) -> str:
    keys = dice.sample(SECTIONS[name], dice.randrange(len(SECTIONS[name]) + 1))
    keys += [any_key(dice) for _ in range(dice.randrange(2))]
    pairs = [f"{key}: {any_value(dice)}" for key in keys]
    if dice.random() < 0.5:
        return f"{name}: {{{', '.join(pairs)}}}\n"
    return f"{name}:\n" + "".join(f"  {pair}\n" for pair in pairs)


def any_recipe(dice: random.Random) -> str:
    parts = ["name: fuzz\n", "data: {kind: sphere, num_samples: 4, input_dim: 5}\n", "model: {width: 8}\n"]
    parts = [part for part in parts if dice.random() < 0.8]
    parts += [any_section(dice, name) for name in SECTIONS if dice.random() < 0.5]
    dice.shuffle(parts)
    return "".join(parts)


def any_overrides(dice: random.Random) -> list[str]:
    overrides = []
    for _ in range(dice.randrange(3)):
        section = dice.choice(list(SECTIONS))
        key = f"{section}.{dice.choice(SECTIONS[section])}" if dice.random() < 0.8 else any_key(dice)
        overrides.append(f"{key}={any_value(dice)}" if dice.random() < 0.95 else key)
    return overrides


@pytest.mark.parametrize("batch", range(BATCHES))
def test_a_generated_recipe_is_a_recipe_or_a_refusal(tmp_path: Path, batch: int) -> None:
    counted: Counter[str] = Counter()
    for number in range(BATCH):
        dice = random.Random(1000 * batch + number)  # noqa: S311
        counted[outcome(tmp_path / "r.yaml", any_recipe(dice).encode(), any_overrides(dice))] += 1
    assert counted.total() == BATCH
    assert counted["refused"] > BATCH / 2


PIECES = [bytes([value]) for value in (*range(0x20), 0x7F, 0x80, 0xC3, 0xED, 0xFF)]
PIECES += [text.encode() for text in ["\x85", "\u2028", "é", "\U0001f600", "&a ", "*a", "!!x ", "---\n", "%YAML 1.1\n"]]
PIECES += [byte.encode() for byte in "\"'{}[]:,#|>%@`-?~\\"]


def mutated(dice: random.Random, content: bytes) -> bytes:
    text = bytearray(content)
    for _ in range(dice.randint(1, 5)):
        place, kind = dice.randrange(len(text)), dice.randrange(4)
        if kind == 0:
            text[place] ^= 1 << dice.randrange(8)
        elif kind == 1:
            del text[place : place + dice.randint(1, 8)]
        elif kind == 2:
            text[place:place] = dice.choice(PIECES)
        else:
            start = dice.randrange(len(text))
            text[place:place] = text[start : start + dice.randint(1, 20)]
    return bytes(text)


@pytest.mark.parametrize("batch", range(BATCHES))
def test_a_mutated_shipped_recipe_is_a_recipe_or_a_refusal(tmp_path: Path, batch: int) -> None:
    shipped = [path.read_bytes() for path in shipped_recipes().values()]
    assert len(shipped) >= 1
    counted: Counter[str] = Counter()
    for number in range(BATCH):
        dice = random.Random(1_000_000 + 1000 * batch + number)  # noqa: S311
        counted[outcome(tmp_path / "r.yaml", mutated(dice, dice.choice(shipped)), [])] += 1
    assert counted.total() == BATCH
    assert counted["refused"] > BATCH / 2


PLANTED = {
    # a line that replaces the good one: the key that must be blamed
    "name": ("name: a b", "name"),
    "data.num_samples": ("  num_samples: many", "data.num_samples"),
    "data.input_dim": ("  input_dims: 5", "data.input_dims"),
    "data.labels": ("  labels: sign", "data.labels"),
    "data.seed": ("  seed: -1", "data.seed"),
    "model.width": ("  width: 0", "model.width"),
    "model.sigma_w_sq": ("  sigma_w_sq: yes", "model.sigma_w_sq"),
    "model.readout_scale": ("  readout: 1.0", "model.readout"),
    "solver.tolerance": ("  tolerance: 1.5", "solver.tolerance"),
    "solver.max_iterations": ("  max_iterations: 1e3", "solver.max_iterations"),
    "train.steps": ("  steps: '3'", "train.steps"),
    "train.learning_rate": ("  learning_rate: 1:30", "train.learning_rate"),
    "train.dtype": ("  dtype: [float32]", "train.dtype"),
    "train.seed": ("  seeds: 3", "train.seeds"),
    "log.loss_every": ("  loss_every: 0", "log.loss_every"),
    "log.spectral_every": ("  spectral_every: {}", "log.spectral_every"),
    "sweep.widths": ("  widths: [4, 0]", "sweep.widths.1"),
    "sweep.seeds": ("  seeds: 7", "sweep.seeds"),
}
GOOD = """\
name: planted
data:
  kind: sphere
  num_samples: 4
  input_dim: 5
  labels: signs
  seed: 1
model:
  width: 8
  sigma_w_sq: 0.05
  readout_scale: 2.0
solver:
  tolerance: 1e-5
  max_iterations: 90
train:
  steps: 3
  learning_rate: 0.5
  dtype: float32
  seed: 2
log:
  loss_every: 1
  spectral_every: 2
sweep:
  widths: [4, 8]
  seeds: [1]
"""


def lines_of_keys(text: str) -> dict[str, int]:
    found, section = {}, ""
    for number, line in enumerate(text.splitlines(), start=1):
        key = line.split(":")[0]
        section = section if key.startswith(" ") else key
        found[f"{section}.{key.strip()}" if key.startswith(" ") else key] = number
    return found


GOOD_LINES = lines_of_keys(GOOD)
MISSING = {"data.input_dim": "data"}
"""Keys without which there is no recipe; where the misspelled one stands alone, the lost one is told at its section."""


def test_the_recipe_to_plant_in_is_good(tmp_path: Path) -> None:
    assert outcome(tmp_path / "r.yaml", GOOD.encode(), []) == "recipe"
    assert set(PLANTED) < set(GOOD_LINES)
    assert len(PLANTED) == 18


@pytest.mark.parametrize("batch", range(BATCHES))
def test_exactly_the_planted_mistakes_are_told_each_in_its_line(tmp_path: Path, batch: int) -> None:
    path, planted = tmp_path / "r.yaml", 0
    for number in range(30):
        dice = random.Random(2_000_000 + 1000 * batch + number)  # noqa: S311
        chosen = sorted(dice.sample(list(PLANTED), dice.randint(1, 6)), key=GOOD_LINES.__getitem__)
        lines = GOOD.splitlines()
        for key in chosen:
            lines[GOOD_LINES[key] - 1] = PLANTED[key][0]
        path.write_text("\n".join(lines))
        with pytest.raises(RecipeRefused) as caught:
            load_recipe(str(path), memory=ENOUGH)
        expected = {(GOOD_LINES[key], PLANTED[key][1]) for key in chosen}
        expected |= {(GOOD_LINES[MISSING[key]], key) for key in chosen if key in MISSING}
        assert {(mistake.line, mistake.key) for mistake in caught.value.mistakes} == expected, json.dumps(lines)
        planted += len(chosen)
    assert planted > 30
