"""Watching a run: a panel on a terminal that can draw, a plain line now and then elsewhere."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from deqcli.show.console import Screen, drawable, number
from deqcli.show.course import Course
from deqcli.show.curve import curve
from deqcli.show.watch import duration

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.text import Text

    from deqcli.runs.standing import Report, Spectrum, Standing

LINES_EVERY = 30.0
"""Seconds between plain lines."""

WIDER_THAN = 60
"""Columns of a terminal that are too few for a panel."""

REDRAWN = 4
"""Times a second."""

WIDEST, BORDERED, TALLEST_CURVE, LOWEST_CURVE = 80, 6, 8, 3
"""Columns of a panel at most, rows that a border is drawn from, rows of the curve at most and at least.

A terminal that becomes narrower than a panel folds its lines and leaves them behind, so a panel is not wide.
"""

LABEL, PHASE, BAR = 12, 32, 24
"""Columns of the names of numbers and of phases, and of a bar."""


@contextmanager
def following(screen: Screen) -> Iterator[Report | None]:
    """What shows a run on standard error, for the block; None where nothing is to be shown."""
    if screen.quiet or screen.as_json:
        yield None
        return
    console = drawable(sys.stderr)
    follower = LineFollower() if console is None or console.width <= WIDER_THAN else PanelFollower(console)
    try:
        yield follower.hear
    finally:
        follower.close()


class LineFollower:
    """A plain line now and then, from a thread of its own, since a long phase says nothing by itself."""

    def __init__(self) -> None:
        self._course, self._done = Course(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def hear(self, standing: Standing) -> None:
        """Take in where the run is."""
        self._course.hear(standing)

    def close(self) -> None:
        """Say no more."""
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(LINES_EVERY):
            line = plain_line(self._course, time.monotonic())
            if line is not None:
                with suppress(OSError, ValueError):  # that nobody reads is no reason to stop
                    print(line, file=sys.stderr, flush=True)


def plain_line(course: Course, seconds: float) -> str | None:
    """`ID: step 7/20 loss 0.25, ...`, or the phase before the first step and how long it has taken."""
    now = course.now
    if now is None:
        return None
    if now.step is None:
        told = [f"{now.phase} for {duration(seconds - course.phases[-1][1])}"]
        told += [] if now.fraction is None else [f"{now.fraction:.0%}"]
    else:
        told = [f"step {now.step}/{now.spec.train.steps} loss {number(now.loss, 4)}", *_falls(course)[:1]]
        told += _left(course.seconds_left(seconds))
    return f"{now.spec.run_id}: {', '.join(told)}"


class PanelFollower:
    """A panel that is redrawn in place, and gone in the end. It is there from the first that is heard of the run."""

    def __init__(self, console: Console) -> None:
        from rich.live import Live

        self._console, self._course = console, Course()
        self._live = Live(
            RunPanel(self._course), console=console, transient=True, refresh_per_second=REDRAWN, redirect_stdout=False
        )

    def hear(self, standing: Standing) -> None:
        """Take in where the run is."""
        self._course.hear(standing)
        if not self._live.is_started:
            self._live.start(refresh=True)

    def close(self) -> None:
        """Remove the panel, and give the cursor back whatever happens."""
        if not self._live.is_started:
            return
        with suppress(OSError):  # a terminal that is gone is no reason to fail
            try:
                self._live.stop()
            finally:
                self._console.show_cursor(True)


class RunPanel:
    """A run, drawn to the size that the terminal has at this moment."""

    def __init__(self, course: Course) -> None:
        self._course = course
        self._width = 0

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw; where the terminal has become too narrow for the last panel, at the top of a screen scrolled empty."""
        from rich.segment import ControlType, Segment

        columns, rows = options.size
        if columns < self._width:  # by now it takes rows that only the terminal could count
            yield Segment("\n" * rows + "\x1b[H", None, [(ControlType.HOME,)])
        self._width = min(WIDEST, columns)
        size = self._width, max(1, rows - 2)  # beside a row for the cursor, and one for its way out
        yield panel(self._course, time.monotonic(), size, options.ascii_only)
        yield Segment.line()  # the cursor waits below, where ^C is echoed


def panel(course: Course, seconds: float, size: tuple[int, int], plain: bool = False) -> RenderableType:
    """What is known of a run at a moment, in at most (columns, rows); ASCII where `plain`."""
    from rich.panel import Panel
    from rich.text import Text

    (width, height), now = size, course.now
    if now is None:
        return Text()
    bordered = height >= BORDERED
    columns, rows = (width - 4, height - 2) if bordered else (width, max(1, height - 1))
    if now.step is None:
        lines = _phases(list(course.phases), now.fraction, seconds, columns, plain)[-rows:]
    else:
        lines = _numbers(course, now, seconds, columns, plain)[:rows]
        lines += _curve(course.points, columns, rows - len(lines), plain)
    title = Text(_fitted(_title(now), columns - 2), style="bold not dim")
    if not bordered and height > 1:
        lines = [title, *lines]
    for line in (title, *lines):
        line.truncate(columns, overflow="crop" if plain else "ellipsis")
    joined = Text("\n", no_wrap=True).join(lines)
    if not bordered:
        return joined
    return Panel(joined, title=title, title_align="left", border_style="dim", width=width)


def _title(now: Standing) -> list[str]:
    spec, (n, d) = now.spec, now.shape
    return [f"{spec.name}: width {spec.model.width}", f"seed {spec.train.seed}", f"{n} samples of dimension {d}"]


def _fitted(told: list[str], columns: int) -> str:
    """The first of what is to be told, and as much of the rest as fits."""
    text = told[0]
    for each in told[1:]:
        if len(text) + len(each) + 2 > columns:
            break
        text += f", {each}"
    return text


def _bar(fraction: float, columns: int, plain: bool) -> Text:
    from rich.text import Text

    done, columns = round(fraction * columns), max(0, columns)
    full, empty = "=-" if plain else "━─"
    return Text.assemble((full * done, "cyan"), (empty * (columns - done), "dim"))


def _phases(
    phases: list[tuple[str, float]], fraction: float | None, seconds: float, columns: int, plain: bool
) -> list[Text]:
    """The phases so far, each with its time; the last goes on."""
    from rich.text import Text

    ends = [*(began for _, began in phases[1:]), seconds]
    took = [end - began for (_, began), end in zip(phases, ends, strict=True)]
    names = [name.ljust(PHASE) for name, _ in phases]
    lines = [Text(f"{name}{precise(each)}", style="dim") for name, each in zip(names, took, strict=True)]
    last = Text(names[-1], style="bold")
    if fraction is None:
        return [*lines[:-1], last.append(precise(took[-1]), style="not bold")]
    left = _left(took[-1] * (1 / fraction - 1) if fraction > 0 else None)
    told = _fitted([f" {fraction:4.0%}", precise(took[-1]), *left], columns - PHASE - BAR // 2)
    bar = _bar(fraction, min(BAR, columns - PHASE - len(told)), plain)
    return [*lines[:-1], last.append_text(bar).append(told, style="not bold")]


def _numbers(course: Course, now: Standing, seconds: float, columns: int, plain: bool) -> list[Text]:
    """A line for each number, what matters most first."""
    from rich.text import Text

    steps, step = now.spec.train.steps, now.step or 0
    share = step / steps if steps else 1.0
    bar = _bar(share, columns - LABEL - len(f"{step}/{steps}") - 6, plain)
    first = Text.assemble(("step".ljust(LABEL), "dim"), f"{step}/{steps} ", bar, f" {share:4.0%}")
    norm = now.spectrum.spectral_norm if now.spectrum else None
    tolerance = now.spec.solver.tolerance_for(now.spec.train.precision)
    told = {
        "time": _time(course, seconds),
        "loss": [number(now.loss, 4), *_falls(course)],
        "||W||_2": _norm(now),
        "equilibrium": _solved(now.iterations, now.residual, tolerance),
        "adjoint": _solved(now.adjoint_iterations, now.adjoint_residual, tolerance),
        "lambda_min": _ratio(now.spectrum),
    }
    styles = {"loss": "bold", "||W||_2": "yellow" if norm is not None and norm >= 1 else ""}
    return [first] + [
        Text.assemble((name.ljust(LABEL), "dim"), (_fitted(each, columns - LABEL), styles.get(name, "")))
        for name, each in told.items()
    ]


def _time(course: Course, seconds: float) -> list[str]:
    began, first = course.phases[0][1], course.phases[-1][1]
    pace = [] if course.pace is None else [f"{precise(course.pace)} a step"]
    before = [f"{precise(first - began)} before the first step"]
    return [f"{duration(seconds - began)} so far", *_left(course.seconds_left(seconds)), *pace, *before]


def _left(seconds: float | None) -> list[str]:
    return [] if seconds is None else [f"{duration(seconds)} left"]


def _falls(course: Course) -> list[str]:
    fall = course.fall
    if fall is None:
        return []
    verb = "falls" if fall >= 0 else "rises"
    factor = math.exp(min(-fall, 700.0))
    return [f"log(loss) {verb} by {number(abs(fall), 3)} a step", f"a factor of {number(factor, 6)}"]


def _norm(now: Standing) -> list[str]:
    """The norm and how far it is from 1, of the last step that was measured."""
    spectrum = now.spectrum
    if spectrum is None or spectrum.spectral_norm is None or spectrum.spectral_norm_upper is None:
        every, steps = now.spec.log.spectral_every, now.spec.train.steps
        return [f"measured at step {min(steps, ((now.step or 0) // every + 1) * every)}"]
    norm = spectrum.spectral_norm
    away = f"{number(abs(1 - norm), 4)} {'below' if norm < 1 else 'above'} 1"
    return [number(norm), away, f"at step {spectrum.step}", f"bounded by {number(spectrum.spectral_norm_upper)}"]


def _ratio(spectrum: Spectrum | None) -> list[str]:
    if spectrum is None or spectrum.lambda_ratio is None:
        return ["-"]
    return [f"{number(spectrum.lambda_ratio, 4)} of lambda_0", f"at step {spectrum.step}", "above 1/2 by Theorem 1"]


def _solved(iterations: int | None, residual: float | None, tolerance: float) -> list[str]:
    if iterations is None:
        return ["-"]
    count = f"{iterations} iteration{'' if iterations == 1 else 's'}"
    return [count, f"residual {number(residual, 2)}", f"tolerance {tolerance:g}"]


def _curve(points: list[tuple[int, float]], columns: int, rows: int, plain: bool) -> list[Text]:
    """The loss over the steps on a log scale, with its ends on the axes; nothing where there is no room for it."""
    from rich.text import Text

    height = min(TALLEST_CURVE, rows - 2)
    if height < LOWEST_CURVE or columns < 2 * LABEL or len(points) < 2:
        return []
    steps, losses = zip(*points, strict=True)
    left = [""] * height
    left[0], left[height // 2], left[-1] = number(max(losses), 3), "log scale", number(min(losses), 3)
    drawn = curve([(step, math.log(loss)) for step, loss in points], columns - LABEL, height, plain)
    lines = [Text.assemble((name.ljust(LABEL), "dim"), (line, "cyan")) for name, line in zip(left, drawn, strict=True)]
    first, last = f"step {steps[0]}", f"step {steps[-1]}"
    return [Text(), *lines, Text(f"{'':{LABEL}}{first}{last:>{columns - LABEL - len(first)}}", style="dim")]


def precise(seconds: float) -> str:
    """A time of which small ones matter: 0.41 ms, 2.3 s, 4 min."""
    if seconds < 1:
        return f"{number(1000 * seconds, 3 if seconds >= 0.1 else 2)} ms"
    return f"{seconds:.1f} s" if seconds < 10 else duration(seconds)
