"""A sweep's folder in small: which rows stay, that they stay as they were, and that it is read as the sweep is."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

import deqcli
from deqcli.cli.main import app
from deqcli.errors import CorruptArtefact, Refused
from deqcli.exporters.thinned import MOST_ROWS, Thinning, last_steps, least_stride
from deqcli.loaded import Sweep
from deqcli.runs.folder import INTERRUPTED, any_manifest, hashes, write_manifest
from deqcli.show.figures import write_figures
from deqcli.show.findings import Findings
from deqcli.show.paper import FigureOptions
from deqcli.sweep.gather import Gathered, gather
from deqcli.sweep.stored import open_stored
from deqcli.sweep.sweep import SweepOptions
from deqcli.sweep.sweep import sweep as run_sweep
from tests.made_up import run_id, write_sweep
from tests.runs import SMALL, recipe

TABLES = ("loss.csv", "spectral.csv", "certificates.csv", "prediction.csv", "runs.csv")
AXIS = "sweep.over={train.learning_rate: [auto, 50.0]}"


@pytest.fixture
def made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep of 4 runs of 60 steps, of which every 5th is kept."""
    monkeypatch.setattr("deqcli.exporters.thinned.MOST_ROWS", 48)
    return write_sweep(tmp_path / "whole")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep with an axis, two of whose four runs failed."""
    out = tmp_path_factory.mktemp("trained")
    loaded = recipe(out, AXIS, text=SMALL.replace("widths: [24, 32]", "widths: [24]"))
    done = run_sweep(loaded, out, SweepOptions("cpu"))
    assert len(done.failed) == 2
    return done.folder


def gathered_of(folder: Path) -> Gathered:
    """The runs of a folder."""
    return gather([open_stored(folder)])


def lines_of(path: Path) -> list[str]:
    """The lines of a file; no cell of these tables has more than one."""
    return path.read_text().splitlines(keepends=True)


def set_rows(folder: Path, name: str, lines: list[str]) -> None:
    """Give a sweep another table, for which its manifest vouches."""
    (folder / name).write_text("".join(lines))
    manifest = any_manifest(folder)
    write_manifest(folder, manifest.model_copy(update={"files": manifest.files | hashes(folder, [name])}))


# ---- which rows ----


def test_the_stride_is_the_least_that_leaves_few_enough_rows() -> None:
    strides = [digit * 10**zeros for zeros in range(7) for digit in (1, 2, 5)]
    assert [least_stride(MOST_ROWS * each) for each in strides] == strides
    assert [least_stride(MOST_ROWS * before + 1) for before, _ in pairwise(strides)] == strides[1:]
    assert least_stride(0) == 1


@pytest.mark.parametrize("name", TABLES)
def test_the_rows_are_those_of_the_steps_as_they_were(name: str, made_up: Path, tmp_path: Path) -> None:
    done = deqcli.export(made_up, "thinned", tmp_path / "small")
    assert done.remarks == [
        "The sweep is thinned to every 5th step and to the last one of each run; timing.csv is left out"
    ]
    whole, kept = lines_of(made_up / name), lines_of(tmp_path / "small" / name)
    steps = [int(row.get("step") or 0) for row in csv.DictReader(whole)]
    assert kept == [whole[0], *(line for line, step in zip(whole[1:], steps, strict=True) if step % 5 == 0)]
    assert len(kept) == {"certificates.csv": 29, "runs.csv": 5, "spectral.csv": 17}.get(name, 4 * 13 + 1)
    assert {item.name: item.numbers for item in done.items}[name] == len(kept) - 1


def test_of_steps_that_are_no_multiples_the_first_of_each_part_stays() -> None:
    rows = "run_id,note,step\n" + "".join(f'a,"x,\ny",{step}\n' for step in (0, 3, 6, 9, 12, 14, 18, 27, 29))
    path = io.StringIO(rows)
    kept = list(Thinning(10, {"a": {14}}).rows(_Opened(path)))  # type: ignore[arg-type]
    assert kept == ["run_id,note,step\n", *(f'a,"x,\ny",{step}\n' for step in (0, 12, 14, 27))]


class _Opened:
    """What stands for a path."""

    def __init__(self, text: io.StringIO) -> None:
        self._text = text

    def open(self, **_: str) -> io.StringIO:
        return self._text


def test_the_last_step_of_a_run_stays_in_all_that_it_is_averaged_with(made_up: Path, tmp_path: Path) -> None:
    short = run_id(100, 1)
    kept = [line for line in lines_of(made_up / "loss.csv") if not (line.startswith(short) and _step(line) > 37)]
    set_rows(made_up, "loss.csv", kept)
    last = last_steps(gathered_of(made_up))
    assert [last[run_id(*each)] for each in ((100, 0), (100, 1), (200, 0), (200, 1))] == [{37, 60}] * 2 + [{60}] * 2
    deqcli.export(made_up, "thinned", tmp_path / "small")
    steps = pd.read_csv(tmp_path / "small/loss.csv").groupby(["width", "seed"])["step"].apply(list)
    assert steps[100, 1] == [*range(0, 36, 5), 37]
    assert steps[100, 0] == [*range(0, 36, 5), 37, *range(40, 61, 5)]
    assert steps[200, 0] == [*range(0, 61, 5)]


def _step(line: str) -> float:
    cells = line.split(",")
    return int(cells[6]) if cells[6].isdecimal() else -1


def test_a_sweep_of_few_rows_is_whole(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path)
    done = deqcli.export(folder, "thinned")
    assert done.place == str(folder / "export/thinned")
    for name in (*TABLES, "recipe.yaml"):
        assert (folder / name).read_bytes() == (folder / "export/thinned" / name).read_bytes()
    assert done.remarks == ["Nothing is left out but timing.csv: 4000 rows are not too many"]
    assert "thinned to" not in repr(deqcli.load(done.place))
    assert not Findings(gathered_of(Path(done.place))).thinned


# ---- read as the sweep itself ----


def figures_of(folder: Path, place: Path) -> dict[str, pd.DataFrame]:
    """The numbers of every figure, as text."""
    place.mkdir(exist_ok=True)
    names = write_figures(gathered_of(folder), place, FigureOptions(()))
    return {name: pd.read_csv(place / name, dtype=str, keep_default_na=False) for name in names}


def test_figures_have_the_numbers_of_the_whole_ones_at_these_steps(made_up: Path, tmp_path: Path) -> None:
    deqcli.export(made_up, "thinned", tmp_path / "small")
    whole, small = (figures_of(each, tmp_path / each.name) for each in (made_up, tmp_path / "small"))
    assert list(small) == list(whole)
    compared = 0
    for name, rows in whole.items():
        kept = rows[rows["step"].astype(int) % 5 == 0].reset_index(drop=True)
        pd.testing.assert_frame_equal(small[name], kept)
        compared += len(kept)
    assert compared > 400
    assert any("lambda_ratio" in name for name in small)


def test_it_loads_as_the_sweep_and_says_that_it_is_thinned(made_up: Path, tmp_path: Path) -> None:
    deqcli.export(made_up, "thinned", tmp_path / "small")
    loaded, whole = deqcli.load(tmp_path / "small"), deqcli.load(made_up)
    assert isinstance(loaded, Sweep)
    assert (loaded.manifest.id, loaded.recipe, list(loaded)) == (whole.manifest.id, whole.recipe, [])
    assert loaded.status == "complete"
    assert repr(loaded) == f"<deqcli sweep 0123abcd: complete, thinned to every 5th step, {tmp_path}/small>"
    assert "0123abcd: complete, thinned to every 5th step" in loaded._repr_html_()
    assert loaded.loss["step"].unique().tolist() == list(range(0, 61, 5))
    assert loaded.plot("spectral_norm").axes
    text = (tmp_path / "small/loss.csv").read_text()
    (tmp_path / "small/loss.csv").write_text(text.replace("relu", "tanh", 1))
    with pytest.raises(CorruptArtefact, match=r"loss\.csv is not what was written"):
        loaded.table("loss")


def test_its_report_says_what_the_sweeps_says_and_of_which_steps(made_up: Path, tmp_path: Path) -> None:
    deqcli.export(made_up, "thinned", tmp_path / "small")
    whole, small = Findings(gathered_of(made_up)), Findings(gathered_of(tmp_path / "small"))
    assert small.outcomes == whole.outcomes, "at the steps between as well: the worst loss/loss_bound is at step 1"
    assert {each["max_loss_over_bound_step"] for each in small.outcomes.values()} == {1}
    done = deqcli.report(tmp_path / "small", figures=["loss"], formats=["svg"])
    assert [str(each) for each in done.verdicts] == [str(each) for each in whole.verdicts]
    page = done.page.read_text()
    assert page.count('<p class="notice" role="note">made-up 0123abcd is thinned to every 5th step: curves') == 1
    assert "are of every logged step in 4 of 4 runs." in page
    assert "Eigenvalues" in page
    assert "there is nothing to draw" in page
    for told in ("2.13.0", "0" * 40, "cpu"):
        assert told in page, "what computed the runs"
    assert [each.name for each in done.figures] == ["loss.svg", "loss.csv"]
    assert "thinned to" not in deqcli.report(made_up, out=tmp_path / "whole.html", figures=[]).page.read_text()


def test_runs_that_were_trained_and_runs_that_failed(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deqcli.exporters.thinned.MOST_ROWS", 10)
    before = {path: path.read_bytes() for path in trained.parent.parent.rglob("*") if path.is_file()}
    deqcli.export(trained, "thinned", tmp_path / "deep/small")
    assert {path: path.read_bytes() for path in trained.parent.parent.rglob("*") if path.is_file()} == before
    whole, small = (gathered_of(each) for each in (trained, tmp_path / "deep/small"))
    assert small.axes == ["train.learning_rate"]
    assert (
        small.all_losses.groupby("run_id")["step"].apply(list).sort_values().tolist()
        == [[0, 1]] * 2 + [[0, 10, 20]] * 2
    )
    pd.testing.assert_frame_equal(small.runs, whole.runs)
    assert Findings(small).unfinished == Findings(whole).unfinished
    assert len(Findings(small).unfinished) == 2
    both = whole.spectral.merge(small.spectral, on=["run_id", "step"], suffixes=("", "_small"))
    assert len(both) == len(small.spectral) > 6
    known = both[both["lambda_ratio"].notna()]
    assert len(known) > 2
    assert known["lambda_ratio_small"].tolist() == known["lambda_ratio"].tolist()
    assert "in 2 of 4 runs" in Findings(small).thinned[0]
    kernel = {run: each["rate_kernel"] for run, each in Findings(whole).outcomes.items() if "rate_kernel" in each}
    assert {run: Findings(small).outcomes[run]["rate_kernel"] for run in kernel} == kernel
    assert len(kernel) == 2


# ---- the folder ----


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name[0] != "."}


def test_the_same_sweep_gives_the_same_bytes_and_replaces_what_was_there(
    made_up: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "small"
    first = deqcli.export(made_up, "thinned", place)
    before = contents(place)
    assert set(before) == {*TABLES, "recipe.yaml", "manifest.json"}
    manifest = any_manifest(place)
    assert manifest.files == hashes(place, ["recipe.yaml", *TABLES])
    assert manifest.results["thinned_every"] == 5
    assert manifest.of_runs == {
        each: any_manifest(made_up.parent.parent / "runs" / each).results for each in manifest.cells
    }
    (place / "notes.txt").write_text("mine")
    (place / "loss.csv").write_text("cut")
    again = deqcli.export(made_up, "thinned", place)
    assert [{item.state for item in done.items} for done in (first, again)] == [{"written"}, {"replaced"}]
    assert contents(place) == before | {"notes.txt": b"mine"}
    monkeypatch.setattr("deqcli.exporters.thinned.MOST_ROWS", 24)
    deqcli.export(made_up, "thinned", place)
    assert any_manifest(place).thinned == "thinned to every 10th step"


def test_an_export_that_was_interrupted_is_not_taken_for_one_and_is_replaced(
    made_up: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "small"

    def fail(item: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        deqcli.export(made_up, "thinned", place, on_item=fail)
    assert deqcli.load(place).status == INTERRUPTED
    with pytest.raises(Refused, match=r"has no spectral\.csv yet"):
        gathered_of(place)
    deqcli.export(made_up, "thinned", place)
    assert deqcli.load(place).status == "complete"


def test_git_leaves_it_as_it_is_whatever_it_does_to_the_ends_of_lines(made_up: Path, tmp_path: Path) -> None:
    kept, cloned = tmp_path / "kept", tmp_path / "cloned"
    deqcli.export(made_up, "thinned", kept / "sweep")
    who = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org", "-c", "core.autocrlf=true"]
    for command in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "a sweep"]):
        subprocess.run(["git", *command], cwd=kept, check=True)
    subprocess.run(["git", *who, "clone", "-q", kept, cloned], check=True)
    assert len(deqcli.load(cloned / "sweep").table("loss")) == len(deqcli.load(kept / "sweep").table("loss"))
    (cloned / "sweep" / "loss.csv").unlink()
    with pytest.raises(CorruptArtefact, match="is missing; take it again from where it was kept, or export"):
        deqcli.load(cloned / "sweep").table("loss")


def test_what_somebody_else_left_is_refused_and_stays(made_up: Path, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "paper").mkdir()
    (tmp_path / "paper/loss.csv").write_text("mine")
    shutil.copytree(trained, tmp_path / "other")
    cases = {
        made_up: "has the manifest of something else and is left as it is",
        made_up.parent.parent / "runs" / run_id(100, 0): "has the manifest of something else",
        tmp_path / "other": "has the manifest of something else",
        tmp_path / "paper": r"paper/loss\.csv is not deqcli's, and its folder is left as it is",
        tmp_path / "paper/loss.csv": "is a file and is left as it is; name a folder with --out",
    }
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for place, words in cases.items():
        with pytest.raises(Refused, match=words):
            deqcli.export(made_up, "thinned", place)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert len(before) > 10


def test_what_is_not_one_sweep_that_ended_is_refused(made_up: Path, trained: Path, tmp_path: Path) -> None:
    place, run = tmp_path / "small", next(open_stored(trained).runs()).folder
    with pytest.raises(Refused, match="is for the folder of one sweep, not for 2 folders"):
        deqcli.export([made_up, trained], "thinned", place)
    with pytest.raises(Refused, match="is for the folder of one sweep, not for a run"):
        deqcli.export(run, "thinned", place)
    with pytest.raises(Refused, match="a URI; --to thinned writes into a folder"):
        deqcli.export(made_up, "thinned", "s3://b/c")
    assert not place.exists()
    deqcli.export(made_up, "thinned", place)
    with pytest.raises(Refused, match="small is a sweep's folder in small itself; name that of the sweep"):
        deqcli.export(place, "thinned", tmp_path / "smaller")
    write_manifest(made_up, any_manifest(made_up).model_copy(update={"status": INTERRUPTED}))
    with pytest.raises(Refused, match="is interrupted: its tables are not those of its end"):
        deqcli.export(made_up, "thinned", tmp_path / "smaller")
    set_rows(trained_copy := shutil.copytree(trained, tmp_path / "copy"), "loss.csv", lines_of(trained / "loss.csv"))
    (trained_copy / "loss.csv").write_text("")
    with pytest.raises(CorruptArtefact, match=r"loss\.csv is not what was written"):
        deqcli.export(trained_copy, "thinned", tmp_path / "smaller")
    assert not (tmp_path / "smaller").exists()


def test_the_command_says_what_it_kept(made_up: Path, tmp_path: Path) -> None:
    place = tmp_path / "a b"
    result = CliRunner().invoke(app, ["export", str(made_up), "--to", "thinned", "--out", str(place)])
    assert (result.exit_code, result.stdout.splitlines()) == (0, [
        "5 tables: 5 written",
        "The sweep is thinned to every 5th step and to the last one of each run; timing.csv is left out",
        f"Place: {place}", f"Open:  deqcli report '{place}'",
    ])  # fmt: skip
    assert result.stderr.splitlines()[0] == "loss.csv: 52 rows written"


def test_another_tool_is_told_that_it_gets_a_thinned_sweep(
    made_up: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is of the extra `export`: make test-export")
    deqcli.export(made_up, "thinned", tmp_path / "small")
    done = deqcli.export(tmp_path / "small", "parquet")
    assert done.remarks == ["made-up 0123abcd is thinned to every 5th step"]


def test_manifests_of_others_are_as_before(made_up: Path) -> None:
    told = json.loads((made_up / "manifest.json").read_text())
    assert not [key for key in told if "thin" in key]
    manifest = any_manifest(made_up)
    assert (manifest.thinned, manifest.is_small, manifest.of_runs) == ("", False, {})
