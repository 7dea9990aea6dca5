"""Who works in a folder: a lock that names its process, and is free as soon as that is gone."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deqcli.errors import FolderInUse
from deqcli.runs.folder import LOCK, OWNER, locked, owner

HOLD = """
import errno, fcntl, sys, time
from pathlib import Path
if sys.argv[2] == "without":
    def refused(*_):
        raise OSError(errno.ENOSYS, "no flock here")
    fcntl.flock = refused
from deqcli.runs.folder import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(300)
"""


@contextmanager
def holder(folder: Path, flock: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that works in the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder), flock], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.fixture(params=["with", "without"])
def flock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file system with the locks of the operating system, and one without."""

    def refused(*_: object) -> None:
        raise OSError(errno.ENOSYS, "no flock here")

    if request.param == "without":
        monkeypatch.setattr(fcntl, "flock", refused)
    return str(request.param)


def test_a_lock_is_held_by_one_names_it_and_is_taken_over_when_its_owner_is_dead(tmp_path: Path, flock: str) -> None:
    with holder(tmp_path, flock) as other:
        name = f"process {other.pid} on {socket.gethostname()}"
        assert owner(tmp_path) == name
        with pytest.raises(FolderInUse, match=name), locked(tmp_path):
            pass
        other.kill()
        other.wait()
        assert owner(tmp_path) is None
        with locked(tmp_path):
            assert owner(tmp_path) == f"process {os.getpid()} on {socket.gethostname()}"
    assert owner(tmp_path) is None


def test_a_folder_that_nobody_ever_worked_in_has_no_owner_and_looking_leaves_nothing(tmp_path: Path) -> None:
    assert owner(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_process_of_another_machine_is_believed(tmp_path: Path) -> None:
    (tmp_path / LOCK).touch()
    (tmp_path / OWNER).write_text("process 1 on far-away\n")
    assert owner(tmp_path) == "process 1 on far-away"


@pytest.mark.parametrize("torn", ["", "proc", "process 1 on far"])
def test_a_name_that_was_not_written_to_its_end_is_nobodys(tmp_path: Path, torn: str) -> None:
    (tmp_path / LOCK).touch()
    (tmp_path / OWNER).write_text(torn)
    assert owner(tmp_path) is None
