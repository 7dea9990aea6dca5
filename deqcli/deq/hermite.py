"""Expansions in Hermite polynomials: E[f(u) f(v)] of Gaussians for a smooth f that has no closed form."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deqcli.errors import NumericalFailure

Write = Callable[[Tensor, Tensor], None]
"""Writes f of its first argument into its second."""
Exact = Callable[[Tensor, Tensor, Tensor], Tensor]
"""E[f(u) f(v)] of correlations, variances of u and variances of v, each (N,)."""
Array = NDArray[np.float64]

PARALLEL = 1 - 2.0**-50
"""Cosine from which two directions are one; samples nearer than 1e-6 radians are refused."""

REACH, WIDTH, NODES, HALVINGS = 13, 0.25, 16, 4
"""Of x in E[f(sqrt(p) x) h_k(x)]: h_k(x) times the density is below 1e-18 from 13 on; panels and their nodes."""

FEWEST_TERMS, MOST_TERMS = 64, 4096
NEGLIGIBLE, TAIL, REQUIRED = 1e-17, 1e-14, 1e-10
"""Relative to E[f^2]: terms that are left out, the rest that Parseval's identity may see, the worst that is given."""

AGREED = 1e-13
"""Relative difference between the coefficients of two rules that are both taken for exact."""

BITS = 2.0**47
"""Variances are told apart to this relative precision, 7e-15: those of samples of one norm are then one."""

ENTRIES_PER_BLOCK = 2**17


def cosines(covariance: Tensor, scale: Tensor) -> Tensor:
    """covariance/scale, with what rounding leaves between 1 - 1e-15 and 1 put to 1, as on a diagonal; so with -1.

    arccos has no slope there: 1 - 1e-16 would make an error of 1e-8.
    """
    c = covariance / scale
    return c.where(c.abs() < PARALLEL, c.sign())


@np.errstate(over="ignore", invalid="ignore")
def expectation(
    name: str, write: Write, covariance: Tensor, left: Tensor, right: Tensor,
    exact: Exact | None = None, near: float = PARALLEL,
) -> Tensor:  # fmt: skip
    """E[f(u_i) f(v_j)] = sum_k a_k(left_i) a_k(right_j) c_ij^k, with as many terms as the largest |c| needs.

    Entries with |c| >= near are those of `exact`; without it, of parallel directions, one-dimensional integrals.
    Shapes: covariance (k, n), left (k,), right (n,), float64. Source: Mehler's formula (O'Donnell 2014, section 11.2).
    Raises: NumericalFailure where what is left out may exceed 1e-10 sqrt(E[f(u)^2] E[f(v)^2]).
    """
    variances, index = torch.unique(_rounded(torch.cat([left, right])).cpu(), return_inverse=True)
    expansion, index = _expansion(write, variances.numpy().tobytes()), index.to(covariance.device)
    c = cosines(covariance, left.sqrt()[:, None] * right.sqrt())
    rows, columns = (c.abs() >= near).nonzero(as_tuple=True)
    correlations = c[rows, columns]
    c[rows, columns] = 0
    i, j = index[: len(left)], index[len(left) :]
    total = _series(expansion.truncated(float(c.abs().max()), name), c, i, j)
    if exact is not None:
        total[rows, columns] = exact(correlations, left[rows], right[columns])
    elif len(rows):
        total[rows, columns] = expansion.parallel(correlations, i[rows], j[columns])
    return total


def _rounded(variances: Tensor) -> Tensor:
    mantissa, exponent = torch.frexp(variances)
    return torch.ldexp(mantissa.mul_(BITS).round_().div_(BITS), exponent.to(mantissa.dtype))


def _series(a: Array, c: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """sum_k a_ki a_kj c_ij^k by Horner's rule, for variances of these indices."""
    total, terms = torch.zeros_like(c), torch.from_numpy(a).to(c.device).flip(0)
    if a.shape[1] == 1:
        for square in terms[:, 0].square():
            torch.addcmul(square, total, c, out=total)
        return total
    for a_k in terms:
        total.mul_(c).addr_(a_k[i], a_k[j])
    return total


def coefficients(write: Write, variance: float, count: int) -> Tensor:
    """a_k = E[f(sqrt(variance) x) h_k(x)] of a normal x, k < count, float64. Shapes: (count,)."""
    expansion = _expansion(write, np.array([variance]).tobytes())
    return torch.from_numpy(expansion.coefficients(count)[:count, 0].copy())


@lru_cache(maxsize=4)
def _expansion(write: Write, variances: bytes) -> Expansion:
    """The same for all blocks of a kernel."""
    return Expansion(write, np.frombuffer(variances))


class Expansion:
    """The coefficients a_k(p) of f at some variances p, and what is left of E[f^2] after so many of them.

    By the Gauss-Legendre rule on panels that end at 0, where kinks are. Gauss-Hermite with 200 nodes, measured
    against a rule four times as fine, has the first 60 coefficients of tanh to 2e-14 of its norm at variance 1, but to
    3e-10 at 2.2 and 1e-4 at 20, since tanh has poles near the real axis; these panels have 1e-15 at all of them,
    and 4e-16 of all the first 4096.
    """

    def __init__(self, write: Write, variances: Array) -> None:
        self.write, self.variances = write, variances
        self.width, self.error = self._resolution()
        self.nodes, self.weights = _rule(self.width)
        count = len(variances)
        self.norms = self.parallel(torch.ones(count), *torch.arange(count).expand(2, -1)).numpy()
        self._found = self._integrals(self.width, FEWEST_TERMS)

    def _resolution(self) -> tuple[float, float]:
        """The width of the panels, halved until the first coefficients stay; their relative error."""
        width, coarse = WIDTH, self._integrals(WIDTH, FEWEST_TERMS)
        for _ in range(HALVINGS):
            fine = self._integrals(width / 2, FEWEST_TERMS)
            size = np.maximum(np.linalg.norm(fine, axis=0), np.finfo(float).tiny)
            error = float((np.linalg.norm(fine - coarse, axis=0) / size).max())
            if error <= AGREED:
                return width, error
            width, coarse = width / 2, fine
        return width, error

    def parallel(self, c: Tensor, i: Tensor, j: Tensor) -> Tensor:
        """E[f(u) f(v)] for correlations of 1 or -1 and variances of these indices, once for each triple that there is.

        u is sqrt(p_i) x and v is c sqrt(p_j) x, of one normal x. Shapes: all (N,).
        """
        triples, index = torch.unique(torch.stack([c.long(), i, j]).cpu(), dim=1, return_inverse=True)
        deviations = torch.from_numpy(np.sqrt(self.variances))
        u, v = deviations[triples[1]], triples[0] * deviations[triples[2]]
        count = max(1, ENTRIES_PER_BLOCK // len(self.nodes))
        pairs = zip(torch.split(u, count), torch.split(v, count), strict=True)
        found = [(self._images(s) * self._images(t)) @ self.weights for s, t in pairs]
        return torch.from_numpy(np.concatenate(found))[index].to(c.device)

    def _images(self, factors: Tensor) -> Array:
        return _images(self.write, factors, self.nodes)

    def coefficients(self, terms: int) -> Array:
        """a_k(p), (terms or more, variances)."""
        if len(self._found) < terms:
            self._found = self._integrals(self.width, terms)
        return self._found

    def _integrals(self, width: float, terms: int) -> Array:
        """By the three-term recurrence of h_k, which is stable upwards; many variances at a time."""
        nodes, weights = _rule(width)
        factors = torch.split(torch.from_numpy(np.sqrt(self.variances)), max(1, ENTRIES_PER_BLOCK // len(nodes)))
        images = [_images(self.write, some, nodes) for some in factors]
        found = [np.concatenate([h @ (image * weights).T for h in _polynomials(nodes, terms)]) for image in images]
        return np.concatenate(found, axis=1)

    def truncated(self, largest: float, name: str) -> Array:
        """As many a_k as correlations up to `largest` need, (terms, variances).

        The rest is seen twice: as what the terms known leave of E[f^2], times |c|^terms, which is a bound up to the
        rounding of E[f^2]; and as terms that fall below any rounding.
        """
        terms = FEWEST_TERMS
        while True:
            a = self.coefficients(terms)[:terms]
            shares = a**2 / np.maximum(self.norms, np.finfo(float).tiny)
            sizes = shares.max(1) * largest ** np.arange(terms)
            rest = largest**terms * float(np.maximum(1 - shares.sum(0), 0).max())
            if rest <= TAIL and sizes[-FEWEST_TERMS // 2 :].sum() <= NEGLIGIBLE:
                break
            if terms >= MOST_TERMS or not (rest < math.inf and 2 * self.error <= REQUIRED):
                break
            terms *= 2
        reached = rest + 2 * self.error
        if not reached <= REQUIRED:
            raise NumericalFailure(
                f"the expansion of {name} is exact to {reached:.0e} only at correlation {largest:.9g} and variance "
                f"{self.variances.max():.3g}, with {terms} terms: a phi with kinks, or so far out, needs a closed form"
            )
        tails = np.cumsum(sizes[::-1])[::-1]
        return np.ascontiguousarray(a[: max(1, int((tails > NEGLIGIBLE).sum()))])


def _images(write: Write, factors: Tensor, nodes: Array) -> Array:
    points = factors[:, None] * torch.from_numpy(nodes)
    image = torch.empty_like(points)
    write(points, image)
    return image.numpy()


@lru_cache(maxsize=4)
def _rule(width: float) -> tuple[Array, Array]:
    """Nodes and weights of the mean over a normal x: Gauss-Legendre on panels of this width from -13 to 13."""
    inner, weights = np.polynomial.legendre.leggauss(NODES)
    panels = np.arange(-round(REACH / width), round(REACH / width)) * width
    nodes = (panels[:, None] + width * (inner + 1) / 2).ravel()
    density = np.exp(-(nodes**2) / 2) / math.sqrt(2 * math.pi)
    return nodes, np.tile(weights * width / 2, len(panels)) * density


def _polynomials(nodes: Array, terms: int) -> Iterator[Array]:
    """h_k at the nodes, k < terms, 64 at a time: sqrt(k + 1) h_(k+1) = x h_k - sqrt(k) h_(k-1)."""
    h, before = np.ones_like(nodes), np.zeros_like(nodes)
    for first in range(0, terms, FEWEST_TERMS):
        block = np.empty((min(FEWEST_TERMS, terms - first), len(nodes)))
        for k, row in enumerate(block, start=first):
            row[:] = h
            h, before = (nodes * h - math.sqrt(k) * before) / math.sqrt(k + 1), h
        yield block
