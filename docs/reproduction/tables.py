"""The tables of docs/reproduction.md, from the CSV files beside this script, put into the page.

python docs/reproduction/tables.py
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

import deqcli

HERE = Path(__file__).parent
PAGE = HERE.parent / "reproduction.md"
MARKED = re.compile(r"(<!-- table: (\w+) -->\n)(?:\|.*\n)*")

PAPER = {3000: 0.0, 3500: -0.9, 4000: -2.4, 4500: -4.0, 5000: -6.0}
"""log(loss) after 2000 steps, read off Figure 1 (a) of Ling et al. 2023."""

PANELS = {"(a)": (3000, 5000, 0.0, -6.0), "(b)": (21000, 25000, 0.5, -0.5), "(c)": (26000, 30000, -1.4, -2.6)}
"""Least and greatest width of a panel, and log(loss) at its end for both, read off Figure 1."""

STEPS, SIGMA_W_SQ = 2000, 0.08
RATES = (2e-7, 4e-7, 6e-7, 8e-7, 8.7e-7)
TIMES = (0.6, 1.2, 2.4, 4.8)
"""eta m step; a network of width 3000 is at 4.8 after 2000 steps at 8e-7."""

RESULTS = {
    "log(initial_loss)": 2, "log(final_loss)": 2, "log(loss_predicted)": 2,
    "lambda_0": 4, "max_spectral_norm": 4, "min_lambda_ratio": 4,
    "rate_measured": 6, "rate_kernel": 6, "rate_theorem": 6, "max_loss_over_bound": 3, "distance_w": 3,
}  # fmt: skip
"""The results of a run in the page's table of seeds, and their decimals."""


@cache
def sweep(name: str) -> deqcli.loaded.Sweep:
    """A sweep that was committed here."""
    found = deqcli.load(HERE / name)
    assert isinstance(found, deqcli.loaded.Sweep)
    return found


@cache
def predicted(name: str, table: str = "summary") -> pd.DataFrame:
    """A table of a prediction that was committed here."""
    return deqcli.load(HERE / "predicted" / name).table(table)


def last(table: pd.DataFrame) -> pd.DataFrame:
    """The last row of each width and seed."""
    return table.sort_values("step").groupby(["width", "seed"]).last()


def markdown(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def log(value: float) -> str:
    """A natural logarithm in two decimals."""
    return f"{np.log(value):.2f}"


ENDS = ("measured", "from H(0)", "from H_inf", "band of H_inf, 5 to 95 %")


def ends(name: str) -> dict[int, list[str]]:
    """log(loss) at the end of each width of a sweep of one seed: what `ENDS` says."""
    found, limits = sweep(name), predicted(name).set_index("width")
    measured, draws = (last(table)["loss"] for table in (found.loss, found.prediction))
    rows = {}
    for width, limit in limits.iterrows():
        band = f"{log(limit['final_loss_low'])} to {log(limit['final_loss_high'])}"
        rows[width] = [log(measured[width, 0]), log(draws[width, 0]), log(limit["final_loss"]), band]
    return rows


def final() -> str:
    """log(loss) after 2000 steps, and what was read off and predicted."""
    rows = [[width, PAPER[width], *cells] for width, cells in ends("figure-1a").items()]
    return markdown(["m", "read off the paper", *ENDS], rows)


def norms() -> str:
    """||W||_2 through training."""
    rows = []
    for width, run in sweep("figure-1a").spectral.groupby("width"):
        norm, moved = run["spectral_norm"], run["distance_w"].iloc[-1]
        rows.append([width, *(f"{each:.5f}" for each in (norm.iloc[0], norm.min(), norm.max())), f"{moved:.3f}"])
    return markdown(["m", "at step 0", "least", "greatest", "norm of W - W(0) at the end"], rows)


def directions(name: str, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues of a kernel, and the part of Phi(0) that each eigendirection has."""
    table = predicted(name, "directions")
    own = table[table["width"] == width]
    return own["eigenvalue"].to_numpy(), own["initial_loss"].to_numpy()


def ends_of_kernel(width: int, rates: np.ndarray, name: str = "figure-1a-draw") -> np.ndarray:
    """log Phi(2000) = log sum_k (1 - eta h_k)^4000 Phi_k(0) at each rate, of H(0) if not said otherwise."""
    eigenvalues, parts = directions(name, width)
    return np.log((1 - rates[:, None] * eigenvalues) ** (2 * STEPS) @ parts)


def stable_rates(width: int) -> np.ndarray:
    """Rates at which H(0) is stable."""
    return np.linspace(0.2, 1, 3201) * 2 / directions("figure-1a-draw", width)[0].max()


def lowest(width: int) -> float:
    """The least log Phi(2000) at any rate at which H(0) is stable."""
    return float(ends_of_kernel(width, stable_rates(width)).min())


def implied(width: int) -> str:
    """The least rate at which H(0) ends where the paper's curve does, where there is one."""
    rates = stable_rates(width)
    below = rates[ends_of_kernel(width, rates) <= PAPER[width]]
    return f"{below[0]:.2e}" if len(below) else "none"


def trained_rate() -> float:
    """The learning rate of the runs at full size."""
    return float(predicted("figure-1a")["learning_rate"].iloc[0])


def curves() -> dict[int, pd.Series]:
    """log(loss) against the step of each trained width."""
    table = sweep("figure-1a").loss
    return {width: np.log(run.set_index("step")["loss"]) for width, run in table.groupby("width")}


def level_with_the_paper() -> int:
    """The first committed step at which the narrowest trained network is where the paper's ends."""
    narrowest = curves()[min(PAPER)]
    return int(narrowest.index[narrowest <= PAPER[min(PAPER)]][0])


def rates() -> str:
    """log Phi(2000) by the kernel of each draw at several rates, and as trained."""
    ends = {width: ends_of_kernel(width, np.array(RATES)) for width in PAPER}
    rows = {f"H(0) at {rate:g}": [each[place] for each in ends.values()] for place, rate in enumerate(RATES)}
    rows["H(0), each width at its best rate"] = [lowest(width) for width in PAPER]
    for step in (STEPS, level_with_the_paper()):
        rows[f"trained at {trained_rate():g}, step {step}"] = [curves()[width][step] for width in PAPER]
    rows["read off the paper"] = list(PAPER.values())
    table = [[name, *(f"{end:.2f}" for end in ends), f"{ends[0] - ends[-1]:.2f}"] for name, ends in rows.items()]
    return markdown(["log(loss) after 2000 steps, if not said otherwise", *map(str, PAPER), "from 3000 to 5000"], table)


def trained_kernels() -> pd.DataFrame:
    """Eigenvalues of H(0) and of H(T), that of the last step, by width and place in ascending order; every tenth."""
    table = pd.read_csv(HERE / "figure-1a-kernels.csv")
    return table.pivot(index=["width", "index"], columns="curve", values="value")


def kernels() -> str:
    """Eigenvalues of H(T) over those of H(0)."""
    table, rows = trained_kernels(), []
    growth = table["H(T)"] / table["H(0)"]
    for width in PAPER:
        least = f"{table['H(0)'][width, 0]:.0f}"
        rows.append([width, least, *(f"{growth[width, place]:.3f}" for place in (0, 500, 998, 999))])
    header = ["m", "least of H(0)", "H(T) over H(0): least", "median", "second largest", "largest"]
    return markdown(header, rows)


def stable() -> str:
    """The largest stable learning rate of each kernel, at the start and at the end."""
    rows = []
    for kernel, greatest in trained_kernels().groupby("width").last().items():
        rows.append([f"2/lambda_max of {kernel}", *(f"{2 / greatest[width]:.2e}" for width in PAPER)])
    rows.append(["at which H(0) ends where the paper's curve does", *map(implied, PAPER)])
    return markdown(["learning rate", *map(str, PAPER)], rows)


def start(n: int = 1000) -> float:
    """E Phi(0) = 1/2 sum_i (K_ii + y_i^2), with y_i^2 of mean 1."""
    return n / 2 * (1 / (1 - SIGMA_W_SQ) + 1)


def limits() -> str:
    """How low the widest network can end if one kernel that grows like m trains all of them."""
    rows = []
    for panel, (narrow, wide, above, below) in PANELS.items():
        begin = np.log(start())
        least = above - (begin - above) * (wide / narrow - 1)
        rows.append([panel, f"{begin:.2f}", above, below, f"{least:.2f}"])
    header = [
        "panel",
        "log(loss) at the start",
        "narrowest, read off",
        "widest, read off",
        "widest, at best by one kernel",
    ]
    return markdown(header, rows)


def rescaled() -> str:
    """log(loss) at equal eta m step."""
    rows: list[list[object]] = []
    runs = dict(iter(sweep("figure-1a").loss.groupby("width")))
    for time in TIMES:
        times = {width: trained_rate() * width * run["step"] for width, run in runs.items()}
        logs = [np.interp(time, times[width], np.log(run["loss"])) for width, run in runs.items()]
        rows.append([time, *(f"{each:.2f}" for each in logs), f"{max(logs) - min(logs):.2f}"])
    return markdown(["eta m step", *map(str, runs), "largest - least"], rows)


def bound() -> str:
    """Theorem 1's bound at the last step."""
    rows = []
    results = sweep("figure-1a").manifest.results
    for (width, _), row in last(sweep("figure-1a").spectral).iterrows():
        own = {key.split(".")[-1]: value for key, value in results.items() if key.startswith(f"{row['run_id']}.")}
        loss = last(sweep("figure-1a").loss)["loss"][width, 0]
        rows.append([
            width, f"{own['lambda_0']:.1f}", log(own["initial_loss"]), log(row["loss_bound"]), log(loss),
            *(f"{own[f'rate_{each}'] * 1000:.3f}" for each in ("theorem", "kernel", "measured")),
        ])  # fmt: skip
    header = [
        "m", "lambda_0", "log Phi(0)", "log of the bound at 2000", "log Phi(2000)",
        "1000 x rate of the bound", "of H(0)", "measured",
    ]  # fmt: skip
    return markdown(header, rows)


def results_of(name: str) -> pd.DataFrame:
    """A row for each run: its results, the last row of spectral.csv, and the losses as logarithms too."""
    found: dict[str, dict[str, float]] = {}
    for key, value in sweep(name).manifest.results.items():
        run, dot, result = key.partition(".")
        if dot:
            found.setdefault(run, {})[result] = float(value)
    table = sweep(name).runs.set_index("run_id")[["width", "seed"]].join(pd.DataFrame(found).T)
    end = sweep(name).spectral.sort_values("step").groupby("run_id").last()
    table = table.join(end[["loss_predicted", "distance_w", "distance_u", "distance_a"]])
    for loss in ("initial_loss", "final_loss", "loss_predicted"):
        table[f"log({loss})"] = np.log(table[loss])
    return table


def spread(name: str) -> pd.DataFrame:
    """Mean, standard deviation, least, median and greatest over seeds of every result, for each width."""
    table = results_of(name).drop(columns="seed")
    long = table.melt("width", var_name="number").dropna()
    found = long.groupby(["width", "number"])["value"].agg(["count", "mean", "std", "min", "median", "max"])
    return found.reset_index()


def seeds() -> str:
    """The spread over seeds of what a run comes to."""
    table, rows = spread("figure-1a-small").set_index(["number", "width"]), []
    widths = sorted({width for _, width in table.index})
    for number, digits in RESULTS.items():
        own = [table.loc[(number, width)] for width in widths]
        cells = [f"{row['mean']:.{digits}f} ± {row['std']:.{digits}f}" for row in own]
        rows.append([number, *cells])
    return markdown(["mean ± standard deviation", *(f"m = {width}" for width in widths)], rows)


def digits() -> str:
    """The digits: log(loss) at the end, and what was predicted."""
    return markdown(["m", *ENDS], [[width, *cells] for width, cells in ends("figure-1-digits").items()])


PREDICTED = {"figure-1b-digits": "(b)", "figure-1b-sphere": "(b)", "figure-1c-sphere": "(c)"}


def others() -> str:
    """What the kernel predicts for panels (b) and (c) on the data there is; the loss of n samples times 1000/n."""
    rows = []
    for name, panel in PREDICTED.items():
        n = len(directions(name, predicted(name)["width"].max())[0])
        greatest = 0.99 * predicted(name)["learning_rate_largest_stable"].min()
        for _, row in predicted(name).iloc[[0, -1]].iterrows():
            best = np.exp(ends_of_kernel(row["width"], np.array([greatest]), name)[0])
            ends = [row["initial_loss"], row["final_loss"], best]
            rates = (f"{row[each]:.3g}" for each in ("learning_rate", "learning_rate_largest_stable"))
            scaled = (log(end * 1000 / n) for end in ends)
            rows.append([panel, f"{row['dataset']}, n = {n}", row["width"], *rates, *scaled])
    header = [
        "panel", "data", "m", "learning rate", "2/lambda_max(H_inf)", "log(1000 loss/n) at 0", "at 2000",
        "at 0.99 x the least 2/lambda_max",
    ]  # fmt: skip
    return markdown(header, rows)


TABLES: dict[str, Callable[[], str]] = {
    each.__name__: each
    for each in (final, kernels, norms, rates, stable, limits, rescaled, bound, seeds, digits, others)
}
SPREADS = ("figure-1a-small",)


def page() -> str:
    """The page with its tables as the CSV files have them."""
    return MARKED.sub(lambda found: found[1] + TABLES[found[2]](), PAGE.read_text(encoding="utf-8"))


def main() -> None:
    """Write the page's tables, and the spread of every number over the seeds of a sweep."""
    PAGE.write_text(page(), encoding="utf-8")
    for name in SPREADS:
        spread(name).to_csv(HERE / f"{name}-spread.csv", index=False)


if __name__ == "__main__":
    main()
