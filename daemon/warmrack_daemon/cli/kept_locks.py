"""Lock files as commands store them with the service."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from warmrack import Client
    from warmrack.lockfile import LockFile

_MAX_BYTES = 7 * 2**20
"""The service takes bodies of up to 8 MiB."""


def keep_lock(client: "Client", lock: "LockFile | None") -> str | None:
    """The digest under which the service has the lock now; None for none, and for one too long to
    send: a job that is held to it then names a lock of its own entry alone."""
    if lock is None or len(lock.model_dump_json()) > _MAX_BYTES:
        return None
    return client.keep_lock(lock).digest
