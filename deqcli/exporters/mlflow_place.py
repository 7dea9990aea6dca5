"""Where MLflow keeps runs: a database in a folder of its own, or what a tracking URI names."""

from __future__ import annotations

import logging
import os
import re
import shlex
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from deqcli.errors import Refused, SystemRefused, one_line
from deqcli.runs.folder import locked

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

DATABASE, ARTIFACTS = "mlflow.db", "artifacts"
TRACKING_URI = "MLFLOW_TRACKING_URI"
DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Variables of MLflow where they are not set: it reports to nobody, gives up a dead server in 20 seconds, and prints
nothing, neither into --json nor the password of a URI."""


def elsewhere() -> str | None:
    """The tracking URI that MLflow itself is told by the environment."""
    return os.environ.get(TRACKING_URI) or None


def is_uri(place: str) -> bool:
    """Whether a place is no folder."""
    return "://" in place or place == elsewhere()


def shown(place: str) -> str:
    """The place as it may be printed, without the password in a URI."""
    return re.sub(r"(?<=://)[^/@]*@", "", place)


def opens(place: str) -> str:
    """The command that shows what is there."""
    if place.startswith(("http://", "https://")):
        return shown(place)
    uri = shown(place) if is_uri(place) else database_uri(Path(place))
    return f"mlflow ui --backend-store-uri {shlex.quote(uri)}"


def database_uri(folder: Path) -> str:
    """sqlite:///<folder>/mlflow.db. Raises: Refused where a URI cannot name it."""
    path = str((folder / DATABASE).absolute())
    if {"?", "%"} & set(path):
        raise Refused(f"{folder.absolute()} has a ? or % in it, which mean more in a URI; name another with --out")
    return f"sqlite:///{path}"


@contextmanager
def opened(place: str) -> Iterator[tuple[MlflowClient, Path | None]]:
    """A client of the store there, and the folder for artifacts if that is ours to name.

    Raises: Refused where MLflow cannot use the place, SystemRefused where it fails in the block; FolderInUse, OSError.
    """
    folder = None if is_uri(place) else Path(place)
    with nullcontext() if folder is None else locked(folder), _quiet():
        if folder is not None:
            _refuse_foreign(folder / DATABASE)
        client = _client(place if folder is None else database_uri(folder))
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield client, folder and folder / ARTIFACTS
        except (MlflowException, SQLAlchemyError) as error:
            raise SystemRefused(f"MLflow at {shown(place)} failed: {_words(error)}") from None


def _client(uri: str) -> MlflowClient:
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return MlflowClient(tracking_uri=uri)
    except (MlflowException, SQLAlchemyError, ImportError) as error:  # ImportError: the driver of a database
        raise Refused(f"MLflow cannot use {shown(uri)}: {_words(error)}") from None


def _words(error: Exception) -> str:
    return one_line(shown((str(error).splitlines() or [type(error).__name__])[0]))


def _refuse_foreign(database: Path) -> None:
    """Raises: Refused where a file is there in which MLflow has no tables: it would put them in."""
    if not database.exists():
        return
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            found = connection.execute("SELECT name FROM sqlite_master WHERE name = 'experiments'").fetchall()
    except sqlite3.DatabaseError:
        found = []
    if not found:
        raise Refused(f"{database} is no database of MLflow and is left as it is; name another folder with --out")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without MLflow's account of its tables and attempts, and a warning that is for its authors."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    import mlflow.tracking  # noqa: F401 (sets the level of its logger)

    logger = logging.getLogger("mlflow")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"The ``noload`` loader strategy is deprecated")
            yield
    finally:
        logger.setLevel(before)
