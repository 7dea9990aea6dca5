"""The benchmark compares what computes the same, and tells when it does not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import growth, solvers, steps, tables
from benchmarks.peers import Floor, Unrolled
from benchmarks.problem import Problem, Shape

SMALL = steps.Scenario(Shape(12, 9, 40), 1.0, 8, 7)


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Write into a folder of the test's own; give the threads back."""
    monkeypatch.setattr(tables, "FOLDER", tmp_path)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_contestant_that_is_installed_has_the_same_losses(dtype: str) -> None:
    rows = steps.compare(replace(SMALL, shape=replace(SMALL.shape, dtype=dtype)))
    names = [row["method"] for row in rows]
    assert {"deqcli", "deqcli, picard", "autograd, unrolled", "floor"} <= set(names)
    assert names == [each.name for each in steps.ENTRIES if each.installed] + ["floor"]
    assert all(row["ms_per_step"] > 0 for row in rows)
    assert rows[-1]["over_floor"] == 1


def test_a_contestant_that_computes_something_else_stops_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(Unrolled):
        def solve(self, layer):
            return layer(self.zero)

    entries = (*steps.ENTRIES[:3], steps.Entry("wrong", Wrong))
    monkeypatch.setattr(steps, "ENTRIES", entries)
    with pytest.raises(RuntimeError, match="step 1: the loss of wrong is"):
        steps.compare(replace(SMALL, names=tuple(each.name for each in entries)))


def test_the_floor_makes_its_five_products() -> None:
    floor = Floor(Problem(SMALL.shape, rate=1e-3))
    floor.step()
    torch.testing.assert_close(floor.out, floor.U @ floor.X)
    torch.testing.assert_close(floor.dW, floor.S @ floor.Z.T)
    torch.testing.assert_close(floor.dU, floor.S @ floor.X.T)


def test_rows_are_printed_and_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    tables.publish("some", "Some rows", [{"a": 1, "b": 0.12345}, {"a": 2, "b": None}])
    assert capsys.readouterr().out == "\nSome rows\na  b\n1  0.123\n2\n"
    assert (tmp_path / "some.csv").read_text() == "a,b\n1,0.12345\n2,\n"


def test_an_exponent_is_found() -> None:
    assert growth._exponent([1, 2, 4, 10], [3 * k**2.5 for k in (1, 2, 4, 10)]) == pytest.approx(2.5)


def test_parts_are_known_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["stepps"]) == 2
    assert "not a part of the benchmark: stepps; there are steps, sweeps" in capsys.readouterr().err
    for part in command.PARTS:
        assert (Path(command.__file__).parent / f"{part}.py").is_file()


def test_the_draws_of_the_comparison_of_solvers_are_what_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solvers, "M", 60)
    families = set()
    for draw in solvers.draws():
        families.add(draw.family)
        W, eye = draw.params.W, torch.eye(60, dtype=torch.float64)
        if draw.family == "orthogonal":
            torch.testing.assert_close(W @ W.T, 2 * draw.parameter * eye)
        elif draw.family == "gaussian":
            assert float(W.square().mean() * 60) == pytest.approx(2 * draw.parameter, rel=0.1)
        else:
            assert float(torch.linalg.eigvals(W).abs().max()) == pytest.approx(draw.parameter)
            assert bool((W >= 0).all())
    assert families == {"gaussian", "orthogonal", "non-negative"}
