# %% [markdown]
# # Own data, before and after training
#
# The theory asks for samples of one norm, no two of them parallel. Here they are drawn in numpy, written to a file, and
# described by a recipe. What the theory says of a draw is checked before anything is trained, then one network is.

# %%
from pathlib import Path

import numpy as np

import deqcli

generator = np.random.default_rng(0)
X = generator.standard_normal((12, 8))
X *= np.sqrt(8) / np.linalg.norm(X, axis=1, keepdims=True)
y = np.sin(X[:, 0])
np.savez("waves.npz", X=X, y=y)

Path("waves.yaml").write_text(
    """
name: waves
data: {kind: file, path: waves.npz}
model: {width: 400, sigma_w_sq: 0.02}
train: {steps: 300, learning_rate: auto, dtype: float64}
log: {spectral_every: 10}
""",
    encoding="utf-8",
)

# %% [markdown]
# Which inequalities of the theory hold for the draw, and by what factor do the others fail?

# %%
check = deqcli.load(deqcli.check_init("waves.yaml").folder)
check.certificates[["certificate", "lhs", "rhs", "slack", "holds"]]

# %% [markdown]
# Condition 1 of Theorem 1 is sufficient, and far from necessary. Training shows all three conclusions all the same.

# %%
run = deqcli.train("waves.yaml")
run

# %%
results = run.results
assert results["max_spectral_norm_upper"] < 1  # (i)
assert results["min_lambda_ratio"] > 0.5  # (ii)
assert results["max_loss_over_bound"] <= 1  # (iii)

# %% [markdown]
# What a prediction without training would have said, and what the kernel did meanwhile.

# %%
prediction = deqcli.load(deqcli.predict("waves.yaml", losses=[0.01]).folder)
prediction.summary[["learning_rate", "initial_loss", "final_loss"]]

# %%
run.plot("loss")

# %%
run.plot("spectra")
