"""The picture of the spectra of G/m and K: its CSV against numpy's histograms, its files, and what is left out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deqcli.show.spectra_figure import bins, caption, draw_spectra, isolated, spread, title_of

N, SPIKES = 60, (40.0, 150.0)


def spectrum(width: int, seed: int) -> np.ndarray:
    """A bulk of eigenvalues from 0.1 to 2, and two large ones, as `G/m` of a seed; those of seed -1 are K's."""
    generator = np.random.default_rng([width, seed] if seed >= 0 else 7)
    moved = 1 + (0.1 * generator.standard_normal(2) if seed >= 0 else 0)
    return np.sort(np.concatenate([generator.uniform(0.1, 2, N - 2), SPIKES * moved]))


def checked(folder: Path, widths: Sequence[int], seeds: Sequence[int], with_limit: bool = True, zeros: int = 0) -> Path:
    """A folder with the two tables that the figure reads."""
    spectra, draws = [], []
    for width in widths:
        for seed in seeds:
            known = {"recipe": "made-up", "dataset": "none", "activation": "relu", "width": width, "seed": seed}
            draws.append(known | {"gram_deviation": 1 / np.sqrt(width) + seed / 1000})
            of_draw = spectrum(width, seed)
            of_draw[:zeros] = 1e-18
            kernels = {"G": width * of_draw, "H": width * of_draw}
            if with_limit:
                kernels["m K"] = width * spectrum(width, -1)
            for kernel, values in kernels.items():
                spectra += [known | {"kernel": kernel, "index": i, "eigenvalue": v} for i, v in enumerate(values)]
    pd.DataFrame(spectra).to_csv(folder / "spectra.csv", index=False)
    pd.DataFrame(draws).to_csv(folder / "draws.csv", index=False)
    return folder


def numbers(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "figures" / "spectra.csv")


def test_the_csv_has_the_histograms_of_numpy(tmp_path: Path) -> None:
    widths, seeds = (100, 400), (0, 1, 5)
    assert draw_spectra(checked(tmp_path, widths, seeds)) == [
        f"figures/spectra.{x}" for x in ("png", "svg", "pdf", "csv")
    ]
    rows, looked = numbers(tmp_path), 0
    assert list(rows.columns) == ["width", "curve", "part", "low", "high", "count", "seeds"]
    for width in widths:
        for curve, own in (("G/m", seeds), ("K", (-1,))):
            shown = rows[(rows["width"] == width) & (rows["curve"] == curve) & (rows["part"] == "histogram")]
            edges = np.array([*shown["low"], shown["high"].iloc[-1]])
            expected = np.mean([np.histogram(spectrum(width, seed), edges)[0] for seed in own], axis=0)
            np.testing.assert_allclose(shown["count"], expected, atol=1e-12)
            assert shown["count"].sum() == pytest.approx(N)  # every eigenvalue is in a bin
            assert (shown["seeds"] == len(own)).all()
            np.testing.assert_allclose(np.diff(np.log(edges)), np.log(edges[1] / edges[0]), rtol=1e-6)
            looked += 1
    assert looked == 4


def test_large_eigenvalues_of_every_seed_have_a_stem(tmp_path: Path) -> None:
    draw_spectra(checked(tmp_path, (200,), (0, 1)))
    rows = numbers(tmp_path)
    alone = rows[(rows["part"] == "isolated") & (rows["low"] > 10)]
    of_seeds = np.concatenate([spectrum(200, seed)[-2:] for seed in (0, 1)])
    np.testing.assert_allclose(np.sort(alone.loc[alone["curve"] == "G/m", "low"]), np.sort(of_seeds), rtol=1e-12)
    np.testing.assert_allclose(alone.loc[alone["curve"] == "K", "low"], SPIKES, rtol=1e-12)
    assert (alone["low"] == alone["high"]).all()
    assert alone["count"].isna().all()


def test_what_is_alone_is_farther_than_a_bin_from_both_neighbours() -> None:
    edges = np.linspace(0, 10, 11)
    assert isolated(np.array([0.5, 1.0, 1.2, 4.0, 6.5, 7.6, 8.0]), edges).tolist() == [4.0, 6.5]
    in_decades = np.geomspace(1e-3, 1e3, 7)
    assert isolated(np.array([1e-2, 2e-2, 1.0, 500.0]), in_decades).tolist() == [1.0, 500.0]
    assert isolated(np.array([1e-9, 1.0]), in_decades).tolist() == [1.0]  # the first has no place


@pytest.mark.parametrize("values", [[1.0, 2.0, 3.0], [2.0, 2.0], [5.0], [1e-3, 1.0, 1e4], [0.0, -1e-17, 1.0, 100.0]])
def test_bins_hold_every_positive_eigenvalue(values: list[float]) -> None:
    edges = bins(np.array(values))
    positive = np.array(values)[np.array(values) > 1e-12]
    assert np.histogram(positive, edges)[0].sum() == len(positive)
    assert (np.diff(edges) > 0).all()
    even = np.diff(edges if max(positive) < 30 * min(positive) else np.log(edges))
    np.testing.assert_allclose(even, even[0], rtol=1e-6)


def test_eigenvalues_that_are_0_but_for_rounding_are_counted_in_the_title(tmp_path: Path) -> None:
    draw_spectra(checked(tmp_path, (50,), (0,), zeros=10))
    rows = numbers(tmp_path)
    assert rows.loc[rows["part"] == "zero", ["curve", "count"]].to_numpy().tolist() == [["G/m", 10.0]]
    assert rows.loc[(rows["part"] == "histogram") & (rows["curve"] == "G/m"), "count"].sum() == N - 10
    title = title_of(50, rows, pd.read_csv(tmp_path / "draws.csv"))
    assert title == r"$m = 50$:   $\|G/m - K\|_F/\|K\|_F$ = 0.141;   10 of $G/m$ are 0"


def test_the_title_has_the_deviation_from_the_least_to_the_greatest_seed(tmp_path: Path) -> None:
    draw_spectra(checked(tmp_path, (400,), (0, 9)))
    assert title_of(400, numbers(tmp_path), pd.read_csv(tmp_path / "draws.csv")).endswith("= 0.05 to 0.059")


def test_at_most_four_widths_are_drawn_and_the_others_named_in_the_caption(tmp_path: Path) -> None:
    assert [spread(range(1, count + 1)) for count in (1, 3, 4, 5, 7)] == [
        [1], [1, 2, 3], [1, 2, 3, 4], [1, 2, 4, 5], [1, 3, 5, 7],
    ]  # fmt: skip
    draw_spectra(checked(tmp_path, (10, 20, 30, 40, 50), (0,)))
    rows = numbers(tmp_path)
    assert rows["width"].unique().tolist() == [10, 20, 40, 50]
    assert caption(rows, (10, 20, 30, 40, 50)) == ["widths left out: 30"]
    assert caption(rows.assign(seeds=3), (10, 20, 40, 50)) == ["bars: mean of 3 seeds"]


def test_the_same_tables_give_the_same_bytes(tmp_path: Path) -> None:
    def drawn() -> list[str]:
        names = draw_spectra(checked(tmp_path, (100,), (0,)))
        return [hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in names]

    first = drawn()
    assert first == drawn()
    assert len(set(first)) == 4


def test_nothing_is_drawn_of_a_check_without_the_limit_or_without_draws(tmp_path: Path) -> None:
    assert draw_spectra(checked(tmp_path, (100,), (0,), with_limit=False)) == []
    columns = pd.read_csv(tmp_path / "spectra.csv").columns
    pd.DataFrame(columns=columns).to_csv(tmp_path / "spectra.csv", index=False)
    assert draw_spectra(tmp_path) == []
    assert not (tmp_path / "figures").exists()
