"""`deqcli`, and `python -m deqcli`: the signals are handled before anything that takes time is imported."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import NoReturn

SHOW_CURSOR = b"\x1b[?25h"


def _leave(signum: int, _frame: FrameType | None) -> NoReturn:
    """End at once: outside a run, which handles its own signals, there is nothing to keep."""
    os.write(2, (SHOW_CURSOR if os.isatty(2) else b"") + b"interrupted\n")
    os._exit(128 + signum)


def main() -> None:
    """Run the command line; SIGTERM and Ctrl-C end it from the first moment on, imports included."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _leave)
    from deqcli.cli.main import main as command_line

    command_line()


if __name__ == "__main__":
    main()
