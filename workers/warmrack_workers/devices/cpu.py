"""CPU devices: a share of the machine's memory, and of its cores."""

import os
from pathlib import Path

import psutil

_CGROUP = Path("/sys/fs/cgroup")
"""Where a container sees its own limits, of version 2 or 1."""
_SHARE = 0.8
"""Of the machine's memory, where no size is given; the rest is the system's and the page cache's."""


def budget_bytes(cgroup: Path = _CGROUP) -> int:
    total_bytes: int = psutil.virtual_memory().total
    return int(min(total_bytes, _find_limit_bytes(cgroup) or total_bytes) * _SHARE)


def _find_limit_bytes(cgroup: Path) -> int | None:
    """What a container may use; None where nothing limits it."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            text = (cgroup / name).read_text().strip()
        except OSError:
            continue  # the file of the other version of cgroups
        return int(text) if text.isdecimal() else None
    return None


def threads_per_device(cpu_devices: int) -> int:
    """Cores divided among the CPU devices: two hosts that each use all cores ruin one another
    (26 ms a token became 118 ms, one thread each 27 ms)."""
    return max(1, len(os.sched_getaffinity(0)) // max(1, cpu_devices))
