"""Data sets: what is drawn or read, and every refusal in exact words."""

import gc
import io
import json
import os
import pickle
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn.datasets import load_digits

from deqcli.data.dataset import Dataset, make_dataset
from deqcli.data.files import file_sha256
from deqcli.data.kinds import DIGITS_PER_CLASS, Digits, File, Sphere
from deqcli.data.pairs import PARALLEL_BELOW
from deqcli.errors import RecipeRefused, Refused
from deqcli.recipe.loading import load_recipe
from deqcli.recipe.schema import Recipe
from deqcli.runs.files import recipe_text


def sphere(**options: object) -> Dataset:
    return Sphere.model_validate({"kind": "sphere", "num_samples": 40, "input_dim": 6, **options}).load()


def digits(**options: object) -> Dataset:
    return Digits.model_validate({"kind": "digits", "num_samples": 40, **options}).load()


def read(path: Path, **options: object) -> Dataset:
    return File.model_validate({"kind": "file", "path": str(path), **options}).load()


def refusal(path: Path, **options: object) -> str:
    """What reading the file is refused with; every message begins with the file."""
    with pytest.raises(Refused) as caught:
        read(path, **options)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    return text.removeprefix(f"{path}: ")


# Samples on the sphere


@pytest.mark.parametrize("input_dim", [2, 3, 17, 1000])
def test_every_sample_has_norm_sqrt_d(input_dim: int) -> None:
    data = sphere(input_dim=input_dim)
    assert (data.num_samples, data.input_dim) == (40, input_dim)
    assert data.X.shape == (input_dim, 40)
    assert data.X.dtype == data.y.dtype == np.float64
    np.testing.assert_allclose(np.linalg.norm(data.X, axis=0), np.sqrt(input_dim), rtol=1e-14)


def test_samples_are_uniform_on_the_sphere() -> None:
    X = sphere(num_samples=4000, input_dim=5).X
    np.testing.assert_allclose(X.mean(axis=1), 0, atol=5 / np.sqrt(4000))
    np.testing.assert_allclose(X @ X.T / 4000, np.eye(5), atol=0.1)
    # (1 + X_i / sqrt(d)) / 2 is Beta((d - 1)/2, (d - 1)/2) on the sphere of R^d
    for row in X:
        assert stats.kstest((1 + row / np.sqrt(5)) / 2, stats.beta(2, 2).cdf).pvalue > 1e-3
    assert stats.kstest(X[0], stats.norm().cdf).pvalue < 1e-3  # what a forgotten scaling would leave


def test_labels_follow_their_law() -> None:
    gaussian, uniform, signs = (
        sphere(num_samples=3000, input_dim=3, labels=labels).y for labels in ("gaussian", "uniform", "signs")
    )
    assert stats.kstest(gaussian, stats.norm().cdf).pvalue > 0.01
    assert stats.kstest(uniform, stats.uniform(-1, 2).cdf).pvalue > 0.01
    assert set(signs) == {-1.0, 1.0}
    assert stats.binomtest(int(np.sum(signs > 0)), 3000).pvalue > 0.01


def test_labels_do_not_depend_on_the_samples() -> None:
    data = sphere(num_samples=3000, input_dim=4)
    assert np.abs(data.X @ data.y / 3000).max() < 4 / np.sqrt(3000)


@pytest.mark.parametrize("labels", ["gaussian", "uniform", "signs"])
def test_the_kind_of_labels_and_their_scale_leave_the_samples_alone(labels: str) -> None:
    data, scaled = sphere(labels=labels), sphere(labels=labels, label_scale=0.25)
    np.testing.assert_array_equal(data.X, sphere().X)
    np.testing.assert_array_equal(scaled.X, data.X)
    np.testing.assert_array_equal(scaled.y, 0.25 * data.y)


def test_the_same_options_give_the_same_data_and_another_seed_gives_other_data() -> None:
    first, again, other = sphere(seed=3), sphere(seed=3), sphere(seed=4)
    np.testing.assert_array_equal(first.X, again.X)
    np.testing.assert_array_equal(first.y, again.y)
    assert (first.X != other.X).all()
    assert (first.y != other.y).all()


def test_numbers_of_a_seed_have_not_drifted() -> None:
    data = sphere(num_samples=2, input_dim=2, seed=0)
    golden = [[1.1020678340488894, -0.678181923739596], [-0.886254189922276, 1.2409952773128754]]
    np.testing.assert_allclose(data.X, golden, rtol=1e-12)
    np.testing.assert_allclose(data.y, [1.3525032821963137, -1.212434237513204], rtol=1e-12)


# Digits


def images_in(data: Dataset) -> list[int]:
    """The index of the real image that each sample is a multiple of; it is found, and there is only one."""
    images, _ = load_digits(return_X_y=True)
    directions = images / np.linalg.norm(images, axis=1, keepdims=True)
    cosines = (data.X.T / 8) @ directions.T  # (n, 1797)
    assert (np.sum(cosines > 1 - 1e-12, axis=1) == 1).all()
    return cosines.argmax(axis=1).tolist()


@pytest.mark.parametrize(("classes", "num_samples"), [((0, 1), 2), ((1, 0), 99), ((3, 8), 100), ((9, 4), 340)])
def test_digits_are_distinct_images_with_the_label_of_their_class(classes: tuple[int, int], num_samples: int) -> None:
    data = digits(classes=list(classes), num_samples=num_samples, seed=1)
    found = images_in(data)
    assert data.X.shape == (64, num_samples)
    assert len(set(found)) == num_samples
    label = {classes[0]: -1.0, classes[1]: 1.0}
    assert [label[int(digit)] for digit in load_digits(return_X_y=True)[1][found]] == data.y.tolist()
    np.testing.assert_allclose(np.linalg.norm(data.X, axis=0), 8, rtol=1e-14)


@pytest.mark.parametrize(
    ("num_samples", "counts"), [(2, (1, 1)), (3, (2, 1)), (100, (50, 50)), (101, (51, 50)), (358, (178, 180))]
)
def test_classes_take_turns_as_long_as_they_last(num_samples: int, counts: tuple[int, int]) -> None:
    y = digits(num_samples=num_samples).y
    assert (np.sum(y == -1.0), np.sum(y == 1.0)) == counts


def test_all_images_of_two_classes_can_be_asked_for_with_pixels_that_never_change() -> None:
    data = digits(num_samples=360)
    assert sorted(images_in(data)) == np.flatnonzero(load_digits(return_X_y=True)[1] < 2).tolist()
    assert (data.X == 0).all(axis=1).any()


def test_all_ten_classes_are_drawn_evenly_and_satisfy_assumption_2() -> None:
    images, classes = load_digits(return_X_y=True)
    assert tuple(np.bincount(classes)) == DIGITS_PER_CLASS
    assert images.shape == (sum(DIGITS_PER_CLASS), 64) == (1797, 64)
    everything = digits(classes=list(range(10)), labels="gaussian", num_samples=1797)
    assert sorted(images_in(everything)) == list(range(1797))
    assert stats.kstest(everything.y, stats.norm().cdf).pvalue > 0.01
    some = images_in(digits(classes=list(range(10)), labels="gaussian", num_samples=55))
    assert np.bincount(classes[some]).tolist() == [6] * 5 + [5] * 5


def test_a_seed_decides_which_digits_are_drawn_and_the_scale_their_labels() -> None:
    first, again, other = digits(seed=3), digits(seed=3), digits(seed=4)
    np.testing.assert_array_equal(first.X, again.X)
    np.testing.assert_array_equal(first.y, again.y)
    assert set(images_in(first)) != set(images_in(other))
    np.testing.assert_array_equal(digits(seed=3, label_scale=0.5).y, 0.5 * first.y)
    np.testing.assert_array_equal(digits(seed=3, labels="gaussian").X, first.X)


# Assumption 2


ROWS = np.array([[3.0, 4.0, 0.0], [1.0, 0.0, 0.0], [0.0, -2.0, 2.0]])
LABELS = np.array([1.0, -2.0, 3.0])


def changed(row: int, values: object) -> np.ndarray:
    rows = ROWS.copy()
    rows[row] = values
    return rows


NOT_FINITE, LABEL = "holds NaN or infinity", "times data.label_scale, is NaN or infinite"
ZERO = "is zero and cannot be scaled to norm sqrt(d)"
PARALLEL, CLOSE = "are parallel", "to within 1e-06 radians, which Assumption 2 excludes"
OPPOSITE = (
    f"{PARALLEL} (of opposite sign) {CLOSE}: with an odd activation (tanh, sin, erf, identity) lambda_* is exactly 0 "
    "for it; data.antipodal: true accepts it"
)
BAD_ROWS = {
    "NaN": (changed(1, [0, np.nan, 0]), f"row 1 {NOT_FINITE}"),
    "infinity": (changed(2, [0, -np.inf, 0]), f"row 2 {NOT_FINITE}"),
    "all NaN": (ROWS * np.nan, f"row 0 {NOT_FINITE} (and 2 more rows)"),
    "a zero row": (changed(1, 0), f"row 1 {ZERO}"),
    "zero rows": (ROWS * [[0], [1], [0]], f"row 0 {ZERO} (and 1 more rows)"),
    "a row twice": (changed(2, ROWS[1]), f"row 1 and row 2 {PARALLEL} {CLOSE}"),
    "a scaled row": (changed(2, 7e-9 * ROWS[0]), f"row 0 and row 2 {PARALLEL} {CLOSE}"),
    "an opposite row": (changed(2, -1e200 * ROWS[0]), f"row 0 and row 2 {OPPOSITE}"),
    "all the same": (np.ones((3, 3)), f"row 0 and row 1 {PARALLEL} {CLOSE}"),
    "one dimension": (ROWS[:, :1] + 1, f"row 0 and row 1 {PARALLEL} {CLOSE}"),
}


@pytest.mark.parametrize(("rows", "message"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_samples_against_assumption_2_are_refused_by_row(rows: np.ndarray, message: str) -> None:
    with pytest.raises(Refused) as caught:
        make_dataset(rows, LABELS, "here")
    assert str(caught.value) == f"here: {message}"


@pytest.mark.parametrize("scale", [5e-324, 1e-310, 1e-30, 1.0, 1e30, 1e300])
def test_rows_of_any_scale_become_the_same_samples(scale: float) -> None:
    rows = np.array([[scale, scale, 0.0], [0.0, 0.0, -1.0]])
    data = make_dataset(rows, LABELS[:2], "here")
    np.testing.assert_allclose(data.X.T, np.sqrt(3) * np.array([[0.5**0.5, 0.5**0.5, 0], [0, 0, -1]]), rtol=1e-15)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_directions_just_apart_are_kept_and_just_too_close_refused(sign: float) -> None:
    def rows(angle: float) -> np.ndarray:
        return np.array([[1.0, 0.0], [sign * np.cos(angle), sign * np.sin(angle)]])

    kept = make_dataset(rows(1.1 * PARALLEL_BELOW), LABELS[:2], "here")
    assert (kept.X[:, 0] != sign * kept.X[:, 1]).any()
    with pytest.raises(Refused, match="row 0 and row 1 are parallel"):
        make_dataset(rows(0.9 * PARALLEL_BELOW), LABELS[:2], "here")


def test_antipodal_pairs_are_accepted_on_purpose_and_equal_rows_never() -> None:
    rows = np.concatenate([ROWS, -2 * ROWS])
    kept = make_dataset(rows, np.arange(6.0), "here", antipodal=True)
    np.testing.assert_array_equal(kept.X[:, :3], -kept.X[:, 3:])
    with pytest.raises(Refused, match=re.escape(f"here: row 0 and row 3 {OPPOSITE}")):
        make_dataset(rows, np.arange(6.0), "here")
    with pytest.raises(Refused, match=f"here: row 1 and row 6 {PARALLEL} {CLOSE}$"):  # behind three pairs that are kept
        make_dataset(np.concatenate([rows, 3 * ROWS[1:2]]), np.arange(7.0), "here", antipodal=True)


def test_the_key_for_antipodal_pairs_names_a_run_only_where_it_is_set(tmp_path: Path) -> None:
    path = npz(tmp_path, X=np.concatenate([ROWS, -ROWS]), y=np.arange(6.0))
    plain, set_ = (recipe(tmp_path, f"path: {path}{more}") for more in ("", ", antipodal: true"))
    assert "antipodal" not in plain.data.identity()
    assert plain.run_id == recipe(tmp_path, f"path: {path}, antipodal: false").run_id != set_.run_id
    assert (plain.data.antipodal, set_.data.load().num_samples) == (False, 6)
    with pytest.raises(Refused, match=re.escape(f"row 0 and row 3 {OPPOSITE}")):
        plain.data.load()


def test_runs_keep_the_names_that_they_had_before_the_key() -> None:
    assert load_recipe("quickstart", (), 10**12).run_id == "w00250-s000-9d956ad2"
    assert load_recipe("theorem-1", (), 10**12).run_id == "w02000-s000-3a1ccb56"


# Files


def npz(folder: Path, name: str = "data.npz", **arrays: object) -> Path:
    path = folder / name
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def csv(folder: Path, text: str | bytes, name: str = "data.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


EXPECTED = make_dataset(ROWS, LABELS, "expected")


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", ">f8", "i1", "i8", ">i4"])
def test_an_npz_of_any_real_type_is_read(tmp_path: Path, dtype: str) -> None:
    data = read(npz(tmp_path, X=ROWS.astype(dtype), y=LABELS.astype(dtype), other="ignored"))
    np.testing.assert_array_equal(data.X, EXPECTED.X)
    np.testing.assert_array_equal(data.y, LABELS)
    assert data.X.dtype == data.y.dtype == np.float64


def test_an_npz_in_fortran_order_compressed_and_behind_a_link_is_read(tmp_path: Path) -> None:
    with (tmp_path / "blob").open("wb") as file:
        np.savez_compressed(file, X=np.asfortranarray(ROWS), y=LABELS)
    (tmp_path / "data.npz").symlink_to("blob")
    np.testing.assert_array_equal(read(tmp_path / "data.npz").X, EXPECTED.X)


CSVS = {
    "plain": "a,b,c,y\n3,4,0,1\n1,0,0,-2\n0,-2,2,3\n",
    "label first": "y,a,b,c\n1,3,4,0\n-2,1,0,0\n3,0,-2,2\n",
    "label between": "a,y,b,c\n3,1,4,0\n1,-2,0,0\n0,3,-2,2\n",
    "floats": "a,b,c,y\n3.0,4e0,0.,1\n+1,-0,.0,-2E+0\n0,-20e-1,2,3\n",
    "windows": "a,b,c,y\r\n3,4,0,1\r\n1,0,0,-2\r\n0,-2,2,3\r\n",
    "quotes": '"a","b","c","y"\n"3","4","0","1"\n1,0,0,-2\n0,-2,2,3\n',
    "no last newline": "a,b,c,y\n3,4,0,1\n1,0,0,-2\n0,-2,2,3",
    "byte order mark": "\ufeffy,a,b,c\n1,3,4,0\n-2,1,0,0\n3,0,-2,2\n",
    "spaces": "a,b,c,y\n3, 4,0 ,1\n1,0,0,-2\n0,-2,2,3\n",
    "blank lines": "a,b,c,y\n\n3,4,0,1\n1,0,0,-2\n\n\n0,-2,2,3\n\n",
}


@pytest.mark.parametrize("text", CSVS.values(), ids=CSVS)
def test_a_csv_is_read_with_its_label_column_by_name(tmp_path: Path, text: str) -> None:
    data = read(csv(tmp_path, text))
    np.testing.assert_array_equal(data.X, EXPECTED.X)
    np.testing.assert_array_equal(data.y, LABELS)


def test_every_digit_of_a_csv_is_read_and_its_label_column_may_have_any_name(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    y = (generator.standard_normal(2000) * 10.0 ** generator.integers(-300, 300, 2000)).tolist()
    rows = [f"{np.cos(k / 700)},{np.sin(k / 700)},{label!r}" for k, label in enumerate(y)]
    path = csv(tmp_path, "\n".join(["a,y,température", *rows]))
    assert read(path, label_column="température").y.tolist() == y


@pytest.mark.parametrize("kind", ["npz", "csv"])
def test_num_samples_takes_the_first_rows_and_label_scale_their_labels(tmp_path: Path, kind: str) -> None:
    path = npz(tmp_path, X=ROWS, y=LABELS) if kind == "npz" else csv(tmp_path, CSVS["plain"])
    data = read(path, num_samples=2, label_scale=0.5)
    np.testing.assert_array_equal(data.X, EXPECTED.X[:, :2])
    np.testing.assert_array_equal(data.y, 0.5 * LABELS[:2])
    assert refusal(path, num_samples=4) == "data.num_samples asks for 4 samples, the file has 3"


def test_a_label_that_overflows_by_its_scale_is_refused(tmp_path: Path) -> None:
    path = npz(tmp_path, X=ROWS, y=LABELS * [1, 1e300, 1])
    assert refusal(path, label_scale=1e300) == f"the label of row 1, {LABEL}"


def test_rows_beyond_num_samples_need_not_satisfy_assumption_2(tmp_path: Path) -> None:
    path = npz(tmp_path, X=changed(2, 0), y=LABELS)
    assert read(path, num_samples=2).num_samples == 2
    assert refusal(path) == f"row 2 {ZERO}"


NPZ = "not an NPZ file with plain arrays X and y"
SHAPES = "X must be (num_samples, input_dim) and y (num_samples,), got"
TYPES = "X and y must hold real numbers, got"
BAD_NPZ: dict[str, tuple[dict[str, object], str]] = {
    "no y": ({"X": ROWS}, f"{NPZ} ('y is not a file in the archive')"),
    "small x": ({"x": ROWS, "y": LABELS}, f"{NPZ} ('X is not a file in the archive')"),
    "fewer labels": ({"X": ROWS, "y": LABELS[:2]}, f"{SHAPES} (3, 3) and (2,)"),
    "labels as a column": ({"X": ROWS, "y": LABELS[:, None]}, f"{SHAPES} (3, 3) and (3, 1)"),
    "one row flat": ({"X": ROWS[0], "y": LABELS[:1]}, f"{SHAPES} (3,) and (1,)"),
    "images": ({"X": ROWS[:, None], "y": LABELS}, f"{SHAPES} (3, 1, 3) and (3,)"),
    "no rows": ({"X": ROWS[:0], "y": LABELS[:0]}, f"{SHAPES} (0, 3) and (0,)"),
    "no columns": ({"X": ROWS[:, :0], "y": LABELS}, f"{SHAPES} (3, 0) and (3,)"),
    "a number": ({"X": 3.0, "y": LABELS}, f"{SHAPES} () and (3,)"),
    "complex": ({"X": ROWS * 1j, "y": LABELS}, f"{TYPES} complex128 and float64"),
    "booleans": ({"X": ROWS, "y": LABELS > 0}, f"{TYPES} float64 and bool"),
    "text": ({"X": ROWS.astype("U4"), "y": LABELS}, f"{TYPES} <U4 and float64"),
    "dates": ({"X": ROWS, "y": LABELS.astype("M8[s]")}, f"{TYPES} float64 and datetime64[s]"),
    "NaN label": ({"X": ROWS, "y": LABELS * [1, 1, np.nan]}, f"the label of row 2, {LABEL}"),
    "infinite labels": (
        {"X": ROWS, "y": LABELS * [1, np.inf, -np.inf]},
        f"the label of row 1, {LABEL} (and 1 more rows)",
    ),
    "beyond float64": ({"X": ROWS * np.longdouble("1e4000"), "y": LABELS}, f"row 0 {NOT_FINITE} (and 2 more rows)"),
}


@pytest.mark.parametrize(("arrays", "message"), BAD_NPZ.values(), ids=BAD_NPZ)
def test_an_npz_that_holds_something_else_is_refused(tmp_path: Path, arrays: dict[str, object], message: str) -> None:
    assert refusal(npz(tmp_path, "a{}{b}{.npz", **arrays)) == message


def npy(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def zipped(**members: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, member in members.items():
            archive.writestr(f"{name}.npy", member)
    return content.getvalue()


def with_header(header: str, body: bytes = bytes(72)) -> bytes:
    """An NPZ file whose X begins with this header."""
    member = np.lib.format.magic(1, 0) + (len(header) + 1).to_bytes(2, "little") + header.encode() + b"\n" + body
    return zipped(X=member, y=npy(LABELS))


SHAPE = "{{'descr': '<f8', 'fortran_order': False, 'shape': {}, }}"
NO_NPZ = {
    "empty": b"",
    "text": b"a,b,y\n1,2,3\n",
    "the beginning of an npy": b"\x93NUMPY",
    "an npy": npy(ROWS),
    "zeros": bytes(100),
    "cut short": zipped(X=npy(ROWS), y=npy(LABELS))[:100],
    "a member that is text": zipped(X=b"abc", y=npy(LABELS)),
    "petabytes": with_header(SHAPE.format((10**12, 1000))),
    "a size beyond 64 bits": with_header(SHAPE.format((10**30,))),
    "a shape of booleans": with_header(SHAPE.format((True, True))),
    "a negative shape": with_header(SHAPE.format((-1, 3))),
    "less than its shape": with_header(SHAPE.format((3, 4))),
    "a header of brackets": with_header("(" * 9000),
    "a header of signs": with_header("-" * 9000 + "1"),
    "a header beyond the limit": with_header(" " * 20_000),
}


@pytest.mark.parametrize("content", NO_NPZ.values(), ids=NO_NPZ)
def test_bytes_that_are_no_npz_are_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    text = refusal(csv(tmp_path, content, "data.npz"))
    assert text.startswith((f"{NPZ} (", SHAPES, TYPES))
    assert text.isprintable()
    assert len(text) < 300


def test_an_npz_that_was_refused_does_not_stay_open(tmp_path: Path) -> None:
    refusal(csv(tmp_path, NO_NPZ["cut short"], "data.npz"))
    gc.collect()  # which would find the file, and warn


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_in_an_npz_is_refused_and_not_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    path = npz(tmp_path, X=np.array([[Payload(ran)]], dtype=object), y=LABELS[:1])
    assert refusal(path) == f"{NPZ} (it holds Python objects)"
    bare = csv(tmp_path, pickle.dumps(Payload(ran)), "bare.npz")
    assert refusal(bare).startswith(f"{NPZ} (it holds Python objects)")
    member = zipped(X=np.lib.format.magic(1, 0) + pickle.dumps(Payload(ran)))
    assert refusal(csv(tmp_path, member, "member.npz")).startswith(f"{NPZ} (")
    assert not ran.exists()
    pickle.loads(pickle.dumps(Payload(ran)))  # noqa: S301 - the payload works
    assert ran.exists()


NO_Y = "has no column 'y' for data.label_column; it has"
NO_ROWS = "needs at least one row and one column beside 'y'"
BAD_CSV = {
    "no label column": ("a,b\n1,2\n", f"{NO_Y} 'a', 'b'"),
    "semicolons": ("a;b;y\n1;2;3\n", f"{NO_Y} 'a;b;y'"),
    "no header": ("1,2,3\n4,5,6\n", f"{NO_Y} '1', '2', '3'"),
    "an unprintable header": ("a\x1b[31m,b\n1,2\n", f"{NO_Y} 'a\\x1b[31m', 'b'"),
    "empty": ("", f"{NO_Y} no header"),
    "no rows": ("a,b,y\n", NO_ROWS),
    "labels alone": ("y\n1\n2\n", NO_ROWS),
    "labels twice": ("a,b,y,y\n1,0,1,5\n0,1,2,7\n", "has the column 'y' twice"),
    "a column twice": ("a,a,y\n1,0,1\n0,1,2\n", "has the column 'a' twice"),
    "a long row": ("a,b,y\n1,0,1\n0,1,2,9\n", "line 3 has 4 fields, the header has 3"),
    "long rows": ("a,b,y\n1,0,1,9\n0,1,2,9\n", "line 2 has 4 fields, the header has 3"),
    "a comma at the end": ("a,b,y\n1,0,1,\n0,1,2,\n", "line 2 has 4 fields, the header has 3"),
    "a short row": ("a,b,y\n1,2,3\n1,2\n", "line 3 has 2 fields, the header has 3"),
    "text behind blank lines": ("a,b,y\n\n1,2,3\n\n1,two,3\n", "line 5, column 'b' is not a number: 'two'"),
    "text behind a line break": ('"a\n",b,y\n1,2,3\n1,two,3\n', "line 4, column 'b' is not a number: 'two'"),
    "a text label": ("a,b,y\n1,2,cat\n", "line 2, column 'y' is not a number: 'cat'"),
    "an endless field": (f"a,b,y\n1,{'1' * 140_000},3\n", "not a CSV file (field larger than field limit (131072))"),
    "NaN": ("a,b,y\n1,nan,3\n", f"row 0 (line 2) {NOT_FINITE}"),
    "infinity": ("a,b,y\n1,2,3\n1,-inf,3\n", f"row 1 (line 3) {NOT_FINITE}"),
    "beyond float64": ("a,b,y\n1,1e400,3\n", f"row 0 (line 2) {NOT_FINITE}"),
    "a NaN label": ("a,b,y\n1,2,NaN\n", f"the label of row 0 (line 2), {LABEL}"),
    "a zero row": ("a,b,y\n1,2,3\n\n0,-0.0,3\n", f"row 1 (line 4) {ZERO}"),
    "parallel rows": ("y,a\n1,2\n\n3,-2\n", f"row 0 (line 2) and row 1 (line 4) {OPPOSITE}"),
}


@pytest.mark.parametrize(("text", "message"), BAD_CSV.values(), ids=BAD_CSV)
def test_a_csv_that_holds_something_else_is_refused(tmp_path: Path, text: str, message: str) -> None:
    assert refusal(csv(tmp_path, text)) == message


@pytest.mark.parametrize("cell", ["", "NA", "two", "True", "0x10", "1,000", "=1+1", "1j", "\x1b[31m", "z" * 9999])
def test_a_cell_that_is_no_number_is_shown_with_its_line_and_column(tmp_path: Path, cell: str) -> None:
    path = csv(tmp_path, f'a,b,y\n1,2,3\n1,"{cell}",3\n')
    assert refusal(path) == f"line 3, column 'b' is not a number: {cell[:200]!r}"


# Files in a recipe


def recipe(folder: Path, data: str, *overrides: str) -> Recipe:
    path = folder / "r.yaml"
    path.write_text(f"name: files\ndata: {{kind: file, {data}}}\nmodel: {{width: 8}}\n", encoding="utf-8")
    return load_recipe(str(path), overrides, 10**12)


def recipe_refusal(folder: Path, data: str) -> str:
    with pytest.raises(RecipeRefused) as caught:
        recipe(folder, data)
    line, count = str(caught.value).split("\n")
    assert count == "1 error; nothing was run."
    return line.removeprefix(f"{folder / 'r.yaml'}:")


def test_a_path_is_looked_for_beside_the_recipe_then_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    here = npz(Path.cwd(), X=ROWS, y=LABELS)
    assert recipe(tmp_path, "path: data.npz").data.path == str(here)
    beside = npz(tmp_path, X=ROWS, y=2 * LABELS)
    assert recipe(tmp_path, "path: data.npz").data.path == str(beside)
    assert recipe(tmp_path, "path: ./elsewhere/../elsewhere/data.npz").data.path == str(here)
    assert recipe(tmp_path, f"path: {here}").data.path == str(here)


LOOKED = "looked beside the recipe and in the working folder"
NOT_THERE = [
    ("path: nope.npz", f"2:26: data.path: there is no file 'nope.npz'; {LOOKED}"),
    ("path: folder.csv", f"2:26: data.path: there is no file 'folder.csv'; {LOOKED}"),
    ('path: "\\e[31m\\0.csv"', f"2:26: data.path: there is no file '\\x1b[31m\\x00.csv'; {LOOKED}"),
    ("path: /no/such.csv", "2:26: data.path: there is no file '/no/such.csv'"),
    ("path: data.xlsx", "2:26: data.path: must be an .npz or a .csv file, got 'data.xlsx'"),
    ("path: data", "2:26: data.path: must be an .npz or a .csv file, got 'data'"),
    ("path: 5", "2:26: data.path must be text, got 5"),
    ("label_column: y", "2:1: data.path is missing; it must be text"),
]


@pytest.mark.parametrize(("data", "message"), NOT_THERE)
def test_a_file_that_is_not_there_is_a_mistake_of_the_recipe(tmp_path: Path, data: str, message: str) -> None:
    (tmp_path / "folder.csv").mkdir()
    assert recipe_refusal(tmp_path, data) == message


def test_the_hash_of_a_file_is_filled_in_and_checked(tmp_path: Path) -> None:
    found = file_sha256(npz(tmp_path, X=ROWS, y=LABELS))
    assert len(found) == 64
    for given in ("", ", sha256: null", f", sha256: {found}", f", sha256: {found.upper()}"):
        assert recipe(tmp_path, f"path: data.npz{given}").data.sha256 == found
    expected = f"2:44: data.sha256: must be that of the file, {found}"
    assert recipe_refusal(tmp_path, f"path: data.npz, sha256: {'0' * 63}f") == expected
    expected = "2:44: data.sha256 must be text or `null` (default null), got 5"
    assert recipe_refusal(tmp_path, "path: data.npz, sha256: 5") == expected


def test_a_file_that_is_changed_or_gone_after_its_hash_was_taken_is_refused(tmp_path: Path) -> None:
    data = recipe(tmp_path, f"path: {npz(tmp_path, X=ROWS, y=LABELS).name}").data
    path = npz(tmp_path, X=ROWS, y=5 * LABELS)
    for _ in range(2):
        with pytest.raises(Refused) as caught:
            data.load()
        assert str(caught.value) == f"{path} has changed since the recipe was read"
        path.unlink(missing_ok=True)


def test_a_file_that_may_not_be_read_is_a_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    npz(tmp_path, X=ROWS, y=LABELS)
    monkeypatch.setattr("deqcli.data.kind.file_sha256", deny)
    assert recipe_refusal(tmp_path, "path: data.npz").endswith("the file cannot be read: Permission denied")


def test_a_refusal_of_memory_names_no_sizes_that_only_the_file_knows(tmp_path: Path) -> None:
    npz(tmp_path, X=ROWS, y=LABELS)
    with pytest.raises(RecipeRefused, match=r"model\.width: width 1000000 in float32 take \d+ bytes"):
        recipe(tmp_path, "path: data.npz", "model.width=1000000")


@pytest.mark.parametrize("column", ["\x85", "\u2028", "a\nb", " y ", "'", "5", "~", "a: b", "# y"])
def test_a_link_and_any_label_column_survive_the_text_of_the_recipe(tmp_path: Path, column: str) -> None:
    npz(tmp_path, X=ROWS, y=LABELS).rename(tmp_path / "blob")
    (tmp_path / "data.npz").symlink_to("blob")
    loaded = recipe(tmp_path, f"path: data.npz, label_column: {json.dumps(column)}")
    assert (loaded.data.path, loaded.data.label_column) == (str(tmp_path / "data.npz"), column)
    (tmp_path / "again.yaml").write_text(recipe_text(loaded), encoding="utf-8")
    assert load_recipe(str(tmp_path / "again.yaml"), (), 10**12) == loaded


def test_a_run_is_named_by_the_content_of_its_file_and_its_options_but_not_by_its_place(tmp_path: Path) -> None:
    path = npz(tmp_path, X=ROWS, y=LABELS)
    run_id = recipe(tmp_path, "path: data.npz").run_id
    assert recipe(tmp_path, "path: data.npz, num_samples: 2").run_id != run_id
    assert recipe(tmp_path, "path: data.npz, label_scale: 2").run_id != run_id
    (tmp_path / "elsewhere").mkdir()
    moved = path.rename(tmp_path / "elsewhere" / "moved.npz")
    assert recipe(tmp_path, f"path: {moved}").run_id == run_id
    assert recipe(tmp_path, f"path: elsewhere/moved.npz, sha256: {file_sha256(moved)}").run_id == run_id
    npz(moved.parent, "moved.npz", X=ROWS, y=LABELS + 1)
    assert recipe(tmp_path, f"path: {moved}").run_id != run_id
