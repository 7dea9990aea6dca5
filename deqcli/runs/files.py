"""Names of a run's files, and writing them so that a reader sees the old content or the new, never half of it."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path

import yaml

import deqcli
from deqcli.options import Options
from deqcli.recipe.reading import scalar

RECIPE, MANIFEST, LOG, CHECKPOINT = "recipe.yaml", "manifest.json", "run.log", "checkpoint.safetensors"
LOSS, SPECTRAL, TIMING, CERTIFICATES, RUNS = "loss.csv", "spectral.csv", "timing.csv", "certificates.csv", "runs.csv"
PREDICTION, REPORT = "prediction.csv", "report.html"
LOCK, OWNER = ".lock", ".owner"
TEMPORARY = ".partial"


def replace_file(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a file beside `path`, make it durable, and put it in the place of `path` in one move."""
    beside = path.with_name(f".{path.name}{TEMPORARY}")
    try:
        write(beside)
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        beside.chmod(0o666 & ~_umask())  # safetensors makes its files private
        beside.replace(path)
    except BaseException as error:
        beside.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = error.filename or str(path)  # a full disk does not say which file it was
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _umask() -> int:
    umask = os.umask(0o022)
    os.umask(umask)
    return umask


def replace_text(path: Path, text: str) -> None:
    """Write UTF-8 text as `replace_file` does, with newlines as they are."""

    def write(beside: Path) -> None:
        beside.write_bytes(text.encode())

    replace_file(path, write)


class _Dumper(yaml.SafeDumper):
    """Quotes the texts that YAML 1.2 would read as something else."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if scalar(text) == text else "'")


_Dumper.add_representer(str, _text)


def recipe_text(options: Options) -> str:
    """A recipe in YAML, one section a line, every default spelled out; not where it is computed."""
    plain = options.model_dump(mode="json", exclude={"execution"})
    return "".join(f"{key}: {_flow(value)}\n" for key, value in plain.items())


def _flow(value: object) -> str:
    text = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, sort_keys=False, width=100_000)
    return text.removesuffix("...\n").rstrip("\n")


@cache
def versions() -> dict[str, str]:
    """What the numbers of a run depend on besides its recipe."""
    packages = ("torch", "numpy", "scipy", "scikit-learn")
    return {"deqcli": deqcli.__version__, "python": platform.python_version()} | {
        package: version(package) for package in packages
    }


@cache
def git_commit() -> str | None:
    """The commit of the checkout that deqcli runs from, `+` behind it when edited; None for an installed wheel."""
    folder = Path(deqcli.__file__).parent

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(folder), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD") if (folder.parent / ".git").exists() else None
    return commit and commit + ("+" if git("status", "--porcelain", "--", "deqcli") else "")
