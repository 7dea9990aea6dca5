"""Generated and mutated recipes and data files: what comes out is what they describe or a refusal, never anything else.

Every case is a function of its number alone.
"""

import io
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deqcli.data.kinds import File
from deqcli.errors import Mistake, RecipeRefused, Refused
from deqcli.recipe.library import shipped_recipes
from deqcli.recipe.loading import load_recipe
from deqcli.recipe.schema import Recipe

BATCHES, BATCH = 10, 80
GENERATED, MUTATED = 10_000, 20_000
"""Recipes in the full set."""


def batches(recipes: int) -> list[Any]:
    """The numbers of the batches that make up so many recipes; the first ten are for every day."""
    full = [pytest.param(batch, marks=pytest.mark.reliability) for batch in range(BATCHES, recipes // BATCH)]
    return [*range(BATCHES), *full]


ENOUGH, LONGEST = 10**12, 1200
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
        assert len(line) < LONGEST, line
        assert exists(mistake, path, content, overrides), (content, overrides, line)
    return "refused"


def exists(mistake: Mistake, path: Path, content: bytes, overrides: list[str]) -> bool:
    """Whether the place is in the text or just behind its end."""
    if mistake.source == "command line":
        return mistake.line <= len(overrides) and mistake.column <= len(overrides[mistake.line - 1]) + 1
    text = content.decode("utf-8-sig", errors="replace")
    before_yaml = mistake.message.startswith(("not UTF-8", "the character"))
    lines = text.split("\n") if before_yaml else LINE_BREAK.split(text)
    inside = 1 <= mistake.line <= len(lines) and 1 <= mistake.column <= len(lines[mistake.line - 1]) + 1
    return mistake.source == str(path) and inside


SECTIONS = {
    "data": ["kind", "num_samples", "input_dim", "labels", "seed", "label_scale", "classes", "path", "sha256"],
    "model": ["width", "activation", "init", "sigma_w_sq", "readout_scale"],
    "solver": ["kind", "tolerance", "max_iterations"],
    "train": ["steps", "learning_rate", "dtype", "seed"],
    "log": ["loss_every", "spectral_every", "checkpoint_every"],
    "sweep": ["widths", "seeds", "over"],
    "execution": ["executor", "jobs", "threads", "retries", "fail_fast", "ray", "slurm"],
}
WORDS = """
0 1 -1 3 64 1e-3 1e999 .nan -.inf 010 0x1F 1_000 1:30 0.08 1.0 2 1e-300 1e300 4294967296 9007199254740993
yes true null ~ 2024-01-01 auto theorem relu tanh gaussian signs class sphere digits file picard float32 half ../x x.csv
local slurm
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


def any_over(dice: random.Random) -> str:
    """Axes of a sweep: mostly keys of a run with lists of what may be values."""
    axes = []
    for _ in range(dice.randrange(3)):
        section = dice.choice(list(SECTIONS))
        key = f"{section}.{dice.choice(SECTIONS[section])}" if dice.random() < 0.9 else any_key(dice)
        axes.append(f"{key}: [{', '.join(any_value(dice, 1) for _ in range(dice.randrange(4)))}]")
    return f"{{{', '.join(axes)}}}"


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
    pairs = [f"{key}: {any_over(dice) if key == 'over' else any_value(dice)}" for key in keys]
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


@pytest.mark.parametrize("batch", batches(GENERATED))
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


@pytest.mark.parametrize("batch", batches(MUTATED))
def test_a_mutated_shipped_recipe_is_a_recipe_or_a_refusal(tmp_path: Path, batch: int) -> None:
    shipped = [path.read_bytes() for path in shipped_recipes().values()]
    assert len(shipped) >= 1
    counted: Counter[str] = Counter()
    for number in range(BATCH):
        dice = random.Random(1_000_000 + 1000 * batch + number)  # noqa: S311
        counted[outcome(tmp_path / "r.yaml", mutated(dice, dice.choice(shipped)), [])] += 1
    assert counted.total() == BATCH
    assert counted["refused"] > BATCH / 2


@pytest.mark.parametrize("suffix", ["npz", "csv"])
def test_a_mutated_data_file_is_a_data_set_or_a_refusal(tmp_path: Path, suffix: str) -> None:
    rows, path, refused = np.random.default_rng(0).standard_normal((30, 4)), tmp_path / f"data.{suffix}", []
    content = io.BytesIO("\n".join(["a,b,c,y", *(",".join(map(repr, row)) for row in rows.tolist())]).encode())
    if suffix == "npz":
        np.savez_compressed(content, X=rows, y=rows[:, 0])
    for number in range(300):
        path.write_bytes(mutated(random.Random(3_000_000 + number), content.getvalue()))  # noqa: S311
        try:
            assert np.isfinite(File(kind="file", path=str(path)).load().X).all()
        except Refused as error:
            refused.append(str(error))
    assert 150 < len(refused) < 300
    assert all(each.startswith(f"{path}: ") and each.isprintable() and len(each) < LONGEST for each in refused)


# the good line | the bad line in its place | the key that must be blamed
PLANTED = """
name: planted         | name: a b                 | name
data:
  kind: sphere
  num_samples: 4      |   num_samples: many       | data.num_samples
  input_dim: 5        |   input_dims: 5           | data.input_dims
  labels: signs       |   labels: sign            | data.labels
  seed: 1             |   seed: -1                | data.seed
model:
  width: 8            |   width: 0                | model.width
  sigma_w_sq: 0.05    |   sigma_w_sq: yes         | model.sigma_w_sq
  readout_scale: 2.0  |   readout: 1.0            | model.readout
solver:
  tolerance: 1e-5     |   tolerance: 1.5          | solver.tolerance
  max_iterations: 90  |   max_iterations: 1e3     | solver.max_iterations
train:
  steps: 3            |   steps: '3'              | train.steps
  learning_rate: 0.5  |   learning_rate: 1:30     | train.learning_rate
  dtype: float32      |   dtype: [float32]        | train.dtype
  seed: 2             |   seeds: 3                | train.seeds
log:
  loss_every: 1       |   loss_every: 0           | log.loss_every
  spectral_every: 2   |   spectral_every: {}      | log.spectral_every
sweep:
  widths: [4, 8]      |   widths: [4, 0]          | sweep.widths.1
  seeds: [1]          |   seeds: 7                | sweep.seeds
"""
ROWS = [[cell.rstrip() for cell in row.split(" | ")] for row in PLANTED.strip().splitlines()]
GOOD = [row[0] for row in ROWS]
BAD = {number: (row[1], row[2]) for number, row in enumerate(ROWS, start=1) if len(row) > 1}
MISSING = {"data.input_dims": (2, "data.input_dim")}
"""The misspelled key without which there is no recipe is told as lost, too, at its section."""


def test_the_recipe_to_plant_in_is_good(tmp_path: Path) -> None:
    assert outcome(tmp_path / "r.yaml", "\n".join(GOOD).encode(), []) == "recipe"
    assert len(BAD) == 18


@pytest.mark.parametrize("batch", range(BATCHES))
def test_exactly_the_planted_mistakes_are_told_each_in_its_line(tmp_path: Path, batch: int) -> None:
    path, planted = tmp_path / "r.yaml", 0
    for number in range(30):
        dice = random.Random(2_000_000 + 1000 * batch + number)  # noqa: S311
        chosen = dice.sample(sorted(BAD), dice.randint(1, 6))
        lines = [BAD[line][0] if line in chosen else good for line, good in enumerate(GOOD, start=1)]
        path.write_text("\n".join(lines))
        with pytest.raises(RecipeRefused) as caught:
            load_recipe(str(path), memory=ENOUGH)
        expected = {(line, BAD[line][1]) for line in chosen}
        expected |= {MISSING[key] for _, key in expected if key in MISSING}
        assert {(mistake.line, mistake.key) for mistake in caught.value.mistakes} == expected, lines
        planted += len(chosen)
    assert planted > 30
