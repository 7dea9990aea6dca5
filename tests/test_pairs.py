"""How close samples come to being parallel: angles against arccos, near pairs counted, and check-init's report."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import deqcli.data.pairs as module
from deqcli.cli.main import app
from deqcli.data.pairs import MOST_LISTED, NEAR_PARALLEL_BELOW, Pair, closeness

NARROW, NARROWER = 0.03, 2e-5


def samples(n: int, d: int, seed: int = 0) -> np.ndarray:
    X = np.random.default_rng(seed).standard_normal((d, n))
    return X * np.sqrt(d) / np.linalg.norm(X, axis=0)


def brute_force(X: np.ndarray) -> dict[tuple[int, int], tuple[float, bool]]:
    """Every pair i < j with its angle by arctan2 of sine and cosine, and whether it is opposite."""
    found = {}
    for i in range(X.shape[1]):
        for j in range(i + 1, X.shape[1]):
            a, b = (X[:, k] / np.linalg.norm(X[:, k]) for k in (i, j))
            sine = np.linalg.norm(a - (a @ b) * b)
            found[i, j] = (float(np.arctan2(sine, abs(a @ b))), bool(a @ b < 0))
    return found


def turned(X: np.ndarray, sample: int, angle: float, sign: float = 1.0) -> np.ndarray:
    """`sample` turned by an angle, to either sign, as one more column."""
    x = X[:, sample] / np.linalg.norm(X[:, sample])
    other = np.eye(len(X))[0] - x[0] * x
    new = np.cos(angle) * x + np.sin(angle) * other / np.linalg.norm(other)
    return np.column_stack([X, sign * np.linalg.norm(X[:, sample]) * new])


@pytest.mark.parametrize("rows", [1024, 7])
def test_the_closest_pair_is_that_of_all_pairs(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS_PER_BLOCK", rows)
    for n, d in ((2, 3), (20, 10), (40, 30)):
        X = samples(n, d, seed=n)
        pairs = brute_force(X)
        nearest = min(pairs, key=lambda pair: pairs[pair][0])
        found = closeness(X).closest
        assert found is not None
        assert (found.sample, found.other, found.opposite) == (*nearest, pairs[nearest][1])
        assert found.angle == pytest.approx(pairs[nearest][0], rel=1e-12)


@pytest.mark.parametrize("rows", [1024, 7])
def test_near_parallel_pairs_are_counted_and_listed_from_the_closest(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROWS_PER_BLOCK", rows)
    X = samples(20, 40)
    for sample, angle, sign in ((3, NARROW, 1.0), (11, NARROWER, -1.0), (5, 0.099, 1.0), (6, 0.101, 1.0)):
        X = turned(X, sample, angle, sign)
    found = closeness(X)
    assert found.near_parallel == 3 == len(found.listed)
    assert found.closest == found.listed[0]
    assert [pair[:2] for pair in found.listed] == [(11, 21), (3, 20), (5, 22)]
    assert [pair.opposite for pair in found.listed] == [True, False, False]
    assert [pair.angle for pair in found.listed] == pytest.approx([NARROWER, NARROW, 0.099], rel=1e-10)


def test_more_near_pairs_than_are_listed_are_counted_all() -> None:
    x = samples(1, 30)
    X = x + 1e-3 * samples(40, 30, seed=1)
    angles = sorted(angle for angle, _ in brute_force(X).values())
    found = closeness(X)
    assert len(angles) == 780 == found.near_parallel
    assert len(found.listed) == MOST_LISTED
    assert [pair.angle for pair in found.listed] == pytest.approx(angles[:MOST_LISTED], rel=1e-9)


def test_a_single_sample_has_no_pair() -> None:
    found = closeness(samples(1, 5))
    assert (found.closest, found.near_parallel, found.listed) == (None, 0, [])


def test_orthogonal_samples_have_a_pair_at_a_right_angle() -> None:
    assert closeness(np.eye(3)).closest == Pair(0, 1, pytest.approx(np.pi / 2), opposite=False)


def checked(tmp_path: Path, X: np.ndarray, *more: str) -> tuple[str, Path]:
    """What check-init says of samples in a file, and its folder."""
    np.savez(tmp_path / "mine.npz", X=X.T, y=np.ones(X.shape[1]))
    (tmp_path / "r.yaml").write_text("name: near\ndata: {kind: file, path: mine.npz}\nmodel: {width: 40}\n")
    done = CliRunner().invoke(app, ["check-init", str(tmp_path / "r.yaml"), "--out", str(tmp_path), *more])
    assert done.exit_code == 0, done.output
    (folder,) = tmp_path.glob("near/checks/*")
    return done.stdout, folder


def test_check_init_tells_near_parallel_samples_with_angle_and_indices(tmp_path: Path) -> None:
    said, folder = checked(tmp_path, turned(samples(6, 5), 2, NARROW, -1.0))
    assert f"Closest samples: 2 and 6, {NARROW:g} rad apart, of opposite sign.\n" in said
    assert f"1 pair less than {NEAR_PARALLEL_BELOW} rad apart: pairs.csv.\n" in said
    row = pd.read_csv(folder / "pairs.csv").iloc[0]
    assert (row["recipe"], row["dataset"], row["sample"], row["other"]) == ("near", "file", 2, 6)
    assert (bool(row["opposite"]), row["angle"]) == (True, pytest.approx(NARROW, rel=1e-9))
    assert json.loads((folder / "manifest.json").read_text())["files"]["pairs.csv"]


def test_check_init_tells_the_closest_pair_where_none_is_near_parallel(tmp_path: Path) -> None:
    X = samples(6, 5)
    said, folder = checked(tmp_path, X, "--json")
    document, pairs = json.loads(said), brute_force(X)
    assert document["near_parallel"] == 0
    assert document["pairs"][0]["angle"] == pytest.approx(min(angle for angle, _ in pairs.values()), rel=1e-12)
    assert len(pd.read_csv(folder / "pairs.csv")) == 1 == len(document["pairs"])
