"""Who holds what, until when."""

from dataclasses import dataclass

import sqlalchemy as sa

from warmrack_store.database import Transaction
from warmrack_store.schema import leases


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to `subject` until its time runs out; `epoch` is the fence."""

    subject: str
    holder: str
    epoch: int


def acquire(
    tx: Transaction, *, subject: str, kind: str, holder: str, ttl_seconds: float
) -> Lease | None:
    """The lease on `subject`, or None while another holder has it. Its own holder renews it."""
    tx.serialize(f"lease:{subject}")
    row = tx.find(sa.select(leases).where(leases.c.subject == subject))
    until = tx.now + ttl_seconds
    if row is None:
        values = {"kind": kind, "holder": holder, "epoch": 1, "until": until}
        tx.execute(leases.insert().values(subject=subject, **values))
        return Lease(subject=subject, holder=holder, epoch=1)
    if row["holder"] not in (None, holder) and row["until"] >= tx.now:
        return None
    same = row["holder"] == holder and row["until"] >= tx.now
    epoch = row["epoch"] if same else row["epoch"] + 1
    tx.execute(
        leases.update()
        .where(leases.c.subject == subject)
        .values(holder=holder, epoch=epoch, until=until, kind=kind)
    )
    return Lease(subject=subject, holder=holder, epoch=epoch)


def renew(tx: Transaction, lease: Lease, ttl_seconds: float) -> bool:
    """Extend a lease; False where somebody else has taken it meanwhile."""
    return bool(tx.change(leases.update().where(_mine(lease)).values(until=tx.now + ttl_seconds)))


def release(tx: Transaction, lease: Lease) -> None:
    """Let go at once; the row stays, so that the next epoch is higher."""
    tx.execute(leases.update().where(_mine(lease)).values(holder=None, until=0.0))


def _mine(lease: Lease) -> sa.ColumnElement[bool]:
    return sa.and_(
        leases.c.subject == lease.subject,
        leases.c.holder == lease.holder,
        leases.c.epoch == lease.epoch,
    )
