"""Norms against the singular values of LAPACK, from both sides; least eigenvalues against known spectra."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from deqcli.deq import spectral
from deqcli.deq.spectral import (
    add_gram,
    gram,
    gram_least_eigenvalue,
    gram_rounding,
    least_eigenvalue,
    spectral_norm,
    spectral_norm_upper,
)  # fmt: skip
from deqcli.errors import NumericalFailure

SHAPES = [(1, 1), (3, 3), (1, 40), (40, 1), (23, 60), (24, 24), (60, 24), (40, 90), (90, 40), (120, 120), (5, 300)]
SHAPES += [(64, 64), (64, 300), (300, 70), (250, 250)]


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
    "cluster": with_singular_values((200, 150), [1 - 1e-9 * k for k in range(10)] + [0.9] * 70),
    "orthogonal 200x200": torch.linalg.qr(gaussian((200, 200))).Q,
    "rank one 200x200": with_singular_values((200, 200), [2.0]),
    "diagonal": torch.diag(torch.linspace(0.1, 1.0, 150, dtype=torch.float64)),
    "slow decay": with_singular_values((180, 200), [1 - (k / 180) ** 2 / 2 for k in range(180)]),
    "wide spread 90x90": with_singular_values((90, 90), [10.0 ** (-k / 6) for k in range(90)]),
    "wide spread": with_singular_values((60, 50), [10.0**-k for k in range(12)]),
    "one entry": torch.zeros(30, 30, dtype=torch.float64).index_put(
        (torch.tensor(3), torch.tensor(7)), torch.tensor(2.0).double()
    ),
}


@pytest.mark.parametrize("name", MATRICES)
def test_the_norm_from_below_and_its_vectors(name: str) -> None:
    W = MATRICES[name]
    truth = svd_norm(W)
    norm, vectors = spectral_norm(W)
    assert truth * (1 - 1e-10) <= norm <= truth * (1 + 1e-14)
    V = torch.from_numpy(vectors)
    assert V.shape == (min(6, *W.shape), W.shape[1])
    torch.testing.assert_close(V @ V.T, torch.eye(len(V), dtype=torch.float64), rtol=0, atol=1e-10)
    assert float((W @ V[0]).norm()) == pytest.approx(truth, rel=1e-9)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-7, 1e-9, 1e-11])
@pytest.mark.parametrize("seed", range(6))
def test_norms_are_within_their_tolerance(seed: int, tolerance: float) -> None:
    """Cold and warm, of matrices whose largest values lie as close as those of random matrices do."""
    W, moved = gaussian((220, 220), seed), gaussian((220, 220), seed) + 3e-3 * gaussian((220, 220), seed + 100)
    norm, vectors = spectral_norm(W, None, tolerance)
    for value, matrix in ((norm, W), (spectral_norm(moved, vectors, tolerance)[0], moved)):
        assert 1 - tolerance <= value / svd_norm(matrix) <= 1 + 1e-14


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


def test_float32_norms_are_right_to_float32_or_better() -> None:
    W = gaussian((120, 90)).float()
    for tolerance in (1e-7, 1e-10):
        norm, _ = spectral_norm(W, tolerance=tolerance)
        assert norm == pytest.approx(svd_norm(W), rel=tolerance + 2e-8 * (tolerance > 5e-8))
        assert svd_norm(W) <= spectral_norm_upper(W, norm) <= svd_norm(W) * (1 + 2e-6)


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (40, 40), (30, 50), (70, 80)])
def test_zero_matrices(shape: tuple[int, int]) -> None:
    W = torch.zeros(shape, dtype=torch.float64)
    assert spectral_norm(W)[0] == 0
    assert spectral_norm_upper(W, 0.0) == 0
    assert spectral_norm_upper(W, 1.0) == 0


SCALES = [("float64", scale) for scale in (1e-310, 1e-300, 1e-170, 1e-160, 1e-5, 1e-3, 1e3, 1e8, 1e150, 1e170, 1e300)]
SCALES += [("float32", scale) for scale in (1e-42, 1e-38, 1e-25, 1e-10, 1e10, 1e25, 1e37)]
"""Down to subnormal entries, and where no square of an entry is a float."""


@pytest.mark.parametrize("shape", [(60, 60), (30, 90), (5, 300), (1, 1), (80, 80)])
@pytest.mark.parametrize(("dtype", "scale"), SCALES)
def test_norms_scale_with_the_matrix(dtype: str, scale: float, shape: tuple[int, int]) -> None:
    """Against the SVD of the very same entries, brought near 1 by a power of two."""
    W = (gaussian(shape) * 1.7).to(getattr(torch, dtype)) * scale
    power = math.frexp(scale)[1]
    truth = svd_norm(W.double() * 2.0 ** -(power // 2) * 2.0 ** (power // 2 - power))
    norm, vectors = spectral_norm(W)
    precision = {"float32": 1e-6, "float64": 1e-10}[dtype]
    assert math.ldexp(norm, -power) == pytest.approx(truth, rel=precision)
    assert math.ldexp(spectral_norm(W, vectors, 1e-7)[0], -power) == pytest.approx(truth, rel=precision + 1e-7)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, rel=1e-10)
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


@pytest.mark.parametrize("shape", [(30, 30), (5, 40), (80, 90)])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_matrix_that_is_not_finite_has_no_norm(value: float, shape: tuple[int, int]) -> None:
    W = gaussian(shape)
    W[3, 4] = value
    with pytest.raises(NumericalFailure, match="holds NaN or infinity"):
        spectral_norm(W)
    with pytest.raises(NumericalFailure, match="holds NaN or infinity"):
        spectral_norm_upper(W, 1.0)


@pytest.mark.parametrize("start", ["first", "second", "last", "moved", "huge", "zero", "the same twice"])
def test_a_warm_start_changes_nothing_beyond_the_tolerance(start: str) -> None:
    """Also from a start that is orthogonal to the leading singular vector (to rounding)."""
    W = gaussian((150, 150))
    right = torch.linalg.svd(W).Vh.numpy()
    moved = spectral_norm(W + 1e-4 * gaussian((150, 150), seed=5))[1]
    starts = {"first": right[0], "second": right[1], "last": right[-1], "moved": moved, "huge": 1e20 * moved}
    starts |= {"zero": np.zeros((6, 150)), "the same twice": right[[3, 3]]}
    warm, vectors = spectral_norm(W, starts[start])
    cold, _ = spectral_norm(W)
    assert warm == pytest.approx(cold, rel=2e-10)
    assert abs(float(vectors[0] @ right[0])) == pytest.approx(1.0, rel=1e-4)


TOLERANCES = [(torch.float64, 1e-10), (torch.float32, 1e-7)]


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
@pytest.mark.parametrize("values", [2, 3, 6])
def test_singular_values_that_cross_are_followed(values: int, dtype: torch.dtype, tolerance: float) -> None:
    """The leading ones, in fixed directions: the largest is overtaken by the next, and that by the one after it."""
    left, right = (torch.linalg.qr(gaussian((200, 200), seed)).Q for seed in (1, 2))
    bulk = torch.linspace(0.7, 0.1, 200, dtype=torch.float64)
    vectors, leaders = None, []
    for t in np.linspace(0, 1, 31):
        bulk[:values] = torch.tensor([0.9 - 0.03 * k + 0.08 * k * t for k in range(values)])
        W = ((left * bulk) @ right.T).to(dtype)
        norm, vectors = spectral_norm(W, vectors, tolerance)
        assert norm == pytest.approx(svd_norm(W), rel=1.2 * tolerance)
        leaders.append(int(np.abs(vectors[0] @ right.numpy()).argmax()))
    assert leaders[0] == 0
    assert leaders[-1] == values - 1


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
@pytest.mark.parametrize("seed", range(4))
def test_a_singular_value_that_grows_out_of_the_bulk_is_found(seed: int, dtype: torch.dtype, tolerance: float) -> None:
    """W + c u z^T, as gradient steps make it: from some c on, the largest singular value is a new one."""
    W, update = gaussian((200, 200), seed), 0.1 * torch.outer(*gaussian((2, 200), seed + 50))
    vectors, norms = None, []
    for _ in range(40):
        W += update
        norm, vectors = spectral_norm(W.to(dtype), vectors, tolerance)
        assert norm == pytest.approx(svd_norm(W.to(dtype)), rel=1.2 * tolerance)
        norms.append(norm)
    assert norms[-1] > 1.5 * norms[0]


def test_the_same_start_gives_the_same_bits() -> None:
    W = gaussian((150, 150)).float()
    vectors = spectral_norm(W + 1e-3 * gaussian((150, 150), seed=5).float(), None, 1e-7)[1]
    once, again = spectral_norm(W, vectors, 1e-7), spectral_norm(W.clone(), vectors.copy(), 1e-7)
    assert once[0] == again[0]
    assert np.array_equal(once[1], again[1])


def test_a_norm_that_does_not_converge_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectral, "QUICK_PRODUCTS", 1)
    monkeypatch.setattr(spectral, "MOST_PRODUCTS", 1)
    with pytest.raises(NumericalFailure, match="did not converge to 1e-12"):
        spectral_norm(gaussian((150, 150)), None, 1e-12)


@pytest.mark.parametrize("reason", ["did not converge", "tf32"])
def test_float32_products_that_do_not_suffice_are_followed_by_float64_ones(
    reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    W = gaussian((150, 150)).float()
    if reason == "tf32":
        monkeypatch.setattr(spectral, "multiplies_exactly", lambda _: False)
    monkeypatch.setattr(spectral, "QUICK_PRODUCTS", 1)
    norm, vectors = spectral_norm(W, None, 1e-7)
    assert norm == pytest.approx(svd_norm(W), rel=1e-7)
    assert vectors.shape == (6, 150)


@pytest.mark.parametrize("scale", [1.0, 1e-30])
def test_no_second_matrix_is_made(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    W, converted = scale * gaussian((170, 150)).float(), []

    def recorded(tensor: Tensor) -> Tensor:
        converted.append(tensor.numel())
        return tensor.double()

    monkeypatch.setattr(spectral, "to_float64", recorded)
    monkeypatch.setattr(spectral, "BLOCK_ELEMENTS", 1000)
    assert spectral_norm(W)[0] / scale == pytest.approx(svd_norm(W / scale), rel=1e-6)
    assert spectral._probable_upper(W) / scale == pytest.approx(svd_norm(W / scale), rel=0.02)
    assert len(converted) > 1000
    assert max(converted) <= 1000


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
    torch.testing.assert_close(G, Z.double().T @ Z.double(), rtol=0, atol=1e-15)
    assert least_eigenvalue(G) == pytest.approx(1e-10, rel=0.1)


@pytest.mark.parametrize("rows", [1, 7, 1000])
@pytest.mark.parametrize(("m", "n", "width"), [(30, 50, 8), (40, 13, 13), (5, 1, 4), (200, 100, 96)])
def test_a_gram_matrix_is_the_same_in_whatever_blocks(
    m: int, n: int, width: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spectral, "THINNEST_COLUMN", width)
    monkeypatch.setattr(spectral, "BLOCK_ELEMENTS", rows * n)
    for Z in (gaussian((m, n)), gaussian((n, m)).T):
        torch.testing.assert_close(gram(Z), Z.T @ Z, rtol=0, atol=1e-14)
        single = torch.ones((n, n))
        add_gram(single, Z.float())
        torch.testing.assert_close(single.double(), 1 + Z.T @ Z, rtol=0, atol=1e-5)


def samples(kind: str, seed: int) -> Tensor:
    """(m, n) with n large enough for Lanczos: spectra of Gram matrices that end in different ways."""
    spectra = {
        "gap": [*np.linspace(1, 2, 419), 0.3],
        "close pair": [*np.linspace(1, 2, 418), 0.3, 0.3 * (1 + 1e-7)],
        "cluster": [*np.linspace(1, 2, 400), *np.linspace(0.3, 0.3001, 20)],
        "wide": 10.0 ** -np.linspace(0, 6, 420),
    }
    if kind in spectra:
        return with_singular_values((450, 420), list(spectra[kind]))
    return gaussian({"square": (420, 420), "tall": (1500, 420)}[kind], seed).relu()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["gap", "close pair", "cluster", "wide", "square", "tall"])
@pytest.mark.parametrize("seed", range(3))
def test_the_least_eigenvalue_of_a_large_gram_matrix(seed: int, kind: str, dtype: torch.dtype) -> None:
    """By Lanczos and by LAPACK, within the stated error."""
    Z = samples(kind, seed).to(dtype)
    G = gram(Z)
    truth = float(torch.linalg.eigvalsh(Z.double().T @ Z.double())[0])
    error = 1e-9 * truth + gram_rounding(Z, G)
    assert gram_least_eigenvalue(Z, G) == pytest.approx(truth, rel=0, abs=error)
    inverse = spectral._inverse_lanczos(G)
    assert inverse is None if kind == "close pair" and inverse is None else inverse == pytest.approx(truth, abs=error)


def test_the_inverse_of_a_gram_matrix_is_what_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectral, "least_eigenvalue", lambda _: pytest.fail("LAPACK was asked"))
    Z = samples("tall", 0)
    assert gram_least_eigenvalue(Z, gram(Z)) > 0


@pytest.mark.parametrize("scale", [1e-100, 1e-30, 1e30, 1e100])
def test_least_eigenvalues_scale_with_the_matrix(scale: float) -> None:
    Z = samples("tall", 0)
    expected = gram_least_eigenvalue(Z, gram(Z)) * scale**2
    assert gram_least_eigenvalue(scale * Z, gram(scale * Z)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("n", [10, 420])
def test_a_repeated_sample_leaves_rounding_only(n: int) -> None:
    Z = gaussian((500, n)).float().relu()
    Z[:, 7] = Z[:, 2]
    G = gram(Z)
    assert 0 <= gram_least_eigenvalue(Z, G) <= gram_rounding(Z, G) <= 1e-12 * float(G.trace())


@pytest.mark.parametrize("shape", [(3, 4), (399, 400), (100, 500)])
def test_more_samples_than_units_have_a_least_eigenvalue_of_exactly_0(shape: tuple[int, int]) -> None:
    Z = gaussian(shape)
    assert gram_least_eigenvalue(Z, gram(Z)) == 0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_eigenvalue_of_nonsense_is_refused(value: float) -> None:
    G = torch.eye(4, dtype=torch.float64)
    G[1, 2] = G[2, 1] = value
    with pytest.raises(ValueError, match="infs or NaNs"):
        least_eigenvalue(G)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_samples_of_nonsense_are_refused(value: float) -> None:
    Z = samples("tall", 0)
    Z[5, 9] = value
    with pytest.raises(ValueError, match="infs or NaNs"):
        gram_least_eigenvalue(Z, gram(Z))
