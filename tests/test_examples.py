"""The notebooks in examples/ run from the first cell to the last, and what they assert holds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))


def test_there_are_examples_of_cells() -> None:
    assert len(EXAMPLES) >= 2
    for path in EXAMPLES:
        cells = path.read_text().split("# %%")
        assert cells[0] == ""
        assert len(cells) > 6, path


@pytest.mark.docs
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(path: Path, tmp_path: Path) -> None:
    environment = os.environ | {"MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", path]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert any(tmp_path.glob("outputs/*/*/*/manifest.json"))
