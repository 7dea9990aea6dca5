"""The bound of conclusion (iii) between the steps at which a run wrote it down."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


def bounds_at(spectral: pd.DataFrame, steps: np.ndarray) -> np.ndarray:
    """loss_bound at some steps, from a run's rows of spectral.csv: on lines through its logarithms there.

    That is exact while the learning rate is constant, where the bound is (1 - eta lambda_0/2)^step Phi(0). After the
    last row the last line goes on; NaN where fewer than two rows have a positive bound.
    """
    import numpy as np

    known = spectral[spectral["loss_bound"] > 0].sort_values("step", kind="stable")
    x, logs = known["step"].to_numpy(dtype=float), np.log(known["loss_bound"].to_numpy(dtype=float))
    if len(x) < 2:
        return np.full(len(steps), np.nan)
    found = np.interp(steps, x, logs)
    after = steps > x[-1]
    found[after] = logs[-1] + (steps[after] - x[-1]) * (logs[-1] - logs[-2]) / (x[-1] - x[-2])
    return np.asarray(np.exp(found))
