"""The memory of a running process, as the kernel counts it."""

from dataclasses import dataclass
from pathlib import Path

_KILOBYTE = 1024
"""proc(5) says kB and means this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    resident_bytes: int
    """RSS: a page that several processes share counts in each of them."""
    proportional_bytes: int
    """PSS: such a page is divided among them."""


def read_memory(pid: int) -> Memory:
    """Raises FileNotFoundError or ProcessLookupError for a process that has ended."""
    return parse_rollup(Path(f"/proc/{pid}/smaps_rollup").read_text())


def parse_rollup(text: str) -> Memory:
    """`/proc/PID/smaps_rollup`; its first line is the range that it is about."""
    fields = {}
    for line in text.splitlines()[1:]:
        name, _, value = line.partition(":")
        fields[name] = int(value.split()[0]) * _KILOBYTE
    return Memory(resident_bytes=fields["Rss"], proportional_bytes=fields["Pss"])


def maps_library(pid: int, name: str) -> bool:
    """Whether a file of that name is mapped into the process."""
    paths = (line.split(maxsplit=5)[5:] for line in _read_maps(pid).splitlines())
    return any(name in path[0].rpartition("/")[2] for path in paths if path)


def _read_maps(pid: int) -> str:
    return Path(f"/proc/{pid}/maps").read_text()
