"""Every command from outside: exit code, standard output, standard error, and what is left on disk."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from deqcli.cli.main import app
from deqcli.recipe.library import shipped_recipes
from tests.runs import SMALL
from tests.training import shapes_unchecked

RUNNER = CliRunner()
COMMANDS = (
    "train",
    "sweep-width",
    "check-init",
    "predict",
    "env",
    "report",
    "export",
    "data list",
    "data fetch",
    "recipes list",
    "recipes show",
    "recipes copy",
    "recipes validate",
    "recipes schema",
    "recipes reference",
    "runs list",
    "runs show",
    "runs compare",
)


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder that holds small.yaml, on the CPU."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEQCLI_DEVICE", "cpu")
    (tmp_path / "small.yaml").write_text(SMALL)
    return tmp_path


def call(*arguments: str) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of a command run in this process."""
    result = RUNNER.invoke(app, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def _walk() -> list[str]:
    group = typer.main.get_command(app)
    names = []
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        names += [f"{name} {sub}" for sub in getattr(command, "commands", {})] or [name]
    return names


def test_every_command_has_help_that_ends_in_an_example() -> None:
    assert sorted(_walk()) == sorted(COMMANDS)
    for name in COMMANDS:
        code, out, _ = call(*name.split(), "--help")
        assert code == 0
        assert f"Example: deqcli {name}" in out


def test_train_trains_says_where_and_finds_it_again() -> None:
    code, out, err = call("train", "small.yaml", "--width", "24", "--seed", "3")
    assert code == 0, err
    assert "final_loss" in out
    assert "(iii) loss <= loss_bound: held at every logged step" in out
    (folder,) = Path("outputs/small/runs").iterdir()
    assert folder.name.startswith("w00024-s003-")
    assert f"Files: {folder}" in out
    code, out, _ = call("train", "small.yaml", "--width", "24", "--seed", "3")
    assert code == 0
    assert "This run was complete already; --force computes it anew." in out


def test_train_json_is_one_document_and_nothing_else() -> None:
    code, out, err = call("train", "small.yaml", "--json", "--out", "elsewhere")
    document = json.loads(out)
    assert (code, err) == (0, "")
    assert document["status"] == "complete"
    assert Path(document["folder"]).is_relative_to("elsewhere")
    assert document["results"]["steps"] == 20


def test_quiet_is_silent() -> None:
    assert call("train", "small.yaml", "--quiet") == (0, "", "")


def test_dry_run_writes_nothing() -> None:
    code, out, _ = call("train", "small.yaml", "train.steps=7", "--dry-run")
    assert code == 0
    assert "train: {steps: 7, " in out
    assert "not started" in out
    code, out, _ = call("sweep-width", "small.yaml", "--widths", "8:11", "--seeds", "0,4", "--dry-run", "--json")
    assert code == 0
    assert [(run["width"], run["seed"]) for run in json.loads(out)["runs"]] == [
        (8, 0), (8, 4), (9, 0), (9, 4), (10, 0), (10, 4),
    ]  # fmt: skip
    assert not Path("outputs").exists()


def test_sweep_width_writes_tables_and_a_picture() -> None:
    code, out, err = call(
        "sweep-width", "small.yaml", "train.steps=4", "--widths", "8,12", "--seeds", "0", "--jobs", "1"
    )
    assert code == 0, err
    (folder,) = Path("outputs/small/sweeps").iterdir()
    assert f"Picture: {folder}/figures/figure-1.png" in out
    assert (folder / "figures/figure-1.png").stat().st_size > 10_000
    assert len((folder / "runs.csv").read_text().splitlines()) == 3
    assert err.count("complete") == 2


def test_sweep_width_with_a_failing_cell_exits_with_7() -> None:
    code, out, err = call(
        "sweep-width", "small.yaml", "solver.max_iterations=2", "--widths", "8", "--seeds", "0", "--json"
    )
    assert code == 7
    assert json.loads(out)["failed"][0]["exit_code"] == 3
    (row,) = json.loads(out)["runs"]
    assert (row["width"], row["attempts"], row["steps"], row["status"]) == (8, 1, None, "failed")
    assert "failed: step 0: the equilibrium was not solved" in err
    assert "1 of 1 run failed; the others are complete" in err


def test_check_init_reports_and_fails_only_when_strict() -> None:
    code, out, _ = call("check-init", "small.yaml", "--widths", "16,24", "--seeds", "0:2")
    assert code == 0
    for name in (
        "assumption_1",
        "lemma_1",
        "theorem_2",
        "condition_1_eq_7",
        "condition_1_eq_9_with_8",
        "learning_rate_theorem",
    ):
        assert out.count(name) == 4
    (folder,) = Path("outputs/small/checks").iterdir()
    assert len((folder / "certificates.csv").read_text().splitlines()) == 1 + 4 * 20
    code, out, err = call("check-init", "small.yaml", "--strict", "--json")
    assert code == 3
    assert "4 of 4 draws fail an inequality." in err
    assert json.loads(out)["draws"][0]["failed"]


def checked(*arguments: str) -> tuple[Path, str]:
    """The folder of a check that went well, and what it printed."""
    code, out, err = call("check-init", "small.yaml", *arguments)
    assert (code, err) == (0, "")
    (line,) = [line for line in out.splitlines() if line.startswith("Files: ")]
    return Path(line.removeprefix("Files: ")), out


SPECTRA, DEPTHS = ([f"figures/{name}.{form}" for form in ("png", "svg", "pdf", "csv")] for name in ("spectra", "depth"))
DEPTH = {"depth.csv", "rates.csv", *DEPTHS}


def names_of(folder: Path) -> set[str]:
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return {path.relative_to(folder).as_posix() for path in paths}


def test_check_init_measures_depth_only_where_asked() -> None:
    given = ["--widths", "24,32", "--seeds", "0"]
    folder, out = checked(*given, "--depth", "3")
    usual = {"draws.csv", "certificates.csv", "spectra.csv", "pairs.csv", "recipe.yaml", "manifest.json", *SPECTRA}
    assert names_of(folder) == usual | DEPTH
    assert set(json.loads((folder / "manifest.json").read_text())["files"]) == (usual | DEPTH) - {"manifest.json"}
    depth, rates = pd.read_csv(folder / "depth.csv"), pd.read_csv(folder / "rates.csv")
    assert depth.groupby(["width", "quantity"])["depth"].apply(list).tolist() == [[1, 2, 3]] * 8
    assert (folder / "figures/depth.png").stat().st_size > 10_000
    assert len(rates) == out.count("; the theory says ") > 4
    assert set(rates["against"]) == {"depth", "width"}
    assert rates[rates["against"] == "width"]["run_id"].isna().all()
    again, out = checked(*given)
    assert again == folder
    assert names_of(folder) == usual
    assert "the theory says" not in out


def test_check_init_json_has_depths_rates_and_suggestion() -> None:
    given = ["--widths", "24,32", "--seeds", "0", "--depth", "2", "--suggest", "--json"]
    code, out, err = call("check-init", "small.yaml", *given)
    document = json.loads(out)
    assert (code, err) == (0, "")
    folder = Path(document["folder"])
    assert len(pd.read_csv(folder / "depth.csv")) == sum(len(draw["depths"]) for draw in document["draws"]) == 2 * 2 * 4
    listed = sum(len(draw["rates"]) for draw in document["draws"]) + len(document["rates"])
    assert len(pd.read_csv(folder / "rates.csv")) == listed
    assert {rate["against"] for rate in document["rates"]} == {"width"}
    names = ("suggested.yaml", "suggested-sigma.yaml")
    assert document["suggestion"]["recipes"] == [str(folder / name) for name in names]
    assert len(document["suggestion"]["sentences"]) == 3
    assert document["figures"] == [f"{folder}/{name}" for name in [*SPECTRA, *DEPTHS]]


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ([], []),
        (["model.sigma_w_sq=0.12"], []),
        (
            ["model.sigma_w_sq=0.2"],
            ["sigma_w_sq = 0.2 is not below 1/8", "is not below 1, so Condition 1 has no delta"],
        ),
        (["data.num_samples=40"], ["num_samples 40 > width 24: lambda_0 is exactly 0"]),
    ],
    ids=str,
)
def test_check_init_says_what_lies_outside_the_hypotheses(given: list[str], names: list[str]) -> None:
    folder, out = checked(*given, "--widths", "24", "--seeds", "0")
    lines = [line for line in out.splitlines() if line.startswith("Outside the hypotheses: ")]
    assert len(lines) == len(names)
    for line, name in zip(lines, names, strict=True):
        assert name in line
    (remarks,) = pd.read_csv(folder / "draws.csv", keep_default_na=False)["remarks"]
    assert remarks == "; ".join(line.removeprefix("Outside the hypotheses: ").rstrip(".") for line in lines)
    marked = pd.read_csv(folder / "certificates.csv").set_index("certificate")["source"].str.contains("outside its hyp")
    assert marked["condition_1_eq_7"] == bool(names)
    assert not marked["assumption_1"]


def test_a_draw_without_an_equilibrium_exits_with_3() -> None:
    code, _, err = call("check-init", "small.yaml", "model.sigma_w_sq=30.0")
    assert code == 3
    assert "a smaller model.sigma_w_sq" in err


def test_numerical_failure_exits_with_3() -> None:
    code, out, err = call("train", "small.yaml", "train.learning_rate=1e6", "--json")
    assert code == 3
    assert "Use a smaller train.learning_rate" in err
    assert json.loads(out)["exit_code"] == 3


@pytest.mark.parametrize("command", ["train", "sweep-width", "check-init", "predict", "recipes validate"])
def test_mistakes_exit_with_2_and_leave_nothing(command: str) -> None:
    Path("bad.yaml").write_text(SMALL.replace("width: 32", "widht: 32"))
    code, out, err = call(*command.split(), "bad.yaml", "train.steps=-1")
    assert (code, out) == (2, "")
    assert "bad.yaml:4:9: model.widht is not known; did you mean `width`?" in err
    assert "command line:1:13: train.steps must be a whole number, at least 0" in err
    assert err.endswith("errors; nothing was run.\n")
    assert not Path("outputs").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train"], "Missing argument 'RECIPE'"),
        (["train", "nowhere"], "there is no recipe 'nowhere'"),
        (["train", "."], "there is no recipe '.'"),
        (["train", "small.yaml", "--device", "abacus"], "--device abacus: this machine has cpu"),
        (["train", "small.yaml", "--width", "many"], "--width"),
        (["train", "small.yaml", "--widht", "3"], "--widht"),
        (["sweep-width", "small.yaml", "--widths", "0"], "sweep.widths.0 must be a whole number, at least 1"),
        (["sweep-width", "small.yaml", "--widths", "8:8"], "8:8 names 0 values"),
        (["sweep-width", "small.yaml", "--widths", "1:999999999"], "names 999999998 values"),
        (["sweep-width", "small.yaml", "--widths", "8,8"], "sweep.widths: names 8 twice"),
        (["sweep-width", "small.yaml", "--executor", "pigeons"], "execution.executor must be `local`, `ray` or"),
        (["sweep-width", "small.yaml", "--jobs", "0"], "--jobs"),
        (["frobnicate"], "frobnicate"),
        (["recipes", "copy", "quickstart", "small.yaml"], "small.yaml exists already"),
    ],
)
def test_wrong_usage_exits_with_2_and_a_sentence(arguments: list[str], words: str) -> None:
    code, _, err = call(*arguments)
    assert code == 2
    assert words in err
    assert "Traceback" not in err


def test_a_folder_of_something_else_exits_with_4() -> None:
    code, out, _ = call("train", "small.yaml", "--dry-run", "--json")
    folder = Path(json.loads(out)["folder"])
    folder.mkdir(parents=True)
    (folder / "mine.txt").write_text("mine")
    code, _, err = call("train", "small.yaml")
    assert code == 4
    assert "it is left as it is" in err
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]


def test_an_output_that_cannot_be_written_exits_with_5() -> None:
    Path("occupied").write_text("a file")
    code, _, err = call("train", "small.yaml", "--out", "occupied")
    assert code == 5
    assert "Traceback" not in err


def as_nobody(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run this Python as a user without rights; root itself may write anywhere."""
    command = ["setpriv", "--reuid=65534", "--clear-groups", sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root, and setpriv to give it up"
)
def test_a_folder_without_permission_exits_with_5() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "locked").mkdir(mode=0o555)
        (folder / "small.yaml").write_text(SMALL)
        if as_nobody("-c", "import deqcli", cwd=folder).returncode != 0:
            pytest.skip("nobody may not even read this Python's packages")
        done = as_nobody("-m", "deqcli", "train", "small.yaml", "--out", "locked", cwd=folder)
    assert done.returncode == 5, done.stderr
    assert "Permission denied" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_with_their_exit_code_and_the_command_goes_on(signum: int, code: int) -> None:
    command = [sys.executable, "-m", "deqcli", "train", "small.yaml", "train.steps=200000", "log.spectral_every=50000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(Path("outputs").glob("small/runs/*/certificates.csv")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signum)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "the same command goes on from there" in err
    assert "Traceback" not in err
    (manifest,) = Path("outputs").glob("small/runs/*/manifest.json")
    assert json.loads(manifest.read_text())["status"] == "interrupted"


def test_a_closed_pipe_is_no_error() -> None:
    command = f"{sys.executable} -m deqcli recipes show quickstart | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert "Error" not in done.stderr


def test_recipes_list_and_show_and_copy() -> None:
    code, out, _ = call("recipes", "list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == list(shipped_recipes())
    assert json.loads(call("recipes", "list", "--json")[1]).keys() == shipped_recipes().keys()
    code, out, _ = call("recipes", "show", "theorem-1")
    assert out == shipped_recipes()["theorem-1"].read_text()
    assert call("recipes", "copy", "theorem-1")[0] == 0
    assert Path("theorem-1.yaml").read_text() == out
    assert call("recipes", "validate", "theorem-1.yaml")[0] == 0


def test_recipes_schema_is_json() -> None:
    code, out, _ = call("recipes", "schema")
    assert code == 0
    assert json.loads(out)["title"] == "Recipe"


def test_env_names_versions_and_devices() -> None:
    code, out, _ = call("env", "--json")
    assert code == 0
    assert {"deqcli", "torch", "devices", "cores", "memory"} <= json.loads(out).keys()


def test_a_bug_is_one_line_with_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("of all things")

    monkeypatch.setattr("deqcli.api.train", broken)
    code, _, err = call("train", "small.yaml")
    assert code == 1
    assert err.startswith("a bug in deqcli: ZeroDivisionError: of all things")
    assert err.count("\n") == 1


def test_a_draw_without_the_learning_rate_asked_for_is_a_finding() -> None:
    given = ["data.num_samples=8", "train.learning_rate=theorem", "model.sigma_w_sq=0.124"]
    code, out, _ = call("check-init", "small.yaml", *given, "--widths", "8", "--seeds", "0:4", "--json")
    draws = json.loads(out)["draws"]
    assert code == 0
    assert len(draws) == 4
    assert any(draw["learning_rate"] is None for draw in draws)


def test_draws_that_cannot_be_measured_leave_the_others() -> None:
    given = ["model.sigma_w_sq=0.9", "data.num_samples=1", "--widths", "1", "--seeds", "0,1"]
    with shapes_unchecked():  # 20,000 iterations
        code, out, err = call("check-init", "small.yaml", *given, "--json")
    draws = json.loads(out)["draws"]
    assert code == 3
    assert {draw["status"] for draw in draws} == {"complete", "failed"}
    for draw in draws:
        failed = draw["status"] == "failed"
        assert (draw["lambda_star"] is None) == failed if "lambda_star" in draw else failed
        assert f"width 1, seed {draw['seed']}: " in err if failed else draw["certificates"]


def test_train_asks_nothing_of_the_widths_of_its_sweep() -> None:
    Path("wide.yaml").write_text(SMALL.replace("widths: [24, 32]", "widths: [90000000]"))
    assert call("train", "wide.yaml", "train.steps=1")[0] == 0
    code, _, err = call("sweep-width", "wide.yaml")
    assert code == 2
    assert "sweep.widths: width 90000000" in err


def test_dry_run_looks_at_the_data() -> None:
    Path("x.csv").write_text("a,b,y\n1,2,0\n2,4,1\n")
    for command in ("train", "sweep-width"):
        code, _, err = call(command, "small.yaml", "data={kind: file, path: x.csv}", "--dry-run")
        assert code == 2
        assert "row 0 (line 2) and row 1 (line 3) are parallel" in err


def test_a_learning_rate_beyond_float32_is_a_mistake() -> None:
    code, _, err = call("train", "small.yaml", "train.dtype=float32", "train.learning_rate=1e39")
    assert code == 2
    assert "command line:2:21: train.learning_rate: must be at most 3.4028234663852886e+38, the largest float32" in err
    assert call("train", "small.yaml", "train.learning_rate=1e39")[0] == 3


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", ["--help", "--version", "recipes list", "recipes list --json", "env --json"])
def test_a_full_standard_output_exits_with_5(arguments: str) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "deqcli", *arguments.split()]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 5
    assert done.stderr.count("No space left on device") == 1
    assert "Traceback" not in done.stderr


def test_nobody_reading_on_is_no_error() -> None:
    command = f"{sys.executable} -m deqcli check-init small.yaml | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "0"
    assert done.stderr == ""
