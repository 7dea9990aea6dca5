"""Checkpoints: one safetensors file with tensors, a JSON state, and a digest of both. Reading one runs no code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from deqcli.errors import NO_SPACE, CorruptArtefact, DiskFull, SystemRefused
from deqcli.runs.files import replace_file

KEY = "deqcli"


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by name, and the state in plain data: run_id, step, learning rate, where the CSV files stand."""

    tensors: Mapping[str, Tensor]
    state: Mapping[str, Any]


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write the file in one move. The same content gives the same bytes."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    state = json.dumps(checkpoint.state, sort_keys=True)
    metadata = {KEY: json.dumps({"digest": _digest(tensors, state), "state": state}, sort_keys=True)}

    def write(beside: Path) -> None:
        try:
            save_file(tensors, beside, metadata=metadata)
        except SafetensorError as error:  # carries the operating system's refusal as text
            full = any(f"os error {number}" in str(error) for number in NO_SPACE)
            raise (DiskFull if full else SystemRefused)(f"cannot write {path}: {error}") from None

    replace_file(path, write)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint. Raises: CorruptArtefact where a single bit differs from what was written."""
    try:
        with safe_open(path, framework="pt") as file:
            # cloned: a mapped file is not aligned as torch's memory is, and the last bits of a product depend on that
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a mapping)
            envelope = json.loads((file.metadata() or {})[KEY])
        state, digest = envelope["state"], envelope["digest"]
        intact = _digest(tensors, state) == digest
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CorruptArtefact(f"{path} is damaged ({error}); train --force computes it anew") from None
    if not intact:
        raise CorruptArtefact(f"{path} is damaged (its digest does not agree); train --force computes it anew")
    return Checkpoint(tensors, json.loads(state))


def _digest(tensors: Mapping[str, Tensor], state: str) -> str:
    digest = hashlib.sha256(state.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy())  # type: ignore[arg-type]
    return digest.hexdigest()
