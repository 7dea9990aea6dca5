"""Assumption 1: the moments of W, U and a, and streams that depend on nothing but (seed, name)."""

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch

from deqcli.deq.initialisation import INITIALISATIONS, Draw, gaussian_blocks
from deqcli.deq.streams import stream

BASE = Draw(
    width=600, input_dim=300, sigma_w_sq=0.08, readout_scale=1.0, seed=0, dtype=torch.float64,
    device=torch.device("cpu"),
)  # fmt: skip
NAMES = ("W", "U", "a")


def standard(draw: Draw) -> dict[str, np.ndarray]:
    """The entries, each divided by the deviation that Assumption 1 gives it, in the order of the stream."""
    params = INITIALISATIONS["gaussian"](draw)
    deviations = {
        "W": math.sqrt(2 * draw.sigma_w_sq / draw.width),
        "U": math.sqrt(2 / draw.input_dim),
        "a": draw.readout_scale / math.sqrt(draw.width),
    }
    return {name: getattr(params, name).numpy().ravel() / deviations[name] for name in NAMES}


def test_shapes_dtype_and_registry() -> None:
    params = INITIALISATIONS["gaussian"](BASE)
    assert [tuple(getattr(params, name).shape) for name in NAMES] == [(600, 600), (600, 300), (600,)]
    assert {getattr(params, name).dtype for name in NAMES} == {torch.float64}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", NAMES)
def test_the_moments_of_assumption_1(name: str, seed: int) -> None:
    """Mean, variance, third and fourth moment within 5 standard errors: 1, 2, 15, 96 are those of N(0, 1)."""
    entries = standard(replace(BASE, seed=seed, readout_scale=0.3))[name]
    for power, (moment, variance) in enumerate([(0, 1), (1, 2), (0, 15), (3, 96)], start=1):
        assert abs(np.mean(entries**power) - moment) <= 5 * math.sqrt(variance / entries.size)


@pytest.mark.parametrize("name", NAMES)
def test_the_entries_are_gaussian(name: str) -> None:
    assert scipy.stats.kstest(standard(BASE)[name], "norm").pvalue > 1e-3


def test_the_spectral_norm_is_near_its_limit() -> None:
    """Lemma 1: ||W||_2 -> 2 sqrt2 sigma_w = 0.8; fluctuations are O(m^(-2/3)), 1.4 % at m = 600."""
    assert float(torch.linalg.matrix_norm(INITIALISATIONS["gaussian"](BASE).W, 2)) == pytest.approx(0.8, rel=0.03)


@pytest.mark.parametrize(("first", "second"), [("W", "U"), ("W", "a"), ("U", "a")])
def test_the_streams_are_uncorrelated(first: str, second: str) -> None:
    entries = standard(BASE)
    count = min(entries[first].size, entries[second].size)
    correlation = np.corrcoef(entries[first][:count], entries[second][:count])[0, 1]
    assert abs(correlation) <= 5 / math.sqrt(count)


def test_seeds_and_names_give_different_numbers() -> None:
    first = {stream(seed, name).standard_normal() for seed in range(50) for name in (*NAMES, "lanczos", "samples")}
    assert len(first) == 250


@pytest.mark.parametrize(
    ("change", "untouched"),
    [
        ({"input_dim": 17}, "Wa"),
        ({"sigma_w_sq": 0.01}, "Ua"),
        ({"readout_scale": 0.03}, "WU"),
        ({"seed": 1}, ""),
        ({"width": 599}, ""),
    ],
    ids=str,
)
def test_each_option_shifts_only_what_it_is_about(change: dict[str, object], untouched: str) -> None:
    before, after = INITIALISATIONS["gaussian"](BASE), INITIALISATIONS["gaussian"](replace(BASE, **change))
    equal = {name for name in NAMES if torch.equal(getattr(before, name), getattr(after, name))}
    assert equal == set(untouched)


def test_a_narrower_network_draws_the_beginning_of_the_same_streams() -> None:
    wide, narrow = standard(BASE), standard(replace(BASE, width=100))
    for name in NAMES:
        np.testing.assert_allclose(narrow[name], wide[name][: narrow[name].size], rtol=1e-14)


@pytest.mark.parametrize("rows", [1, 7, 599, 10_000])
def test_the_block_size_changes_nothing(rows: int) -> None:
    blocks = list(gaussian_blocks(0, "W", 600, 600, 1.0, rows))
    assert len(blocks) == math.ceil(600 / rows)
    assert [first for first, _ in blocks] == list(range(0, 600, rows))
    usual = torch.cat([block for _, block in gaussian_blocks(0, "W", 600, 600, 1.0)])
    assert torch.equal(torch.cat([block for _, block in blocks]), usual)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [1, 87, 10_000])
def test_w_is_drawn_again_by_rows(count: int, dtype: torch.dtype) -> None:
    """Bit for bit the W(0) that was drawn, for every initialisation that offers it."""
    by_rows = [each for each in INITIALISATIONS.values() if each.by_rows is not None]
    for each in by_rows:
        draw = replace(BASE, dtype=dtype)
        again = torch.cat(list(each.by_rows(draw, count)))
        assert again.dtype is dtype
        assert torch.equal(again, each(draw).W)
    assert by_rows


def test_float32_is_the_rounding_of_float64() -> None:
    exact, single = INITIALISATIONS["gaussian"](BASE), INITIALISATIONS["gaussian"](replace(BASE, dtype=torch.float32))
    for name in NAMES:
        assert getattr(single, name).dtype is torch.float32
        assert torch.equal(getattr(exact, name).float(), getattr(single, name))


@pytest.mark.parametrize("scale", [0.03, 2.0, 1e-8])
def test_readout_scale_is_a_factor_on_a(scale: float) -> None:
    one, scaled = INITIALISATIONS["gaussian"](BASE).a, INITIALISATIONS["gaussian"](replace(BASE, readout_scale=scale)).a
    torch.testing.assert_close(scaled, scale * one, rtol=1e-14, atol=0)


def test_no_global_generator_is_touched() -> None:
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    INITIALISATIONS["gaussian"](BASE)
    assert torch.equal(torch_state, torch.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])
