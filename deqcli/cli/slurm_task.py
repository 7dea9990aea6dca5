"""What a task of a SLURM array runs: `python -m deqcli.cli.slurm_task FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

from deqcli.errors import as_refusal


def main(folder: str) -> int:
    """Compute the task's cells; the exit code, every refusal in words."""
    from deqcli.api import finish_sweep
    from deqcli.sweep.slurm_task import run_task

    try:
        return run_task(Path(folder), finish_sweep)
    except Exception as error:
        refusal = as_refusal(error)
        print(refusal, file=sys.stderr)
        return refusal.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
