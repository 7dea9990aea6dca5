"""A folder that belongs to one run or sweep: whose it is, who works in it, what its manifest says."""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final, Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json, to_json

from deqcli.data.files import file_sha256
from deqcli.errors import CorruptArtefact, FolderInUse
from deqcli.recipe.schema import RunSpec
from deqcli.runs.files import LOCK, MANIFEST, OWNER, TEMPORARY, replace_text

ANEW = "train --force, or removing the folder, computes it anew"
REMADE = "the same command computes it anew once the folder is removed"
AGAIN = "take it again from where it was kept, or export the sweep again"
LEFT_BEHIND = (f".*{TEMPORARY}", ".tmp??????")
"""What an interrupted write leaves: files of ours, and those that safetensors writes beside its own."""

UNKNOWN = "another process"
THINNED = "thinned_every"
"""The result of a sweep's folder in small: of so many steps it has a row of the first."""

LOCK_PATIENCE = 2.0
"""Seconds: an orphaned worker that is writing its last checkpoint gets the time to let go."""


class Manifest(BaseModel):
    """What a folder is, and how far: manifest.json. `files` has the SHA-256 of each result."""

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    kind: Literal["run", "sweep", "check", "prediction"]
    id: str
    recipe: str
    status: Status
    error: str | None = None
    exit_code: int = 0
    cells: list[str] = []
    files: dict[str, str] = {}
    results: dict[str, float | int | None] = {}
    device: str = ""
    device_name: str = ""
    threads: int = 0
    versions: dict[str, str] = {}
    git: str | None = None
    seal: str = ""
    fresh: bool = False
    """Whether what lies in the folder is of an earlier attempt, and is not to be resumed."""

    changed: list[str] = []
    """Of device, threads and versions, what was other when the run was resumed: its last bits may differ."""

    @property
    def thinned(self) -> str:
        """`thinned to every 10th step`, where the folder does not have every row; else nothing."""
        every = int(self.results.get(THINNED) or 1)
        return f"thinned to every {every}{'nd' if every == 2 else 'th'} step" if every > 1 else ""

    @property
    def is_small(self) -> bool:
        """Whether this is of a sweep's folder in small, which stands for itself, without the folders of runs."""
        return THINNED in self.results

    @property
    def advice(self) -> str:
        """What to do where a file of the folder is not what was written."""
        return AGAIN if self.is_small else ANEW if self.kind == "run" else REMADE

    @property
    def of_runs(self) -> dict[str, dict[str, float | int | None]]:
        """The results of each run that such a folder brought along, there as `<run_id>.<name>`."""
        found: dict[str, dict[str, float | int | None]] = {}
        for key, value in self.results.items():
            run, _, name = key.rpartition(".")
            if run:
                found.setdefault(run, {})[name] = value
        return found


Status = Literal["running", "complete", "failed", "interrupted", "submitted"]
"""How far a folder is; `running` without a lock means killed, `submitted` that a scheduler has the cells of a sweep."""

RUNNING: Final = "running"
COMPLETE: Final = "complete"
FAILED: Final = "failed"
INTERRUPTED: Final = "interrupted"
SUBMITTED: Final = "submitted"


def run_folder(out: Path, spec: RunSpec) -> Path:
    """<out>/<name>/runs/<run_id>."""
    return out / spec.name / "runs" / spec.run_id


def row_keys(spec: RunSpec) -> dict[str, object]:
    """The columns that say which run a row belongs to."""
    return {
        "run_id": spec.run_id,
        "recipe": spec.name,
        "dataset": spec.data.kind,
        "activation": spec.model.activation,
        "width": spec.model.width,
        "seed": spec.train.seed,
    }


def find_complete(out: Path, spec: RunSpec, but: Collection[str] = ()) -> Manifest | None:
    """The manifest of a run that is complete, every file of it verified `but` these; None where there is none.

    Raises: CorruptArtefact where a file is not what was written, or the folder is not ours.
    """
    folder = run_folder(out, spec)
    manifest = read_manifest(folder, "run", spec.run_id)
    if manifest is None or manifest.status != COMPLETE:
        return None
    verify(folder, {name: digest for name, digest in manifest.files.items() if name not in but})
    return manifest


def read_manifest(folder: Path, kind: str, identity: str) -> Manifest | None:
    """The manifest of a folder; None where there is no such folder yet, or an empty one.

    Raises: CorruptArtefact where the folder holds something else, or the manifest cannot be read.
    """
    if not (folder / MANIFEST).exists():
        _refuse_foreign(folder)
        return None
    manifest = any_manifest(folder)
    if (manifest.kind, manifest.id) != (kind, identity):
        raise CorruptArtefact(f"{folder} belongs to something else ({manifest.kind} {manifest.id})")
    return manifest


def any_manifest(folder: Path) -> Manifest:
    """The manifest of a folder that has one, whatever it is of. Raises: CorruptArtefact where it cannot be read."""
    path = folder / MANIFEST
    try:
        content = from_json(path.read_bytes())
        manifest = Manifest.model_validate(content)
    except ValueError as error:
        why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise CorruptArtefact(f"{path} is damaged ({why}); move {folder} away to compute it anew") from None
    if manifest.seal != _seal(content):
        raise CorruptArtefact(f"{path} is not what was written; move {folder} away to compute it anew")
    return manifest


def _refuse_foreign(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise CorruptArtefact(f"{folder} is a file, not a folder of deqcli's; move it away")
    strange = strangers(folder)
    if strange:
        raise CorruptArtefact(
            f"{folder} exists and is not deqcli's (it has {strange[0]!r} and no {MANIFEST}); it is left as it is"
        )


def strangers(folder: Path) -> list[str]:
    """What a folder holds, beside what a process of ours leaves that was killed before its first manifest."""
    return [each for each in sorted(os.listdir(folder)) if not _is_trace(each)] if folder.exists() else []


def _is_trace(name: str) -> bool:
    """What a process of ours that was killed before its first manifest may leave."""
    return name in (LOCK, OWNER) or any(fnmatch(name, pattern) for pattern in LEFT_BEHIND)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest in one move, sealed."""
    sealed = manifest.model_copy(update={"seal": _seal(manifest.model_dump(mode="json"))})
    replace_text(folder / MANIFEST, sealed.model_dump_json(indent=1) + "\n")


def _seal(content: Mapping[str, Any]) -> str:
    """The SHA-256 of what a manifest says."""
    return hashlib.sha256(to_json({key: value for key, value in content.items() if key != "seal"})).hexdigest()


def hashes(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """SHA-256 of each file by name."""
    return {name: file_sha256(folder / name) for name in names}


def verify(folder: Path, digests: Mapping[str, str], advice: str = ANEW) -> None:
    """Check files by their SHA-256. Raises: CorruptArtefact, naming the first that differs, with what to do."""
    for name, digest in digests.items():
        path = folder / name
        if not path.is_file():
            raise CorruptArtefact(f"{path} is missing; {advice}")
        if file_sha256(path) != digest:
            raise CorruptArtefact(f"{path} is not what was written (its SHA-256 differs); {advice}")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Own the folder for the block; the lock goes with the process, however it ends.

    Raises: FolderInUse, naming the process that has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, timeout=LOCK_PATIENCE)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="flock not supported")  # then a lock file does
            lock.acquire()
    except Timeout:
        raise FolderInUse(f"{folder} is in use by {_owner(folder)}") from None
    try:
        (folder / OWNER).write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
        yield
    finally:
        (folder / OWNER).unlink(missing_ok=True)
        lock.release()


def _owner(folder: Path) -> str:
    try:
        line = (folder / OWNER).read_text(encoding="utf-8")
    except OSError:
        return UNKNOWN
    return line.removesuffix("\n") if line.endswith("\n") else UNKNOWN  # it may have died while it wrote its name


def owner(folder: Path) -> str | None:
    """`process PID on HOST` of who works in a folder, None where nobody does.

    A process of another machine is believed: its lock may not be seen from here. Where the file system has no such
    locks, a process of this machine is asked for.
    """
    try:
        with (folder / LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except BlockingIOError:
        return _owner(folder)
    except OSError:
        name = _owner(folder)
        return name if name != UNKNOWN and _alive(name) else None
    name = _owner(folder)
    return None if name == UNKNOWN or _is_here(name) else name


def _is_here(name: str) -> bool:
    return name.endswith(f" on {socket.gethostname()}")


def _alive(name: str) -> bool:
    """Whether the process of this name exists, as far as can be told from here."""
    pid = name.split()[1] if _is_here(name) else ""
    return not pid.isdecimal() or Path(f"/proc/{pid}").exists() or not Path("/proc").exists()


def clear(folder: Path, names: Sequence[str]) -> None:
    """Remove files of ours, and what an interrupted write left beside them."""
    for name in names:
        (folder / name).unlink(missing_ok=True)
    for pattern in LEFT_BEHIND:
        for left in folder.rglob(pattern):
            left.unlink(missing_ok=True)
