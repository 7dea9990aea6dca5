"""How many bytes the tensors of a run take: arithmetic only, so that an impossible size is refused in no time."""

from __future__ import annotations

CHOLESKY_UP_TO = 8000
"""Largest side of a matrix whose norm is bounded by Cholesky (two float64 Gram matrices, 1 GB); above: Lanczos."""


def run_bytes(
    m: int, d: int, n: int, itemsize: int, arrays: int, keeps_start: bool = True, matrices: tuple[int, int] = (0, 0)
) -> int:
    """Bytes at the peak of a run: the larger of its training and of the float64 measurement of its draw.

    `arrays` are what the solver holds of the size (m, n) beside what every solver has, `matrices` of the size
    of W beside what every training has, and in float64 what the draw itself takes; `keeps_start` is whether W(0) is
    kept beside W, or drawn again for each row of spectral.csv.

    Training holds W and U twice (now and at the start) and W in half the precision; of (m, n): two solutions with
    their pre-activations, slope and three differences, three forms of U X, and ten buffers. The measurement holds W in
    float64 up to `CHOLESKY_UP_TO` with two Gram matrices of it, sixteen (m, n) and about 14 (n, n) matrices, beside
    the network without its buffers.
    """
    trained, drawn = matrices
    of_w = trained + (2.5 if keeps_start else 1.5)
    training = itemsize * (of_w * m * m + 2 * m * d + (22 + arrays) * m * n + d * n)
    wide = m * m + 2 * m * m if m <= CHOLESKY_UP_TO else 0
    measurement = 8 * (wide + m * d + (16 + arrays) * m * n + 2 * d * n + 14 * n * n)
    measurement += itemsize * (m * m + m * d + 12 * m * n)
    return int(max(training, measurement, 8 * drawn * m * m))
