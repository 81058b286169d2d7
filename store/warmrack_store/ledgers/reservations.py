"""The room that fetches under way were promised on a store's disk."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from warmrack_store.database import Transaction
from warmrack_store.ledgers.leases import Lease
from warmrack_store.schema import leases, reservations


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """One fetch's; it stands for as long as the fetch holds its snapshot's lease."""

    subject: str
    store: str
    epoch: int
    node: str
    folder: str
    """Of the repository, as on disk."""
    blobs: dict[str, int]
    """Digest -> bytes, of what was not there when it was made."""
    at: float


def put_reservation(
    tx: Transaction, lease: Lease, *, store: str, node: str, folder: str, blobs: Mapping[str, int]
) -> None:
    """Promise room to the fetch that holds `lease`, in place of an earlier one of this snapshot."""
    tx.execute(reservations.delete().where(reservations.c.subject == lease.subject))
    values: dict[str, Any] = {"store": store, "node": node, "folder": folder, "blobs": dict(blobs)}
    tx.execute(
        reservations.insert().values(subject=lease.subject, epoch=lease.epoch, at=tx.now, **values)
    )


def end_reservation(tx: Transaction, lease: Lease) -> None:
    mine = sa.and_(reservations.c.subject == lease.subject, reservations.c.epoch == lease.epoch)
    tx.execute(reservations.delete().where(mine))


def list_reservations(tx: Transaction, store: str) -> Sequence[Reservation]:
    """Those of fetches that are alive; one that died has lost its lease, and its room with it."""
    holds = sa.and_(
        leases.c.subject == reservations.c.subject,
        leases.c.epoch == reservations.c.epoch,
        leases.c.holder.is_not(None),
        leases.c.until >= tx.now,
    )
    query = sa.select(reservations).where(reservations.c.store == store, sa.exists().where(holds))
    return [Reservation(**row) for row in tx.list(query)]
