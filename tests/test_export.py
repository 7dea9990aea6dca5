"""Runs handed to other tools: each tool's own reader finds every number, and what is somebody else's stays."""

from __future__ import annotations

import csv
import json
import re
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import deqcli
from deqcli.cli.main import app
from deqcli.errors import Refused, SystemRefused
from deqcli.exporters.export import EXPORTERS
from deqcli.exporters.mlflow_place import shown
from deqcli.exporters.tensorboard import EVENTS
from deqcli.sweep.stored import open_stored
from deqcli.sweep.sweep import SweepOptions
from deqcli.sweep.sweep import sweep as run_sweep
from tests.made_up import write_sweep
from tests.runs import SMALL, recipe
from tests.test_commands import Command, transcripts
from tests.test_commands import run as run_command

TOOLS = [name for name, exporter in EXPORTERS.items() if exporter.modules]
AXIS = "sweep.over={train.learning_rate: [auto, 50.0]}"
TABLES = ("loss", "spectral", "certificates", "prediction", "runs")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep whose learning rate is `auto` or one that makes runs fail, and a run of another recipe."""
    out = tmp_path_factory.mktemp("trained")
    loaded = recipe(out, AXIS, "train.steps=10", text=SMALL.replace("widths: [24, 32]", "widths: [24]"))
    assert len(run_sweep(loaded, out, SweepOptions("cpu", picture)).failed) == 2
    deqcli.train(str(out / "recipe.yaml"), "name=other", "train.steps=8", out=out, device="cpu")
    return out


def picture(folder: Path) -> list[str]:
    """What stands for a figure."""
    (folder / "figures").mkdir()
    (folder / "figures/figure-1.png").write_bytes(b"a picture")
    return ["figures/figure-1.png"]


@pytest.fixture
def sweep(trained: Path) -> Path:
    """The folder of the sweep."""
    (folder,) = (trained / "small/sweeps").iterdir()
    return folder


@pytest.fixture
def other(trained: Path) -> Path:
    """The folder of the other run."""
    (folder,) = (trained / "other/runs").iterdir()
    return folder


def need(module: str) -> Any:
    """A module of the extra `export`, without which the test is skipped."""
    return pytest.importorskip(module, reason=f"{module} is of the extra `export`: make test-export")


@pytest.fixture(scope="module")
def pq() -> Any:
    """What reads Parquet; asked for first, so that nothing is trained where it is missing."""
    return need("pyarrow.parquet")


@pytest.fixture(scope="module")
def tensorboard() -> Any:
    """TensorBoard, in the same way."""
    return need("tensorboard")


@pytest.fixture(scope="module")
def mlflow() -> Any:
    """MLflow, in the same way."""
    return need("mlflow")


def rows_of(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file as text."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def numbers_of(folder: Path) -> Iterator[tuple[str, int, float]]:
    """(tag, step, value) of every number in the tables of a run over its steps, as Python reads the text."""
    for table in ("loss", "spectral", "prediction", "timing"):
        for row in rows_of(folder / f"{table}.csv"):
            for column in list(row)[list(row).index("step") + 1 :]:
                if row[column] and column not in ("status", "time"):
                    yield f"{table}/{column}", int(row["step"]), float(row[column])


# ---------------------------------------------------------------------------------------------------- Parquet


def as_text(value: object) -> str:
    """A value as records.py writes it into a CSV file."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else repr(value) if isinstance(value, float) else str(value)


def test_parquet_has_every_cell_of_the_csv_files_to_the_last_bit(pq: Any, sweep: Path, tmp_path: Path) -> None:
    done = deqcli.export(sweep, "parquet", tmp_path / "out")
    assert [item.name for item in done.items] == [f"{name}.parquet" for name in (*TABLES, "timing")]
    compared = 0
    for name, item in zip(TABLES, done.items, strict=False):
        expected = rows_of(sweep / f"{name}.csv")
        table = pq.read_table(tmp_path / "out" / item.name)
        assert table.column_names == list(expected[0])
        found = [{key: as_text(value) for key, value in row.items()} for row in table.to_pylist()]
        assert found == expected
        assert item.numbers == len(expected)
        compared += len(expected) * len(expected[0])
    assert compared > 1500


def test_parquet_columns_have_their_types_whatever_is_in_them(pq: Any, sweep: Path, tmp_path: Path) -> None:
    deqcli.export(sweep, "parquet", tmp_path)
    types = {name: dict(_types(pq.read_schema(tmp_path / f"{name}.parquet"))) for name in TABLES}
    assert types["loss"]["iterations"] == types["runs"]["steps"] == types["loss"]["step"] == "int64"
    assert types["certificates"]["holds"] == types["certificates"]["repaired_by_width"] == "bool"
    assert types["prediction"]["loss_low"] == "double", "a column that is empty throughout"
    assert types["runs"]["error"] == types["loss"]["run_id"] == types["loss"]["train.learning_rate"] == "string"
    frame = pd.read_parquet(tmp_path / "runs.parquet")
    assert str(frame["steps"].dtype) == "Int64"
    assert frame["steps"].isna().tolist() == [True, True, False, False]
    losses = pd.read_parquet(tmp_path / "loss.parquet")
    pd.testing.assert_frame_equal(
        losses.drop(columns="adjoint_iterations"),
        pd.read_csv(sweep / "loss.csv").drop(columns="adjoint_iterations"),
        check_exact=True,
    )


def _types(schema: Any) -> Iterator[tuple[str, str]]:
    for field in schema:
        yield field.name, str(field.type)


def test_parquet_says_what_its_rows_are_of(pq: Any, sweep: Path, other: Path, tmp_path: Path) -> None:
    deqcli.export([sweep, deqcli.load(other)], "parquet", tmp_path)  # type: ignore[list-item]
    found = pq.read_schema(tmp_path / "loss.parquet").metadata
    assert found[b"deqcli.version"].decode() == deqcli.__version__
    assert found[b"deqcli.id"].decode() == f"{sweep.name} {other.name}"
    assert found[b"deqcli.recipe"].decode().split("---\n") == [
        (folder / "recipe.yaml").read_text() for folder in (sweep, other)
    ]
    losses = pd.read_parquet(tmp_path / "loss.parquet")
    assert losses.groupby("recipe").size().to_dict() == {"small": 26, "other": 9}
    assert set(losses["train.learning_rate"]) == {"auto", "50.0"}
    assert losses.groupby("recipe")["train.steps"].unique().map(list).to_dict() == {"small": [10], "other": [8]}
    assert list(losses.columns)[6:9] == ["train.learning_rate", "train.steps", "step"]
    timing = pd.read_parquet(tmp_path / "timing.parquet")
    assert set(timing["run_id"]) == set(losses["run_id"])


@pytest.mark.usefixtures("pq")
def test_parquet_replaces_its_own_files_and_nobody_elses(sweep: Path, tmp_path: Path) -> None:
    gone = tmp_path / "moved"
    shutil.copytree(sweep, gone)  # without the folders of its runs there is no timing
    first = deqcli.export(sweep, "parquet", tmp_path / "out")
    (tmp_path / "out/mine.parquet").write_bytes(b"mine")
    again = deqcli.export(gone, "parquet", tmp_path / "out")
    assert {item.state for item in first.items} == {"written"}
    assert {item.state for item in again.items} == {"replaced"}
    assert not (tmp_path / "out/timing.parquet").exists()
    for content in (b"mine", _parquet_of_others(tmp_path)):
        (tmp_path / "out/runs.parquet").write_bytes(content)
        before = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.parquet")}
        with pytest.raises(Refused, match=r"runs\.parquet is not of an export of deqcli and is left as it is"):
            deqcli.export(sweep, "parquet", tmp_path / "out")
        assert {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.parquet")} == before


def _parquet_of_others(folder: Path) -> bytes:
    pd.DataFrame({"a": [1]}).to_parquet(folder / "others.parquet")
    return (folder / "others.parquet").read_bytes()


# ------------------------------------------------------------------------------------------------ TensorBoard


def accumulated(folder: Path) -> Any:
    """What TensorBoard's own reader finds in a folder of events."""
    reading = need("tensorboard.backend.event_processing.event_accumulator")
    found = reading.EventAccumulator(str(folder), size_guidance={reading.SCALARS: 0, reading.TENSORS: 0})
    return found.Reload()


@pytest.mark.usefixtures("tensorboard")
def test_tensorboard_reads_every_number_at_its_step(sweep: Path, tmp_path: Path) -> None:
    done = deqcli.export(sweep, "tensorboard", tmp_path)
    runs = list(open_stored(sweep).runs())
    assert [item.name for item in done.items] == [run.manifest.id for run in runs]
    for run, item in zip(runs, done.items, strict=True):
        found = accumulated(tmp_path / "small" / item.name)
        values = {(tag, each.step): each.value for tag in found.Tags()["scalars"] for each in found.Scalars(tag)}
        assert len(values) == item.numbers
        results = {name: value for name, value in run.manifest.results.items() if value is not None}
        for name, value in results.items():
            assert values.pop((f"results/{name}", results["steps"])) == np.float32(value)
        expected = {(tag, step): value for tag, step, value in numbers_of(run.folder) if in_float32(value)}
        assert values == {key: float(np.float32(value)) for key, value in expected.items()}
        assert len(values) > (100 if results else 10)


def in_float32(value: float) -> bool:
    """Whether a number is within the range of float32."""
    return value == 0 or 2.0**-126 <= abs(value) <= (2 - 2.0**-23) * 2.0**127


@pytest.mark.usefixtures("tensorboard")
def test_tensorboard_has_recipes_as_hyperparameters_and_how_runs_ended(sweep: Path, tmp_path: Path) -> None:
    data = need("tensorboard.plugins.hparams.plugin_data_pb2").HParamsPluginData
    deqcli.export(sweep, "tensorboard", tmp_path)
    statuses = []
    for run in open_stored(sweep).runs():
        found = accumulated(tmp_path / "small" / run.manifest.id)
        about = found.summary_metadata
        start = data.FromString(about["_hparams_/session_start_info"].plugin_data.content).session_start_info
        assert start.group_name == run.manifest.id
        assert start.hparams["model.width"].number_value == 24
        assert start.hparams["train.learning_rate"].WhichOneof("kind") in ("number_value", "string_value")
        assert start.hparams["train.tf32"].bool_value is False
        statuses.append(
            data.FromString(about["_hparams_/session_end_info"].plugin_data.content).session_end_info.status
        )
        texts = {tag: found.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in found.Tags()["tensors"][2:]}
        assert texts.pop("recipe").replace("    ", "") == (run.folder / "recipe.yaml").read_text().rstrip("\n")
        assert ("step 1: the equilibrium was not solved" in texts.get("error", "")) == (run.manifest.status == "failed")
    assert statuses == [2, 2, 1, 1]


@pytest.mark.usefixtures("tensorboard")
def test_tensorboard_leaves_out_what_float32_cannot_hold_and_says_so(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path, widths=[100], seeds=[0], run_folders=False)
    losses = pd.read_csv(folder / "loss.csv")
    losses.loc[[3, 4, 5, 6], "loss"] = [1e-39, 1e39, 0.0, np.nan]
    losses.to_csv(folder / "loss.csv", index=False)
    _sign(folder, "loss.csv")
    done = deqcli.export(folder, "tensorboard", tmp_path / "logs")
    steps = [each.step for each in accumulated(tmp_path / "logs/made-up" / done.items[0].name).Scalars("loss/loss")]
    assert steps == [step for step in range(61) if step not in (3, 4, 6)]
    assert len(done.remarks) == 1
    assert ": 2 numbers are too large or too small for float32" in done.remarks[0]


def _sign(folder: Path, name: str) -> None:
    """Give the manifest the SHA-256 of a file that was altered."""
    from deqcli.runs.folder import hashes, write_manifest

    manifest = open_stored(folder).manifest
    write_manifest(folder, manifest.model_copy(update={"files": manifest.files | hashes(folder, [name])}))


@pytest.mark.usefixtures("tensorboard")
def test_tensorboard_exports_twice_to_the_same_bytes_and_refuses_a_folder_of_others(
    sweep: Path, tmp_path: Path
) -> None:
    first = deqcli.export(sweep, "tensorboard", tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob(EVENTS)}
    again = deqcli.export(sweep, "tensorboard", tmp_path)
    assert [{item.state for item in done.items} for done in (first, again)] == [{"written"}, {"replaced"}]
    assert {path: path.read_bytes() for path in tmp_path.rglob("*tfevents*")} == before
    assert len(before) == 4
    stranger = tmp_path / "small" / first.items[0].name / "events.out.tfevents.1700000000.host"
    stranger.write_bytes(b"theirs")
    with pytest.raises(Refused, match=r"1700000000\.host is not deqcli's, and its folder is left as it is"):
        deqcli.export(sweep, "tensorboard", tmp_path)
    assert stranger.read_bytes() == b"theirs"


# ----------------------------------------------------------------------------------------------------- MLflow


@pytest.fixture(scope="module")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of MLflow without a run; making one takes seconds."""
    folder = tmp_path_factory.mktemp("blank")
    client_of(folder)
    return folder / "mlflow.db"


@pytest.fixture
def store(blank: Path, tmp_path: Path) -> Path:
    """A folder with such a database."""
    (tmp_path / "store").mkdir()
    shutil.copy(blank, tmp_path / "store")
    return tmp_path / "store"


def client_of(folder: Path) -> Any:
    """MLflow's own reader of the database in a folder."""
    need("mlflow")
    from deqcli.exporters.mlflow_place import _quiet, database_uri

    with _quiet():
        return need("mlflow.tracking").MlflowClient(tracking_uri=database_uri(folder))


def runs_of(client: Any, experiment: str = "small") -> dict[str, Any]:
    """The runs of an experiment by their names, each of which must be there once."""
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    assert len({run.info.run_name for run in found}) == len(found)
    return {run.info.run_name: run for run in found}


@pytest.mark.usefixtures("mlflow")
def test_mlflow_reads_every_number_setting_and_status(
    sweep: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deqcli.exporters.mlflow.METRICS_A_CALL", 100)
    monkeypatch.setattr("deqcli.exporters.mlflow.PARAMS_A_CALL", 7)
    done = deqcli.export(sweep, "mlflow", store)
    client = client_of(store)
    found = runs_of(client)
    assert list(found)[::-1] == [sweep.name, *(item.name for item in done.items)]
    for run, item in zip(open_stored(sweep).runs(), done.items, strict=True):
        there = found[item.name]
        histories = [client.get_metric_history(there.info.run_id, name) for name in there.data.metrics]
        values = {(each.key, each.step): each.value for history in histories for each in history}
        assert len(values) == sum(map(len, histories)) == item.numbers
        for name, value in run.manifest.results.items():
            assert values.pop((f"results/{name}", 10), None) == value
        assert values == {(tag, step): value for tag, step, value in numbers_of(run.folder)}
        assert there.data.params["model.width"] == "24"
        assert there.data.params["data.kind"] == "sphere"
        assert there.data.params["train.tf32"] == "false"
        assert there.data.params["train.learning_rate"] in ("auto", "50.0")
        assert there.info.status == {"complete": "FINISHED", "failed": "FAILED"}[run.manifest.status]
        assert there.data.tags["deqcli.run_id"] == item.name
        assert there.data.tags["deqcli.device"] == "cpu"
        assert there.data.tags["deqcli.version.torch"] == run.manifest.versions["torch"]
        assert ("not solved" in there.data.tags.get("deqcli.error", "")) == (run.manifest.status == "failed")
        assert there.data.tags["mlflow.parentRunId"] == found[sweep.name].info.run_id
    assert [run.info.status for run in found.values()].count("FAILED") == 3, "two runs, and so the sweep"


@pytest.mark.usefixtures("mlflow")
def test_mlflow_has_recipes_certificates_and_figures(sweep: Path, tmp_path: Path) -> None:
    done = deqcli.export(sweep, "mlflow", tmp_path / "a #b")
    client = client_of(tmp_path / "a #b")
    found = runs_of(client)
    for run in open_stored(sweep).runs():
        identity = found[run.manifest.id].info.run_id
        for name in ("recipe.yaml", "certificates.csv"):
            got = client.download_artifacts(identity, name, str(tmp_path))
            assert Path(got).read_bytes() == (run.folder / name).read_bytes()
    figures = client.list_artifacts(found[sweep.name].info.run_id, "figures")
    assert [each.path for each in figures] == ["figures/figure-1.png"]
    assert done.opens == f"mlflow ui --backend-store-uri 'sqlite:///{tmp_path}/a #b/mlflow.db'"


@pytest.mark.usefixtures("mlflow")
def test_mlflow_has_a_run_once_however_often_it_is_exported(
    sweep: Path, other: Path, store: Path, tmp_path: Path
) -> None:  # fmt: skip
    folder = shutil.copytree(sweep.parent.parent, tmp_path / "small") / "sweeps" / sweep.name
    deqcli.export([folder, other], "mlflow", store)
    client = client_of(store)
    first = runs_of(client)
    again = deqcli.export(folder, "mlflow", store)
    assert {item.state for item in again.items} == {"unchanged"}
    assert {run.info.run_id for run in runs_of(client).values()} == {run.info.run_id for run in first.values()}
    cut, changed = again.items[2].name, again.items[3].name
    client.delete_tag(first[cut].info.run_id, "deqcli.exported")  # as an export leaves it that was killed
    certificates = folder.parent.parent / "runs" / changed / "certificates.csv"
    certificates.write_text(certificates.read_text().replace("assumption_1", "assumption_0"))
    _sign(certificates.parent, "certificates.csv")
    states = {item.name: item.state for item in deqcli.export(folder, "mlflow", store).items}
    assert [name for name, state in states.items() if state == "replaced"] == [cut, changed]
    assert list(states.values()).count("unchanged") == 2
    now = runs_of(client)
    assert now[cut].info.run_id != first[cut].info.run_id
    assert now[cut].data.metrics == first[cut].data.metrics
    assert now[cut].data.tags["mlflow.parentRunId"] == now[sweep.name].info.run_id
    assert len(now) == 5
    assert list(runs_of(client, "other")) == [other.name]


@pytest.mark.usefixtures("mlflow")
def test_mlflow_goes_where_its_tracking_uri_says(other: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(store)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}/mlflow.db")
    done = deqcli.export(other, "mlflow")
    assert done.place == f"sqlite:///{store}/mlflow.db"
    assert list(runs_of(client_of(store), "other")) == [other.name]
    assert not (other / "export").exists()


@pytest.mark.usefixtures("mlflow")
def test_mlflow_refuses_what_it_cannot_use(other: Path, store: Path, tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"a letter")
    with pytest.raises(Refused, match=r"mlflow\.db is no database of MLflow and is left as it is"):
        deqcli.export(other, "mlflow", tmp_path)
    assert (tmp_path / "mlflow.db").read_bytes() == b"a letter"
    (tmp_path / "b").mkdir()
    with sqlite3.connect(tmp_path / "b/mlflow.db") as connection:
        connection.execute("CREATE TABLE letters (text)")
    connection.close()
    for place, words in (
        (tmp_path / "b", "is no database of MLflow"),
        (tmp_path / "c%20", r"has a \? or % in it"),
        ("gopher://me:secret@here/x", "MLflow cannot use gopher://here/x: "),
    ):
        with pytest.raises(Refused, match=words):
            deqcli.export(other, "mlflow", place)
    deqcli.export(other, "mlflow", store)
    client = client_of(store)
    client.delete_experiment(client.get_experiment_by_name("other").experiment_id)
    with pytest.raises(Refused, match="the experiment other was deleted in MLflow; restore it there"):
        deqcli.export(other, "mlflow", store)


@pytest.mark.usefixtures("mlflow")
def test_a_failure_of_mlflow_is_told_in_words(other: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exceptions = need("mlflow.exceptions")

    def fail(*_: object, **__: object) -> None:
        raise exceptions.MlflowException("no room\nand more")

    monkeypatch.setattr(need("mlflow.tracking").MlflowClient, "log_batch", fail)
    with pytest.raises(SystemRefused, match=f"MLflow at {store} failed: no room$"):
        deqcli.export(other, "mlflow", store)


# ------------------------------------------------------------------------------------------------ every tool


@pytest.mark.parametrize("to", EXPORTERS)
def test_runs_whose_folders_are_gone_are_exported_from_the_tables(
    to: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    for module in EXPORTERS[to].modules:
        need(module)
    folder = write_sweep(tmp_path, steps=20, run_folders=False)
    if to == "mlflow":
        (folder / "export/mlflow").mkdir(parents=True)
        shutil.copy(request.getfixturevalue("blank"), folder / "export/mlflow")
    done = deqcli.export(folder, to)
    assert done.place == str(folder / "export" / to)
    tables = done.what == "tables"
    assert len(done.items) == (5 if tables else 4)
    assert all(item.numbers > (0 if tables else 100) for item in done.items)


@pytest.mark.parametrize("to", TOOLS)
def test_a_missing_extra_is_named(to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in EXPORTERS[to].modules:
        monkeypatch.setitem(sys.modules, module, None)
    folder = write_sweep(tmp_path)
    result = CliRunner().invoke(app, ["export", str(folder), "--to", to])
    needs = " and ".join(EXPORTERS[to].modules)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"export --to {to} needs {needs}: pip install 'deqcli[{to}]'\n"


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tool, as far as it is asked for and not used."""
    monkeypatch.setattr("deqcli.exporters.export.find_spec", lambda _: True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["A", "--to", "excel"], "--to excel is not known; it is one of parquet, tensorboard, mlflow, thinned"),
        (["A", "B", "--to", "parquet"], "the runs of 2 folders go to one place; name it with --out"),
        (["A", "--to", "parquet", "--out", "s3://b/c"], "--out s3://b/c is a URI; --to parquet writes into a folder"),
        (["C", "--to", "tensorboard"], "there is no folder C"),
    ],
)
@pytest.mark.usefixtures("installed")
def test_what_cannot_be_is_refused(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name in "AB":
        write_sweep(tmp_path / name).rename(tmp_path / f"{name}s")
        shutil.rmtree(tmp_path / name)
        (tmp_path / f"{name}s").rename(tmp_path / name)
    result = CliRunner().invoke(app, ["export", *arguments])
    assert (result.exit_code, result.stderr) == (2, f"{words}\n")
    assert not list(tmp_path.rglob("export"))


@pytest.mark.usefixtures("pq")
def test_the_command_says_what_it_wrote_and_how_to_open_it(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path)
    result = CliRunner().invoke(app, ["export", str(folder), "--to", "parquet"])
    assert result.exit_code == 0
    place = folder / "export/parquet"
    assert result.stdout.splitlines() == [
        "5 tables: 5 written", f"Place: {place}", f"Open:  pandas.read_parquet('{place}/loss.parquet')",
    ]  # fmt: skip
    assert result.stderr.splitlines()[0] == "loss.parquet: 244 rows written"
    quiet = CliRunner().invoke(app, ["export", str(folder), "--to", "parquet", "--quiet"])
    assert (quiet.exit_code, quiet.output) == (0, "")
    document = json.loads(CliRunner().invoke(app, ["export", str(folder), "--to", "parquet", "--json"]).stdout)
    assert document["items"][0] == {"name": "loss.parquet", "numbers": 244, "state": "replaced"}
    assert (document["status"], document["place"]) == ("exported", str(place))


def test_every_tool_is_in_the_help_and_has_an_extra() -> None:
    told = CliRunner().invoke(app, ["export", "--help"]).output
    extras = (Path(__file__).parent.parent / "setup.cfg").read_text()
    assert (len(EXPORTERS), len(TOOLS)) == (4, 3)
    assert all(name in told for name in EXPORTERS)
    assert all(f"\n{name} =\n" in extras for name in TOOLS)


def test_no_password_is_shown() -> None:
    assert shown("https://me:secret@host:5000/x") == "https://host:5000/x"
    assert shown("failed at http://a:b@c and http://d") == "failed at http://c and http://d"


def test_what_the_page_about_exports_shows_runs(tmp_path: Path) -> None:
    for needed in ("pyarrow", "tensorboard", "mlflow"):
        pytest.importorskip(needed, reason=f"{needed} is of the extra `export`: make test-export")
    page = (Path(__file__).parent.parent / "docs/export.md").read_text()
    fences = re.findall(r"^```text\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    shown = [each for fence in fences for each in transcripts(fence, False) if "http://" not in each.text]
    programs = [fence for fence in fences if "import " in fence]
    assert (len(shown), len(programs)) == (3, 2)
    given = [Command("deqcli sweep-width quickstart --quiet", None, False), *shown]
    given += [Command(f"{sys.executable} - <<'END'\n{program}END\n", None, False) for program in programs]
    for command in given:
        done = run_command(command, tmp_path)
        assert done.returncode == 0, f"{command.text}\n{done.stderr}"
