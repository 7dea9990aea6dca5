"""Folders that are looked at: what is read is what was written, together or alone, finished or not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import deqcli
from deqcli.data.kinds import Sphere
from deqcli.errors import CorruptArtefact, Refused
from deqcli.runs.folder import run_folder
from deqcli.runs.run import run
from deqcli.sweep.gather import Gathered, differing, flattened, gather
from deqcli.sweep.spectra import KERNELS, MOST_SAMPLES, final_spectra
from deqcli.sweep.stored import open_stored, stored_runs
from tests.runs import picard, recipe, small, weights

AXES = "sweep.over={model.sigma_w_sq: [0.02, 0.05]}"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep with a further axis, and a run of another recipe, below one folder."""
    out = tmp_path_factory.mktemp("trained")
    recipe(out)
    deqcli.sweep_width(str(out / "recipe.yaml"), AXES, "train.steps=10", out=out, jobs=1, device="cpu")
    deqcli.train(str(out / "recipe.yaml"), "name=other", "train.steps=8", out=out, device="cpu")
    return out


def sweep_of(out: Path) -> Path:
    """The folder of the only sweep."""
    (folder,) = (out / "small/sweeps").iterdir()
    return folder


def other_of(out: Path) -> Path:
    """The folder of the other run."""
    (folder,) = (out / "other/runs").iterdir()
    return folder


def test_a_sweep_gives_its_tables_its_runs_and_its_axes(trained: Path) -> None:
    gathered = gather([open_stored(sweep_of(trained))])
    assert gathered.axes == ["model.sigma_w_sq"]
    assert len(gathered.runs) == len(gathered.stored) == 8
    assert sorted(gathered.runs["model.sigma_w_sq"].unique()) == [0.02, 0.05]
    for stored in gathered.stored:
        own = gathered.loss[gathered.loss["run_id"] == stored.manifest.id]
        assert own["loss"].tolist() == stored.table("loss.csv")["loss"].tolist()
        assert own["loss"].iloc[-1] == stored.manifest.results["final_loss"]


def test_times_and_ratios_are_those_of_the_run(trained: Path) -> None:
    gathered = gather([open_stored(sweep_of(trained))])
    for stored in gathered.stored:
        results = stored.manifest.results
        spectral = gathered.spectral[gathered.spectral["run_id"] == stored.manifest.id]
        rate = results["learning_rate"]
        assert rate is not None
        assert np.allclose(spectral["time"], rate * stored.recipe["model"]["width"] * spectral["step"], rtol=1e-15)
        assert spectral["lambda_ratio"].min() == results["min_lambda_ratio"]


def test_runs_of_several_folders_have_a_column_for_each_key_that_differs(trained: Path) -> None:
    gathered = gather([open_stored(sweep_of(trained)), open_stored(other_of(trained))])
    assert gathered.axes == ["model.sigma_w_sq", "train.steps"]
    other = gathered.runs[gathered.runs["recipe"] == "other"]
    assert other[gathered.axes].to_numpy().tolist() == [[0.05, 8]]
    assert set(gathered.loss["train.steps"]) == {8, 10}
    assert len(gathered.runs) == 9


def test_a_run_in_two_sources_is_taken_once(trained: Path) -> None:
    sweep = open_stored(sweep_of(trained))
    again = gather([next(iter(sweep.runs())), sweep])
    alone = gather([sweep])
    assert sorted(again.runs["run_id"]) == sorted(alone.runs["run_id"])
    assert len(again.loss) == len(alone.loss)


def test_one_run_looks_as_it_does_in_its_sweep(trained: Path) -> None:
    sweep = gather([open_stored(sweep_of(trained))])
    alone = gather([sweep.stored[3]])
    whole = sweep.runs[sweep.runs["run_id"] == alone.runs["run_id"].iloc[0]]
    for column in ("width", "seed", "status", "attempts", "steps", "final_loss", "min_lambda_ratio"):
        assert alone.runs[column].tolist() == whole[column].tolist(), column
    assert alone.axes == []


def test_what_is_neither_run_nor_sweep_or_has_no_tables_is_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="there is no folder"):
        open_stored(tmp_path / "nothing")
    with pytest.raises(Refused, match=r"no manifest\.json"):
        open_stored(trained)
    checked = deqcli.check_init(str(trained / "recipe.yaml"), out=tmp_path, widths=[16], seeds=[0], device="cpu")
    with pytest.raises(Refused, match="folder of a check"):
        gather([open_stored(checked.folder)])
    begun = tmp_path / "begun"
    shutil.copytree(sweep_of(trained), begun)
    (begun / "loss.csv").unlink()
    with pytest.raises(Refused, match=r"no loss\.csv yet"):
        gather([open_stored(begun)])


def test_a_table_that_was_altered_is_named_and_never_used(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    shutil.copytree(sweep_of(trained), folder)
    text = (folder / "spectral.csv").read_bytes()
    (folder / "spectral.csv").write_bytes(text.replace(b"0", b"1", 1))
    with pytest.raises(CorruptArtefact, match=r"spectral\.csv"):
        gather([open_stored(folder)])


def test_a_run_under_way_is_read_up_to_its_last_whole_line(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(other_of(trained), folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["status"] == "complete"
    torn = (folder / "loss.csv").read_bytes()[:-9]
    stored = open_stored(folder)
    running = type(stored)(folder, stored.manifest.model_copy(update={"status": "running", "results": {}}))
    (folder / "loss.csv").write_bytes(torn)
    assert running.state == "interrupted"
    assert gather([running]).all_losses["step"].tolist() == list(range(8))


def test_every_run_below_a_folder_is_found(trained: Path) -> None:
    assert len(list(stored_runs(trained))) == 9
    assert [run.manifest.recipe for run in stored_runs(trained)] == ["other"] + ["small"] * 8


def test_a_name_that_looks_like_a_number_stays_one(trained: Path, tmp_path: Path) -> None:
    run = deqcli.train(str(trained / "recipe.yaml"), 'name="007"', "train.steps=1", out=tmp_path, device="cpu")
    assert set(run.loss["recipe"]) == {"007"}
    assert gather([run.stored]).runs["recipe"].tolist() == ["007"]


def test_lists_that_differ_are_axes_as_text(trained: Path, tmp_path: Path) -> None:
    digits = ["data={kind: digits, num_samples: 6}", "train.steps=2"]
    runs = [
        deqcli.train(str(trained / "recipe.yaml"), *digits, f"data.classes={classes}", out=tmp_path, device="cpu")
        for classes in ("[0, 1]", "[2, 3]")
    ]
    gathered = gather([run.stored for run in runs])
    assert gathered.axes == ["data.classes"]
    assert gathered.runs["data.classes"].tolist() == ["[0, 1]", "[2, 3]"]


def test_keys_that_differ_are_found_at_any_depth() -> None:
    assert dict(flattened({"a": {"b": 1, "c": {"d": 2}}, "e": [3]})) == {"a.b": 1, "a.c.d": 2, "e": [3]}
    alike = {"name": "x", "model": {"width": 1, "k": 2}, "train": {"seed": 1}}
    other = {"name": "y", "model": {"width": 3, "k": 4}, "train": {"seed": 2, "more": 5}}
    assert differing([alike, other]) == ["model.k", "train.more"]
    assert differing([alike, alike]) == []


def dense_spectra(folder: Path, data: np.ndarray) -> dict[str, np.ndarray]:
    """G and H of the last step by plain iteration and the Kronecker formula, in numpy."""
    held = weights(folder)
    W, U, a = held["W"], held["U"], held["a"]
    Z = picard(W, U @ data)
    D = (W @ Z + U @ data > 0).astype(float)
    rows = []
    for i in range(data.shape[1]):
        J = np.linalg.solve((np.eye(len(a)) - D[:, [i]] * W).T, a) * D[:, i]
        rows.append(np.concatenate([np.kron(J, Z[:, i]), np.kron(J, data[:, i]), Z[:, i]]))
    tangents = np.array(rows)
    return {"G(T)": np.linalg.eigvalsh(Z.T @ Z), "H(T)": np.linalg.eigvalsh(tangents @ tangents.T)}


def test_spectra_at_the_last_step_are_those_of_the_tangents(tmp_path: Path) -> None:
    spec = small(tmp_path)
    folder = run(spec, tmp_path).folder
    found = final_spectra(open_stored(folder))
    assert set(found) == set(KERNELS)
    for name, values in dense_spectra(folder, spec.data.load().X).items():
        assert np.allclose(found[name], values, rtol=1e-7), name


def test_spectra_at_the_start_and_in_the_limit_are_those_of_check_init(tmp_path: Path) -> None:
    spec = small(tmp_path)
    found = final_spectra(open_stored(run(spec, tmp_path).folder))
    checked = deqcli.check_init(str(tmp_path / "recipe.yaml"), out=tmp_path, widths=[32], seeds=[2], device="cpu")
    table = pd.read_csv(checked.folder / "spectra.csv")
    for kernel, name in (("H", "H(0)"), ("m K", "m K"), ("H_inf", "H_inf")):
        assert np.allclose(found[name], table[table["kernel"] == kernel]["eigenvalue"], rtol=1e-9), kernel


def test_without_checkpoint_or_data_there_are_fewer_spectra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    folder = run(small(tmp_path), tmp_path).folder
    stored = open_stored(folder)

    def gone(_: Sphere) -> None:
        raise Refused("the file is gone")

    with monkeypatch.context() as patched:
        patched.setattr(Sphere, "load", gone)
        assert list(final_spectra(stored)) == ["H(0)"]
    monkeypatch.setattr("deqcli.sweep.spectra.MOST_SAMPLES", 5)
    assert list(final_spectra(stored)) == ["H(0)"]
    assert MOST_SAMPLES > 1000
    (folder / "checkpoint.safetensors").unlink()
    assert final_spectra(stored) == {}


def test_run_folders_and_sweeps_are_loaded_as_what_they_are(trained: Path) -> None:
    sweep, other = deqcli.load(sweep_of(trained)), deqcli.load(other_of(trained))
    assert isinstance(sweep, deqcli.Sweep)
    assert isinstance(other, deqcli.Run)
    assert [each.manifest.id for each in sweep] == sweep.runs["run_id"].tolist()
    assert len(sweep.loss) == 8 * 11
    assert other.loss["step"].tolist() == list(range(9))
    assert other.results["steps"] == 8
    assert other.recipe["train"]["steps"] == 8
    assert not other.computed
    for table in (other.spectral, other.timing, other.certificates, other.prediction, sweep.spectral):
        assert len(table)
    assert repr(other) == f"<deqcli run {other.folder.name}: complete, {other.folder}>"


def test_checks_and_predictions_are_loaded(trained: Path, tmp_path: Path) -> None:
    path = str(trained / "recipe.yaml")
    check = deqcli.load(deqcli.check_init(path, out=tmp_path, widths=[16], seeds=[0], device="cpu").folder)
    prediction = deqcli.load(deqcli.predict(path, out=tmp_path, widths=[16]).folder)
    assert isinstance(check, deqcli.Check)
    assert isinstance(prediction, deqcli.Prediction)
    assert check.draws["width"].tolist() == [16]
    assert {"G", "H", "m K", "H_inf"} == set(check.spectra["kernel"])
    for table in (check.certificates, prediction.prediction, prediction.summary, prediction.times):
        assert len(table)


def test_notebooks_show_a_table_and_escape_what_they_quote(trained: Path) -> None:
    sweep = deqcli.load(sweep_of(trained))
    shown = sweep._repr_html_()
    assert shown.count("<tr") == 9
    folder = Path("/tmp/<b>") / sweep.folder.name  # noqa: S108 (nothing is written there)
    strange = type(sweep)(type(sweep.stored)(folder, sweep.manifest))
    assert "<b>" in shown
    with pytest.raises(CorruptArtefact):
        strange._repr_html_()


def test_a_notebook_shows_a_picture(trained: Path) -> None:
    run = deqcli.load(other_of(trained))
    assert isinstance(run, deqcli.Run)
    assert run.plot("loss", size="3", title="a loss")._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(Refused, match="did you mean `loss`"):
        run.plot("los")


def test_a_resumed_run_says_that_it_was_computed(tmp_path: Path) -> None:
    spec = small(tmp_path)
    first = deqcli.train(str(tmp_path / "recipe.yaml"), out=tmp_path, device="cpu")
    second = deqcli.train(str(tmp_path / "recipe.yaml"), out=tmp_path, device="cpu")
    assert (first.computed, second.computed) == (True, False)
    assert first.folder == second.folder == run_folder(tmp_path, spec)
    assert isinstance(gather([first.stored]), Gathered)
