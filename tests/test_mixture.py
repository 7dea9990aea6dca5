"""Gaussian mixtures: moments, counts, every way to write a covariance, and files of classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import linalg

from deqcli.data.dataset import Dataset, make_dataset
from deqcli.data.gaussian_mixture import GaussianMixture, MixtureClass
from deqcli.data.mixture import class_counts, not_a_covariance, square_root
from deqcli.errors import Refused

D = 4
MEANS = np.array([[1.5, 0.0, 0.0, 0.0], [0.0, -0.5, 1.0, 0.2]])
MATRIX = np.array([[2.0, 0.5, 0.0, 0.1], [0.5, 1.0, -0.3, 0.0], [0.0, -0.3, 0.7, 0.2], [0.1, 0.0, 0.2, 1.2]])
CLASSES = [{"mean": 1.5, "covariance": 0.25}, {"mean": MEANS[1].tolist(), "covariance": MATRIX.tolist()}]


def mixture(**options: object) -> GaussianMixture:
    given = {"kind": "gaussian_mixture", "num_samples": 40, "input_dim": D, "classes": CLASSES, "normalise": False}
    return GaussianMixture.model_validate(given | options)


def unscaled(data: Dataset, reference: float) -> np.ndarray:
    """Rows x (n, d) before the common factor, whose mean squared norm was `reference`."""
    return data.X.T * np.sqrt(reference / data.input_dim)


# What is drawn


def test_samples_of_each_class_have_its_mean_and_covariance() -> None:
    n = 4000
    data = mixture(num_samples=n, classes=[{"share": 3, **CLASSES[0]}, CLASSES[1]]).load()
    shares = np.array([0.75, 0.25])
    covariances = [0.25 * np.eye(D), MATRIX]
    second_moment = sum(
        share * (mean @ mean + np.trace(C)) for share, mean, C in zip(shares, MEANS, covariances, strict=True)
    )
    rows = unscaled(data, float(second_moment))
    for label, share, mean, C in zip((-1.0, 1.0), shares, MEANS, covariances, strict=True):
        own = rows[data.y == label]
        assert len(own) == share * n
        # four standard deviations of a mean, and of a product of Gaussian numbers, plus those of the common factor
        np.testing.assert_allclose(own.mean(axis=0), mean, atol=5 * np.sqrt(C.max() / len(own)) + 0.02)
        np.testing.assert_allclose(np.cov(own.T), C, atol=5 * np.sqrt(2 / len(own)) * C.max() + 0.03)


def test_without_normalising_one_factor_makes_the_norms_sqrt_d_on_average() -> None:
    plain, scaled = mixture().load(), mixture(normalise=True).load()
    norms = np.linalg.norm(plain.X, axis=0)
    assert np.mean(norms**2) == pytest.approx(D, rel=1e-14)
    assert norms.std() > 0.3
    np.testing.assert_allclose(np.linalg.norm(scaled.X, axis=0), np.sqrt(D), rtol=1e-14)
    np.testing.assert_allclose(plain.X / norms, scaled.X / np.sqrt(D), rtol=1e-13)
    np.testing.assert_array_equal(plain.y, scaled.y)


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_the_common_factor_is_that_of_rows_of_any_scale(scale: float) -> None:
    rows = np.array([[3.0, 0.0], [0.0, 1.0]])
    data = make_dataset(scale * rows, np.zeros(2), "here", normalise=False)
    np.testing.assert_allclose(data.X.T, rows * np.sqrt(2 / 5), rtol=1e-14)  # (9 + 1)/2 = 5


def test_a_seed_decides_the_samples_and_labels_do_not() -> None:
    first, again, other = mixture(seed=3).load(), mixture(seed=3).load(), mixture(seed=4).load()
    np.testing.assert_array_equal(first.X, again.X)
    assert (first.X != other.X).all()
    gaussian = mixture(seed=3, labels="gaussian", label_scale=0.5).load()
    np.testing.assert_array_equal(gaussian.X, first.X)
    np.testing.assert_array_equal(first.y, [-1.0] * 20 + [1.0] * 20)
    assert len(set(gaussian.y)) == 40


def test_the_normal_numbers_behind_the_samples_do_not_depend_on_the_classes() -> None:
    white = mixture(classes=[{}, {}]).load()  # two classes N(0, I)
    moved = mixture(classes=[{"mean": 2}, {"mean": -1, "covariance": 9}]).load()
    w = unscaled(white, 1.0) * np.sqrt(D)
    expected = np.concatenate([w[:20] / w[0, 1], 3 * w[20:] / w[0, 1]])  # up to the common factors
    rows = unscaled(moved, 1.0) * np.sqrt(D)
    np.testing.assert_allclose((rows / rows[0, 1])[:, 2:], expected[:, 2:], rtol=1e-12)


def test_numbers_of_a_seed_have_not_drifted() -> None:
    data = mixture(num_samples=2, input_dim=2, classes=[{"mean": 1}, {"covariance": {"toeplitz": 0.5}}]).load()
    golden = [[1.8242222091711195, -0.15626577465285504], [-0.646891420020814, 0.4788797656431508]]
    np.testing.assert_allclose(data.X, golden, rtol=1e-12)


@pytest.mark.parametrize(
    ("shares", "num_samples", "counts"),
    [
        ([1, 1], 10, [5, 5]),
        ([1, 1], 11, [6, 5]),
        ([1, 1, 1], 11, [4, 4, 3]),
        ([0.2, 0.3, 0.5], 10, [2, 3, 5]),
        ([1, 2, 4], 10, [1, 3, 6]),  # quotas 1.43, 2.86, 5.71
        ([5e-324, 1e308], 3, [0, 3]),
    ],
)
def test_counts_are_shares_by_largest_remainder(shares: list[float], num_samples: int, counts: list[int]) -> None:
    assert class_counts(shares, num_samples) == counts


def test_counts_sum_to_n_and_are_within_one_of_their_quota() -> None:
    generator, looked = np.random.default_rng(0), 0
    for _ in range(200):
        shares, n = generator.uniform(0.1, 5, generator.integers(2, 8)), int(generator.integers(1, 500))
        counts = class_counts(shares.tolist(), n)
        assert sum(counts) == n
        assert np.abs(counts - n * shares / shares.sum()).max() < 1
        looked += 1
    assert looked == 200


# Means and covariances as they are written


TOEPLITZ = 0.8 * linalg.toeplitz([(-0.6) ** k for k in range(D)])
SPELLINGS = {
    "a number": (0.25, 0.25 * np.eye(D)),
    "a whole number": (2, 2 * np.eye(D)),
    "a diagonal": ([1.0, 2.0, 0.5, 3.0], np.diag([1.0, 2.0, 0.5, 3.0])),
    "toeplitz": ({"toeplitz": -0.6, "scale": 0.8}, TOEPLITZ),
    "toeplitz of scale 1": ({"toeplitz": 0}, np.eye(D)),
    "a matrix": (MATRIX.tolist(), MATRIX),
    "of rank one": (np.outer(MEANS[1], MEANS[1]).tolist(), np.outer(MEANS[1], MEANS[1])),
}


@pytest.mark.parametrize(("covariance", "matrix"), SPELLINGS.values(), ids=SPELLINGS)
def test_every_way_to_write_a_covariance_is_its_matrix(covariance: object, matrix: np.ndarray) -> None:
    written = [{"mean": 1, "covariance": covariance}, {}]
    given = [{"mean": 1, "covariance": matrix.tolist()}, {}]
    root = MixtureClass.model_validate(written[0]).root(D)
    full = np.diag(root) if root.ndim == 1 else root
    np.testing.assert_allclose(full @ full, matrix, atol=1e-14)
    np.testing.assert_allclose(full, full.T, atol=1e-15)
    assert np.linalg.eigvalsh(full)[0] > -1e-14  # with the two above, the one root that is positive semi-definite
    # roots of eigenvalues near 0 are off by the square root of the rounding
    np.testing.assert_allclose(mixture(classes=written).load().X, mixture(classes=given).load().X, atol=1e-7)


def test_a_number_as_mean_is_a_multiple_of_the_axis_of_its_class() -> None:
    classes = [{"mean": 2}, {"mean": -3}, {"mean": [0, 0, 1, 1]}]
    centres = [MixtureClass.model_validate(each).centre(index, D) for index, each in enumerate(classes)]
    np.testing.assert_array_equal(centres, [[2, 0, 0, 0], [0, -3, 0, 0], [0, 0, 1, 1]])
    written = [{"mean": mean.tolist()} for mean in centres]
    X = [mixture(classes=each, labels="gaussian").load().X for each in (classes, written)]
    np.testing.assert_array_equal(*X)


def test_what_is_no_covariance_is_told_and_rounding_is_none() -> None:
    generator = np.random.default_rng(1)
    A = generator.standard_normal((30, 20))
    assert not_a_covariance(A @ A.T) is None  # of rank 20: eigenvalues of either sign at 1e-15
    assert np.linalg.eigvalsh(A @ A.T)[0] < 1e-12
    assert not_a_covariance(np.zeros((3, 3))) is None
    assert "least eigenvalue is -1" in str(not_a_covariance([[1, 2], [2, 1]]))
    assert "2 in row 0, column 1 and 1 in row 1, column 0" in str(not_a_covariance([[1, 2], [1, 1]]))
    assert not_a_covariance([[np.nan]]) == "holds NaN or infinity"
    np.testing.assert_allclose(square_root(A @ A.T) @ square_root(A @ A.T), A @ A.T, atol=1e-12)


# Files of classes


def npz(folder: Path, **arrays: object) -> Path:
    path = folder / "classes.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


COVARIANCES = np.stack([0.25 * np.eye(D), MATRIX])


def test_classes_of_a_file_are_those_that_a_recipe_writes_out(tmp_path: Path) -> None:
    path = npz(tmp_path, means=MEANS, covariances=COVARIANCES)
    read = mixture(classes=None, path=str(path)).load()
    np.testing.assert_allclose(read.X, mixture().load().X, atol=1e-14)
    np.testing.assert_array_equal(read.y, mixture().load().y)


def test_a_file_of_classes_names_a_run_by_its_content(tmp_path: Path) -> None:
    path = npz(tmp_path, means=MEANS, covariances=COVARIANCES)
    first = mixture(classes=None, path=str(path))
    moved = path.rename(tmp_path / "moved.npz")
    assert mixture(classes=None, path=str(moved)).identity() == first.identity()
    assert mixture(classes=None, path=str(moved), sha256=first.sha256).sha256 == first.sha256
    assert "antipodal" not in first.identity()
    assert mixture(classes=None, path=str(moved), antipodal=True).identity() == first.identity() | {"antipodal": True}
    with pytest.raises(Refused, match=r"classes\.npz has changed since the recipe was read"):
        first.load()


SHAPES = f"means must be (classes, {D}) and covariances (classes, {D}, {D}), with data.input_dim = {D}, got"
BAD_FILES: dict[str, tuple[dict[str, object], str]] = {
    "no means": ({"covariances": COVARIANCES}, "not an NPZ file with plain arrays means and covariances ("),
    "another d": ({"means": MEANS[:, :3], "covariances": COVARIANCES}, f"{SHAPES} (2, 3) and (2, 4, 4)"),
    "another k": ({"means": MEANS[:1], "covariances": COVARIANCES}, f"{SHAPES} (1, 4) and (2, 4, 4)"),
    "no classes": ({"means": MEANS[:0], "covariances": COVARIANCES[:0]}, f"{SHAPES} (0, 4) and (0, 4, 4)"),
    "one class": (
        {"means": MEANS[:1], "covariances": COVARIANCES[:1]},
        "data.labels `class` is for two classes, got 1",
    ),
    "a number": ({"means": 1.0, "covariances": COVARIANCES}, f"{SHAPES} () and (2, 4, 4)"),
    "text": ({"means": MEANS.astype("U4"), "covariances": COVARIANCES}, "means and covariances must hold real numbers"),
    "not symmetric": (
        {"means": MEANS, "covariances": COVARIANCES + np.eye(D, k=1)},
        "covariances[0] is not symmetric:",
    ),
    "indefinite": (
        {"means": MEANS, "covariances": COVARIANCES * np.array([1, -1])[:, None, None]},
        "covariances[1] is not positive semi-definite: its least eigenvalue is -2.2",
    ),
    "NaN": ({"means": MEANS, "covariances": COVARIANCES * np.nan}, "covariances[0] holds NaN or infinity"),
    "NaN mean": ({"means": MEANS * [[1], [np.nan]], "covariances": COVARIANCES}, "row 20 holds NaN or infinity"),
    "many": ({"means": np.ones((50, D)), "covariances": np.stack([np.eye(D)] * 50)}, "has 50 classes, more than"),
}


@pytest.mark.parametrize(("arrays", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_file_that_holds_no_classes_is_refused(tmp_path: Path, arrays: dict[str, object], message: str) -> None:
    path = npz(tmp_path, **arrays)
    with pytest.raises(Refused) as caught:
        mixture(classes=None, path=str(path)).load()
    assert str(caught.value).startswith(f"{path}: {message}")
