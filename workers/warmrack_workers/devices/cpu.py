"""CPU devices: a share of the machine's memory, and of its cores."""

import os

import psutil

_SHARE = 0.8
"""Of the machine's memory, where no size is given; the rest is the system's and the page cache's."""


def budget_bytes() -> int:
    return int(psutil.virtual_memory().total * _SHARE)


def threads_per_device(cpu_devices: int) -> int:
    """Cores divided among the CPU devices: two hosts that each use all cores ruin one another
    (26 ms a token became 118 ms, one thread each 27 ms)."""
    return max(1, len(os.sched_getaffinity(0)) // max(1, cpu_devices))
