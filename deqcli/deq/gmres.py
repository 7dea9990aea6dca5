"""GMRES for (I - D A) of every sample at once, by batched Arnoldi."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from deqcli.deq.equations import Equation, multiply_add
from deqcli.deq.evaluation import rounding_of, row_dots


class Gmres:
    """Solve delta_j - D_j * (delta_j A) = r_j for every row j, in Krylov spaces of at most `most` dimensions.

    Arnoldi with classical Gram-Schmidt gives (I - D A) V_k = V_(k+1) H. With omega^T H = 0, omega_0 = 1, the least
    residual is ||r|| / ||omega||, and H y = ||r|| (e_0 - omega / ||omega||^2) without its first row is triangular.
    Shapes: r, delta, D (n, m); V (n, k, m); H (n, k + 1, k); omega (n, k + 1).
    Source: Saad 2003, Iterative Methods for Sparse Linear Systems, section 6.5; Ayachour 2003, J. Comput. Appl. Math.
    159, 269 (without rotations).
    """

    def __init__(self, equation: Equation, like: Tensor, most: int) -> None:
        n, m = like.shape
        self.equation = equation
        self.basis = like.new_empty((n, most + 1, m))
        self.H, self.omega = like.new_zeros((n, most + 1, most)), like.new_zeros((n, most + 1))
        self.vector, self.spare = torch.empty_like(like), torch.empty_like(like)
        self.zero = like.new_zeros((1, m))

    def solve(self, slope: Tensor, right: Tensor, goal: float, most: int) -> tuple[Tensor, int]:
        """Delta, and the products that it took: until the norm of all residuals is at most `goal`, or `most`.

        `slope` is D. The result is a buffer that stays until the next call.
        """
        norms = torch.linalg.vector_norm(right, dim=1)
        self.basis[:, 0] = right / _not_zero(norms)
        self.omega[:, 0], k = 1.0, 0
        while k < most:
            self._expand(k, slope)
            k += 1
            left = norms / torch.linalg.vector_norm(self.omega[:, : k + 1], dim=1)
            if float(torch.linalg.vector_norm(left)) <= goal:
                break
        return self._combine(k, norms), k

    def _expand(self, k: int, slope: Tensor) -> None:
        """The next vector of every basis, its column of H, and its omega."""
        w = self.vector
        multiply_add(self.zero, self.basis[:, k], self.equation.matrix, w)
        w.mul_(slope).neg_().add_(self.basis[:, k])
        size = torch.linalg.vector_norm(w, dim=1)
        h = torch.stack([row_dots(self.basis[:, i], w, self.spare) for i in range(k + 1)], dim=1)  # (n, k + 1)
        torch.baddbmm(w.unsqueeze(1), h.unsqueeze(1), self.basis[:, : k + 1], alpha=-1, out=self.spare.unsqueeze(1))
        norm = torch.maximum(torch.linalg.vector_norm(self.spare, dim=1), rounding_of(w) * size)
        norm = torch.where(norm > 0, norm, 1.0)  # where the space is exhausted, so that nothing is added to it
        torch.div(self.spare, norm.unsqueeze(1), out=self.basis[:, k + 1])
        self.H[:, : k + 1, k], self.H[:, k + 1, k] = h, norm
        self.omega[:, k + 1] = -(self.omega[:, : k + 1] * h).sum(1) / norm

    def _combine(self, k: int, norms: Tensor) -> Tensor:
        """Delta = V_k y; 0 for samples where y is not finite."""
        omega = self.omega[:, : k + 1]
        size = torch.linalg.vector_norm(omega, dim=1, keepdim=True)
        right = -norms.unsqueeze(1) * (omega[:, 1:] / size) / size
        y = torch.linalg.solve_triangular(self.H[:, 1 : k + 1, :k], right.unsqueeze(2), upper=True)
        y = torch.where(torch.isfinite(y).all(1, keepdim=True), y, 0.0)
        return torch.bmm(y.mT, self.basis[:, :k], out=self.vector.unsqueeze(1)).squeeze(1)


def _not_zero(norms: Tensor) -> Tensor:
    return torch.where(norms > 0, norms, math.inf).unsqueeze(1)
