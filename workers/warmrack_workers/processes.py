"""Which process is meant: a pid together with the moment it started, so that a reused pid is another."""

import os
import select
import signal
from dataclasses import dataclass
from pathlib import Path

from warmrack_store.errors import HostLost

_DEAD = frozenset({"Z", "X", "x"})
_STATE, _START_TIME = 0, 19
"""Fields 3 and 22 of proc_pid_stat(5), counted behind the command's closing bracket."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessIdentity:
    """`start_time` is in clock ticks since boot, as the kernel counts it."""

    pid: int
    start_time: int


def find_identity(pid: int) -> ProcessIdentity | None:
    """The process that has this pid now; None where there is none, or only a zombie."""
    state, identity = _read_stat(pid)
    return None if state in _DEAD else identity


def _read_stat(pid: int) -> tuple[str, ProcessIdentity | None]:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return "", None
    fields = stat.rpartition(")")[2].split()
    return fields[_STATE], ProcessIdentity(pid=pid, start_time=int(fields[_START_TIME]))


def get_identity(pid: int) -> ProcessIdentity:
    """Raises HostLost where the process has already ended."""
    identity = find_identity(pid)
    if identity is None:
        raise HostLost(f"process {pid} ended while it started")
    return identity


def is_alive(identity: ProcessIdentity) -> bool:
    """False for a zombie and for another process that got the same pid."""
    return find_identity(identity.pid) == identity


def kill(identity: ProcessIdentity, signal_number: int = signal.SIGKILL) -> bool:
    """Send the signal to exactly this process; False where it has ended.

    The pidfd is opened before the start time is compared, so a pid that is reused in between
    is never hit.
    """
    try:
        descriptor = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return False
    try:
        if not is_alive(identity):
            return False
        signal.pidfd_send_signal(descriptor, signal_number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


def wait_end(identity: ProcessIdentity, timeout_seconds: float) -> bool:
    """Wait for the end of any process, a child or not; False where it still runs at the deadline.

    Later than the moment in which `is_alive` turns False: by then its first thread has ended, here
    the last one has, and its memory, files and sockets are free.
    """
    try:
        descriptor = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return True
    try:
        if _read_stat(identity.pid)[1] != identity:
            return True
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(timeout_seconds * 1000))
    finally:
        os.close(descriptor)
