"""Runs side by side: the step at which losses part, what else differs, the curves in characters and as a picture."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deqcli.cli.main import app
from deqcli.errors import CorruptArtefact, Refused
from deqcli.runs.folder import any_manifest, hashes, write_manifest
from deqcli.runs.run import run
from deqcli.show.compare_figure import draw_comparison
from deqcli.show.overlay import GREATEST_WIDTH, HEIGHT, LABEL, LEAST_WIDTH, Curve, overlaid
from deqcli.sweep.comparing import MARKS, Difference, Losses, compare, losses_of, parting, relative_difference
from deqcli.sweep.stored import Stored, open_stored, stored_runs
from tests.runs import recipe

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two seeds; one of another width, scale and solver; and one in another folder, the same as the first."""
    folder = tmp_path_factory.mktemp("compared")
    pair = recipe(folder, "train.steps=8", "sweep.widths=[16]").cells()
    other = recipe(folder, "name=other", "train.steps=5", "model.width=12", "solver={kind: picard}").run()
    for spec in (*pair, other):
        run(spec, folder / "outputs")
    run(pair[0], folder / "again")
    return folder


@pytest.fixture
def copied(outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Stored]]:
    """The three runs of the first folder, in the working folder, to be altered."""
    shutil.copytree(outputs, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    other, first, second = stored_runs(Path("outputs"))
    return [first, second, other]


def call(*arguments: object) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of `runs compare`."""
    result = RUNNER.invoke(app, ["runs", "compare", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def with_losses(stored: Stored, change: dict[int, str]) -> Stored:
    """The run with other losses at some steps (None: that row has not converged), and a manifest that knows it."""
    path = stored.folder / "loss.csv"
    lines = path.read_text().splitlines()
    for step, loss in change.items():
        cells = lines[step + 1].split(",")
        cells[7:] = [loss, *cells[8:]] if loss else ["", *cells[8:-1], "iterations_exhausted"]
        lines[step + 1] = ",".join(cells)
    path.write_text("\n".join(lines) + "\n")
    digests = stored.manifest.files | hashes(stored.folder, ["loss.csv"])
    write_manifest(stored.folder, stored.manifest.model_copy(update={"files": digests}))
    return open_stored(stored.folder)


FALLING = {step: math.exp(-step) for step in range(0, 100, 10)}


def changed(**values: float) -> Losses:
    """The falling losses, times a factor at some steps: s30=2."""
    return {step: loss * values.get(f"s{step}", 1.0) for step, loss in FALLING.items()}


@pytest.mark.parametrize(
    ("other", "tolerance", "sentence"),
    [
        (FALLING, 1e-6, "identical: equal to the last bit at all 10 steps in common, up to step 90"),
        ({5: 1.0}, 1e-6, "no logged step in common"),
        ({}, 1e-6, "no logged step in common"),
        (
            changed(s30=1 + 2**-52, s60=1.1), 1e-6,
            "equal to the last bit up to step 20; first different at step 30; first apart by more than 1e-06 at "
            "step 60 (largest relative difference 0.0909, at step 60)",
        ),
        (
            changed(s30=1.5), 1e-6,
            "equal to the last bit up to step 20; first apart by more than 1e-06 at step 30 "
            "(largest relative difference 0.333, at step 30)",
        ),
        (
            changed(s30=1.5), 0.4,
            "equal to the last bit up to step 20; first different at step 30, never by more than 0.4 "
            "(largest relative difference 0.333, at step 30)",
        ),
        (
            changed(s0=2, s90=0.1), 1e-6,
            "first apart by more than 1e-06 at step 0 (largest relative difference 0.9, at step 90)",
        ),
        ({20: FALLING[20], 30: 0.0, 35: 7.0}, 0.0, "equal to the last bit up to step 20; first apart by more than 0 at "
            "step 30 (largest relative difference 1, at step 30)"),
    ],
    ids=["same", "none", "empty", "bits", "at once", "never", "first", "zero"],
)  # fmt: skip
def test_losses_part_at_the_first_step_at_which_a_bit_differs(other: Losses, tolerance: float, sentence: str) -> None:
    assert parting(FALLING, other, tolerance).sentence(tolerance) == sentence
    there, back = parting(FALLING, other, tolerance), parting(other, FALLING, tolerance)
    assert there == back


def test_a_difference_of_one_bit_in_one_step_is_found(copied: list[Stored]) -> None:
    first, same = copied[0], next(stored_runs(Path("again")))
    losses = losses_of(first)
    assert list(losses) == list(range(9))
    assert parting(losses, losses_of(same)).differ_from is None
    for step in losses:
        shutil.rmtree("again")
        shutil.copytree("outputs/small/runs", "again/small/runs")
        altered = with_losses(
            open_stored(Path("again/small/runs") / first.manifest.id), {step: repr(math.nextafter(losses[step], 0))}
        )
        found = parting(losses, losses_of(altered), 1e-9)
        before = step - 1 if step else None
        assert (found.equal_up_to, found.differ_from, found.apart_from, found.largest_step) == (
            before,
            step,
            None,
            step,
        )
        assert 0 < (found.largest or 0) < 3e-16


def test_rows_that_did_not_converge_are_not_compared(copied: list[Stored]) -> None:
    altered = with_losses(copied[0], {3: ""})
    assert 3 not in losses_of(altered)
    assert parting(losses_of(altered), losses_of(copied[1])).common == 8


@pytest.mark.parametrize(
    ("a", "b", "size"), [(1.0, 1.0, 0.0), (1.0, 2.0, 0.5), (-1.0, 1.0, 2.0), (0.0, 0.0, 0.0), (0, 5, 1)]
)
def test_relative_differences_are_of_the_larger(a: float, b: float, size: float) -> None:
    assert relative_difference(a, b) == relative_difference(b, a) == size


def test_differences_of_numbers_have_a_size_and_those_of_counts_and_words_none() -> None:
    assert Difference("x", (1.0, 4.0, 2)).relative == 0.75
    for values in ((1, 4), ("a", "b"), (1.0, None), (True, False)):
        assert Difference("x", values).relative is None
        assert Difference("x", values).differs


def test_recipes_surroundings_and_results_differ_in_what_they_differ(copied: list[Stored]) -> None:
    first, second, other = copied
    seeds = compare([first, second])
    assert [(each.key, each.values) for each in seeds.recipes] == [("train.seed", (0, 1))]
    assert seeds.names == ["seed 0", "seed 1"]
    assert seeds.surroundings == []
    assert {each.key: each.values for each in seeds.results}["final_loss"] == tuple(
        each.manifest.results["final_loss"] for each in (first, second)
    )
    far = compare([first, other])
    assert {each.key: each.values for each in far.recipes} == {
        "name": ("small", "other"), "model.width": (16, 12), "solver.kind": ("continuation", "picard"),
        "solver.corrections": ("auto", None), "train.steps": (8, 5), "train.seed": (0, 2),
    }  # fmt: skip
    assert far.names == [first.manifest.id, other.manifest.id]
    versions = {**first.manifest.versions, "torch": "1.0"}
    write_manifest(first.folder, first.manifest.model_copy(update={"versions": versions, "threads": 7}))
    assert [(each.key, each.values[0]) for each in compare([open_stored(first.folder), second]).surroundings] == [
        ("threads", 7), ("versions.torch", "1.0"),
    ]  # fmt: skip


def test_the_same_run_in_two_folders_is_identical_and_named_by_its_folder(copied: list[Stored]) -> None:
    (again,) = stored_runs(Path("again"))
    comparison = compare([copied[0], again])
    assert comparison.recipes == []
    assert [each for each in comparison.results if each.differs] == []
    assert comparison.names == [str(copied[0].folder), str(again.folder)]
    code, out, _ = call(copied[0].folder, again.folder, "--no-picture")
    assert code == 0
    assert "The recipes are the same." in out
    assert "The results are the same to the last bit." in out
    assert "Losses of B beside A: identical: equal to the last bit at all 9 steps in common, up to step 8." in out


def test_compare_says_all_of_it_in_words_and_draws(copied: list[Stored]) -> None:
    first, second, other = copied
    code, out, err = call(first.manifest.id, second.manifest.id, other.manifest.id)
    assert (code, err) == (0, "")
    (picture,) = Path("outputs/comparisons").iterdir()
    assert out.endswith(f"\nPicture: {picture}\n")
    assert picture.stat().st_size > 10_000
    assert re.search(r"\nsolver.corrections +auto +auto +-\n", out)
    assert re.search(r"\ntrain.seed +0 +1 +2\n", out)
    assert re.search(r"\nfinal_loss( +[\d.e-]+){4}\n", out)
    assert "\nVersions, device, threads and commit are the same.\n" in out
    assert out.count(": first apart by more than 1e-06 at step 0 (largest relative difference ") == 2
    assert out.count("loss, logarithmic scale") == 1
    assert out.isascii()
    for mark, stored in zip("ABC", copied, strict=True):
        assert f"\n{mark}  {stored.manifest.id}" in out
    assert len(list(stored_runs(Path("outputs")))) == 3  # and not a comparison among them


def test_compare_as_a_document(copied: list[Stored]) -> None:
    first, second, _ = copied
    code, out, _ = call(first.folder, second.folder, "--json", "--tolerance", "0.5", "--no-picture")
    document = json.loads(out)
    assert code == 0
    assert document["recipe"] == {"train.seed": {"values": [0, 1], "relative_difference": None}}
    assert document["results"]["steps"]["values"] == [8, 8]
    (losses,) = document["losses"]
    found = parting(losses_of(first), losses_of(second), 0.5)
    assert {**losses} == {
        "run_id": second.manifest.id, "beside": first.manifest.id, "words": found.sentence(0.5), **vars(found),
    }  # fmt: skip
    assert document["picture"] is None
    assert [run["name"] for run in document["runs"]] == ["seed 0", "seed 1"]
    assert call(first.folder, second.folder, "--quiet", "--no-picture") == (0, "", "")


def test_pictures_come_out_the_same_and_where_they_are_asked_for(copied: list[Stored], tmp_path: Path) -> None:
    comparison, deep = compare(copied[:2]), tmp_path / "deep"
    code, out, _ = call(copied[0].folder, copied[1].folder, "--picture", deep / "picture.png", "--json")
    assert (code, json.loads(out)["picture"]) == (0, str(deep / "picture.png"))
    for form, start in {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}.items():
        path = deep / f"picture.{form}"
        before = path.read_bytes() if path.exists() else draw_comparison(comparison, path) or path.read_bytes()
        assert before.startswith(start)
        draw_comparison(comparison, path)
        assert path.read_bytes() == before, form
    assert sorted(each.name for each in deep.iterdir()) == ["picture.pdf", "picture.png", "picture.svg"]
    assert not Path("outputs/comparisons").exists()


def test_many_runs_with_long_names_and_without_losses_can_be_drawn(copied: list[Stored], tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 100) / "y $z_1 \\frac"
    for index in range(7):
        shutil.copytree(copied[0].folder, deep / str(index) / copied[0].manifest.id)
    draw_comparison(compare([open_stored(path) for path in deep.glob("*/*")]), tmp_path / "many.png")
    empty = with_losses(copied[0], dict.fromkeys(range(9), ""))
    comparison = compare([empty, empty])
    draw_comparison(comparison, tmp_path / "none.png")
    assert (tmp_path / "many.png").stat().st_size > (tmp_path / "none.png").stat().st_size
    assert comparison.partings[0].sentence(1e-6) == "no logged step in common"
    assert "no loss to be drawn" in call(empty.folder, empty.folder, "--no-picture")[1]


def test_what_cannot_be_compared_or_drawn_is_refused(copied: list[Stored]) -> None:
    first, second, _ = copied
    assert call(first.folder, second.folder, "--picture", "a.gif") == (
        2, "", "--picture a.gif: its suffix must be one of .png, .svg, .pdf\n",
    )  # fmt: skip
    assert call(first.folder)[::2] == (2, f"a comparison is of 2 to {len(MARKS)} runs, got 1\n")
    with pytest.raises(Refused, match="got 53"):
        compare([first] * 53)
    assert "is the beginning of 2 runs" in call("w00016", first.folder)[2]
    Path("there").write_text("a file")
    code, _, err = call(first.folder, second.folder, "--picture", "there/a.png")
    assert (code, err.startswith("the system refused")) == (5, True)


def test_outputs_that_cannot_be_written_to_are_compared_without_a_picture(copied: list[Stored]) -> None:
    Path("outputs/comparisons").write_text("in the way")
    code, out, err = call(copied[0].folder, copied[1].folder)
    assert code == 0
    assert "Losses of B beside A" in out
    assert err.startswith("No picture: the system refused")


def test_a_loss_that_was_altered_is_named_and_not_compared(copied: list[Stored]) -> None:
    path = copied[0].folder / "loss.csv"
    path.write_text(path.read_text().replace("converged", "Converged", 1))
    with pytest.raises(CorruptArtefact, match=r"loss\.csv is not what was written"):
        losses_of(open_stored(copied[0].folder))
    assert call(copied[1].folder, copied[0].folder)[:2] == (4, "")


def test_a_run_under_way_is_compared_as_far_as_it_is(copied: list[Stored]) -> None:
    folder = copied[0].folder
    write_manifest(folder, any_manifest(folder).model_copy(update={"status": "running", "files": {}, "results": {}}))
    path = folder / "loss.csv"
    path.write_bytes(path.read_bytes()[:-30])
    comparison = compare([open_stored(folder), copied[1]])
    assert list(comparison.losses[0]) == list(range(8))
    assert comparison.partings[0].common == 8
    assert {each.key: each.values for each in comparison.results}["status"] == ("interrupted", "complete")
    path.write_text("run_id,step,loss,status\nx,1,much,converged\n")
    with pytest.raises(CorruptArtefact, match=r"loss\.csv is not what was written"):
        losses_of(open_stored(folder))
    path.unlink()
    assert compare([open_stored(folder), copied[1]]).partings[0].common == 0


def grid(lines: list[str]) -> list[str]:
    """The rows of a picture in characters, right of the axis."""
    return [line[LABEL + 2 :] for line in lines[1 : HEIGHT + 1]]


@pytest.mark.parametrize("width", [10, LEAST_WIDTH, 40, 60, 80, GREATEST_WIDTH, 200])
def test_curves_fit_and_a_straight_line_in_the_logarithm_is_straight(width: int) -> None:
    curves = [Curve("A", "falls", FALLING), Curve("B", "flat", dict.fromkeys(FALLING, math.exp(-90)))]
    lines = overlaid(curves, width)
    assert max(map(len, lines)) == min(max(width, LEAST_WIDTH), GREATEST_WIDTH)
    assert "".join(lines).isascii()
    rows = grid(lines)
    columns = max(map(len, rows))
    slope = (HEIGHT - 1) / (columns - 1)  # a mark is half a row off at most, and a point half a column
    for index, row in enumerate(rows[:-1]):
        for column, mark in enumerate(row):
            if mark == "A":
                assert abs(index - slope * column) <= 0.5 + slope / 2 + 1e-9
    assert all("A" in row for row in rows)
    assert rows[-1].count("B") > 0.9 * columns - 3
    assert lines[1].split()[0] == "1"
    assert float(lines[HEIGHT].split()[0]) == pytest.approx(math.exp(-90), rel=1e-2)
    assert lines[HEIGHT + 2].split() == ["0", "45", "90"]
    assert lines[-2:] == ["A  falls", "B  flat"]


def test_every_column_of_a_curve_has_a_mark_however_few_or_many_its_points() -> None:
    for steps in (2, 7, 59, 1000):
        rows = grid(overlaid([Curve("*", "", {step: 1.0 + step for step in range(steps)})], 60))
        assert {column for row in rows for column, mark in enumerate(row) if mark == "*"} == set(range(60 - LABEL - 2))


def test_curves_that_share_their_places_take_turns() -> None:
    rows = grid(overlaid([Curve(mark, mark, FALLING) for mark in "ABC"], 80))
    counts = [sum(row.count(mark) for row in rows) for mark in "ABC"]
    assert sum(counts) == 80 - LABEL - 2
    assert max(counts) - min(counts) <= 1


def test_what_has_no_logarithm_is_left_out() -> None:
    assert overlaid([Curve("A", "a", {0: 0.0, 1: -1.0, 2: math.inf, 3: math.nan}), Curve("B", "b", {})], 80) == [
        "no loss to be drawn"
    ]
    lines = overlaid([Curve("A", "a", {0: 0.0, 4: 2.0}), Curve("B", "b", {})], 60)
    assert [row.strip() for row in grid(lines) if row.strip()] == ["A"]
    assert lines[HEIGHT + 2].split() == ["4"]
    assert lines[HEIGHT // 2 + 1].split()[0] == "2"
