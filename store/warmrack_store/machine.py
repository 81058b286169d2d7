"""Which machine a process runs on, so that others know whether its sockets are theirs too."""

import hashlib
import os
import socket
from pathlib import Path


def machine_id() -> str:
    """Equal for processes that share this boot of this machine and its view of the file system.

    The boot id alone is shared by the containers of a machine, whose unix sockets are not; the
    mount namespace tells them apart.
    """
    boot = Path("/proc/sys/kernel/random/boot_id")
    parts = [socket.gethostname()]
    if boot.exists():
        parts += [boot.read_text().strip(), os.readlink("/proc/self/ns/mnt")]
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:32]
