"""A report in Chromium: what is drawn, what the controls do, and that nothing is asked of any other place."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from deqcli.show import panels
from deqcli.show.findings import Findings
from deqcli.show.page import plots
from deqcli.show.page.render import LEFT_OUT, page_html
from deqcli.show.panels import PANELS
from deqcli.sweep.gather import gather
from deqcli.sweep.stored import open_stored
from tests.made_up import RATE, large, spectra_of, write_sweep

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = pytest.mark.browser

SWITCHES = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
DRAWN = [name for name in PANELS if name not in LEFT_OUT]
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
STEPS = 60
Open = Callable[..., "Page"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, without a window."""
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert program is not None, "there is no Chromium; make test-browser installs it"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=list(SWITCHES))
        yield started
        started.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a sweep of four runs with every figure, under a title that means harm."""
    out = tmp_path_factory.mktemp("page")
    folder = write_sweep(out, steps=STEPS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(panels, "final_spectra", lambda _: spectra_of(50))
        (out / "report.html").write_text(page_html(Findings(gather([open_stored(folder)])), HOSTILE))
    return out / "report.html"


@pytest.fixture
def visit(browser: Browser, report: Path) -> Iterator[Open]:
    """Opens the page, without a network, and waits until it is drawn; nothing may complain or ask for anything."""
    complaints: list[str] = []
    contexts = []

    def open_page(path: Path = report, width: int = 1280, height: int = 900, **settings: Any) -> Page:
        viewport = {"width": width, "height": height}
        contexts.append(browser.new_context(viewport=viewport, offline=True, reduced_motion="reduce", **settings))
        page = contexts[-1].new_page()
        page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message) or dialog.dismiss())
        page.on("request", lambda asked: complaints.append(asked.url) if asked.url != path.as_uri() else None)
        page.goto(path.as_uri())
        if settings.get("java_script_enabled", True):
            page.evaluate("window.drawn")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not complaints


def painted(canvas: Locator) -> int:
    """Pixels of a canvas that something was drawn on."""
    return int(
        canvas.evaluate(
            """(canvas) => {
                const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
                let count = 0;
                for (let i = 3; i < data.length; i += 4) count += data[i] > 0;
                return count;
            }"""
        )
    )


def model(page: Page, panel: str, expression: str) -> Any:
    """A value of the models of a figure; `get` finds them by name."""
    return page.evaluate(
        f"""(index) => {{
            const document = Bokeh.documents[index];
            const get = (name) => document.get_model_by_name(name);
            const plot = get("plot");
            return {expression};
        }}""",
        DRAWN.index(panel),
    )


def figure(page: Page, panel: str) -> Locator:
    """A figure with its controls."""
    return page.locator(f"[data-panel={panel}]")


def middle(page: Page, panel: str) -> tuple[float, float]:
    """The middle of a figure on the screen."""
    plot = figure(page, panel).locator(".plot")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_every_figure_is_drawn(visit: Open) -> None:
    page = visit()
    page.wait_for_timeout(200)
    for panel in DRAWN:
        assert painted(figure(page, panel).locator(".host canvas").first) > 3000, panel
        count = model(page, panel, "plot.renderers.map((each) => each.data_source.data.xs.length)")
        assert sum(count) >= 4
    assert page.locator("h1").inner_text() == HOSTILE
    assert page.locator(".own:visible").count() == len(DRAWN)


def test_pointing_at_a_curve_tells_its_values(visit: Open, report: Path) -> None:
    page = visit()
    x, y = middle(page, "loss")
    tip = figure(page, "loss").locator(".tip")
    assert not tip.is_visible()
    told = set()
    table = pd.read_csv(report.parent / "made-up/sweeps/0123abcd/loss.csv")
    losses = table.set_index(["width", "seed", "step"])["loss"]
    for offset in range(-160, 161, 8):
        page.mouse.move(x + offset, y + offset / 2)
        if tip.is_visible():
            text = tip.inner_text()
            found = re.search(r"width (\d+), seed (\d)\n(.+), step (\d+)\nloss (\S+)", text)
            assert found is not None
            if found[3] == "measured":
                width, seed, step = int(found[1]), int(found[2]), int(found[4])
                assert float(found[5]) == pytest.approx(losses[width, seed, step], rel=1e-5)
                told.add(text)
    assert len(told) >= 3
    page.mouse.move(x, y - 2000)
    assert not tip.is_visible()


def test_widths_seeds_and_kinds_can_be_picked(visit: Open) -> None:
    page = visit()
    count = page.locator("#count")
    lines = 'get("source_0").data.xs.length'
    assert (count.inner_text(), model(page, "loss", lines)) == ("4 of 4 runs shown", 4)
    page.locator("[data-key=width]").get_by_label("200").uncheck()
    assert (count.inner_text(), model(page, "loss", lines)) == ("2 of 4 runs shown", 2)
    page.locator("[data-key=seed]").get_by_label("1", exact=True).uncheck()
    assert [model(page, panel, lines) for panel in ("loss", "residual")] == [1, 1]
    page.locator("[data-key=seed]").get_by_role("button", name="none").click()
    assert (count.inner_text(), model(page, "loss", lines)) == ("0 of 4 runs shown", 0)
    page.locator("[data-key=seed]").get_by_role("button", name="all").click()
    figure(page, "loss").get_by_role("checkbox", name="measured").uncheck()
    assert model(page, "loss", lines) == 0
    assert model(page, "loss", 'get("source_1").data.xs.length') == 2


def test_axes_are_logarithmic_or_linear_in_steps_or_rescaled_time(visit: Open) -> None:
    page = visit()
    kinds = "[plot.x_scale.type, plot.y_scale.type, get('y_axis').ticker.type]"
    assert model(page, "residual", kinds)[:2] == ["LinearScale", "LogScale"]
    assert model(page, "spectral_norm", kinds) == ["LinearScale", "LinearScale", "BasicTicker"]
    for panel in DRAWN:
        box = figure(page, panel).get_by_label("log", exact=True)
        before = box.is_checked()
        box.set_checked(not before)
        assert model(page, panel, "plot.y_scale.type") == ("LinearScale" if before else "LogScale")
        box.set_checked(before)
    end = "plot.x_range.end"
    assert model(page, "loss", end) == STEPS
    page.get_by_label("eta m step").check()
    assert model(page, "loss", end) == pytest.approx(RATE * 200 * STEPS)
    assert model(page, "loss", "get('x_axis').axis_label") == "eta m step"
    assert model(page, "spectra", end) == 49
    page.get_by_label("logarithmic").check()
    assert model(page, "loss", "[plot.x_scale.type, plot.x_range.start > 0]") == ["LogScale", True]
    page.get_by_label("step", exact=True).check()
    page.get_by_label("logarithmic").uncheck()
    page.wait_for_timeout(200)
    assert model(page, "loss", "[plot.x_range.start, plot.x_range.end]") == [0, STEPS]
    assert painted(figure(page, "loss").locator(".host canvas").first) > 3000


def test_figures_zoom_and_move_by_mouse_buttons_and_keys(visit: Open) -> None:
    page = visit()
    view = "[plot.x_range.start, plot.x_range.end, plot.y_range.start, plot.y_range.end]"
    whole = model(page, "loss", view)
    own = figure(page, "loss")
    x, y = middle(page, "loss")
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 200, y + 60, steps=5)
    page.mouse.up()
    page.wait_for_timeout(200)
    boxed = model(page, "loss", view)
    assert whole[0] < boxed[0] < boxed[1] < whole[1]
    page.locator("[data-key=width]").get_by_label("200").uncheck()
    assert model(page, "loss", view) == boxed  # a view that was chosen stays
    page.locator("[data-key=width]").get_by_label("200").check()
    own.get_by_role("button", name="show everything").click()
    assert model(page, "loss", view) == whole
    own.get_by_role("button", name="zoom in").click()
    inside = model(page, "loss", view)
    assert inside[:2] == pytest.approx([0.2 * STEPS, 0.8 * STEPS])
    own.locator(".plot").focus()
    page.keyboard.press("ArrowRight")
    assert model(page, "loss", view)[0] == pytest.approx(inside[0] + 0.06 * STEPS)
    page.keyboard.press("-")
    assert model(page, "loss", view)[1] > inside[1]
    page.keyboard.press("0")
    assert model(page, "loss", view) == whole
    page.get_by_label("moves").check()
    x, y = middle(page, "loss")
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 100, y, steps=3)
    page.mouse.up()
    page.wait_for_timeout(200)
    moved = model(page, "loss", view)
    assert moved[0] > whole[0]
    assert moved[1] - moved[0] == pytest.approx(STEPS)


def test_tables_filter_sort_and_show_all_digits(visit: Open) -> None:
    page = visit()
    box = page.locator("[data-table=runs]")
    rows, count = box.locator("tbody tr:visible"), box.locator("output")
    assert (rows.count(), count.inner_text(), count.get_attribute("aria-live")) == (4, "4 of 4 rows", "polite")
    box.get_by_label("Filter").fill("s001 COMPLETE")
    assert (rows.count(), count.inner_text()) == (2, "2 of 4 rows")
    box.get_by_label("Filter").fill("")
    head = box.locator("th", has_text="final loss")
    column = [each.strip() for each in box.locator("thead th").all_inner_texts()].index("final loss")
    losses = box.locator(f"tbody tr > :nth-child({column + 1})")
    for order, sign in (("ascending", 1), ("descending", -1)):
        head.get_by_role("button").click()
        assert head.get_attribute("aria-sort") == order
        values = [sign * float(text) for text in losses.all_inner_texts()]
        assert values == sorted(values)
        assert len(set(values)) == 4
    box.get_by_label("all digits").check()
    assert all(len(text) > 12 for text in losses.all_inner_texts())
    page.get_by_text("28 inequalities").click()
    certificates = page.locator("[data-table=certificates]")
    certificates.get_by_label("Filter").fill("condition_1")
    assert certificates.locator("tbody tr:visible").count() == 12


def test_the_keyboard_reaches_every_control_in_the_order_of_the_page(visit: Open) -> None:
    page = visit()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the report"
    seen = []
    for _ in range(200):
        page.keyboard.press("Tab")
        told = page.evaluate(
            """() => {
                const { activeElement: at } = document;
                return [at.tagName, at.closest("section")?.getAttribute("aria-labelledby") || "", at.ariaLabel || ""];
            }"""
        )
        if told[0] == "BODY":
            break
        seen.append(told)
    sections = [section for _, section, _ in seen if section]
    assert list(dict.fromkeys(sections)) == ["figures", "runs", "certificates", "recipe", "provenance"]
    assert {"INPUT", "BUTTON", "SELECT", "SUMMARY", "A"} <= {name for name, _, _ in seen}
    assert sum("Figure: " in name for _, _, name in seen) == len(DRAWN)
    assert all(name for tag, _, name in seen if tag == "DIV")  # figures and boxes that scroll
    assert len(seen) > 60
    page.evaluate("window.scrollTo(0, 0)")
    page.locator("[data-key=width] input").first.focus()
    page.keyboard.press("Space")
    assert page.locator("#count").inner_text() == "2 of 4 runs shown"
    page.locator("summary", has_text="Loss as a table").focus()
    page.keyboard.press("Enter")
    assert page.locator("[data-table=figure-loss] table").is_visible()


def test_every_control_has_a_name_and_every_figure_a_description(visit: Open) -> None:
    page = visit()
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("input, select, button, summary, a")]
            .filter((each) => !(each.labels?.length || each.ariaLabel || each.textContent.trim()))
            .map((each) => each.outerHTML)"""
    )
    assert nameless == []
    tree = page.locator("main").aria_snapshot()
    for panel in DRAWN:
        assert f'heading "{PANELS[panel].title}" [level=3]' in tree
    assert tree.count("Figure: ") == len(DRAWN)


def colours(page: Page) -> tuple[str, str]:
    """The colour of the text of an axis, and of a curve."""
    return tuple(model(page, "loss", "[get('x_axis').major_label_text_color, get('source_0').data.colour[0]]"))


def test_dark_mode_reaches_the_figures_also_when_it_comes_later(visit: Open) -> None:
    page = visit(color_scheme="dark")
    ink, line = colours(page)
    assert (ink, line) == ("#e4e6ea", plots.palettes()["dark"][0])
    page.emulate_media(color_scheme="light")
    page.wait_for_timeout(200)
    assert colours(page) == ("#1b1d21", plots.palettes()["light"][0])
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_paper_gets_light_pictures_of_the_figures_as_wide_as_the_sheet(visit: Open, scheme: str) -> None:
    page = visit(color_scheme=scheme)
    document = page.pdf(format="A4")
    assert document.startswith(b"%PDF")
    pictures = page.locator(".printed")
    assert pictures.count() == len(DRAWN)
    assert all(width >= 660 for width in pictures.evaluate_all("(all) => all.map((each) => each.naturalWidth)"))
    assert page.locator(".snapped").count() == 0  # and the screen has its figures again
    assert colours(page)[1] == plots.palettes()[scheme][0]
    page.emulate_media(media="print")
    assert page.locator("form input:visible, form button:visible, form select:visible").count() == 0
    assert page.locator("#controls .swatch:visible").count() == 2  # the legend of the widths
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(27, 29, 33)"


@pytest.mark.parametrize("width", [320, 375, 768])
def test_a_narrow_screen_scrolls_down_only(visit: Open, width: int) -> None:
    page = visit(width=width, height=800, has_touch=True, is_mobile=True)
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert model(page, "loss", "plot.toolbar.active_drag") is None  # a finger scrolls the page
    figure(page, "loss").get_by_role("button", name="zoom in").tap()
    assert model(page, "loss", "plot.x_range.start") > 0
    x, y = middle(page, "loss")
    page.touchscreen.tap(x, y)
    assert "loss" in figure(page, "loss").locator(".tip").inner_text()


def test_without_scripts_the_numbers_are_there(visit: Open) -> None:
    page = visit(java_script_enabled=False)
    assert page.get_by_text("Figures and their controls need JavaScript").is_visible()
    assert page.locator("[data-table=runs] tbody tr").count() == 4
    assert not page.locator("#controls").is_visible()
    page.locator("summary", has_text="Loss as a table").click()
    assert page.locator("[data-table=figure-loss] tbody tr:visible").count() == 12


def test_a_hundred_runs_are_drawn(visit: Open, report: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(panels, "final_spectra", lambda _: spectra_of(1000))
    stored = open_stored(report.parent / "made-up/sweeps/0123abcd")
    gathered = large(stored, (250, 500, 1000, 2000, 4000), range(20), 2000)
    gathered.__dict__["stored"] = gather([stored]).stored
    path = tmp_path / "large.html"
    path.write_text(page_html(Findings(gathered)))
    assert path.stat().st_size < 5_000_000
    times = []
    for _ in range(3):
        page = visit(path)
        times.append(int(page.evaluate("document.documentElement.dataset.drawn")))
        assert model(page, "residual", 'get("source_1").data.xs.length') == 100
        assert model(page, "residual", 'get("curves_1").glyph.line_width.value') == 1  # hairlines
    print(f"\n{path.stat().st_size / 1e6:.2f} MB; all figures drawn after {np.median(times):.0f} ms")
