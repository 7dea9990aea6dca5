"""What a run tells while it goes on, and what a person sees of it: a panel, plain lines, or nothing."""

from __future__ import annotations

import io
import math
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import replace
from fcntl import ioctl
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
import torch
from rich.console import Console

from deqcli.deq.initialisation import INITIALISATIONS, Draw
from deqcli.errors import Interrupted
from deqcli.recipe.schema import RunSpec
from deqcli.runs.device import Execution
from deqcli.runs.run import run, run_batch
from deqcli.runs.standing import DRAWING, TRAINING, Spectrum, Standing
from deqcli.show import live
from deqcli.show.console import Screen
from deqcli.show.course import CURVE_POINTS, MARK_EVERY, Course
from deqcli.show.curve import curve
from deqcli.show.live import LineFollower, following, panel, plain_line, precise
from tests.runs import SMALL, recipe, small, tables
from tests.test_resume import signal_at

CPU = Execution("cpu", 1)
PHASES = [
    DRAWING, "first equilibrium", "first adjoint", "equilibrium in float64", "adjoint in float64",
    "tangent kernel H(0)", "kernel of the limit", "norms of W(0) and U(0)", "proved bounds of the norms",
    "certificates", "spectra of step 0", TRAINING,
]  # fmt: skip
RESUMED = ["reading the checkpoint", DRAWING, "putting the checkpoint in place", TRAINING]


def phases(heard: list[Standing]) -> list[str]:
    """The phases in their order, each once."""
    return [each.phase for k, each in enumerate(heard) if k == 0 or each.phase != heard[k - 1].phase]


# what a run tells


@pytest.mark.parametrize("override", ["model.width=32", "model.width=130"])
def test_a_run_tells_its_phases_and_the_rows_of_its_tables_and_writes_what_it_writes_unheard(
    tmp_path: Path, override: str
) -> None:
    """In a stack of one, and alone."""
    spec, heard = small(tmp_path, override), list[Standing]()
    folder = run(spec, tmp_path / "heard", CPU, report=heard.append).folder
    assert phases(heard) == PHASES
    assert {(each.spec, each.shape) for each in heard} == {(spec, (6, 4))}
    drawn = [each.fraction for each in heard if each.phase == DRAWING]
    assert drawn[0] == 0.0 < drawn[1] < drawn[2] < drawn[3] == 1.0
    loss, spectral = (pd.read_csv(folder / name).set_index("step") for name in ("loss.csv", "spectral.csv"))
    steps = [each for each in heard if each.phase == TRAINING]
    assert [each.step for each in steps] == list(range(21))
    for each in steps:
        row = loss.loc[each.step]
        assert (each.loss, each.residual, each.iterations) == (row.loss, row.residual, row.iterations)
        assert (each.adjoint_residual, each.adjoint_iterations) == (row.adjoint_residual, row.adjoint_iterations)
        assert each.spectrum is not None
        assert each.step is not None
        assert each.spectrum.step == each.step // 5 * 5
        logged = spectral.loc[each.spectrum.step]
        assert each.spectrum.spectral_norm == logged.spectral_norm
        assert each.spectrum.spectral_norm_upper == logged.spectral_norm_upper
        assert each.spectrum.lambda_ratio == pytest.approx(logged.lambda_min / spectral.loc[0].lambda_min, rel=1e-9)
    assert tables(folder) == tables(run(spec, tmp_path / "unheard", CPU).folder)


def test_a_resumed_run_tells_that_it_draws_again_and_which_step_and_loss_it_goes_on_from(tmp_path: Path) -> None:
    spec, heard = small(tmp_path), list[Standing]()
    stop = signal_at(9, signal.SIGTERM)
    with pytest.raises(Interrupted):
        run(spec, tmp_path, CPU, report=lambda standing: (heard.append(standing), stop(standing))[0])
    assert phases(heard)[-2:] == [TRAINING, "writing the checkpoint"]
    heard.clear()
    loss = pd.read_csv(run(spec, tmp_path, CPU, report=heard.append).folder / "loss.csv").loss
    assert phases(heard) == RESUMED
    first = next(each for each in heard if each.phase == TRAINING)
    assert (first.step, first.loss, first.iterations, first.spectrum) == (9, loss[9], None, None)
    assert [each.step for each in heard if each.iterations is not None] == list(range(10, 21))


def test_of_a_batch_every_run_is_told_of_by_its_own_recipe(tmp_path: Path) -> None:
    specs, heard = [small(tmp_path, f"train.seed={seed}") for seed in (1, 2, 3)], list[Standing]()
    run_batch(specs, tmp_path, CPU, report=heard.append)
    for spec in specs:
        own = [each for each in heard if each.spec == spec]
        assert phases(own) == PHASES
        assert [each.step for each in own if each.step is not None] == list(range(21))


@pytest.mark.parametrize("name", INITIALISATIONS)
def test_a_draw_tells_of_every_entry_once(name: str) -> None:
    told: list[int] = []
    drawn = Draw(700, 3, 0.05, 1.0, 0, torch.float32, torch.device("cpu"), on_entries=told.append)
    params, unheard = (INITIALISATIONS[name](each) for each in (drawn, replace(drawn, on_entries=lambda _: None)))
    matrices = 1 if params.A is None else 2  # W itself, or A and B, of which it is made
    assert sum(told) == 700 * (matrices * 700 + 3 + 1)
    assert len(told) >= 4  # W in more than one block, U, a
    assert all(torch.equal(getattr(params, each), getattr(unheard, each)) for each in ("W", "U", "a"))


# what is known of it


@pytest.fixture
def spec(tmp_path: Path) -> RunSpec:
    return recipe(tmp_path, "train.steps=1000").run()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that a course reads."""
    now = [100.0]
    monkeypatch.setattr("deqcli.show.course.time.monotonic", lambda: now[0])
    return now


def solved(spec: RunSpec, step: int, loss: float, norm: float = 0.75) -> Standing:
    return Standing(spec, (6, 4), TRAINING, None, step, loss, 2e-7, 7, 1e-7, 5, Spectrum(step // 5 * 5, norm, 0.8, 0.9))


def course_of(spec: RunSpec, clock: list[float], steps: int = 60, seconds: float = 0.25, fall: float = 0.1) -> Course:
    """A run of so many steps, each of so many seconds, after 3 seconds in two phases; its loss starts at 5."""
    course = Course()
    course.hear(Standing(spec, (6, 4), DRAWING, 0.0))
    clock[0] += 2
    course.hear(Standing(spec, (6, 4), "first equilibrium"))
    clock[0] += 1
    for step in range(steps + 1):
        course.hear(solved(spec, step, 5 * math.exp(-fall * step)))
        clock[0] += seconds
    return course


@pytest.mark.parametrize("seconds", [0.25, 0.001])
def test_pace_fall_and_time_left_are_those_of_slow_and_of_quick_steps(
    spec: RunSpec, clock: list[float], seconds: float
) -> None:
    course = course_of(spec, clock, 500, seconds)
    assert course.phases == [(DRAWING, 100.0), ("first equilibrium", 102.0), (TRAINING, 103.0)]
    assert course.pace == pytest.approx(seconds)
    assert course.fall == pytest.approx(0.1)
    assert course.seconds_left(clock[0]) == pytest.approx(seconds * (1000 - 501))
    assert course.seconds_left(clock[0] + 1e6) == 0.0
    assert len(course.marks) == (501 if seconds > MARK_EVERY else 11)


def test_nothing_is_said_of_pace_and_fall_before_they_are_known(spec: RunSpec, clock: list[float]) -> None:
    course = Course()
    assert (course.pace, course.fall, course.seconds_left(0.0), course.points) == (None, None, None, [])
    course.hear(solved(spec, 0, 5.0))
    assert (course.pace, course.fall, course.seconds_left(0.0)) == (None, None, None)
    clock[0] += 1
    course.hear(solved(spec, 1, 0.0))
    assert (course.pace, course.fall) == (1.0, None)
    assert {loss for _, loss in course.points} == {5.0}


def test_the_curve_of_many_steps_is_thinned_evenly_and_keeps_its_ends(spec: RunSpec, clock: list[float]) -> None:
    course = course_of(spec, clock, 20 * CURVE_POINTS, fall=1e-3)
    steps = [step for step, _ in course.points]
    gaps = {after - before for before, after in pairwise(steps[:-1])}
    assert (steps[0], steps[-1]) == (0, 20 * CURVE_POINTS)
    assert CURVE_POINTS // 2 <= len(steps) <= CURVE_POINTS + 1
    assert len(gaps) == 1


# what is drawn


def test_a_curve_goes_from_edge_to_edge_without_a_gap() -> None:
    assert curve([(0, 0.0), (3, 3.0)], 4, 4, plain=True) == ["   *", "  **", " ** ", "**  "]
    assert curve([(0, 3.0), (3, 0.0)], 2, 1) == ["⠙⢦"]
    assert curve([(0, 1.0), (9, 1.0)], 3, 3, plain=True) == ["   ", "***", "   "]
    spike = curve([(0, 0.0), (1, 0.0), (1.001, 9.0), (2, 0.0), (300, 0.0)], 10, 3, plain=True)
    assert [line[0] for line in spike] == ["*", "*", "*"]
    for k in range(1, 30):
        wave = [(x, math.sin(k * x)) for x in range(k + 1)]
        lines = curve(wave, 12, 5)
        assert [len(line) for line in lines] == [12] * 5
        assert all(any(line[column] != " " for line in lines) for column in range(12))


def drawn(course: Course, seconds: float, columns: int, rows: int, plain: bool = False) -> list[str]:
    console = Console(file=io.StringIO(), width=columns, height=rows + 2, record=True, force_terminal=True)
    console.print(panel(course, seconds, (columns, rows), plain))
    return console.export_text().splitlines()


@pytest.mark.parametrize("columns", [24, 61, 80, 100, 200])
def test_whatever_the_size_a_panel_fits_and_says_what_matters_most(
    spec: RunSpec, clock: list[float], columns: int
) -> None:
    course, looked = course_of(spec, clock), 0
    for rows in range(1, 31):
        lines = drawn(course, clock[0], columns, rows)
        assert len(lines) <= rows
        assert max(map(len, lines)) <= columns
        text = "\n".join(lines)
        assert ("60/1000" in text, "log(loss) falls" in text) == (True, columns > 24 and rows >= 4)
        looked += 1
    assert looked == 30


def test_a_panel_of_80_columns_word_for_word(spec: RunSpec, clock: list[float]) -> None:
    lines = drawn(course_of(spec, clock), clock[0], 80, 40)
    assert [line[2:-2].rstrip() for line in lines[1:8]] == [
        f"step        60/1000 ━━━{'─' * 48}   6%",
        "time        18 s so far, 4 min left, 250 ms a step",
        "loss        0.01239, log(loss) falls by 0.1 a step, a factor of 0.904837",
        "||W||_2     0.75, 0.25 below 1, at step 60, bounded by 0.8",
        "equilibrium 7 iterations, residual 2e-07, tolerance 1e-12",
        "adjoint     5 iterations, residual 1e-07, tolerance 1e-12",
        "lambda_min  0.9 of lambda_0, at step 60, above 1/2 by Theorem 1",
    ]
    assert lines[0].startswith("╭─ small: width 32, seed 2, 6 samples of dimension 4 ─")
    assert [lines[k][2:13].strip() for k in (9, 13, 16)] == ["5", "log scale", "0.0124"]
    assert (lines[9][14], lines[16][-3]) != (" ", " ")
    assert lines[17].split()[1:-1] == ["step", "0", "step", "60"]
    assert len(lines) == 19


def test_a_norm_above_1_and_a_loss_that_rises_are_said_so(spec: RunSpec, clock: list[float]) -> None:
    course = course_of(spec, clock, 10, fall=-0.1)
    course.hear(solved(spec, 11, 5 * math.exp(1.1), norm=1.25)._replace(iterations=1))
    text = "\n".join(drawn(course, clock[0], 80, 20))
    assert "1.25, 0.25 above 1" in text
    assert "equilibrium 1 iteration, residual" in text
    assert "log(loss) rises by 0.1 a step, a factor of 1.10517" in text


def test_before_the_first_step_the_phases_have_their_times_and_the_draw_a_bar(
    spec: RunSpec, clock: list[float]
) -> None:
    course = Course()
    course.hear(Standing(spec, (6, 4), DRAWING, 0.0))
    course.hear(Standing(spec, (6, 4), DRAWING, 0.25))
    (bar,) = drawn(course, 103.0, 80, 20)[1:-1]
    assert re.fullmatch(rf"│ {DRAWING} +━+─+ +25%, 3.0 s, 9 s left │", bar)
    assert bar.count("─") == pytest.approx(3 * bar.count("━"), abs=3)
    assert plain_line(course, 131.0) == f"{spec.run_id}: {DRAWING} for 31 s, 25%"
    clock[0] = 104.0
    course.hear(Standing(spec, (6, 4), "first equilibrium"))
    lines = drawn(course, 116.0, 80, 20)[1:-1]
    assert [re.split("  +", line.strip("│ ")) for line in lines] == [[DRAWING, "4.0 s"], ["first equilibrium", "12 s"]]
    assert [len(drawn(course, 116.0, 80, rows)) for rows in (1, 2, 3, 6)] == [1, 2, 3, 4]
    assert "first equilibrium" in drawn(course, 116.0, 80, 1)[0]


def test_a_terminal_without_unicode_is_drawn_on_in_ascii(spec: RunSpec, clock: list[float]) -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    console = Console(file=file, width=80, height=30, force_terminal=True)
    course = course_of(spec, clock)
    console.print(live.RunPanel(course))
    file.seek(0)
    text = file.read()
    assert text.isascii()
    assert "*****" in text
    assert "===" in text


def test_times_of_steps_are_precise_where_they_are_small() -> None:
    found = [precise(each) for each in (0.0004123, 0.0412, 0.412, 1.0, 9.94, 10.4, 200.0)]
    assert found == ["0.41 ms", "41 ms", "412 ms", "1.0 s", "9.9 s", "10 s", "3 min"]


# where it is shown


class FakeTerminal(io.StringIO):
    """A standard error that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@contextmanager
def standard_error(monkeypatch: pytest.MonkeyPatch, file: io.StringIO, **environment: str) -> Iterator[None]:
    """A block with this standard error, in a terminal of 80 columns, without what the tests' own says about colours."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"TERM": "xterm", "COLUMNS": "80", "LINES": "24"} | environment).items():
        monkeypatch.setenv(name, value)
    with redirect_stderr(file):
        yield


@pytest.mark.parametrize(
    ("screen", "file", "environment", "shown"),
    [
        (Screen(), FakeTerminal, {}, "panel"),
        (Screen(), FakeTerminal, {"COLUMNS": "61"}, "panel"),
        (Screen(), FakeTerminal, {"NO_COLOR": ""}, "panel"),
        (Screen(), FakeTerminal, {"COLUMNS": "60"}, "lines"),
        (Screen(), FakeTerminal, {"NO_COLOR": "1"}, "lines"),
        (Screen(), FakeTerminal, {"TERM": "dumb"}, "lines"),
        (Screen(), io.StringIO, {}, "lines"),
        (Screen(), io.StringIO, {"FORCE_COLOR": "1"}, "lines"),
        (Screen(quiet=True), FakeTerminal, {}, "nothing"),
        (Screen(as_json=True), FakeTerminal, {}, "nothing"),
        (Screen(quiet=True), io.StringIO, {}, "nothing"),
    ],
)
def test_a_panel_is_for_a_terminal_that_can_lines_for_the_rest_and_nothing_where_it_is_not_wanted(
    monkeypatch: pytest.MonkeyPatch, spec: RunSpec, screen: Screen, file: type[io.StringIO],
    environment: dict[str, str], shown: str,
) -> None:  # fmt: skip
    error = file()
    with standard_error(monkeypatch, error, **environment), following(screen) as report:
        assert (report is None) == (shown == "nothing")
        if report is not None:
            report(solved(spec, 7, 0.25))
    assert ("\x1b" in error.getvalue()) == (shown == "panel")
    assert (error.getvalue() == "") == (shown != "panel")


def test_lines_come_from_a_thread_whether_or_not_the_run_says_anything(
    monkeypatch: pytest.MonkeyPatch, spec: RunSpec
) -> None:
    class Heard(io.StringIO):
        twice = threading.Event()

        def flush(self) -> None:
            if self.getvalue().count("\n") >= 2:
                self.twice.set()

    monkeypatch.setattr(live, "LINES_EVERY", 0.001)
    said = Heard()
    with redirect_stderr(said):
        follower = LineFollower()
        follower.hear(solved(spec, 7, 0.25))
        assert said.twice.wait(30)
        follower.close()
    assert set(said.getvalue().splitlines()) == {f"{spec.run_id}: step 7/1000 loss 0.25"}


def test_a_line_of_training_says_step_loss_fall_and_time_left(spec: RunSpec, clock: list[float]) -> None:
    assert plain_line(Course(), 0.0) is None
    assert plain_line(course_of(spec, clock), clock[0]) == (
        f"{spec.run_id}: step 60/1000 loss 0.01239, log(loss) falls by 0.1 a step, 4 min left"
    )


def after_the_panel(text: str) -> str:
    """What is said from where the cursor is given back."""
    assert text.count("\x1b[?25l") == 1
    return text[text.index("\x1b[?25h") :]


def test_what_is_said_while_a_panel_is_drawn_stays_and_the_panel_goes(
    monkeypatch: pytest.MonkeyPatch, spec: RunSpec
) -> None:
    def fail() -> None:
        with following(Screen()) as report:
            assert report is not None
            report(solved(spec, 7, 0.25))
            print("a warning in the middle", file=sys.stderr)
            raise RuntimeError

    error = FakeTerminal()
    with standard_error(monkeypatch, error), pytest.raises(RuntimeError):
        fail()
    text = error.getvalue()
    assert text.index("7/1000") < text.index("a warning in the middle") < text.rindex("7/1000")
    rows = text[text.rindex("╭") :].count("\n")
    assert after_the_panel(text) == "\x1b[?25h" + "\r" + "\x1b[1A\x1b[2K" * rows + "\x1b[?25h"


def test_a_run_that_was_complete_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    error = FakeTerminal()
    with standard_error(monkeypatch, error), following(Screen()):
        pass
    assert error.getvalue() == ""


def test_a_terminal_that_becomes_too_narrow_is_scrolled_empty_first(spec: RunSpec, clock: list[float]) -> None:
    console = Console(file=io.StringIO(), width=100, height=20, force_terminal=True)
    shown, parts = live.RunPanel(course_of(spec, clock)), []
    for console.width in (100, 81, 80, 70, 75, 62, 62):
        with console.capture() as captured:
            console.print(shown)
        parts.append(captured.get())
    assert [part.startswith("\n" * 20 + "\x1b[H") for part in parts] == [False] * 3 + [True, False, True, False]
    lines = [[re.sub(r"\x1b\[[0-9;]*[mH]", "", line) for line in part.splitlines()] for part in parts]
    assert [max(map(len, each)) for each in lines] == [80, 80, 80, 70, 75, 62, 62]


def test_in_a_real_terminal_ctrl_c_leaves_no_panel_a_cursor_and_the_command_that_goes_on(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 90, 0, 0))
    command = [sys.executable, "-m", "deqcli", "train", "small.yaml", "train.steps=2000000", "--device", "cpu"]
    plain = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "COLUMNS", "LINES")}
    environment = plain | {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"}
    with subprocess.Popen(command, stderr=theirs, stdout=subprocess.PIPE, cwd=tmp_path, env=environment) as process:
        os.close(theirs)
        text = b""
        while b"falls by" not in text and (more := _read(ours)):
            text += more
        process.send_signal(signal.SIGINT)
        while more := _read(ours):
            text += more
        assert process.wait(60) == 130
        assert process.stdout is not None
        assert process.stdout.read() == b""
    os.close(ours)
    said = text.decode()
    assert "small: width 32, seed 2, 6 samples of dimension 4" in said
    assert re.search(r"\x1b\[\?25hinterrupted at step \d+ of 2000000; the same command goes on", after_the_panel(said))


def _read(terminal: int) -> bytes:
    """What comes next; nothing once the other end is closed, which Linux calls an error."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""
