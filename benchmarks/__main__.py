"""`python -m benchmarks [PART ...]`: the parts that are named, or all but `solvers`."""

from __future__ import annotations

import importlib
import sys

import torch

from benchmarks.tables import say

PARTS = ("steps", "sweeps", "overhead", "loggers", "memory", "growth", "activations", "threads", "solvers")


def main(wanted: list[str]) -> int:
    """Run the parts in turn."""
    unknown = sorted(set(wanted) - set(PARTS))
    if unknown:
        say(f"not a part of the benchmark: {', '.join(unknown)}; there are {', '.join(PARTS)}")
        return 2
    torch.set_num_threads(2)
    for part in wanted or PARTS[:-1]:
        importlib.import_module(f"benchmarks.{part}").run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
