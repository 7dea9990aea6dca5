"""Folders of sweeps that nobody ran: tables of any size from numpy, as runs would have left them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from deqcli.runs.folder import Manifest, hashes, write_manifest
from deqcli.sweep.gather import Gathered
from deqcli.sweep.spectra import KERNELS
from deqcli.sweep.stored import Stored

KEYS = {"recipe": "made-up", "dataset": "sphere", "activation": "relu"}
CERTIFICATES = (
    ("assumption_1", 1.5625), ("well_posed", 1.25), ("theorem_2", 0.4), ("condition_1_eq_7", 1e-7),
    ("condition_1_eq_8", 1e-6), ("condition_1_eq_9_with_8", 1e-9), ("theorem_1_eq_10", 2e-4),
)  # fmt: skip
RATE = 1e-5
RECIPE = """name: made-up
data: {kind: sphere, num_samples: 1000, input_dim: 1000, labels: gaussian, seed: 0}
model: {width: WIDTH, activation: relu, init: gaussian, sigma_w_sq: 0.08, readout_scale: 1.0}
solver: {kind: picard, tolerance: 1.0e-06, max_iterations: 500}
train: {steps: STEPS, learning_rate: 1.0e-05, dtype: float32, tf32: false, seed: SEED}
log: {loss_every: 1, spectral_every: 20, checkpoint_every: 200}
"""
RESULTS = {
    "learning_rate": RATE, "lambda_0": 2.0, "max_spectral_norm_upper": 0.83, "max_spectral_norm_upper_step": 20,
    "min_lambda_ratio": 0.91, "min_lambda_ratio_step": 40, "max_loss_over_bound": 0.97, "max_loss_over_bound_step": 1,
    "rate_measured": 0.002, "rate_kernel": 0.0021, "rate_theorem": 1e-5,
}  # fmt: skip


def run_id(width: int, seed: int) -> str:
    """As those of runs, with a hash that tells nothing."""
    return f"w{width:05d}-s{seed:03d}-{(width * 1000 + seed) % 16**8:08x}"


def write_sweep(
    out: Path, widths: Sequence[int] = (100, 200), seeds: Sequence[int] = (0, 1), steps: int = 60,
    run_folders: bool = True,
) -> Path:  # fmt: skip
    """A complete sweep below `out`; its runs have a manifest and a recipe, and no tables of their own."""
    folder = out / "made-up/sweeps/0123abcd"
    folder.mkdir(parents=True)
    cells = [(width, seed) for width in widths for seed in seeds]
    for name, table in tables(cells, steps).items():
        table.to_csv(folder / name, index=False)
    listed = f"sweep: {{widths: {list(widths)}, seeds: {list(seeds)}, over: {{}}}}\n"
    (folder / "recipe.yaml").write_text(_recipe(widths[0], seeds[0], steps) + listed)
    names = [path.name for path in sorted(folder.iterdir())]
    ids = [run_id(*cell) for cell in cells]
    note = Manifest(kind="sweep", id="0123abcd", recipe="made-up", status="complete", cells=ids)
    write_manifest(folder, note.model_copy(update={"files": hashes(folder, names)}))
    for cell in cells if run_folders else []:
        _write_run(out / "made-up/runs" / run_id(*cell), *cell, steps)
    return folder


def _recipe(width: int, seed: int, steps: int) -> str:
    return RECIPE.replace("WIDTH", str(width)).replace("SEED", str(seed)).replace("STEPS", str(steps))


def _write_run(folder: Path, width: int, seed: int, steps: int) -> None:
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(_recipe(width, seed, steps))
    results = RESULTS | {"final_loss": 1.0, "initial_loss": 100.0, "steps": steps}
    versions = {"deqcli": "0.1.0", "torch": "2.13.0"}
    write_manifest(
        folder,
        Manifest(
            kind="run", id=folder.name, recipe="made-up", status="complete", results=results, device="cpu",
            device_name="cpu", threads=1, versions=versions, git="0" * 40,
        ),
    )  # fmt: skip


def large(source: Stored, widths: Sequence[int], seeds: Sequence[int], steps: int) -> Gathered:
    """What `gather` would read of a sweep of this size, which is nowhere on disk."""
    found = tables([(width, seed) for width in widths for seed in seeds], steps)
    loss, spectral = found["loss.csv"], found["spectral.csv"]
    spectral["lambda_ratio"] = spectral["lambda_min"] / 2
    for rows in (loss, spectral):
        rows["time"] = RATE * rows["width"] * rows["step"]
    return Gathered([source], [], loss, spectral, found["certificates.csv"], found["prediction.csv"], found["runs.csv"])


def tables(cells: Sequence[tuple[int, int]], steps: int) -> dict[str, pd.DataFrame]:
    """The tables of runs of these widths and seeds, by file name."""
    parts: dict[str, list[pd.DataFrame]] = {}
    for width, seed in cells:
        keys = {"run_id": run_id(width, seed), **KEYS, "width": width, "seed": seed}
        for name, rows in _of_run(width, seed, steps).items():
            own = pd.DataFrame(rows)
            parts.setdefault(name, []).append(pd.DataFrame(keys, index=own.index).join(own))
    return {name: pd.concat(rows, ignore_index=True) for name, rows in parts.items()}


def _of_run(width: int, seed: int, steps: int) -> dict[str, dict[str, object]]:
    """Loss exp(-rate step), noisy residuals and iterations, a spectral norm that wanders."""
    random = np.random.default_rng([width, seed])
    step, logged = np.arange(steps + 1), np.arange(0, steps + 1, 20)
    rate = 5e-6 * width * (1 + 0.1 * random.random())
    loss, predicted = 100 * np.exp(-rate * step), 100 * np.exp(-0.98 * rate * step)
    grid = np.unique(np.concatenate([np.linspace(0, steps, 200), np.geomspace(1, steps, 200)]).round().astype(int))
    norm = 0.79 + np.cumsum(random.normal(size=len(logged))) * 1e-5
    names = [name for name, _ in CERTIFICATES]
    slack = np.array([value for _, value in CERTIFICATES])
    noise = {name: random.lognormal(size=steps + 1) for name in ("residual", "adjoint_residual")}
    return {
        "loss.csv": {
            "step": step, "loss": loss, "residual": 1e-7 * noise["residual"],
            "iterations": random.integers(3, 12, steps + 1), "adjoint_residual": 1e-7 * noise["adjoint_residual"],
            "adjoint_iterations": random.integers(3, 12, steps + 1), "status": "converged",
        },
        "spectral.csv": {
            "step": logged, "spectral_norm": norm, "spectral_norm_upper": norm + 1e-5 * logged,
            "lambda_min": 2 + 0.1 * np.sin(logged / 100), "gradient_norm": 1.0, "pl_ratio": 3.0, "distance_w": 0.1,
            "distance_u": 0.1, "distance_a": 0.1, "loss_bound": 100 * np.exp(-1e-5 * logged),
            "loss_predicted": 100 * np.exp(-0.98 * rate * logged),
        },
        "certificates.csv": {
            "certificate": names, "source": "Ling et al. 2023", "lhs": slack, "rhs": 1.0, "slack": slack,
            "holds": slack >= 1, "repaired_by_width": slack < 1,
        },
        "prediction.csv": {
            "kernel": "H(0)", "learning_rate": RATE, "step": grid, "time": RATE * width * grid,
            "loss": predicted[grid], "loss_low": None, "loss_median": None, "loss_high": None,
        },
        "runs.csv": {
            "status": ["complete"], "attempts": 1, "steps": steps, "final_loss": loss[-1],
            "max_spectral_norm": norm.max(), "min_lambda_ratio": 0.95, "error": None,
        },
    }  # fmt: skip


def spectra_of(count: int) -> dict[str, np.ndarray]:
    """Eigenvalues of every kernel, as `final_spectra` has them."""
    return {kernel: np.geomspace(1e-3 * (index + 1), 1e4, count) for index, kernel in enumerate(KERNELS)}
