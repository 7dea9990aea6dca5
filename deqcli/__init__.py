"""deqcli: the experiment runner for the theory of over-parameterized deep equilibrium models.

run = deqcli.train("quickstart", width=256)     one network; run.loss, run.spectral, run.plot()
sweep = deqcli.sweep_width("quickstart")        many; sweep.runs, sweep.loss, sweep.plot("rescaled")
deqcli.check_init, deqcli.predict               what the theory says before anything is trained
deqcli.load(folder), deqcli.list_runs()         what was computed before
deqcli.report(sweep), deqcli.export(run, "parquet")
deqcli.fetch("mnist")                           the files of an image set
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deqcli.api import check_init, export, fetch, list_runs, load, predict, report, sweep_status, sweep_width, train
    from deqcli.loaded import Check, Prediction, Run, Sweep

__version__ = "0.1.0"
_PLACES = {"Check": "loaded", "Prediction": "loaded", "Run": "loaded", "Sweep": "loaded"}
__all__ = [
    "Check", "Prediction", "Run", "Sweep", "check_init", "export", "fetch", "list_runs", "load", "predict",
    "report", "sweep_status", "sweep_width", "train",
]  # fmt: skip


def __dir__() -> list[str]:
    """The API, for completion."""
    return [*__all__, "__version__"]


def __getattr__(name: str) -> object:
    """Import the API when it is asked for: `deqcli --help` has no use for it."""
    if name in __all__:
        return getattr(import_module(f"deqcli.{_PLACES.get(name, 'api')}"), name)
    raise AttributeError(f"module 'deqcli' has no attribute {name!r}")
