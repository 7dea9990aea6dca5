"""Peak memory of a process that takes three training steps, contestant by contestant."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.problem import Problem, Shape
from benchmarks.steps import ENTRIES, Entry
from benchmarks.tables import Row, publish, say

SHAPE = Shape(1000, 1000, 3000)
LEFT_OUT = ("torchdeq, Anderson", "torchdeq, Broyden")
"""They keep a history of equilibria: slower by far, and larger."""

RATE = 2e-7
"""Given, and not measured: that is a matter of steps, not of memory."""


def run() -> None:
    """A process each, and one that only imports torch and draws the problem."""
    rows: list[Row] = []
    for name in ("torch and the problem alone", *(each.name for each in ENTRIES if _wanted(each))):
        say(f"peak memory of {name}")
        answer = subprocess.run(
            [sys.executable, "-m", "benchmarks.memory", name], check=True, capture_output=True, text=True
        )
        rows.append({"method": name, "peak_mib": int(answer.stdout)})
    others = {row["method"]: row["peak_mib"] for row in rows}
    torchdeq = others.get("torchdeq, fixed point")
    for row in rows:
        row["over_torchdeq"] = row["peak_mib"] / torchdeq if torchdeq else None  # type: ignore[operator]
    publish("memory", f"Peak memory of a process, {SHAPE}", rows)


def _wanted(entry: Entry) -> bool:
    return entry.installed and entry.name not in LEFT_OUT


def one(name: str) -> int:
    """Take three steps; the peak of this process in MiB."""
    torch.set_num_threads(2)
    problem = Problem(SHAPE, rate=RATE)
    _ = problem.params, problem.data
    for entry in ENTRIES:
        if entry.name == name:
            contestant = entry.make(problem)
            for _ in range(3):
                contestant.step()
    return _peak()


def _peak() -> int:
    """MiB of this program; `ru_maxrss`, which other systems have, would count what its parent held when it began."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) // 1024  # type: ignore[index]


if __name__ == "__main__":
    print(one(sys.argv[1]))
