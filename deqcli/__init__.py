"""deqcli: the experiment runner for the theory of over-parameterized deep equilibrium models."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deqcli.api import check_init, predict, sweep_status, sweep_width, train

__version__ = "0.1.0"
__all__ = ["check_init", "predict", "sweep_status", "sweep_width", "train"]


def __getattr__(name: str) -> object:
    """Import the API when it is asked for: `deqcli --help` has no use for it."""
    if name in __all__:
        from deqcli import api

        return getattr(api, name)
    raise AttributeError(f"module 'deqcli' has no attribute {name!r}")
