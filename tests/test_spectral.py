"""Norms against the singular values of LAPACK, from both sides; least eigenvalues against known spectra."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from deqcli.deq import spectral
from deqcli.deq.spectral import gram, least_eigenvalue, spectral_norm, spectral_norm_upper
from deqcli.errors import NumericalFailure

SHAPES = [(1, 1), (3, 3), (1, 40), (40, 1), (23, 60), (24, 24), (60, 24), (40, 90), (90, 40), (120, 120), (5, 300)]


def gaussian(shape: tuple[int, int], seed: int = 0) -> Tensor:
    """Entries N(0, 1/max(shape)): a norm of order 1."""
    entries = np.random.default_rng((seed, *shape)).standard_normal(shape)
    return torch.tensor(entries / math.sqrt(max(shape)))


def with_singular_values(shape: tuple[int, int], values: list[float]) -> Tensor:
    """U diag(values) V^T with random orthonormal U, V."""
    k = len(values)
    left, right = (torch.linalg.qr(gaussian((side, k), seed=1)).Q for side in shape)
    return left @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ right.T


def svd_norm(W: Tensor) -> float:
    return float(torch.linalg.svdvals(W.double())[0])


MATRICES = {f"gaussian {p}x{q}": gaussian((p, q)) for p, q in SHAPES} | {
    "identity": torch.eye(50, dtype=torch.float64),
    "orthogonal": torch.linalg.qr(gaussian((80, 80))).Q,
    "rank one": with_singular_values((70, 30), [2.0]),
    "close pair": with_singular_values((60, 60), [1.0, 1 - 1e-7, 0.5]),
    "wide spread": with_singular_values((60, 50), [10.0**-k for k in range(12)]),
    "one entry": torch.zeros(30, 30, dtype=torch.float64).index_put(
        (torch.tensor(3), torch.tensor(7)), torch.tensor(2.0).double()
    ),
}


@pytest.mark.parametrize("name", MATRICES)
def test_the_norm_from_below_and_its_vector(name: str) -> None:
    W = MATRICES[name]
    truth = svd_norm(W)
    norm, vector = spectral_norm(W)
    assert truth * (1 - 1e-7) <= norm <= truth * (1 + 1e-14)
    v = torch.from_numpy(vector)
    assert float(v.norm()) == pytest.approx(1.0, rel=1e-10)
    assert float((W @ v).norm()) == pytest.approx(truth, rel=1e-6)


@pytest.mark.parametrize("name", MATRICES)
def test_the_upper_bound_is_above_the_norm_and_close(name: str) -> None:
    W = MATRICES[name]
    truth, upper = svd_norm(W), spectral_norm_upper(W, spectral_norm(W)[0])
    assert truth <= upper <= truth * (1 + 1e-7)


@pytest.mark.parametrize("estimate", [1.0, 1 - 1e-6, 0.999, 0.9, 0.5, 0.1, 1e-3])
@pytest.mark.parametrize("shape", [(3, 3), (60, 24), (40, 90), (120, 120)])
def test_an_estimate_that_is_too_small_still_gives_a_bound(shape: tuple[int, int], estimate: float) -> None:
    """An estimate below the norm costs sharpness (a factor of about 10 at worst), never validity."""
    W = gaussian(shape)
    truth = svd_norm(W)
    assert truth <= spectral_norm_upper(W, estimate * truth) <= 11 * truth


@pytest.mark.parametrize("seed", range(20))
def test_the_proved_bound_holds_on_many_draws(seed: int) -> None:
    W = gaussian((50, 50), seed)
    assert svd_norm(W) <= spectral_norm_upper(W, spectral_norm(W)[0]) <= svd_norm(W) * (1 + 1e-7)


@pytest.mark.parametrize("name", [name for name, W in MATRICES.items() if min(W.shape) >= 24])
def test_the_probable_bound_is_above_the_norm_and_within_two_percent(name: str) -> None:
    W = MATRICES[name]
    assert svd_norm(W) <= spectral._probable_upper(W) <= 1.02 * svd_norm(W)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large_matrices_take_the_probable_bound(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """450 columns exceed the 251 of the Krylov space, as every matrix does that is too large for Cholesky."""
    W = gaussian((450, 450)).to(dtype)
    exact, truth = spectral_norm_upper(W, svd_norm(W)), svd_norm(W)
    monkeypatch.setattr(spectral, "CHOLESKY_UP_TO", 100)
    assert truth < exact < (1 + 1e-7) * truth
    assert (1 + 1e-4) * truth < spectral_norm_upper(W, 0.0) < 1.02 * truth


def test_float32_norms_are_right_to_float32() -> None:
    W = gaussian((120, 90)).float()
    norm, _ = spectral_norm(W)
    assert norm == pytest.approx(svd_norm(W), rel=1e-6)
    assert svd_norm(W) <= spectral_norm_upper(W, norm) <= svd_norm(W) * (1 + 2e-6)


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (40, 40), (30, 50)])
def test_zero_matrices(shape: tuple[int, int]) -> None:
    W = torch.zeros(shape, dtype=torch.float64)
    assert spectral_norm(W)[0] == 0
    assert spectral_norm_upper(W, 0.0) == 0
    assert spectral_norm_upper(W, 1.0) == 0


SCALES = [("float64", scale) for scale in (1e-310, 1e-300, 1e-170, 1e-160, 1e-5, 1e-3, 1e3, 1e8, 1e150, 1e170, 1e300)]
SCALES += [("float32", scale) for scale in (1e-42, 1e-38, 1e-25, 1e-10, 1e10, 1e25, 1e37)]
"""Down to subnormal entries, and where no square of an entry is a float."""


@pytest.mark.parametrize("shape", [(60, 60), (30, 90), (5, 300), (1, 1)])
@pytest.mark.parametrize(("dtype", "scale"), SCALES)
def test_norms_scale_with_the_matrix(dtype: str, scale: float, shape: tuple[int, int]) -> None:
    """Against the SVD of the very same entries, brought near 1 by a power of two."""
    W = (gaussian(shape) * 1.7).to(getattr(torch, dtype)) * scale
    power = math.frexp(scale)[1]
    truth = svd_norm(W.double() * 2.0 ** -(power // 2) * 2.0 ** (power // 2 - power))
    norm, vector = spectral_norm(W)
    precision = {"float32": 1e-6, "float64": 1e-12}[dtype]
    assert math.ldexp(norm, -power) == pytest.approx(truth, rel=precision)
    assert float(np.linalg.norm(vector)) == pytest.approx(1.0, rel=1e-10)
    assert truth <= math.ldexp(spectral_norm_upper(W, norm), -power) <= truth * (1 + 1e-7 + precision)
    assert truth <= math.ldexp(spectral_norm_upper(W, 0.0), -power) <= 11 * truth


@pytest.mark.parametrize("scale", [1e-170, 1e-25, 1e25, 1e170])
def test_the_probable_bound_scales_with_the_matrix(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectral, "CHOLESKY_UP_TO", 10)
    W = gaussian((60, 60))
    assert svd_norm(W) <= spectral_norm_upper(scale * W, 0.0) / scale <= 1.02 * svd_norm(W)


@pytest.mark.parametrize("name", MATRICES)
def test_an_estimate_of_zero_still_gives_a_bound(name: str) -> None:
    W = MATRICES[name]
    assert svd_norm(W) <= spectral_norm_upper(W, 0.0) <= 11 * svd_norm(W)


@pytest.mark.parametrize("shape", [(30, 30), (5, 40)])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_matrix_that_is_not_finite_has_no_norm(value: float, shape: tuple[int, int]) -> None:
    W = gaussian(shape)
    W[3, 4] = value
    with pytest.raises(NumericalFailure, match="holds NaN or infinity"):
        spectral_norm(W)
    with pytest.raises(NumericalFailure, match="holds NaN or infinity"):
        spectral_norm_upper(W, 1.0)


@pytest.mark.parametrize("start", ["first", "second", "last", "moved", "huge"])
def test_a_warm_start_changes_nothing_beyond_the_tolerance(start: str) -> None:
    """Also from a start that is orthogonal to the leading singular vector (to rounding)."""
    W = gaussian((150, 150))
    right = torch.linalg.svd(W).Vh.numpy()
    moved = spectral_norm(W + 1e-4 * gaussian((150, 150), seed=5))[1]
    starts = {"first": right[0], "second": right[1], "last": right[-1], "moved": moved, "huge": 1e20 * moved}
    warm, vector = spectral_norm(W, starts[start])
    cold, _ = spectral_norm(W)
    assert warm == pytest.approx(cold, rel=1e-9)
    assert abs(float(vector @ right[0])) == pytest.approx(1.0, rel=1e-4)


def test_the_arguments_are_left_alone() -> None:
    W, start = gaussian((60, 60)), np.ones(60)
    before = W.clone()
    spectral_norm_upper(W, spectral_norm(W, start)[0])
    least_eigenvalue(gram(W))
    assert torch.equal(W, before)
    assert np.array_equal(start, np.ones(60))


@pytest.mark.parametrize("values", [[3.0, 2.0, 0.5], [1.0], [5.0, 5.0], [1e3, 1.0, 1e-2], [1.0] * 8], ids=str)
def test_least_eigenvalue_of_a_prescribed_spectrum(values: list[float]) -> None:
    Z = with_singular_values((30, len(values)), values)
    rounding = 1e-14 * max(values) ** 2
    assert least_eigenvalue(gram(Z)) == pytest.approx(min(values) ** 2, rel=1e-9, abs=rounding)


@pytest.mark.parametrize("seed", range(5))
def test_a_singular_gram_matrix_has_no_least_eigenvalue_to_speak_of(seed: int) -> None:
    """A repeated sample: 0 up to rounding, and never below it."""
    Z = gaussian((40, 10), seed)
    Z[:, 7] = Z[:, 2]
    assert 0 <= least_eigenvalue(gram(Z)) <= 1e-14 * float(gram(Z).trace())


def test_the_gram_matrix_of_float32_is_taken_in_float64() -> None:
    Z = with_singular_values((30, 3), [1.0, 1.0, 1e-5]).float()
    G = gram(Z)
    assert G.dtype is torch.float64
    assert torch.equal(G, Z.double().T @ Z.double())
    assert least_eigenvalue(G) == pytest.approx(1e-10, rel=0.1)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_eigenvalue_of_nonsense_is_refused(value: float) -> None:
    G = torch.eye(4, dtype=torch.float64)
    G[1, 2] = G[2, 1] = value
    with pytest.raises(ValueError, match="infs or NaNs"):
        least_eigenvalue(G)
