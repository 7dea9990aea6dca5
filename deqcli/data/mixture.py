"""Gaussian mixtures in arrays: what a covariance is, its root, how many samples a class has, and the draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from deqcli.data.files import read_arrays
from deqcli.errors import Refused

if TYPE_CHECKING:
    import numpy as np

ROUNDING = 1e-10
"""Of the largest entry or eigenvalue: what is off symmetry, or below 0, by less is so by rounding."""


@dataclass(frozen=True)
class Mixture:
    """For each class its number of samples, mean (d,), and C^{1/2}: a diagonal (d,) or a symmetric matrix (d, d)."""

    counts: Sequence[int]
    means: Sequence[np.ndarray]
    roots: Sequence[np.ndarray]

    def samples(self, generator: np.random.Generator) -> np.ndarray:
        """Rows x = mu_a + C_a^{1/2} w (n, d), w standard normal, the classes one after the other."""
        import numpy as np

        rows = generator.standard_normal((sum(self.counts), len(self.means[0])))
        parts = np.split(rows, np.cumsum(self.counts)[:-1])
        for own, mean, root in zip(parts, self.means, self.roots, strict=True):
            own[:] = mean + (own * root if root.ndim == 1 else own @ root)
        return rows


def read_mixture(path: Path, num_samples: int, input_dim: int) -> Mixture:
    """Classes of equal shares from means (k, d) and covariances (k, d, d) of an NPZ file. Raises: Refused."""
    means, covariances = read_arrays(path, ("means", "covariances"))
    k, d = len(means) if means.ndim else 0, input_dim
    if not (k and means.shape == (k, d) and covariances.shape == (k, d, d)):
        raise Refused(
            f"{path}: means must be (classes, {d}) and covariances (classes, {d}, {d}), with data.input_dim = {d}, "
            f"got {means.shape} and {covariances.shape}"
        )
    for index, covariance in enumerate(covariances):
        if why := not_a_covariance(covariance):
            raise Refused(f"{path}: covariances[{index}] {why}")
    if k > num_samples:
        raise Refused(f"{path}: has {k} classes, more than data.num_samples, {num_samples}")
    return Mixture(class_counts([1.0] * k, num_samples), list(means), [square_root(each) for each in covariances])


def not_a_covariance(matrix: object) -> str | None:
    """Why a square matrix is no covariance, up to rounding; None where it is symmetric and positive semi-definite."""
    import numpy as np

    C = np.asarray(matrix, dtype=np.float64)
    if not np.isfinite(C).all():
        return "holds NaN or infinity"
    uneven = np.abs(C - C.T)
    if uneven.max() > ROUNDING * np.abs(C).max():
        i, j = sorted(map(int, np.unravel_index(uneven.argmax(), C.shape)))
        return f"is not symmetric: {C[i, j]:g} in row {i}, column {j} and {C[j, i]:g} in row {j}, column {i}"
    eigenvalues = np.linalg.eigvalsh(C)
    if eigenvalues[0] < -ROUNDING * np.abs(eigenvalues).max():
        return f"is not positive semi-definite: its least eigenvalue is {eigenvalues[0]:.6g}"
    return None


def square_root(C: np.ndarray) -> np.ndarray:
    """The symmetric positive semi-definite R with R R = C, both (d, d); what rounding put below 0 counts as 0."""
    import numpy as np

    values, vectors = np.linalg.eigh(C)
    root: np.ndarray = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    return root


def class_counts(shares: Sequence[float], num_samples: int) -> list[int]:
    """Samples of each class: n w_a/sum w rounded down, and one more where most is left, until there are n.

    The largest-remainder method in exact arithmetic; of equal remainders the first gets more.
    """
    weights = [Fraction(share) for share in shares]
    quotas = [num_samples * weight / sum(weights) for weight in weights]
    counts = [int(quota) for quota in quotas]
    by_remainder = sorted(range(len(quotas)), key=lambda index: counts[index] - quotas[index])
    for index in by_remainder[: num_samples - sum(counts)]:
        counts[index] += 1
    return counts
