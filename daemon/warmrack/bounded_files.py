"""Small files that a user names, read whole, or refused where they are no such file."""

import errno
import os
import stat
from pathlib import Path

from warmrack_store.errors import BadRequest

MAX_BYTES = 64 * 2**20
"""As much as a Hub's JSON may have; no file that a command reads whole is nearly so long."""
_HINT = "Name a file that this user may read."


def read_bytes(path: Path, *, hint: str = _HINT, max_bytes: int = MAX_BYTES) -> bytes:
    """The file's bytes. Raises BadRequest, with the path and the reason, for one that cannot be
    read, for one that is longer, and for a pipe or a device, which may have no end."""
    try:
        with open(path, "rb", opener=_open_at_once) as file:  # Path.open has no opener
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError(errno.EINVAL, "it is not a regular file")
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise BadRequest(f"{path} cannot be read: {error.strerror}", hint=hint) from error
    if len(data) > max_bytes:
        raise BadRequest(f"{path} cannot be read: it is longer than {max_bytes} bytes", hint=hint)
    return data


def read_text(path: Path, *, hint: str = _HINT, max_bytes: int = MAX_BYTES) -> str:
    """The same as text. Raises BadRequest where it is not UTF-8, too."""
    try:
        return read_bytes(path, hint=hint, max_bytes=max_bytes).decode()
    except UnicodeDecodeError as error:
        raise BadRequest(f"{path} cannot be read: it is not UTF-8 text", hint=hint) from error


def _open_at_once(path: str, flags: int) -> int:
    """A pipe's other end is not waited for."""
    return os.open(path, flags | os.O_NONBLOCK)
