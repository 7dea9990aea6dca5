"""Runs that lie below a folder: listed, filtered, sorted, found by name and shown, whatever state they are in."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import deqcli
from deqcli.cli.main import app
from deqcli.errors import CorruptArtefact, Refused
from deqcli.recipe.loading import load_recipe
from deqcli.runs.folder import any_manifest, locked, write_manifest
from deqcli.runs.run import run
from deqcli.show.fitting import fitted
from deqcli.sweep.gather import flattened
from deqcli.sweep.listing import Row, find_run, keys_of, rows_below, select
from deqcli.sweep.query import OWN, RESULTS, STATES, Condition, Key, Keys, parse_query, recipe_keys
from deqcli.sweep.stored import open_stored, stored_runs
from tests.runs import recipe

RUNNER = CliRunner()
NUMBERS = (Path(__file__).parent.parent / "docs/numbers.md").read_text()


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four runs of a recipe, and three of another with a further axis and another solver."""
    folder = tmp_path_factory.mktemp("listed")
    four = recipe(folder, "train.steps=6").cells()
    axis = recipe(
        folder, "name=other", "train.steps=4", "solver={kind: picard}", "sweep.widths=[8]", "sweep.seeds=[0]",
        "sweep.over={model.sigma_w_sq: [0.01, 0.02, 0.04]}",
    ).cells()  # fmt: skip
    for cell in (*four, *axis):
        run(cell, folder / "outputs")
    return folder / "outputs"


@pytest.fixture
def copied(outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The same runs in the working folder, to be altered."""
    shutil.copytree(outputs, tmp_path / "outputs")
    monkeypatch.chdir(tmp_path)
    return Path("outputs")


def call(*arguments: str) -> tuple[int, str, str]:
    """(exit code, standard output, standard error)."""
    result = RUNNER.invoke(app, ["runs", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def found(out: Path, *where: str, sort: str | None = None) -> list[Row]:
    """The rows of a query."""
    rows = rows_below(out)
    return select(rows, parse_query(keys_of(rows), where, sort))


def altered(folder: Path, **values: object) -> None:
    """A folder whose manifest says something else."""
    write_manifest(folder, any_manifest(folder).model_copy(update=values))


def one(out: Path, *where: str) -> Path:
    """The folder of the only run that meets conditions."""
    (row,) = found(out, *where)
    return row.folder


def test_the_keys_are_those_that_runs_have_and_that_the_docs_define(outputs: Path) -> None:
    looked = 0
    for stored in stored_runs(outputs):
        assert set(stored.manifest.results) == set(RESULTS)
        assert set(dict(flattened(stored.recipe))) - {"name"} <= set(recipe_keys())
        looked += 1
    assert looked == 7
    assert [name for name in RESULTS if name not in NUMBERS] == []


def test_every_key_can_be_a_column_a_condition_and_an_order(outputs: Path) -> None:
    rows = rows_below(outputs)
    names = [name for group in keys_of(rows).groups.values() for name in group]
    assert len(names) > 60
    for name in names:
        assert isinstance(select(rows, parse_query(keys_of(rows), [f"{name}~*"], f"-{name}", name)), list)
    assert {row.value("versions.torch") for row in rows} == {rows[0].stored.manifest.versions["torch"]}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("where", "count"),
    [
        ([], 7),
        (["width>=24"], 4),
        (["width>24"], 2),
        (["model.width<24"], 3),
        (["width<=24"], 5),
        (["width=32", "seed=1"], 1),
        (["width==32", "train.seed!=1"], 1),
        (["recipe=other"], 3),
        (["name!=other"], 4),
        (["run_id~w00024-*"], 2),
        (["run_id~w000??-s001-*"], 2),
        (["sigma_w_sq<0.03"], 2),
        (["model.sigma_w_sq=1e-2"], 1),
        (["model.sigma_w_sq = 0.010"], 1),
        (["dataset=sphere", "activation=relu", "solver.kind=picard"], 3),
        (["solver.corrections=auto"], 4),  # picard has no such key
        (["solver.corrections!=auto"], 0),
        (["train.tf32=false"], 7),
        (["train.tf32=0"], 0),
        (["status=complete", "steps=6"], 4),
        (["final_loss>0"], 7),
        (["final_loss>1e9"], 0),
        (["status~comp*"], 7),
        (["error~*"], 0),
        (["learning_rate>0"], 7),
        (["train.learning_rate>0"], 0),  # auto is no number
        (["train.learning_rate=auto"], 7),
        (["recipe='other'"], 3),
    ],
    ids=lambda each: " and ".join(each) if isinstance(each, list) else str(each),
)
def test_conditions_choose_runs(outputs: Path, where: list[str], count: int) -> None:
    assert len(found(outputs, *where)) == count


@pytest.mark.parametrize("operator", ["=", "!=", "~", "<", "<=", ">", ">="])
def test_a_missing_value_meets_no_condition(operator: str) -> None:
    key = Key("final_loss", "final_loss")
    for value in (None, float("nan")):
        assert not Condition(key, operator, "*", 1.0).holds(value)
    assert Condition(key, operator, "*", 1.0).holds(1.0) == (operator in ("=", "~", "<=", ">="))


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ("widht>3", r"the key 'widht' is not known; did you mean `width`\?\nkeys of a run: run_id, recipe, .*"),
        ("sigma_w>3", r"did you mean `model.sigma_w_sq`\?"),
        ("seeed=1", r"did you mean `seed`\?"),
        ("kind=picard", "kind is several keys: data.kind or solver.kind"),
        ("width", "'width' is not KEY OPERATOR VALUE"),
        ("width=>3", "is not KEY OPERATOR VALUE"),
        ("width>", "is not KEY OPERATOR VALUE"),
        ("width>wide", "'width>wide': > compares numbers, and 'wide' is none"),
        ("width>true", "compares numbers"),
        ("status=done", "a status is one of complete, running, interrupted, failed, damaged"),
        ("__import__('os').abort()=1", "is not KEY OPERATOR VALUE"),
    ],
)
def test_what_means_nothing_is_refused_with_what_is_known(where: str, sentence: str) -> None:
    with pytest.raises(Refused, match=sentence):
        parse_query(Keys(), [where])


def test_all_mistakes_are_told_at_once(copied: Path) -> None:
    code, out, err = call("list", "--where", "widht>1", "--where", "width>x", "--sort", "nope", "--columns", "seedd")
    assert (code, out) == (2, "")
    assert [line.split(":")[0] for line in err.splitlines()[:4]] == ["--where", "--where", "--sort", "--columns"]
    assert "did you mean `seed`?" in err
    assert err.count("keys of its recipe: data.kind,") == 1


def test_rows_come_by_recipe_width_and_seed_or_as_asked_with_unknown_values_last(copied: Path) -> None:
    assert [(row.recipe, row.width, row.seed) for row in found(copied)] == [
        ("other", 8, 0), ("other", 8, 0), ("other", 8, 0), ("small", 24, 0), ("small", 24, 1), ("small", 32, 0),
        ("small", 32, 1),
    ]  # fmt: skip
    altered(one(copied, "width=24", "seed=0"), status="running", results={})
    up = [row.value("final_loss") for row in found(copied, sort="final_loss")]
    down = [row.value("final_loss") for row in found(copied, sort="-final_loss")]
    assert up[-1] is down[-1] is None
    assert up[:-1] == sorted(up[:-1]) == down[-2::-1]
    assert len(set(up)) == 7
    pairs = [(row.seed, row.width) for row in found(copied, "recipe=small", sort="-seed,width")]
    assert pairs == [(1, 24), (1, 32), (0, 24), (0, 32)]


def test_a_run_is_what_its_manifest_says_running_with_a_lock_interrupted_without(copied: Path) -> None:
    killed, failed = one(copied, "width=24", "seed=0"), one(copied, "width=24", "seed=1")
    altered(killed, status="running", results={})
    altered(failed, status="failed", error="it diverged", exit_code=3)
    lines = (killed / "loss.csv").read_text().splitlines()
    (killed / "loss.csv").write_text("\n".join(lines[:5]) + "\n" + lines[5][:30])
    (interrupted,) = found(copied, "status=interrupted")
    assert (interrupted.folder, interrupted.step, interrupted.loss) == (killed, 3, float(lines[4].split(",")[7]))
    with locked(killed):
        assert [row.folder for row in found(copied, "status=running")] == [killed]
        assert "running at step 3 of 6, by process " in call("show", killed.name)[1]
    assert [(row.folder, row.error) for row in found(copied, "exit_code=3")] == [(failed, "it diverged")]
    assert {row.status for row in rows_below(copied)} == {"interrupted", "failed", "complete"} < set(STATES)
    assert "interrupted at step 3 of 6\n" in call("show", killed.name)[1]
    assert "failed at step 6 of 6: it diverged\n" in call("show", failed.name)[1]


def test_a_run_that_has_no_recipe_yet_is_not_damaged(copied: Path) -> None:
    folder = one(copied, "width=24", "seed=0")
    altered(folder, status="running", results={}, files={})
    for name in ("recipe.yaml", "loss.csv", "certificates.csv"):
        (folder / name).unlink()
    assert len(found(copied, "sigma_w_sq=0.05")) == 3
    assert [row.status for row in rows_below(copied)].count("interrupted") == 1
    code, out, _ = call("show", folder.name)
    assert code == 0
    assert "interrupted before its first step" in out
    assert "no loss to be drawn" in out


def damage(copied: Path) -> list[str]:
    """Three folders that cannot be trusted, each in its own way; their run ids."""
    broken, other = one(copied, "width=24", "seed=0"), one(copied, "width=24", "seed=1")
    (broken / "manifest.json").write_text("{")
    manifest = other / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"steps": 6', '"steps": 7'))
    foreign = one(copied, "width=32", "seed=0")
    altered(foreign, kind="sweep")
    return [folder.name for folder in (broken, other, foreign)]


def test_damaged_folders_are_listed_and_named_and_hide_no_other(copied: Path) -> None:
    damaged = damage(copied)
    code, out, err = call("list")
    assert code == 4
    assert [line.split()[0] for line in out.splitlines() if " damaged " in line] == damaged
    assert out.count(" complete ") == 4
    assert [sum(name in line for line in err.splitlines()) for name in damaged] == [1, 1, 1]
    code, out, _ = call("list", "--where", "final_loss>0", "--json")
    document = json.loads(out)
    assert (code, document["found"]) == (4, 4)
    assert [Path(each["folder"]).name for each in document["damaged"]] == damaged
    with pytest.raises(CorruptArtefact, match=damaged[0]):
        deqcli.list_runs(out=copied)


def test_a_recipe_that_was_altered_is_damage_once_it_is_read(copied: Path) -> None:
    folder = one(copied, "width=24", "seed=0")
    path = folder / "recipe.yaml"
    path.write_text(path.read_text().replace("0.05", "0.06"))
    assert call("list", "--quiet")[0] == 0
    code, out, err = call("list", "--columns", "run_id,status,sigma_w_sq")
    assert code == 4
    assert f"{folder.name}   damaged           -" in out
    assert "recipe.yaml is not what was written" in err
    code, out, err = call("show", folder.name)
    assert (code, out) == (4, "")
    assert "recipe.yaml is not what was written" in err


def test_a_table_that_makes_no_sense_is_damage(copied: Path) -> None:
    folder = one(copied, "width=24", "seed=0")
    altered(folder, status="running", results={}, files={})
    path = folder / "loss.csv"
    path.write_text(path.read_text().replace("converged\n", "converged\n" + ",".join("x" * 13) + "\n"))
    code, out, err = call("list")
    assert code == 4
    assert out.count(" complete ") == 6
    assert err == f"{path} is not what was written\n"


def test_the_list_is_a_table_of_whole_lines_or_a_document(copied: Path) -> None:
    code, out, err = call("list", "--where", "width<30", "--sort", "-sigma_w_sq", "--limit", "2")
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[0] == "5 of 7 runs"
    assert lines[1].split() == [
        "run_id", "recipe", "width", "seed", "status", "step", "final_loss", "max_spectral_norm", "min_lambda_ratio",
        "sigma_w_sq",
    ]  # fmt: skip
    assert [line.split()[-1] for line in lines[2:4]] == ["0.05", "0.05"]
    assert lines[4:] == ["and 3 more"]
    document = json.loads(call("list", "--where", "width=32", "--json")[1])
    assert [set(run) for run in document["runs"]] == [{*OWN, *RESULTS}] * 2
    assert document["runs"][0]["final_loss"] == found(copied, "width=32")[0].loss
    chosen = json.loads(call("list", "--columns", "seed,data.num_samples", "--where", "width=32", "--json")[1])
    assert chosen == {"runs": [{"seed": seed, "data.num_samples": 6} for seed in (0, 1)], "found": 2, "damaged": []}
    assert call("list", "--quiet") == (0, "", "")


def test_where_nothing_was_trained_the_list_is_empty(tmp_path: Path) -> None:
    out = str(tmp_path / "none")
    assert call("list", "--out", out) == (0, f"There are no runs below {out}.\n", "")
    assert json.loads(call("list", "--out", out, "--json")[1]) == {"runs": [], "found": 0, "damaged": []}
    code, _, err = call("list", "--out", out, "--where", "widht=1")
    assert code == 2
    assert "did you mean `width`?" in err


def test_a_run_is_found_by_its_folder_its_id_or_a_beginning_that_is_its_own(copied: Path) -> None:
    folder = one(copied, "width=24", "seed=0")
    for text in (str(folder), f"{folder}/", str(folder / "loss.csv"), folder.name, "w00024-s000", "w00024-s000-"):
        assert find_run(text, copied).folder.resolve() == folder.resolve(), text
    with pytest.raises(Refused) as several:
        find_run("w00024", copied)
    assert str(several.value).splitlines()[0] == "'w00024' is the beginning of 2 runs:"
    assert [line.split()[0] for line in str(several.value).splitlines()[1:]] == [
        row.run_id for row in found(copied, "width=24")
    ]
    with pytest.raises(Refused, match=r"there is no run 'w00025-s000'.*did you mean w000[23][24]-s000"):
        find_run("w00025-s000", copied)
    with pytest.raises(Refused, match="there is no folder nowhere/there"):
        find_run("nowhere/there", copied)
    with pytest.raises(Refused, match="there is no run"):
        find_run("*", copied)


def test_the_folder_of_a_sweep_is_refused_with_its_runs(copied: Path) -> None:
    altered(one(copied, "width=24", "seed=0"), kind="sweep", cells=["w00001-s000-aaaaaaaa"])
    with pytest.raises(Refused, match=r"is the folder of a sweep; name a run\nw00001-s000-aaaaaaaa"):
        find_run(str(next(copied.glob("small/runs/w00024-s000*"))), copied)


def test_show_tells_all_of_a_run_and_its_command_finds_it(copied: Path) -> None:
    folder = one(copied, "width=32", "seed=1")
    code, out, err = call("show", folder.name)
    assert (code, err) == (0, "")
    assert out.startswith(f"{folder.name} of small: complete, 6 steps\n\n")
    assert (folder / "recipe.yaml").read_text() in out
    for name in (*RESULTS, *(path.name for path in folder.iterdir() if not path.name.startswith("."))):
        assert f"\n{name} " in out, name
    assert "\n(i)   ||W||_2 < 1: held at every logged step" in out
    assert "loss, logarithmic scale" in out
    (line,) = [line for line in out.splitlines() if line.startswith("Again: deqcli train ")]
    again = RUNNER.invoke(app, [*shlex.split(line)[2:], "--json"])
    assert json.loads(again.stdout)["computed"] is False
    assert json.loads(again.stdout)["id"] == folder.name


def test_show_as_a_document(copied: Path) -> None:
    folder = one(copied, "width=32", "seed=1")
    document = json.loads(call("show", str(folder), "--json")[1])
    assert document["results"] == any_manifest(folder).results
    assert document["resolved"]["model"]["width"] == 32
    assert document["sizes"]["loss.csv"] == (folder / "loss.csv").stat().st_size
    table = open_stored(folder).table("certificates.csv")
    assert [row["holds"] for row in document["certificates"]] == table["holds"].tolist()
    assert [row["slack"] for row in document["certificates"]] == table["slack"].replace(np.nan, None).tolist()
    assert len(document["verdicts"]) == 4


def test_show_says_where_a_run_cannot_be_computed_again(copied: Path) -> None:
    np.savez("own.npz", X=np.eye(3), y=np.ones(3))
    Path("own.yaml").write_text(
        "name: own\ndata: {kind: file, path: own.npz}\nmodel: {width: 8}\ntrain: {steps: 1}\n", encoding="utf-8"
    )
    run(load_recipe("own.yaml").run(), copied)
    (folder,) = copied.glob("own/runs/*")
    assert f"Again: deqcli train {folder}/recipe.yaml --device cpu" in call("show", str(folder))[1]
    Path("own.npz").unlink()
    assert "It cannot be computed again here: " in (told := call("show", str(folder))[1])
    assert "there is no file" in told
    moved = Path("moved") / folder.name
    shutil.copytree(one(copied, "width=32", "seed=0"), moved)
    assert "It computes the run anew: this folder was moved." in call("show", str(moved))[1]


def test_narrow_terminals_get_a_block_for_each_row(monkeypatch: pytest.MonkeyPatch) -> None:
    columns, rows = ["run_id", "width", "final_loss", "none"], [["w00024-s000-aaaaaaaa", 24, 0.125, None]] * 2
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    assert list(fitted(columns, rows)) == [
        "run_id                width  final_loss  none",
        *["w00024-s000-aaaaaaaa     24       0.125     -"] * 2,
    ]
    monkeypatch.setenv("COLUMNS", "24")
    assert list(fitted(columns, rows)) == ["w00024-s000-aaaaaaaa", "  width 24,", "  final_loss 0.125"] * 2
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False, raising=False)
    assert len(list(fitted(columns, rows))) == 3


def test_the_shell_completes_run_ids(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from deqcli.cli.runs import complete_run

    class Context:
        params: dict[str, object] = {}  # noqa: RUF012

    ids = sorted(row.run_id for row in found(copied, "width=24"))
    assert complete_run(Context(), "w00024") == ids  # type: ignore[arg-type]
    Context.params = {"out": Path("elsewhere")}
    assert complete_run(Context(), "w00024") == []  # type: ignore[arg-type]
    monkeypatch.setenv("DEQCLI_OUT", str(copied))
    Context.params = {"out": None}
    assert complete_run(Context(), "w00024-s001") == ids[1:]  # type: ignore[arg-type]


def test_runs_as_a_table_in_python(outputs: Path) -> None:
    table = deqcli.list_runs(["width>8", "seed=1"], "-width", out=outputs)
    assert table["width"].tolist() == table["model.width"].tolist() == [32, 24]
    assert table["final_loss"].tolist() == [row.value("final_loss") for row in found(outputs, "seed=1", sort="-width")]
    assert set(recipe_keys()) >= set(table.columns) - {*OWN, *RESULTS, "name"}
    assert len(deqcli.list_runs("recipe=other", out=str(outputs))) == 3


def test_rows_of_a_table_are_its_text_and_recipes_that_share_lines_share_nothing_else(outputs: Path) -> None:
    first, second = [open_stored(row.folder) for row in found(outputs, "width=24")]
    rows, table = first.rows("loss.csv"), first.table("loss.csv")
    assert [float(row["loss"]) for row in rows] == table["loss"].tolist()
    assert [row["loss"] for row in rows] == [repr(value) for value in table["loss"]]
    first.recipe["data"]["num_samples"] = "spoiled"
    assert second.recipe["data"]["num_samples"] == 6
    assert open_stored(first.folder).recipe["data"]["num_samples"] == 6
