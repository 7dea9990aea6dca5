"""The page of a report: what it says, that it says it safely and the same each time, and what it leaves alone."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import deqcli
from deqcli.cli.main import app
from deqcli.errors import CorruptArtefact, Refused
from deqcli.runs.folder import FAILED, RUNNING, any_manifest, write_manifest
from deqcli.show import panels
from deqcli.show.findings import Findings, apart, so_far
from deqcli.show.page import curves, plots, tables
from deqcli.show.page.render import LEFT_OUT, in_script, listed, page_html
from deqcli.show.page.thinning import LEAST, share, thin
from deqcli.show.panels import PANELS
from deqcli.show.report import ReportOptions, write_report
from deqcli.show.verdicts import CONCLUSIONS, Results, Verdict, run_verdicts
from deqcli.sweep.gather import Gathered, gather
from deqcli.sweep.stored import open_stored
from tests.made_up import large, run_id, spectra_of, write_sweep
from tests.runs import recipe

RUNNER = CliRunner()
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> & \"'"
DRAWN = [name for name in PANELS if name not in LEFT_OUT]


@dataclass
class Element:
    """An element of a page: its name, its attributes, and the text inside it."""

    name: str
    attributes: dict[str, str]
    parts: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The text in it, and in what is in it."""
        return "".join(self.parts)


@dataclass
class Page(HTMLParser):
    """What a browser would find in a page."""

    source: str
    elements: list[Element] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._open: list[Element] = []
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, {name: value or "" for name, value in attrs}))
        self._open.append(self.elements[-1])

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop().name != tag:
            pass

    def handle_data(self, data: str) -> None:
        for element in self._open if data.strip() else ():
            element.parts.append(data)

    def all(self, name: str) -> list[Element]:
        """The elements of a name."""
        return [each for each in self.elements if each.name == name]

    def by_id(self, identity: str) -> Element:
        """The element with an id."""
        (found,) = (each for each in self.elements if each.attributes.get("id") == identity)
        return found

    @property
    def data(self) -> dict[str, Any]:
        """What the script of the page draws from."""
        return json.loads(self.by_id("data").text)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was computed."""
    out = tmp_path_factory.mktemp("trained")
    recipe(out)
    return deqcli.train(str(out / "recipe.yaml"), "train.steps=25", out=out, device="cpu").folder


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sweep of four runs that nobody computed."""
    return write_sweep(tmp_path_factory.mktemp("made-up"))


def gathered_of(*folders: Path) -> Gathered:
    """The runs of folders."""
    return gather([open_stored(folder) for folder in folders])


def html_of(gathered: Gathered) -> str:
    """The page of runs."""
    return page_html(Findings(gathered))


def decoded(text: str) -> np.ndarray:
    """An array as the page has it."""
    return np.frombuffer(base64.b64decode(text[3:]), f"<{text[:2]}").astype(float)


# ---- thinning ----


@pytest.mark.parametrize("most", [4, 8, 51, 200])
def test_thinning_keeps_the_ends_and_the_extremes_of_every_part(most: int) -> None:
    random = np.random.default_rng(most)
    x, y = np.sort(random.random(1000)) ** 2, random.normal(size=1000)
    kept = thin(x, y, most)
    assert len(kept) <= most
    assert (np.diff(kept) > 0).all()
    assert {0, 999, int(y.argmin()), int(y.argmax())} <= set(kept.tolist())
    parts = (most - 2) // 2
    places = np.minimum(np.searchsorted(np.linspace(x[0], x[-1], parts + 1), x, side="right") - 1, parts - 1)
    for part in range(parts):
        inside = np.flatnonzero(places == part)
        assert len(inside) > 1
        assert {inside[y[inside].argmin()], inside[y[inside].argmax()]} <= set(kept.tolist())


def test_short_curves_and_those_of_one_place_are_left_as_they_are() -> None:
    assert thin(np.arange(5), np.zeros(5), 5).tolist() == [0, 1, 2, 3, 4]
    assert thin(np.zeros(0), np.zeros(0), 8).tolist() == []
    assert thin(np.ones(100), np.arange(100.0), 8).tolist() == [0, 99]


def test_room_that_short_curves_leave_goes_to_the_long_ones() -> None:
    assert share([10, 10, 1000, 2000], 1000) == 490
    assert share([10, 20], 1000) == 20
    assert share([1000] * 1000, 100) == LEAST
    assert share([], 100) == LEAST
    lengths = np.random.default_rng(0).integers(1, 3000, 300).tolist()
    each = share(lengths, 100_000)
    assert 100_000 - 300 < sum(min(length, each) for length in lengths) <= 100_000


# ---- verdicts ----

RESULTS: Results = {
    "lambda_0": 0.5, "max_spectral_norm_upper": 0.9, "max_spectral_norm_upper_step": 60, "min_lambda_ratio": 0.4,
    "min_lambda_ratio_step": 20, "max_loss_over_bound": 1.0, "max_loss_over_bound_step": 1, "rate_measured": 0.002,
    "rate_kernel": 0.0021, "rate_theorem": 1e-5,
}  # fmt: skip


def test_the_verdicts_of_a_run_are_the_lines_that_train_prints() -> None:
    assert [str(verdict) for verdict in run_verdicts(RESULTS)] == [
        "(i)   ||W||_2 < 1: held at every logged step (largest upper bound 0.9, at step 60)",
        "(ii)  lambda_tau > lambda_0/2: not shown at every logged step (least lambda_tau/lambda_0 0.4, at step 20)",
        "(iii) loss <= loss_bound: held at every logged step (largest loss/loss_bound 1, at step 1)",
        "linear rate: log(loss) falls by 0.002 a step; by Theorem 1 at least 1e-05, by the kernel 0.0021",
    ]
    bounded = {**RESULTS, "max_spectral_norm_upper": 1.2, "max_spectral_norm": 0.8}
    assert run_verdicts(bounded)[0].text == (
        "not shown at every logged step (largest upper bound 1.2, at step 60; largest estimate 0.8)"
    )
    nothing = {**RESULTS, "lambda_0": 0, "min_lambda_ratio": None, "rate_measured": None}
    assert [str(verdict) for verdict in run_verdicts(nothing)[1::2]] == [
        "(ii)  lambda_tau > lambda_0/2: nothing to show (lambda_0 is 0)",
        "linear rate: nothing to show (there is no step to measure it by)",
    ]
    assert [verdict.state for verdict in run_verdicts(RESULTS)] == ["yes", "no", "yes", "yes"]


def test_the_verdict_of_many_names_the_worst_run_and_those_that_show_nothing() -> None:
    third = CONCLUSIONS[1]
    runs = {"a": RESULTS, "b": {**RESULTS, "min_lambda_ratio": 0.9}}
    assert str(third.verdict_of_many(runs)) == (
        "(ii)  lambda_tau > lambda_0/2: shown at every logged step of 1 of 2 runs "
        "(least lambda_tau/lambda_0 0.4, a at step 20)"
    )
    empty = {**RESULTS, "min_lambda_ratio": None, "lambda_0": 0.0}
    more = third.verdict_of_many({"b": runs["b"], "c": empty, "d": empty})
    assert (more.state, more.text) == (
        "yes",
        "held at every logged step of the only run that shows it (least lambda_tau/lambda_0 0.9, b at step 20); "
        "nothing to show in 2 (lambda_0 is 0)",
    )
    assert third.verdict_of_many({"c": empty}).state == "unknown"


def test_what_the_tables_say_of_a_run_is_what_its_manifest_says(trained: Path) -> None:
    gathered = gathered_of(trained)
    results = gathered.stored[0].manifest.results
    found = so_far(gathered.spectral, gathered.loss)
    assert len(found) == 7
    for name, value in found.items():
        assert value == pytest.approx(results[name], rel=1e-6), name


def test_the_loss_is_put_beside_its_prediction(made_up: Path) -> None:
    gathered = gathered_of(made_up)
    found = Findings(gathered).deviations
    assert len(found) == 4
    both = gathered.loss.merge(gathered.prediction, on=["run_id", "step"])
    for run, rows in both.groupby("run_id"):
        decades = np.log10(rows["loss_x"] / rows["loss_y"])
        assert found[str(run)].final == pytest.approx(decades.iloc[-1])
        assert abs(found[str(run)].largest) == pytest.approx(decades.abs().max())
    (line,) = (verdict for verdict in Findings(gathered).verdicts if verdict.claim == "loss as predicted")
    assert (line.state, line.text[:52]) == ("yes", "reached, up to 0.1 decades (26 %), by all 4 runs; fu")
    far = replace(gathered, prediction=gathered.prediction.assign(loss=gathered.prediction["loss"] / 100))
    assert Findings(far).verdicts[0].state == "no"
    assert "none of 4 runs" in Findings(far).verdicts[0].text


def test_differences_are_percents_or_decades() -> None:
    assert [apart(np.log10(1.1)), apart(np.log10(0.9)), apart(1.25), apart(-2.0)] == [
        "10 % above", "10 % below", "1.25 decades above", "2 decades below",
    ]  # fmt: skip


def condition_1(gathered: Gathered, slacks: dict[str, float | None]) -> Verdict:
    """The verdict on Condition 1 where (9 with 8) has these slacks, and the others hold."""
    rows = gathered.certificates.copy()
    first = rows["certificate"].str.startswith("condition_1")
    rows.loc[first, ["slack", "holds"]] = [5.0, True]
    for run, slack in slacks.items():
        one = (rows["run_id"] == run) & (rows["certificate"] == "condition_1_eq_9_with_8")
        rows.loc[one, "slack"] = np.nan if slack is None else slack
        rows.loc[one, "holds"] = slack is not None and slack >= 1
    return Findings(replace(gathered, certificates=rows)).verdicts[-1]


def test_the_distance_from_condition_1_is_a_factor(made_up: Path) -> None:
    gathered = gathered_of(made_up)
    a, b, c, _ = gathered.runs["run_id"]
    assert str(condition_1(gathered, {})) == "Condition 1: holds for all 4 draws"
    found = condition_1(gathered, {a: 0.5, b: 1e-6, c: None})
    assert found.state == "partly"
    assert found.text == (
        f"holds for 1 of 4 draws; nearest of the others: short by a factor 2 ({a}); furthest: short by a factor 10^6.0 "
        f"({b}); out of reach for 1, whose lambda_0 is 0 or whose ||W(0)||_2 < 1 is not proved"
    )


@pytest.mark.parametrize(
    ("slack", "text"),
    [
        (2.0, "holds (least slack 2, condition_1_eq_9_with_8)"),
        (1e-9, "short by a factor 10^9.0 (least slack 1e-09, condition_1_eq_9_with_8)"),
        (0.0, "out of reach (lambda_0 is 0)"),
        (None, "out of reach (||W(0)||_2 < 1 is not proved)"),
    ],
)
def test_the_distance_of_one_draw(trained: Path, slack: float | None, text: str) -> None:
    assert condition_1(gathered_of(trained), {trained.name: slack}).text == text


# ---- the page ----


def test_the_page_has_every_figure_with_a_heading_a_sentence_and_a_table(made_up: Path) -> None:
    gathered = gathered_of(made_up)
    page = Page(html_of(gathered))
    found = [each.attributes["data-panel"] for each in page.all("figure")]
    assert found == [name for name in DRAWN if name != "spectra"]  # the runs have no checkpoint
    assert "Spectra of G, H and K: there is nothing to draw." in page.source
    for name in found:
        assert page.by_id(f"h-{name}").text == PANELS[name].title
    captions = [each.text for each in page.all("figcaption")]
    assert len(captions) == len(found)
    assert all(re.search(r"least \S+ \(w.*greatest \S+ \(w.*at the end", caption) for caption in captions)
    assert len(page.all("caption")) == len(page.all("table")) == len(found) + 3
    rows = [each.attributes["data-table"] for each in page.all("div") if "data-table" in each.attributes]
    assert rows == [*(f"figure-{name}" for name in found), "runs", "certificates", "provenance"]


def test_the_curves_of_the_page_are_those_of_the_tables(trained: Path) -> None:
    gathered = gathered_of(trained)
    data = Page(html_of(gathered)).data
    assert [panel["name"] for panel in data["panels"]] == DRAWN
    looked = 0
    for panel in data["panels"]:
        rows = PANELS[panel["name"]].curves(gathered)
        for run, kind, x, y in panel["curves"]:
            assert data["runs"][run][0] == trained.name
            own = rows[rows["curve"] == panel["kinds"][kind]]
            assert decoded(data["arrays"][x]).tolist() == own[PANELS[panel["name"]].x].tolist()
            assert np.allclose(decoded(data["arrays"][y]), own["value"], rtol=1e-7, atol=0)
            looked += len(own)
    assert looked > 200
    steps = gathered.loss["step"].to_numpy()
    assert np.allclose(data["runs"][0][1] * steps, gathered.loss["time"], rtol=1e-15)


def test_arrays_are_as_short_as_what_is_seen_of_them_allows() -> None:
    arrays = curves.Arrays()
    cases = {
        "u4": [0.0, 1.0, 2e9], "f4": [0.5, 1e-30, 1e30], "f8": [1.0, 1.0 + 1e-9],
    }  # fmt: skip
    for kind, values in cases.items():
        assert curves.precision(np.array(values)) == kind
        assert np.allclose(decoded(arrays.texts[arrays.add(np.array(values))]), values, rtol=1e-7, atol=0)
    assert curves.precision(np.array([1e-300, 1.0])) == "f8"
    assert arrays.add(np.array([0.0, 1.0, 2e9])) == 0
    assert len(arrays.texts) == 3


def test_the_page_says_what_was_asked_what_came_out_and_how_to_do_it_again(trained: Path) -> None:
    gathered = gathered_of(trained)
    page = Page(html_of(gathered))
    text = page.by_id("main").text + page.all("header")[0].text
    assert "Do relu networks of width 32 (seed 2), trained on sphere data (6 samples) by 25 steps" in text
    for verdict in run_verdicts(gathered.stored[0].manifest.results):
        assert verdict.text in text
    assert (trained / "recipe.yaml").read_text().strip() in [each.text.strip() for each in page.all("pre")]
    assert "deqcli train recipe.yaml --device cpu --threads " in text
    manifest = gathered.stored[0].manifest
    for value in (*manifest.versions.values(), manifest.device_name, manifest.git):
        assert str(value) in text
    assert page.all("html")[0].attributes["lang"] == "en"
    assert page.all("title")[0].text == f"small: {trained.name} - deqcli report"
    assert (page.all("a")[0].text, page.all("a")[0].attributes["href"]) == ("Skip to the report", "#main")
    ids = [each.attributes["id"] for each in page.elements if "id" in each.attributes]
    assert len(ids) == len(set(ids)) > 20
    for link in page.all("a"):
        assert link.attributes["href"][1:] in ids


def test_nothing_is_fetched_and_only_the_scripts_of_the_page_may_run(made_up: Path) -> None:
    page = Page(html_of(gathered_of(made_up)))
    (policy,) = (each.attributes["content"] for each in page.all("meta") if "http-equiv" in each.attributes)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy
    run = [each for each in page.all("script") if "type" not in each.attributes]
    assert len(run) == 2
    for script in re.findall(r"<script>(.*?)</script>", page.source, re.DOTALL):
        assert f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy
    for element in page.elements:
        assert not element.attributes.get("src"), element
        if element.name in ("a", "link"):
            assert element.attributes["href"].startswith(("#", "data:,"))
        assert not [name for name in element.attributes if name.startswith("on")]
    assert "Redistribution and use in source and binary forms" in page.source  # the licence of Bokeh goes along


def test_texts_of_others_stay_texts(made_up: Path, tmp_path: Path) -> None:
    gathered = gathered_of(made_up)
    runs = gathered.runs.assign(error=[HOSTILE, None, None, None], status=["failed", *["complete"] * 3])
    runs["data.path"] = [HOSTILE, "b", "b", "b"]
    certificates = gathered.certificates.assign(source=HOSTILE)
    names = ("all_losses", "spectral", "prediction")
    others = {name: getattr(gathered, name).assign(**{"data.path": HOSTILE}) for name in names}
    changed = replace(
        gathered, axes=["data.path"], runs=runs, certificates=certificates.assign(**{"data.path": HOSTILE}), **others
    )
    page, plain = Page(page_html(Findings(changed), HOSTILE)), Page(html_of(gathered))
    assert len(page.all("script")) == len(plain.all("script")) == 4
    assert not page.all("img")
    assert page.all("h1")[0].text == HOSTILE
    assert page.data["keys"][2] == {"name": "data.path", "values": [HOSTILE, "b"]}
    assert f"{runs['run_id'][0]} failed: {HOSTILE}" in [each.text for each in page.all("li")]
    assert json.loads(str(in_script({"a": HOSTILE}))) == {"a": HOSTILE}


def test_the_same_runs_give_the_same_page_wherever_they_lie(made_up: Path, tmp_path: Path) -> None:
    first = html_of(gathered_of(made_up))
    shutil.copytree(made_up.parents[1], tmp_path / "elsewhere")
    assert html_of(gathered_of(tmp_path / "elsewhere/sweeps" / made_up.name)) == first
    assert str(made_up) not in first


def test_figures_of_a_page_have_names_for_the_script_and_lines_that_differ() -> None:
    for panel in PANELS.values():
        document = json.dumps(plots.figure(panel, "here"))
        for name in ("plot", "x_axis", "y_axis", "x_grid", "y_grid", "zoom", "pan"):
            assert document.count(f'"name": "{name}"') == 1
        for index in range(len(panel.styles)):
            assert document.count(f'"name": "source_{index}"') == document.count(f'"name": "curves_{index}"') == 1
        assert ('"name": "reference"' in document) == (panel.reference is not None)
        styles = plots.lines(panel).values()
        assert len({(width, *dashes) for width, dashes in styles}) == len(panel.styles)


def luminance(colour: str) -> float:
    """Relative luminance, as WCAG 2 has it."""
    parts = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def test_colours_stand_out_from_the_page() -> None:
    looked = 0
    for mode, paper in (("light", "#ffffff"), ("dark", "#15181d")):
        for colour in plots.palettes()[mode]:
            low, high = sorted((luminance(colour), luminance(paper)))
            assert (high + 0.05) / (low + 0.05) >= 3
            looked += 1
    assert looked == 48


def test_long_lists_of_values_are_ranges() -> None:
    assert listed(pd.Series([1, 2, 2])) == "1, 2"
    assert listed(pd.Series(range(20))) == "0 to 19, 20 values"
    assert listed(pd.Series(["a", None])) == "-, a"


def test_a_table_says_what_it_leaves_out_and_keeps_full_numbers() -> None:
    found = tables.table("t", "T", ["a", "b"], [[index / 3, "x"] for index in range(tables.MOST_ROWS + 1)], "t.csv")
    assert len(found.rows) == tables.MOST_ROWS
    assert found.more == "The first 3000 of 3001 rows; all of them are in t.csv."
    assert (found.rows[1][0].text, found.rows[1][0].full) == ("0.333333", repr(1 / 3))
    assert found.numeric == {"a"}
    assert [tables.cell(each).text for each in (None, float("nan"), "", True, np.float64(2.0), np.bool_(False))] == [
        "-", "-", "-", "yes", "2", "no",
    ]  # fmt: skip


def test_a_hundred_runs_of_two_thousand_steps_are_less_than_5_mb(
    made_up: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr(panels, "final_spectra", lambda _: spectra_of(1000))
    gathered = large(open_stored(made_up), (250, 500, 1000, 2000, 4000), range(20), 2000)
    gathered.__dict__["stored"] = gathered_of(made_up).stored
    source = html_of(gathered)
    assert 2e6 < len(source.encode()) < 5e6
    data = Page(source).data
    points = sum(len(decoded(data["arrays"][each[3]])) for panel in data["panels"] for each in panel["curves"])
    assert 100_000 < points <= curves.ROOM
    measured = [each for each in data["panels"][0]["curves"] if each[1] == 0]
    assert len(measured) == 100
    residual = next(panel for panel in data["panels"] if panel["name"] == "residual")
    whole = gathered.loss.groupby("run_id")[["residual", "adjoint_residual"]].agg(["min", "max"])
    for run, kind, _, y in residual["curves"]:
        shown, own = decoded(data["arrays"][y]), whole.loc[data["runs"][run][0], whole.columns[2 * kind][0]]
        assert (shown.min(), shown.max()) == (pytest.approx(own["min"], rel=1e-6), pytest.approx(own["max"], rel=1e-6))
    assert len(residual["curves"]) == 200
    assert "points drawn, extremes kept" in source


# ---- what is not complete ----


def copied(folder: Path, to: Path, **changes: object) -> Path:
    """A copy of a run whose manifest says something else."""
    place = to / "small/runs" / folder.name
    shutil.copytree(folder, place)
    write_manifest(place, any_manifest(folder).model_copy(update=changes))
    return place


def test_a_run_that_was_killed_is_shown_as_far_as_it_is(trained: Path, tmp_path: Path) -> None:
    place = copied(trained, tmp_path, status=RUNNING, results={}, files={})
    lines = (place / "loss.csv").read_text().splitlines(keepends=True)
    (place / "loss.csv").write_text("".join(lines[:12]) + lines[12][:30])
    page = Page(html_of(gathered_of(place)))
    assert "This run is not complete: interrupted. What follows is what there is so far." in page.source
    assert f"{place.name} interrupted, at step 10" in [each.text for each in page.all("li")]
    assert "held at every logged step (largest upper bound" in page.source
    assert "nothing to show (there is no step to measure it by)" in page.source


def test_a_run_that_failed_is_named_with_its_error(trained: Path, tmp_path: Path) -> None:
    place = copied(trained, tmp_path, status=FAILED, error="step 25: the loss is <b>inf</b>", results={})
    written = write_report([place], ReportOptions(figures=[]))
    assert written.unfinished == [f"{place.name} failed: step 25: the loss is <b>inf</b>"]
    assert "the loss is &lt;b&gt;inf&lt;/b&gt;" in written.page.read_text()


def test_a_run_of_which_nothing_converged_has_a_page_without_figures(trained: Path) -> None:
    gathered = gathered_of(trained)
    names = ("all_losses", "spectral", "prediction", "certificates")
    nothing = {name: getattr(gathered, name).iloc[:0] for name in names}
    empty = replace(gathered, **nothing, runs=gathered.runs.assign(status="failed", error="diverged"))
    empty.__dict__["stored"] = []
    page = Page(html_of(empty))
    assert not page.all("figure")
    assert page.source.count("there is nothing to draw") == len(DRAWN)
    assert [str(verdict) for verdict in Findings(empty).verdicts] == [
        "loss as predicted: not reached (the run failed before a step could be compared)",
        "Condition 1: nothing to show (no draw was certified)",
    ]
    assert f"{trained.name} failed: diverged" in [each.text for each in page.all("li")]


# ---- files and commands ----


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file by name."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_page_does_not_outlive_what_it_tells_of(trained: Path, tmp_path: Path) -> None:
    recipe(tmp_path)
    given = (str(tmp_path / "recipe.yaml"), "train.steps=1")
    run = deqcli.train(*given, out=tmp_path, device="cpu")
    page = deqcli.report(run, figures=[]).page
    assert page == run.folder / "report.html"
    deqcli.train(*given, out=tmp_path, device="cpu")
    assert page.exists()
    deqcli.train(*given, out=tmp_path, device="cpu", force=True)
    assert not page.exists()


def test_a_run_that_failed_did_not_reach_what_was_predicted(made_up: Path) -> None:
    whole = gathered_of(made_up)
    failed = replace(whole, runs=whole.runs.assign(status=["failed", *["complete"] * 3]))
    before, after = (Findings(each).verdicts[0] for each in (whole, failed))
    assert (before.state, after.state) == ("yes", "partly")
    assert "by all 4 runs" in before.text
    assert "by 3 of 4 runs" in after.text


def test_the_first_step_is_not_compared_with_its_own_prediction(made_up: Path) -> None:
    whole = gathered_of(made_up)
    first = replace(whole, all_losses=whole.all_losses[whole.all_losses["step"] == 0])
    assert Findings(first).verdicts[0].state == "unknown"
    assert [each.unknown({"lambda_0": 0.0, "steps": 0}) for each in CONCLUSIONS[1:]] == [
        "lambda_0 is 0",
        "no step was made",
    ]


def test_folders_in_any_order_give_the_same_page(trained: Path, made_up: Path, tmp_path: Path) -> None:
    pages = [
        write_report(folders, ReportOptions(out=tmp_path / str(index), figures=[])).page.read_bytes()
        for index, folders in enumerate(([trained, made_up], [made_up, trained]))
    ]
    assert pages[0] == pages[1]
    with pytest.raises(Refused, match="no folder"):
        write_report([], ReportOptions())


def test_the_bound_is_drawn_at_every_step_that_has_a_loss(trained: Path) -> None:
    gathered = gathered_of(trained)
    rows = PANELS["loss"].curves(gathered)
    bound = rows[rows["curve"] == "bound of Theorem 1"].set_index("step")["value"]
    known = gathered.spectral.set_index("step")["loss_bound"]
    assert list(bound.index) == gathered.loss["step"].tolist()
    assert len(known) < len(bound)
    assert np.allclose(bound[known.index], known, rtol=1e-12)


def test_what_a_manifest_vouches_for_is_left_as_it_is(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path)
    (folder / "figures").mkdir()
    (folder / "figures/loss.svg").write_text("drawn by the sweep")
    manifest = any_manifest(folder)
    vouched = manifest.files | {"figures/loss.svg": hashlib.sha256(b"drawn by the sweep").hexdigest()}
    write_manifest(folder, manifest.model_copy(update={"files": vouched}))
    before = digests(folder)
    plain = write_report([folder], ReportOptions(figures=["loss", "residual"], formats=["svg"]))
    sized = write_report([folder], ReportOptions(figures=["loss"], formats=["svg"], size="ICML"))
    assert before.items() <= digests(folder).items()
    assert plain.figures[0] == folder / "figures/loss.svg"
    assert sized.figures == [folder / "figures/icml/loss.svg", folder / "figures/icml/loss.csv"]
    added = set(digests(folder)) - set(before)
    assert added == {
        "report.html", "figures/loss.csv", "figures/residual.svg", "figures/residual.csv", "figures/icml/loss.svg",
        "figures/icml/loss.csv",
    }  # fmt: skip
    assert (folder / "report.html").read_text() == html_of(gathered_of(folder))


def test_a_report_goes_where_it_is_told_to(made_up: Path, trained: Path, tmp_path: Path) -> None:
    alone = ReportOptions(figures=[])
    assert write_report([trained], alone).page == trained / "report.html"
    several = [write_report(order, replace(alone, root=tmp_path)) for order in ([made_up, trained], [trained, made_up])]
    assert several[0].page == several[1].page
    assert re.fullmatch(r"reports/[0-9a-f]{8}/report\.html", str(several[0].page.relative_to(tmp_path)))
    assert len(several[0].runs) == 5
    assert write_report([made_up, made_up], replace(alone, out=tmp_path / "a/b.html")).page == tmp_path / "a/b.html"
    found = write_report([made_up], ReportOptions(tmp_path / "c", figures=["loss"], formats=["svg"], size="3x2"))
    assert [path.relative_to(tmp_path) for path in (found.page, *found.figures)] == [
        Path("c/report.html"), Path("c/figures/loss.svg"), Path("c/figures/loss.csv"),
    ]  # fmt: skip


def test_what_cannot_be_reported_is_refused_in_words(made_up: Path, tmp_path: Path) -> None:
    folder = write_sweep(tmp_path, run_folders=False)
    (folder / "runs.csv").write_text("altered")
    with pytest.raises(CorruptArtefact, match=r"runs\.csv is not what was written"):
        deqcli.report(folder, figures=[])
    (folder / "loss.csv").unlink()
    with pytest.raises(Refused, match=r"has no loss\.csv yet"):
        deqcli.report(folder, figures=[])
    with pytest.raises(Refused, match="figure `lossy` is not known"):
        deqcli.report(made_up, figures=["lossy"])
    assert not list(tmp_path.rglob("report.html"))


def called(*arguments: str) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of a command."""
    result = RUNNER.invoke(app, ["report", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that a browser was asked for."""
    asked: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda address: bool(asked.append(address)) or True)
    return asked


def test_the_command_tells_what_it_wrote(made_up: Path, tmp_path: Path, opened: list[str]) -> None:
    code, out, err = called(str(made_up), "--no-figures", "--out", str(tmp_path), "--open")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == f"Page:    {tmp_path / 'report.html'}"
    assert len(out.splitlines()) == 6
    assert opened == [(tmp_path / "report.html").as_uri()]
    arguments = [str(made_up), "--figure", "loss", "--format", "svg", "--out", str(tmp_path), "--json"]
    code, out, err = called(*arguments)
    told = json.loads(out)
    assert (code, err, told["bytes"]) == (0, "", (tmp_path / "report.html").stat().st_size)
    assert told["runs"] == [run_id(width, seed) for width in (100, 200) for seed in (0, 1)]
    assert [Path(each).name for each in told["figures"]] == ["loss.svg", "loss.csv"]
    assert [verdict["state"] for verdict in told["verdicts"]] == ["yes", "yes", "yes", "yes", "no"]
    assert called(str(made_up), "--no-figures", "--out", str(tmp_path), "--quiet") == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["nowhere"], 2, "there is no folder nowhere\n"),
        (["."], 2, ". is no folder of a run, sweep, check or prediction: it has no manifest.json\n"),
        (["SWEEP", "--format", "bmp"], 2, "format `bmp` is not known"),
        (["SWEEP", "--size", "huge"], 2, "size `huge` is not known"),
        (["SWEEP", "--no-figures", "--out", "taken"], 5, "the system refused taken: File exists\n"),
    ],
)
def test_refusals_have_their_exit_codes(
    made_up: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, sentence: str
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").touch()
    got, out, err = called(*(str(made_up) if each == "SWEEP" else each for each in arguments))
    assert (got, out) == (code, "")
    assert err.startswith(sentence)


def test_several_reports_go_below_the_folder_that_the_environment_names(
    made_up: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setenv("DEQCLI_OUT", str(tmp_path))
    assert called(str(made_up), str(trained), "--no-figures")[0] == 0
    assert len(list(tmp_path.glob("reports/*/report.html"))) == 1


def test_what_a_page_is_made_of_is_part_of_the_package() -> None:
    folder = Path(deqcli.__file__).parent / "show/page"
    setup = (folder.parents[2] / "setup.cfg").read_text()
    (patterns,) = re.findall(r"^deqcli\.show\.page = (.+)$", setup, re.MULTILINE)
    assets = [path for path in folder.iterdir() if path.is_file() and path.suffix not in (".py", ".pyc")]
    assert len(assets) == 3
    assert all(any(path.match(pattern.strip()) for pattern in patterns.split(",")) for path in assets)
