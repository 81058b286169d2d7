"""The locks that were made here or used by a job, by their digest; none ever changes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from warmrack_store.database import Transaction
from warmrack_store.errors import NotFound
from warmrack_store.schema import locks


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLock:
    """Who brought it first, and when; `entries` as models.lock has them."""

    digest: str
    entries: Sequence[Mapping[str, Any]]
    tenant: str
    created_at: float


def put_lock(
    tx: Transaction, digest: str, entries: Sequence[Mapping[str, Any]], *, tenant: str
) -> None:
    """Keep a lock; one that is known stays as it is."""
    tx.serialize(f"lock:{digest}")
    if tx.find(sa.select(locks.c.digest).where(locks.c.digest == digest)) is None:
        values = {"digest": digest, "entries": list(entries), "tenant": tenant}
        tx.execute(locks.insert().values(**values, created_at=tx.now))


def get_lock(tx: Transaction, digest: str) -> StoredLock:
    """Raises NotFound for a digest that nobody brought."""
    row = tx.find(sa.select(locks).where(locks.c.digest == digest))
    if row is None:
        raise NotFound(
            f"there is no lock {digest[:80]!r}", hint="`warmrack lock` makes one and stores it."
        )
    return StoredLock(**{name: row[name] for name in StoredLock.__slots__})
