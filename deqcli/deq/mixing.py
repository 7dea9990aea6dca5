"""Anderson mixing of every sample on its own: histories, their normal equations, and the safeguard."""

from __future__ import annotations

import torch
from torch import Tensor

from deqcli.deq.evaluation import Evaluation, rounding_of, row_dots

RIDGE = 4.0
"""Roundings below which no ridge goes: the normal matrix is not known better."""

CUT, GROWTH = 0.25, 2.0
"""What a rejected step is shortened by, and what steps grow by that are not rejected, up to their full length."""


class Mixing:
    """The last changes of residual and image of every sample, and the combination of them that it suggests.

    With f = F(z) - z, and the columns of DF and DG the last changes of f and of F(z):
        gamma = argmin ||f - DF gamma||^2 + ridge ||S gamma||^2      z <- z + beta f - (DG + (beta - 1) DF) gamma
    with S = diag(||DF_k||), so that neither the scale of the sample nor that of a change matters. `share`, 1 unless
    steps of the sample were rejected, multiplies gamma.
    Shapes: DF, DG (n, k, m); normal matrix DF^T DF (n, k, k); f, z (n, m).
    Source: Anderson 1965, J. ACM 12, 547; Walker and Ni 2011, SIAM J. Numer. Anal. 49, eq. 2.2 (type II).
    """

    def __init__(self, like: Tensor, memory: int, ridge: float, beta: float) -> None:
        n, m = like.shape
        self.beta, self.memory, self.filled = beta, memory, 0
        self.ridge = max(ridge, RIDGE * rounding_of(like))
        self.changes, self.images = like.new_zeros((n, memory, m)), like.new_zeros((n, memory, m))
        self.normal = like.new_zeros((n, memory, memory))
        self.share = like.new_ones(n)
        self.spare = torch.empty_like(like)

    def remember(self, f: Tensor, image: Tensor, f_before: Tensor, image_before: Tensor) -> None:
        """Add a column to DF and to DG, in the place of the oldest."""
        slot = self.filled % self.memory
        self.filled += 1
        torch.sub(f, f_before, out=self.changes[:, slot])
        torch.sub(image, image_before, out=self.images[:, slot])
        self.normal[:, slot, :] = self.normal[:, :, slot] = self._dots(self.changes[:, slot])

    def _dots(self, vector: Tensor) -> Tensor:
        """DF^T vector, (n, k)."""
        return torch.stack([row_dots(self.changes[:, k], vector, self.spare) for k in range(self.memory)], dim=1)

    def reject(self, samples: Tensor) -> None:
        """Take back the last column of these samples, and shorten their steps; the steps of others grow again."""
        self.share.mul_(GROWTH).clamp_(max=1.0)
        if not len(samples):
            return
        slot = (self.filled - 1) % self.memory
        self.share[samples] *= CUT / GROWTH
        self.changes[samples, slot] = self.images[samples, slot] = 0.0
        self.normal[samples, slot, :] = self.normal[samples, :, slot] = 0.0

    def coefficients(self, f: Tensor) -> Tensor:
        """Gamma, (n, k): 0 for columns that are 0, and for samples whose normal equations have no finite solution."""
        squares = self.normal.diagonal(dim1=1, dim2=2)
        scale = torch.where(squares > 0, squares.rsqrt(), 1.0)  # (n, k)
        matrix = scale.unsqueeze(2) * self.normal * scale.unsqueeze(1)
        matrix.diagonal(dim1=1, dim2=2).fill_(1.0 + self.ridge)
        gamma, _ = torch.linalg.solve_ex(matrix, scale * self._dots(f))
        finite: Tensor = (scale * gamma).nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
        return finite

    def step(self, f: Tensor, image: Tensor, out: Tensor) -> None:
        """Write the next point: F(z) - DG gamma for beta = 1."""
        gamma = (self.share.unsqueeze(1) * self.coefficients(f)).unsqueeze(1)  # (n, 1, k)
        torch.baddbmm(image.unsqueeze(1), gamma, self.images, alpha=-1, out=out.unsqueeze(1))
        if self.beta != 1:
            rest = torch.baddbmm(f.unsqueeze(1), gamma, self.changes, alpha=-1).squeeze(1)
            out.add_(rest, alpha=self.beta - 1)


class Before:
    """Residuals and images of the points before, which samples go back to whose residual has grown too much."""

    def __init__(self, at: Evaluation) -> None:
        self.difference, self.image = torch.empty_like(at.difference), torch.empty_like(at.image)
        self.norms = torch.linalg.vector_norm(at.difference, dim=1)

    def swap(self, at: Evaluation) -> None:
        """What `at` holds becomes what was before, without a copy."""
        self.difference, at.difference = at.difference, self.difference
        self.image, at.image = at.image, self.image

    def restore_worse(self, at: Evaluation, factor: float) -> Tensor:
        """Put back the samples whose residual is not below `factor` times that before; returns them."""
        norms = torch.linalg.vector_norm(at.difference, dim=1)
        worse: Tensor = (~(norms <= factor * self.norms)).nonzero().squeeze(1)
        for now, before in ((at.difference, self.difference), (at.image, self.image), (norms, self.norms)):
            now[worse] = before[worse]
        self.norms = norms
        return worse
