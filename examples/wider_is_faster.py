# %% [markdown]
# # Wider is faster, and lazier
#
# Networks of several widths are trained on handwritten 0 against 1. Theory says of wide ones: the loss falls as the
# tangent kernel of the draw predicts, the weights hardly move, and how far they move does not grow with the width.
# Each run is a folder below `outputs/`; a second start of this notebook finds all of them complete.

# %%
import numpy as np

import deqcli

sweep = deqcli.sweep_width("quickstart", "train.steps=100", widths=[64, 128, 256, 512], seeds=[0, 1])
sweep.runs[["width", "seed", "final_loss", "max_spectral_norm"]]

# %% [markdown]
# log(loss) and the spectral norm of W against the gradient step, as in Figure 1 of Ling et al. 2023.

# %%
sweep.plot("figure-1")

# %% [markdown]
# Most of the difference between the widths is time that runs faster: against eta m step the curves come close.

# %%
sweep.plot("rescaled")

# %% [markdown]
# How far from its prediction does each width end? In decades of the loss, mean over the seeds.

# %%
logged = sweep.spectral.merge(sweep.loss[["run_id", "step", "loss"]], on=["run_id", "step"])
logged["decades"] = np.log10(logged["loss"] / logged["loss_predicted"])
last = logged[logged["step"] == 100].groupby("width")["decades"].mean()
print(last.to_string())

# %% [markdown]
# And how far does W go, beside its own size? ||W(0)||_F grows like sqrt(2 sigma_w_sq m), the distance does not.

# %%
moved = logged[logged["step"] == 100].groupby("width")["distance_w"].mean()
size = np.sqrt(2 * sweep.recipe["model"]["sigma_w_sq"] * moved.index.to_numpy())
print((moved / size).to_string())

# %% [markdown]
# The wider network is the lazier one.

# %%
assert (moved / size).is_monotonic_decreasing
