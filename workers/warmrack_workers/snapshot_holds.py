"""A snapshot's claim held outside of any job, and renewed for as long as its files are read."""

import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from warmrack_store.database import Database
from warmrack_store.errors import StoreUnavailable, Timeout
from warmrack_store.ledgers import copies, leases
from warmrack_store.ledgers.leases import Lease

_RENEWALS = 3
_LOOK_SECONDS = 0.2


class SnapshotHold:
    """The claim; a thread of its own renews it."""

    def __init__(self, database: Database, lease: Lease, ttl_seconds: float) -> None:
        self._database = database
        self._lease = lease
        self._ttl_seconds = ttl_seconds
        self._over = threading.Event()
        self._lost = threading.Event()

    def check(self, _size_bytes: int = 0) -> None:
        """Raise Timeout where somebody else has taken the claim meanwhile."""
        if self._lost.is_set():
            raise Timeout(f"{self._lease.subject} was taken over meanwhile")

    def renew_until_over(self) -> None:
        while not self._over.wait(self._ttl_seconds / _RENEWALS):
            try:
                with self._database.write() as tx:
                    kept = leases.renew(tx, self._lease, self._ttl_seconds)
            except StoreUnavailable:
                continue  # the claim runs on by the database's own clock
            if not kept:
                self._lost.set()
                return

    def end(self) -> None:
        self._over.set()


@contextmanager
def hold_snapshot(
    database: Database,
    *,
    store: str,
    repository: str,
    commit: str,
    node: str,
    ttl_seconds: float,
    patience_seconds: float = 0.0,
) -> Iterator[SnapshotHold]:
    """The claim on one snapshot of a store, once it is free. Raises Timeout where somebody has it
    for longer than `patience_seconds`."""
    holder = f"{node}:contents:{secrets.token_hex(6)}"
    subject = copies.subject(store, repository, commit)
    deadline = time.monotonic() + patience_seconds
    while (lease := _acquire(database, subject, holder, ttl_seconds)) is None:
        if time.monotonic() >= deadline:
            raise Timeout(
                f"{repository}@{commit[:12]} is being fetched or adopted just now",
                hint="Ask again when that is done; `warmrack jobs` shows what is at work.",
            )
        time.sleep(_LOOK_SECONDS)
    hold = SnapshotHold(database, lease, ttl_seconds)
    renewer = threading.Thread(target=hold.renew_until_over, name="snapshot-hold", daemon=True)
    renewer.start()
    try:
        yield hold
    finally:
        hold.end()
        renewer.join()
        with database.write() as tx:
            leases.release(tx, lease)


def _acquire(database: Database, subject: str, holder: str, ttl_seconds: float) -> Lease | None:
    with database.write() as tx:
        return leases.acquire(
            tx, subject=subject, kind="snapshot", holder=holder, ttl_seconds=ttl_seconds
        )
