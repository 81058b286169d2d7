"""Locks over HTTP: kept as a whole, shown by their digest."""

from typing import Annotated, Any

from fastapi import APIRouter, Path

from warmrack.lockfile import LockFile
from warmrack_daemon.api.callers import ServicesOf
from warmrack_daemon.api.views import timestamp
from warmrack_store.ledgers import locks

router = APIRouter(prefix="/locks", tags=["locks"])
Digest = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")]


@router.post("", status_code=201)
def keep_lock(lock: LockFile, services: ServicesOf) -> dict[str, Any]:
    """Keep a models.lock, so that jobs can name it by its digest; the same one again changes
    nothing."""
    lock.check("the lock")
    with services.database.write() as tx:
        locks.put_lock(tx, lock.digest, lock.list_entries(), tenant="default")
        return _show(locks.get_lock(tx, lock.digest))


@router.get("/{digest}")
def show_lock(digest: Digest, services: ServicesOf) -> dict[str, Any]:
    """The lock, its entries as in the file, with who brought it first and when."""
    with services.database.read() as tx:
        return _show(locks.get_lock(tx, digest))


def _show(lock: locks.StoredLock) -> dict[str, Any]:
    return {
        "version": 1,
        "digest": lock.digest,
        "entries": lock.entries,
        "tenant": lock.tenant,
        "created_at": timestamp(lock.created_at),
    }
