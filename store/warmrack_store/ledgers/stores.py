"""How full each store's disk is, as one of its nodes last saw it."""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from warmrack_store.database import Transaction
from warmrack_store.schema import stores


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreState:
    id: str
    used_bytes: int
    room_bytes: int
    """The most that may still be fetched into it, after all that may go has gone."""
    free_bytes: int
    total_bytes: int
    quota_bytes: int | None
    seen_at: float


def put_store(
    tx: Transaction,
    store: str,
    *,
    used_bytes: int,
    room_bytes: int,
    free_bytes: int,
    total_bytes: int,
    quota_bytes: int | None,
) -> None:
    tx.serialize(f"store:{store}")
    tx.execute(stores.delete().where(stores.c.id == store))
    tx.execute(
        stores.insert().values(
            id=store,
            used_bytes=used_bytes,
            room_bytes=room_bytes,
            free_bytes=free_bytes,
            total_bytes=total_bytes,
            quota_bytes=quota_bytes,
            seen_at=tx.now,
        )
    )


def list_stores(tx: Transaction) -> Sequence[StoreState]:
    return [StoreState(**row) for row in tx.list(sa.select(stores).order_by(stores.c.id))]
