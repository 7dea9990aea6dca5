"""How many bytes the tensors of a run take: arithmetic only, so that an impossible size is refused in no time."""

from __future__ import annotations

CHOLESKY_UP_TO = 8000
"""Largest side of a matrix whose norm is bounded by Cholesky (two float64 Gram matrices, 1 GB); above: Lanczos."""


def run_bytes(m: int, d: int, n: int, itemsize: int) -> int:
    """Bytes at the peak of a run: the training state beside the float64 measurement of the draw.

    Training holds W and U twice (now and at the start), Z, V and four buffers (m, n) and two gradients' worth of
    temporaries. The measurement holds W, U and the same buffers in float64, up to two Gram matrices of W, and about
    ten (n, n) kernels.
    """
    network = m * m + m * d + 8 * m * n + d * n
    training = network + m * m + m * d
    measurement = network + 2 * min(m, CHOLESKY_UP_TO) ** 2 + 10 * n * n
    return itemsize * training + 8 * measurement
