"""What this machine has: memory and cores, without asking torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

THREADS_FROM = 10**7
"""n m^2, the size of a product, from which a second thread gains a fifth or more: docs/performance.md."""

CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def machine_memory() -> int:
    """Bytes of memory that this machine, or the container it is, has."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([physical, *_cgroup_limits()])


def available_memory() -> int:
    """Bytes of memory that can be taken now without swapping; all of it where the system does not say."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return machine_memory()


def _cgroup_limits() -> Iterator[int]:
    for path in CGROUP_LIMITS:
        try:
            yield int(Path(path).read_text())
        except (OSError, ValueError):
            continue


def large(width: int, num_samples: int) -> bool:
    """Whether a run is given more than one thread."""
    return num_samples * width**2 >= THREADS_FROM


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
