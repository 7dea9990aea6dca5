"""The infinitely wide network: the population Gram matrix K, limit of G/m, and the tangent kernel H_inf, limit of H."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from deqcli.deq.activations import Activation
from deqcli.deq.model import ALL, Rates
from deqcli.errors import NumericalFailure

MAX_ITERATIONS, SETTLED, SHRINKS = 20_000, 100, 0.999
"""Steps of the recursion at most; so many must shrink the change by this, or there is no limit."""

RUN_AWAY = 1e3
"""Times the variance that the samples alone make: a recursion beyond that, whose expansion fails, has no limit."""

RELATIVE_CHANGE = 4 * 2.0**-52

ENTRIES_PER_BLOCK = 2**17
"""Of a kernel that are recomputed at a time (1 MiB), so that no step allocates a second matrix."""


@dataclass(frozen=True)
class Population:
    """The wide limit of a network on given samples.

    `C` = X^T X / d, with X (d, n); the scales are those of the Gaussian initialisation: sigma_w^2 of W, and
    `readout_scale` on a. Every (n, n) matrix is float64 and costs 8 n^2 bytes; none costs more than O(n^2) at a time.
    """

    C: Float64[Tensor, "n n"]
    input_dim: int
    sigma_w_sq: float
    readout_scale: float
    activation: Activation

    @classmethod
    def of(
        cls, X: Float64[Tensor, "d n"], sigma_w_sq: float, activation: Activation, readout_scale: float = 1.0
    ) -> Population:
        """For the samples in the columns of X (d, n)."""
        return cls(X.T @ X / X.shape[0], X.shape[0], sigma_w_sq, readout_scale, activation)

    def gram(self, depth: int | None = None) -> Float64[Tensor, "n n"]:
        """K = lim K^(l), K^(0) = 0, K^(l)_ij = E[phi(u) phi(v)], (u, v) ~ N(0, 2 (sigma_w^2 K^(l-1) + C)_ij).

        For the ReLU this is K = Q(c)/(1 - s) with c = s Q(c) + (1 - s) C. With `depth` l, K^(l). K is O(1).
        Source: Ling et al. 2023, Definition 1 and Lemma 3, with the 2 of its Gaussian weights inside.
        Raises: NumericalFailure where the recursion has no limit, or not in 20,000 steps (its rate is sigma_w_sq).
        """
        K = torch.zeros_like(self.C)
        if depth is None:
            return self._limit(K)
        for _ in range(depth):
            self._layer(K)
        return K

    def _limit(self, K: Tensor) -> Tensor:
        before = math.inf
        for step in range(MAX_ITERATIONS):
            try:
                change = self._layer(K)
            except NumericalFailure:  # of an expansion, which reaches no accuracy for what has run away
                if float(self._variances(K).max()) < RUN_AWAY * float(self.C.diagonal().max()):
                    raise
                break
            size = max(float(K.diagonal().max()), float(self.C.diagonal().max()))  # covariances are no finer
            if change <= RELATIVE_CHANGE * size < math.inf:
                return K
            if step % SETTLED == SETTLED - 1:
                if not change < SHRINKS * before:
                    break
                before = change
        s = self.sigma_w_sq
        raise NumericalFailure(f"the population Gram matrix K was not found: no limit at sigma_w_sq = {s}")

    def grams(self, depth: int) -> Iterator[Float64[Tensor, "n n"]]:
        """K^(1), ..., K^(depth), each in the place of the one before."""
        K = torch.zeros_like(self.C)
        for _ in range(depth):
            self._layer(K)
            yield K

    def _layer(self, K: Tensor) -> float:
        """Put K^(l) in the place of K^(l-1), and say by how much the entry that changed most did."""
        variances = self._variances(K)
        changes = []
        for rows, covariance in self._blocks(K):
            image = self.activation.dual(covariance, variances[rows], variances)
            changes.append(torch.sub(image, K[rows], out=covariance).abs_().max())
            K[rows] = image
        return float(torch.stack(changes).max())  # NaN if one is

    def _variances(self, K: Tensor) -> Tensor:
        """The variances of the pre-activations, 2 (sigma_w^2 K_ii + C_ii)."""
        return 2 * (self.sigma_w_sq * K.diagonal() + self.C.diagonal())

    def _blocks(self, K: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Rows, and their covariances 2 (sigma_w^2 K + C), a block at a time."""
        n = len(K)
        count = max(1, ENTRIES_PER_BLOCK // n)
        for first in range(0, n, count):
            rows = slice(first, first + count)
            yield rows, torch.add(self.C[rows], K[rows], alpha=self.sigma_w_sq).mul_(2)

    def slopes(self, K: Float64[Tensor, "n n"]) -> Float64[Tensor, "n n"]:
        """S_ij = E[phi'(u) phi'(v)], (u, v) ~ N(0, 2 (sigma_w^2 K + C)_ij)."""
        variances, S = self._variances(K), torch.empty_like(K)
        for rows, covariance in self._blocks(K):
            S[rows] = self.activation.dual_slope(covariance, variances[rows], variances)
        return S

    def adjoint_gram(self, K: Float64[Tensor, "n n"]) -> Float64[Tensor, "n n"]:
        """M = lim V^T V = alpha^2 S/(1 - 2 sigma_w^2 S), elementwise, S that of `slopes` at the limit K.

        M solves M = S * (alpha^2 + 2 sigma_w^2 M), the unit adjoint's V = D * (W^T V + a 1^T) in the limit, where the
        rows of W^T V are Gaussian and independent of D; alpha is readout_scale.
        Source: Yang 2020 (arXiv 2006.14548), for the independence.
        Raises: NumericalFailure where 2 sigma_w^2 S reaches 1: the adjoint has no limit.
        """
        S = self.slopes(K)
        if not 2 * self.sigma_w_sq * float(S.max()) < 1:
            raise NumericalFailure(f"the tangent kernel has no limit at sigma_w_sq = {self.sigma_w_sq}")
        return (S * self.readout_scale * self.readout_scale).div_(S.mul_(-2 * self.sigma_w_sq).add_(1))

    def ntk(self, K: Float64[Tensor, "n n"], width: int, rates: Rates = ALL) -> Float64[Tensor, "n n"]:
        """H_inf = m K * (c_a + c_w M) + c_u X^T X * M, elementwise *, with M that of `adjoint_gram`, c the `rates`.

        H(0) of width m approaches it like m^(-1/2). Shapes: K (n, n), the limit.
        Source: Ling et al. 2023, section 2.3, for H = H1 + H2 + H3.
        Raises: NumericalFailure where there is no M.
        """
        M = self.adjoint_gram(K)
        H = torch.addcmul(rates.U * self.input_dim * self.C * M, K, M, value=rates.W * width)
        return H.add_(K, alpha=rates.a * width)

    def ntk_at_depth(self, depth: int, width: int) -> Float64[Tensor, "n n"]:
        """H^(L), the tangent kernel of L layers from Z^(0) = 0: m K^(L) + alpha^2 R^(L), which tends to H_inf.

        R^(l) = S^(l) * (m K^(l-1) + X^T X + 2 sigma_w^2 R^(l-1)), R^(0) = 0, with S^(l) the slopes at K^(l-1):
        the sum over the layers in which W and U are used. The same for tied and for untied weights.
        Source: Jacot et al. 2018, theorem 1, for a layer with injected input.
        """
        K, R = torch.zeros_like(self.C), torch.zeros_like(self.C)
        for _ in range(depth):
            S = self.slopes(K)
            R = S.mul_(width * K + self.input_dim * self.C + 2 * self.sigma_w_sq * R)
            self._layer(K)
        return width * K + self.readout_scale * self.readout_scale * R


def kernel_bytes(n: int, d: int) -> int:
    """Bytes at the peak of computing and diagonalising kernels from the data alone: 16 (n, n) matrices, data, draws."""
    return 8 * (16 * n * n + (3 * d + 4000) * n)
