"""What runs would use on this machine."""

from __future__ import annotations

from deqcli.recipe.machine import cores, machine_memory
from deqcli.runs.device import available_devices, device_name, pick_device
from deqcli.runs.files import git_commit, versions
from deqcli.sweep.sweep import executors


def describe() -> dict[str, str]:
    """Versions, devices, cores, memory and executors, each in words."""
    devices = ", ".join(f"{name} ({device_name(pick_device(name))})" for name in available_devices())
    return versions() | {
        "git": git_commit() or "-",
        "devices": devices,
        "cores": str(cores()),
        "memory": f"{machine_memory()} bytes ({machine_memory() / 1e9:.3g} GB)",
        "executors": ", ".join(f"{name} ({found})" for name, found in executors().items()),
    }
