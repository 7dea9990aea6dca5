"""Recipes: every mistake in exact words and at its place, overrides, contradictions, and what names a run."""

import hashlib
import json
import re
from pathlib import Path
from string import Template

import jsonschema
import pytest

from deqcli.errors import RecipeRefused, Refused, SystemRefused
from deqcli.recipe.library import header, shipped_recipes
from deqcli.recipe.loading import load_recipe
from deqcli.recipe.memory import machine_memory, spec_bytes
from deqcli.recipe.reading import read_text
from deqcli.recipe.schema import Recipe
from deqcli.recipe.wording import recipe_schema
from deqcli.runs.files import recipe_text

ENOUGH = 10**12
BASE = """\
name: base
data: {kind: sphere, num_samples: 20, input_dim: 10}
model: {width: 64}
"""


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def load(text: str, *overrides: str, memory: int = ENOUGH) -> Recipe:
    Path("r.yaml").write_text(text, encoding="utf-8")
    return load_recipe("r.yaml", overrides, memory)


def refusal(text: str, *overrides: str, memory: int = ENOUGH) -> list[str]:
    """The lines of a refusal, without the count that ends them, which is checked here."""
    with pytest.raises(RecipeRefused) as caught:
        load(text, *overrides, memory=memory)
    *lines, count = str(caught.value).split("\n")
    assert lines == [str(mistake) for mistake in caught.value.mistakes]
    assert count == ("1 error; nothing was run." if len(lines) == 1 else f"{len(lines)} errors; nothing was run.")
    assert caught.value.exit_code == 2
    return lines


WORDS = {
    "MAPPING": "a recipe is a mapping with the keys name, data, model, solver, train, log, sweep, execution",
    "SECTIONS": "name (required), data (required), model (required), solver (optional), train (optional), "
    "log (optional), sweep (optional), execution (optional)",
    "DIGITS": "kind (required), label_scale (1.0), antipodal (false), num_samples (required), classes ([0, 1]), "
    "labels ('class'), seed (0)",
    "DATA": "data.kind must be `cifar-10`, `digits`, `fashion-mnist`, `file`, `gaussian_mixture`, `kmnist`, `mnist`, "
    "`sphere` or `svhn`",
    "SPHERE": "kind (required), label_scale (1.0), antipodal (false), num_samples (required), input_dim (required), "
    "labels ('gaussian'), seed (0)",
    "MODEL": "width (required), activation ('relu'), init ('gaussian'), sigma_w_sq (0.08), readout_scale (1.0), "
    "injection ('linear'), readout ('gaussian'), skip (false), parametrisation ('standard'), monotonicity (0.5), "
    "resample ('never'), most_draws (100)",
    "SOLVER": "kind ('continuation'), tolerance ('auto'), max_iterations (500), corrections ('auto')",
    "NEWTON": "kind (required), tolerance ('auto'), max_iterations (500), inner_iterations (20), forcing (0.1)",
    "ANDERSON": "kind (required), tolerance ('auto'), max_iterations (500), memory (5), regularisation (0.0), "
    "mixing (1.0)",
    "TRAIN": "steps (1000), learning_rate ('auto'), dtype ('float32'), tf32 (false), seed (0), "
    'parameters (["W", "U", "a"]), method (\'descent\'), flow_tolerance (1e-05), momentum (0.0), '
    "schedule ('constant'), decay (0.1), decay_every (100), warmup (0), stop_at_loss (null)",
    "FILE": "kind (required), label_scale (1.0), antipodal (false), path (required), sha256 (null), "
    "label_column ('y'), num_samples (null)",
    "LOG": "loss_every (1), spectral_every (20), checkpoint_every (200)",
    "NAME": "name must be text (names the folder: letters, digits, `.`, `_`, `-`, at most 64, a letter or digit first)",
    "STEPS": "train.steps must be a whole number, at least 0 (default 1000)",
    "RATE": "train.learning_rate must be `auto`, `theorem` or a positive number (default 'auto')",
    "SEED": "train.seed must be a whole number from 0 to 4294967295 (default 0)",
    "DTYPE": "train.dtype must be `float32` or `float64` (default 'float32')",
    "TF32": "train.tf32 must be `true` or `false` (default false)",
    "KIND": "solver.kind must be `anderson`, `auto`, `continuation`, `forward_backward`, `newton`, `peaceman_rachford` "
    "or `picard` (default 'continuation')",
    "TOLERANCE": "solver.tolerance must be `auto` or a number above 0 and below 1 (default 'auto')",
    "WIDTHS": "sweep.widths must be a list of at least 1, each a whole number, at least 1 or `null` (default null)",
    "SEEDS": "sweep.seeds must be a list of at least 1, each a whole number from 0 to 4294967295 or `null` "
    "(default null)",
    "BFLOAT": "did you mean `bfloat16`?",
    "FORM": "is not of the form key=value, such as train.steps=100",
    "WIDE": "use `auto` or a number",
    "LONG": "k" * 60 + "...",
    "KKK": "k" * 100,
    "ESC": "\x1b",
}
"""Phrases of the messages below."""

# `+` is a line added to the base, `|` a line of a recipe of its own, `$` overrides. What follows, in the same line or
# in the next ones, is said about the recipe (`:`) or about an override (`>`): line, column, message; `#` is a comment.
MISTAKES = r"""
+ extra: 1  : 4:1: extra is not known; known here: $SECTIONS
+ trian: {steps: 1}  : 4:1: trian is not known; did you mean `train`? known here: $SECTIONS
+ learning_rate: 0.1  : 4:1: learning_rate is not known; did you mean `train.learning_rate`? known here: $SECTIONS
+ $KKK: 1  : 4:1: $LONG is not known; known here: $SECTIONS
+ "\e[31m\n": 1  : 4:1: ?[31m? is not known; known here: $SECTIONS
+ "": 1  : 4:1: '' is not known; known here: $SECTIONS
+ ?
+ : 1
: 4:2: '' is not known; known here: $SECTIONS
+ "\ud800": 1  : 4:1: half a surrogate pair is not a character
+ log: {dtype: float64}  : 4:7: log.dtype is not known; did you mean `train.dtype`? known here: $LOG
+ log: {tolerance: 1e-3}  : 4:7: log.tolerance is not known; did you mean `solver.tolerance`? known here: $LOG
+ solver:
+   tolerence: 1e-6
: 5:3: solver.tolerence is not known; did you mean `tolerance`? known here: $SOLVER
+ train: {steps: many}  : 4:16: $STEPS, got 'many'
+ train: {steps: "5"}  : 4:16: $STEPS, got '5'
+ train: {steps: 10.0}  : 4:16: $STEPS, got 10.0
+ train: {steps: }  : 4:15: $STEPS, got null
+ train: null  : 4:8: train must be a section with the keys $TRAIN, got null
+ train: {steps: yes}  : 4:16: $STEPS, got 'yes'
+ train: {steps: $KKK}  : 4:16: $STEPS, got 'kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk...
+ train: {steps: "\e[31m"}  : 4:16: $STEPS, got '\u001b[31m'
+ train: {learning_rate: 1:30}  : 4:24: $RATE, got '1:30'
+ train: {learning_rate: -1e-3}  : 4:24: $RATE, got -0.001
+ train: {learning_rate: true}  : 4:24: $RATE, got true
+ train: {learning_rate: 1e999}  : 4:24: $RATE, got .inf
+ train: {learning_rate: .nan}  : 4:24: $RATE, got .nan
+ train: {seed: 4294967296}  : 4:15: $SEED, got 4294967296
+ train: {dtype: flaot32}  : 4:16: $DTYPE, got 'flaot32'; did you mean `float32`?
+ log: {spectral_every: 0}  : 4:23: log.spectral_every must be a whole number, at least 1 (default 20), got 0
+ solver: {tolerance: 1}  : 4:21: $TOLERANCE, got 1
+ train: {tf32: yes}  : 4:15: $TF32, got 'yes'
+ train: {tf32: 1}  : 4:15: $TF32, got 1
+ solver: {kind: newtn}  : 4:16: $KIND, got 'newtn'; did you mean `newton`?
+ solver: {kind: }  : 4:15: $KIND, got null
+ solver: newton  : 4:9: solver must be a section with the keys $SOLVER, got 'newton'
+ solver: {memory: 3}  : 4:10: solver.memory is not known; known here: $SOLVER
+ solver: {kind: newton, memory: 3, forcing: 1}
: 4:24: solver.memory is not known; known here: $NEWTON
: 4:44: solver.forcing must be a number above 0 and below 1 (default 0.1), got 1
+ solver: {kind: anderson, memory: 51, regularisation: 1, mixing: 1.5}
: 4:34: solver.memory must be a whole number from 1 to 50 (default 5), got 51
: 4:54: solver.regularisation must be a number from 0 to below 1 (default 0.0), got 1
: 4:65: solver.mixing must be a number above 0 and at most 1 (default 1.0), got 1.5
+ solver: {corrections: float16}
: 4:23: solver.corrections must be `auto`, `full`, `float32` or `bfloat16` (default 'auto'), got 'float16'; $BFLOAT
+ sweep:
+   widths:
+   - 64
+   - wide
: 7:5: sweep.widths.1 must be a whole number, at least 1, got 'wide'
+ sweep: {widths: []}  : 4:17: $WIDTHS, got []
+ model: {width: 3}  : 4:1: model is given twice, first in line 3
+ train: {steps: *a}  : 4:16: aliases are not allowed (*a)
+ *a : 3  : 4:1: aliases are not allowed (*a)
+ log: &l {}  : 4:6: anchors are not allowed (&l)
| {name: a, model: {width: 3}}  : 1:1: data is missing; it must be a section with the keys kind (required)
| name: a
| data: {kind: sphere, num_samples: 2}
| model:
|   init: gaussian
: 2:1: data.input_dim is missing; it must be a whole number, at least 1
: 3:1: model.width is missing; it must be a whole number, at least 1
| {name: a, model: {width: 3}, data: {kind: spehre, num_samples: 2}}
: 1:43: $DATA, got 'spehre'; did you mean `sphere`?
| {name: a, model: {width: 3}, data: {kind: file, file: x.npz}}
: 1:30: data.path is missing; it must be text
: 1:49: data.file is not known; known here: $FILE
| {name: a, model: {width: 3}, data: {kind: digits, digits: [0, 1], num_samples: abc}}
: 1:51: data.digits is not known; known here: $DIGITS
: 1:80: data.num_samples must be a whole number, at least 1, got 'abc'
| name: ../up
| data: {kind: sphere, num_samples: 2, input_dim: 2, classes: [0, 1]}
| model: {width: 0}
: 1:7: $NAME, got '../up'
: 2:52: data.classes is not known; known here: $SPHERE
: 3:16: model.width must be a whole number, at least 1, got 0
| - name: a
: 1:1: $MAPPING; got [{"name": "a"}]
| quickstart  : 1:1: $MAPPING; got 'quickstart'
| *a  : 1:1: aliases are not allowed (*a)
$ =3  > 1:1: '=3' $FORM
$ train.steps  > 1:1: 'train.steps' $FORM
$ train.steps =3  > 1:1: 'train.steps =3' $FORM
$ train.steps=  > 1:13: $STEPS, got null
$ sweep.widths=[1, two]  > 1:18: sweep.widths.1 must be a whole number, at least 1, got 'two'
$ train={steps: 3, seeed: 4}  > 1:18: train.seeed is not known; did you mean `seed`? known here: $TRAIN
$ train.stesp=3  > 1:1: train.stesp is not known; did you mean `steps`? known here: $TRAIN
$ seed=3  > 1:1: seed is not known; did you mean `data.seed`? known here: $SECTIONS
$ solver.kind=anderson; solver.forcing=0.5  > 2:1: solver.forcing is not known; known here: $ANDERSON
$ nowhere.x=1  > 1:1: nowhere is not known; known here: $SECTIONS
$ model.widht.x=3  > 1:1: model.widht is not known; did you mean `width`? known here: $MODEL
$ model.width.x=3  > 1:1: model.width.x is not known: model.width has no keys
$ train.steps=9007199254740993
> 1:13: train.steps must be a whole number from 0 to 9007199254740992 (default 1000), got 9007199254740993
$ model.width=9007199254740993
> 1:13: model.width must be a whole number from 1 to 9007199254740992, got 9007199254740993
$ name=&x y  > 1:6: anchors are not allowed (&x)
$ name=*x  > 1:6: aliases are not allowed (*x)
$ name=$ESC  > 1:6: the character U+001B is not allowed in YAML
$ name="\ud800"  > 1:6: half a surrogate pair is not a character
$ train.steps=[1  > 1:15: not valid YAML: while parsing a flow sequence expected ',' or ']', but got '<stream end>'
$ train.steps=x; train.seed=-1; train.steps=y
> 2:12: $SEED, got -1
> 3:13: $STEPS, got 'y'
| name: -a
| data: {kind: digits, num_samples: 400, clases: [0, 1]}
| model:
|   width: 64.5
|   sigma_w: 0.08
| solver: !fast {tolerance: 2}
| train: {steps: 1e3, learning_rate: fast, steps: 3}
| lgo: {}
| sweep: {widths: [64, 64, -1], seeds: 3}
$ log.loss_every=never; nonsense; train.dtype=half
: 1:7: $NAME, got '-a'
: 2:40: data.clases is not known; did you mean `classes`? known here: $DIGITS
: 4:10: model.width must be a whole number, at least 1, got 64.5
: 5:3: model.sigma_w is not known; did you mean `sigma_w_sq`? known here: $MODEL
: 6:9: tags are not allowed (!fast)
: 6:27: $TOLERANCE, got 2
: 7:16: $STEPS, got 1000.0
: 7:36: $RATE, got 'fast'
: 7:42: train.steps is given twice, first in line 7
: 8:1: lgo is not known; did you mean `log`? known here: $SECTIONS
: 9:26: sweep.widths.2 must be a whole number, at least 1, got -1
: 9:38: $SEEDS, got 3
> 1:16: log.loss_every must be a whole number, at least 1 (default 1), got 'never'
> 2:1: 'nonsense' $FORM
> 3:13: $DTYPE, got 'half'
"""

CONTRADICTIONS = """
$ data={kind: digits, num_samples: 361}
> 1:34: data.num_samples: must be at most 360, what the classes [0, 1] hold, got 361
$ data={kind: digits, num_samples: 3, classes: [7, 7]}  > 1:46: data.classes: names a class twice, got [7, 7]
$ data={kind: digits, num_samples: 3, classes: [7, 8, 7]}  > 1:46: data.classes: names a class twice, got [7, 8, 7]
$ data.input_dim=1; data.num_samples=2
> 2:18: data.num_samples: 2 samples of input_dim 1 are parallel to each other; only 1 is possible
$ sweep.widths=[8, 9, 8, 9, 7]  > 1:14: sweep.widths: names 8, 9 twice
$ solver.tolerance=1e-8
> 1:18: solver.tolerance: must be at least 1.1920928955078125e-07, what float32 can resolve, got 1e-08
$ train.dtype=float64; solver.tolerance=2.2e-16
> 2:18: solver.tolerance: must be at least 2.220446049250313e-16, what float64 can resolve, got 2.2e-16
$ train.tf32=true; train.dtype=float64
> 1:12: train.tf32: is a way to multiply float32; leave it out or use dtype float32
$ train.tf32=true; solver.tolerance=9e-4
> 2:18: solver.tolerance: must be at least 0.0009765625, what tf32 can resolve, got 0.0009
$ train.learning_rate=theorem; model.sigma_w_sq=0.125
> 1:21: train.learning_rate: `theorem` needs sigma_w_sq < 0.125 (Assumption 1), got 0.125
$ model.width=19; train.learning_rate=theorem
> 2:21: train.learning_rate: `theorem` needs lambda_0 > 0, so num_samples <= width, got 20 > 19; $WIDE
$ sweep.widths=[64, 12]; train.learning_rate=theorem; model.sigma_w_sq=1
> 2:21: train.learning_rate: `theorem` needs sigma_w_sq < 0.125 (Assumption 1), got 1
> 2:21: train.learning_rate: `theorem` needs lambda_0 > 0, so num_samples <= width, got 20 > 12; $WIDE
# at a key that the text gives
+ train: {learning_rate: theorem}
+ sweep: {widths: [8]}
: 4:24: train.learning_rate: `theorem` needs lambda_0 > 0, so num_samples <= width, got 20 > 8; $WIDE
| name: a
| data: {kind: digits, num_samples: 999, classes: [1, 2, 3]}
| model: {width: 9}
: 2:35: data.num_samples: must be at most 542, what the classes [1, 2, 3] hold, got 999
| name: a
| data: {kind: gaussian_mixture, num_samples: 9, input_dim: 3, classes: [{}, {}], labels: class}
| model: {width: 9}
$ data.classes=[{}, {}, {}]
: 2:89: data.labels: `class` is for two classes, got 3; use `gaussian`
# beside mistakes, where those leave a recipe
+ solver: {tolerance: 1e-9}
+ log: {loss_evry: 2}
+ sweep: {seeds: [3, 3]}
: 4:21: solver.tolerance: must be at least 1.1920928955078125e-07, what float32 can resolve, got 1e-09
: 5:7: log.loss_evry is not known; did you mean `loss_every`? known here: $LOG
: 6:16: sweep.seeds: names 3 twice
# but not where they rest on what was refused: 0 and 1 do not hold 400 images, and there may be a third class
$ data={kind: digits, num_samples: 400, classes: [0, 1, 12], labels: gaussian}
> 1:55: data.classes.2 must be a whole number from 0 to 9, got 12
"""


def cases(table: str) -> list[object]:
    """(recipe, overrides, lines of the refusal) of every block."""
    blocks: list[tuple[list[str], list[str], list[str]]] = []
    for line in re.split(r"\n|  (?=[:>] \d)", table.strip()):
        mark, text = line[0], Template(line[2:]).substitute(WORDS)
        if mark in "+|$" and (not blocks or blocks[-1][2]):
            blocks.append(([], [], []))
        recipe, overrides, said = blocks[-1]
        if mark in "+|":
            recipe.append((BASE if mark == "+" and not recipe else "") + text + "\n")
        elif mark == "$":
            overrides += text.split("; ")
        elif mark in ":>":
            said.append(f"{'command line' if mark == '>' else 'r.yaml'}:{text}")
    return [pytest.param("".join(recipe) or BASE, given, said, id=said[0][:60]) for recipe, given, said in blocks]


@pytest.mark.parametrize(("text", "overrides", "messages"), cases(MISTAKES))
def test_a_mistake_is_told_in_exact_words_where_it_stands(text: str, overrides: list[str], messages: list[str]) -> None:
    assert refusal(text, *overrides) == messages


@pytest.mark.parametrize(("text", "overrides", "messages"), cases(CONTRADICTIONS))
def test_values_that_cannot_be_true_together_are_refused(text: str, overrides: list[str], messages: list[str]) -> None:
    assert refusal(text, *overrides) == messages


def test_the_tables_of_mistakes_were_read_to_their_end() -> None:
    assert (len(cases(MISTAKES)), len(cases(CONTRADICTIONS))) == (73, 17)


@pytest.mark.parametrize("text", ["", "# only a comment\n", "~\n", "---\n"])
def test_an_empty_recipe_misses_its_sections_and_its_overrides_are_looked_at(text: str) -> None:
    found = [line.split(" is ")[0] for line in refusal(text, "nonsense", "model.width=3", "=")]
    assert found == ["r.yaml:1:1: name", "r.yaml:1:1: data", "command line:1:1: 'nonsense'", "command line:3:1: '='"]


def test_a_dotted_key_in_the_file_is_answered_with_a_hint() -> None:
    assert "train.steps is not known; write it as `train: {steps: ...}`; " in refusal(BASE + "train.steps: 3\n")[0]


ONCE_A_CRASH = {
    "an escape beyond Unicode": (BASE + 'x: "\\U00110000"\n', ()),
    "an escape beyond a C int": (BASE + 'x: "\\UFFFFFFFF"\n', ()),
    "a long version of YAML": ("%YAML 1." + "9" * 5000 + "\n---\n" + BASE, ()),
    "an escape in an override": (BASE, ('name="\\U00110000"',)),
    "a path too long": (BASE, ("data={kind: file, path: " + "a" * 5000 + ".csv}",)),
}


@pytest.mark.parametrize(("text", "overrides"), ONCE_A_CRASH.values(), ids=ONCE_A_CRASH)
def test_what_breaks_pyyaml_or_the_system_is_one_mistake(text: str, overrides: tuple[str, ...]) -> None:
    assert len(refusal(text, *overrides)) == 1


def test_a_recipe_that_may_not_be_read_is_refused_as_by_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(path: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    Path("r.yaml").write_text(BASE)
    monkeypatch.setattr(Path, "open", deny)
    with pytest.raises(SystemRefused, match=r"^the system refused r\.yaml: Permission denied$"):
        load_recipe("r.yaml")


TAKEN = """
data={kind: digits, num_samples: 360}
data={kind: digits, num_samples: 537, classes: [0, 1, 2]}
data={kind: digits, num_samples: 1797, classes: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], labels: gaussian}
data.input_dim=1; data.num_samples=1
solver.tolerance=1.2e-7
solver.tolerance=2.3e-16; train.dtype=float64
solver.tolerance=9.8e-4; train.tf32=true
solver={kind: anderson, memory: 50, regularisation: 0, mixing: 1}
train.learning_rate=theorem; model.sigma_w_sq=0.1249; model.width=20
train.steps=0
train.steps=9007199254740992
train.seed=4294967295; data.seed=4294967295
"""


@pytest.mark.parametrize("overrides", TAKEN.strip().splitlines())
def test_the_last_value_before_a_mistake_is_taken(overrides: str) -> None:
    assert isinstance(load(BASE, *overrides.split("; ")), Recipe)


def test_a_size_that_the_device_cannot_hold_is_refused_in_bytes() -> None:
    needed = spec_bytes(load(BASE, "model.width=100000"))
    assert needed > 4 * 1.5 * 100_000**2  # W, and W in half the precision
    assert spec_bytes(load(BASE, "model.width=100000"), keeps_start=True) == needed + 4 * 100_000**2
    assert refusal(BASE, "model.width=100000", memory=10**9) == [
        f"command line:1:13: model.width: width 100000, num_samples 20, input_dim 10 in float32 take {needed} bytes "
        f"({needed / 1e9:.3g} GB), the device has 1000000000 bytes (1 GB)"
    ]
    assert load(BASE, "model.width=100000", memory=needed).model.width == 100_000
    assert len(refusal(BASE, "model.width=100000", memory=needed - 1)) == 1


def test_the_widest_run_of_a_sweep_must_fit_and_float64_takes_more() -> None:
    needed, more = (spec_bytes(load(BASE, "model.width=5000", f"train.dtype=float{bits}")) for bits in (32, 64))
    (line,) = refusal(BASE, "sweep.widths=[10, 5000, 20]", memory=needed - 1)
    sizes = "width 5000, num_samples 20, input_dim 10"
    assert line.startswith(f"command line:1:14: sweep.widths: {sizes} in float32 take {needed} bytes")
    assert load(BASE, "sweep.widths=[10, 5000, 20]", memory=needed).widths == [10, 20, 5000]
    (line,) = refusal(BASE, "model.width=5000", "train.dtype=float64", memory=needed)
    assert f"in float64 take {more} bytes" in line


def test_histories_of_solvers_take_memory_too() -> None:
    kinds = ("kind=picard", "kind=newton", "kind=auto", "kind=anderson memory=50")
    options = [["train.dtype=float64", *(f"solver.{each}" for each in kind.split())] for kind in kinds]
    plain, newton, auto, anderson = (spec_bytes(load(BASE, "model.width=500", *each)) for each in options)
    array = 8 * 500 * 20
    assert (newton - plain) // array == 28
    assert (auto - plain) // array == 28
    assert (anderson - plain) // array == 105


def test_a_million_wide_and_a_billion_samples_are_refused_by_this_machine() -> None:
    Path("r.yaml").write_text(BASE)
    with pytest.raises(RecipeRefused, match=rf"take \d+ bytes .*, the device has {machine_memory()} "):
        load_recipe("r.yaml", ["model.width=1000000", "data.num_samples=1000000000"])


OVERRIDES = [
    ("train.learning_rate=1e-3", "learning_rate", 0.001), ("train.learning_rate=010", "learning_rate", 10.0),
    ("train.learning_rate=theorem", "learning_rate", "theorem"), ("train.steps=0x10", "steps", 16),
    ("train={steps: 7}", "steps", 7), ("train.dtype='float64'", "dtype", "float64"),
]  # fmt: skip


@pytest.mark.parametrize(("override", "key", "value"), OVERRIDES)
def test_an_override_reads_yaml_and_may_name_a_section_that_the_file_lacks(
    override: str, key: str, value: object
) -> None:
    assert getattr(load(BASE, override).train, key) == value


def test_an_override_repairs_a_value_of_the_file_and_the_last_one_wins() -> None:
    text = BASE.replace("64", "wide")
    assert load(text, "model.width=8", "model.width=16").model.width == 16
    assert load(text, "model={width: 8}", "model.sigma_w_sq=0.1").model.sigma_w_sq == 0.1
    assert load(BASE, "data.seed=3", "data={kind: digits, num_samples: 4}").data.seed == 0


@pytest.mark.parametrize("recipe", ["", "nope", "nope.yaml", ".", "a\0b", "a" * 5000], ids=range(6))
def test_a_recipe_that_is_not_there_is_refused_with_the_names_there_are(recipe: str) -> None:
    with pytest.raises(Refused) as caught:
        load_recipe(recipe)
    names = ", ".join(shipped_recipes())
    assert "quickstart" in names
    assert str(caught.value) == f"there is no recipe {recipe[:200]!r}: neither a file nor one of {names}"


def test_a_shipped_recipe_is_found_by_name_and_a_file_of_that_name_comes_first() -> None:
    assert load_recipe("quickstart", memory=ENOUGH).name == "quickstart"
    Path("quickstart").write_text(BASE)
    assert load_recipe("quickstart", memory=ENOUGH).name == "base"


SCHEMA = json.loads(json.dumps(recipe_schema()))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
SHIPPED = sorted(shipped_recipes())


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_loads_says_how_to_run_it_meets_the_json_schema_and_survives_its_text(name: str) -> None:
    path, recipe = shipped_recipes()[name], load_recipe(name, memory=ENOUGH)
    assert recipe.name == name
    assert any(name in line for line in header(path))
    VALIDATOR.validate(read_text(path.read_text(encoding="utf-8"), name).value)
    assert load(recipe_text(recipe)) == recipe


def test_every_file_of_the_recipes_folder_was_looked_at() -> None:
    folder = Path(__file__).parent.parent / "recipes"
    assert {path.stem for path in folder.glob("*.yaml")} == set(SHIPPED) != set()


def test_the_json_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


BAD = [
    "name", "data", "model", "extra: 1", "data: 3", "train: {step: 3}", "train: {steps: -1}", "train: {dtype: half}",
    "train: {learning_rate: fast}", "train: {seed: 4294967296}", "solver: {tolerance: 1}", "log: {spectral_every: 0}",
    "train: {tf32: 1}", "solver: {kind: newtn}", "solver: {kind: picard, memory: 3}", "solver: {memory: 3}",
    "sweep: {widths: []}",
]  # fmt: skip


@pytest.mark.parametrize("line", BAD)
def test_the_json_schema_refuses_what_the_loader_refuses_and_misses_what_it_misses(line: str) -> None:
    key = line.split(":")[0]
    text = "\n".join([each for each in BASE.splitlines() if not each.startswith(key)] + [line] * (":" in line))
    assert not VALIDATOR.is_valid(read_text(text, "f").value)
    assert len(refusal(text)) == 1


RESOLVED = {
    "name": "base",
    "data": {"kind": "sphere", "num_samples": 20, "input_dim": 10, "labels": "gaussian", "label_scale": 1.0, "seed": 0},
    "model": {"width": 64, "activation": "relu", "init": "gaussian", "sigma_w_sq": 0.08, "readout_scale": 1.0},
    "solver": {"kind": "continuation", "tolerance": "auto", "max_iterations": 500, "corrections": "auto"},
    "train": {"steps": 1000, "learning_rate": "auto", "dtype": "float32", "tf32": False, "seed": 0},
    "log": {"loss_every": 1, "spectral_every": 20, "checkpoint_every": 200},
}
"""All that the base leaves to defaults, spelled out. A change here renames every run that users have."""


SILENT = {
    "data": {"antipodal": False},
    "model": {
        "injection": "linear", "readout": "gaussian", "skip": False, "parametrisation": "standard", "monotonicity": 0.5,
        "resample": "never", "most_draws": 100,
    },
    "train": {
        "parameters": ["W", "U", "a"], "method": "descent", "flow_tolerance": 1e-5, "momentum": 0.0,
        "schedule": "constant", "decay": 0.1, "decay_every": 100, "warmup": 0, "stop_at_loss": None,
    },
}  # fmt: skip
"""What the name of a run does not have, at its default."""


def test_a_run_is_named_by_the_hash_of_its_resolved_options() -> None:
    assert load(BASE).run().model_dump(mode="json") == {
        name: section | SILENT.get(name, {}) if isinstance(section, dict) else section
        for name, section in RESOLVED.items()
    }
    digest = hashlib.sha256(json.dumps(RESOLVED, sort_keys=True).encode()).hexdigest()
    assert load(BASE).run_id == f"w00064-s000-{digest[:8]}"
    assert load(BASE, "model.width=123456", "train.seed=1234").run_id.startswith("w123456-s1234-")


SPELLINGS = {
    "quotes": BASE.replace("base", '"base"').replace("sphere", "'sphere'"),
    "block style": "name: base\ndata:\n  kind: sphere\n  num_samples: 20\n  input_dim: 10\nmodel:\n  width: 64\n",
    "another order": "model: {width: 64}\ndata: {input_dim: 10, num_samples: 20, kind: sphere}\nname: base\n",
    "json": json.dumps(RESOLVED),
    "comments": "# c\n" + BASE.replace("\n", "  # c\n"),
    "hexadecimal": BASE.replace("64", "0x40").replace("20", "0o24"),
    "leading zeros": BASE.replace("64", "0064"),
    "defaults": BASE + "train: {learning_rate: auto, dtype: float32}\nlog: {}\nsolver: {tolerance: auto}\n",
    "whole numbers for fractions": BASE.replace("64", "64, readout_scale: 1, sigma_w_sq: 8e-2"),
    "a sweep": BASE + "sweep: {widths: [8, 16], seeds: [1, 2]}\n",
    "empty sweep keys": BASE + "sweep: {widths: null, seeds: ~}\n",
    "a byte order mark": "\ufeff" + BASE,
}


@pytest.mark.parametrize("text", SPELLINGS.values(), ids=SPELLINGS)
def test_the_same_options_spelled_otherwise_are_the_same_run(text: str) -> None:
    assert load(text).run_id == load(BASE).run_id
    assert load(text).run() == load(BASE).run()


CHANGES = [
    "name=other", "data.num_samples=21", "data.input_dim=11", "data.labels=signs", "data.label_scale=2", "data.seed=1",
    "model.width=65", "model.sigma_w_sq=0.09", "model.readout_scale=0.5", "solver.tolerance=1e-6",
    "solver.max_iterations=501", "solver.corrections=full", "solver.kind=picard", "train.steps=1001",
    "train.learning_rate=0.1", "train.dtype=float64", "train.tf32=true", "train.seed=1",
    "log.loss_every=2", "log.spectral_every=21", "log.checkpoint_every=201",
]  # fmt: skip
SOLVERS = [
    "solver={kind: picard, tolerance: 1e-3, max_iterations: 9}",
    "solver={kind: anderson, memory: 3, regularisation: 1e-9, mixing: 0.5}",
    "solver={kind: newton, inner_iterations: 7, forcing: 0.3}",
    "solver={kind: auto, corrections: float32}",
]
ONLY_ONE_VALUE = {"model.activation", "model.init"}


def test_another_value_of_any_option_is_another_run() -> None:
    options = {f"{section}.{key}" for section, part in RESOLVED.items() if isinstance(part, dict) for key in part}
    assert {*(each.split("=")[0] for each in CHANGES), *ONLY_ONE_VALUE, "data.kind"} == {"name", *options}
    changes = [*CHANGES, *SOLVERS]
    assert len({load(BASE).hash8, *(load(BASE, each).hash8 for each in changes)}) == 1 + len(changes) == 26


def test_a_cell_is_the_run_of_a_recipe_with_that_width_and_seed() -> None:
    cells = load(BASE, "sweep={widths: [32, 16], seeds: [5, 3]}").cells()
    assert [(cell.model.width, cell.train.seed) for cell in cells] == [(16, 3), (16, 5), (32, 3), (32, 5)]
    alone = [load(BASE, f"model.width={m}", f"train.seed={s}").run_id for m, s in ((16, 3), (16, 5), (32, 3), (32, 5))]
    assert [cell.run_id for cell in cells] == alone
    assert load(BASE, "sweep={widths: [32, 16], seeds: [5, 3]}").sweep_id == (
        load(BASE, "model.width=7", "sweep={seeds: [3, 5], widths: [16, 32]}").sweep_id
    )
    assert load(BASE, "sweep.widths=[32]").sweep_id != load(BASE, "sweep.widths=[33]").sweep_id
    assert [cell.run_id for cell in load(BASE).cells()] == [load(BASE).run_id]


EVERYTHING = [
    "train={steps: 3, learning_rate: 1e-3, dtype: float64, tf32: false, seed: 7}",
    "solver={kind: continuation, tolerance: 1e-10, max_iterations: 9, corrections: full}",
    "log={loss_every: 2, spectral_every: 3, checkpoint_every: 4}",
    "model={width: 12, sigma_w_sq: 0.1, readout_scale: 1e-300}",
    "data={kind: digits, num_samples: 9, classes: [3, 5, 8], labels: gaussian, label_scale: 1e22, seed: 2}",
    "sweep={widths: [4, 2], seeds: [9]}",
]


NAMES = ["5", "1e3", "010", "0x1f", "0o17", "null", "true", "yes", "1.5", "2024-01-01", "1_0"]
RATES = [5e-324, 1e-300, 1e-5, 0.1 + 0.2, 1 / 3, 123456789.0, 1e16, 1e22, 3.4028234663852886e38]
SPELLED = [*(f"name='{name}'" for name in NAMES), *(f"train.learning_rate={rate!r}" for rate in RATES)]


@pytest.mark.parametrize(
    "overrides",
    [[], EVERYTHING, *([each] for each in (*CHANGES, *SOLVERS, *SPELLED))],
    ids=lambda each: "; ".join(each),
)
def test_the_text_of_a_recipe_is_a_recipe_of_the_same_run(overrides: list[str]) -> None:
    recipe = load(BASE, *overrides)
    again, run = load(recipe_text(recipe)), load(recipe_text(recipe.run()))
    assert again == recipe
    assert again.run_id == run.run_id == recipe.run_id
    assert again.sweep_id == recipe.sweep_id
    assert recipe_text(again) == recipe_text(recipe)
