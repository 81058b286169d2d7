"""Which node fetches which file right now, and whom it reads it from."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from warmrack_store.database import Transaction
from warmrack_store.schema import arrivals

_FORGET_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One file on its way to one node; `epoch` is the place in the line of its repository.

    `holder` is the fetch, by its claim and job; `upstream` the node read from, None for the Hub.
    """

    digest: str
    holder: str
    node: str
    store: str
    upstream: str | None
    epoch: int


def join(
    tx: Transaction,
    *,
    repository: str,
    digests: Collection[str],
    holder: str,
    node: str,
    store: str,
    ttl_seconds: float,
) -> int:
    """Stand at the end of the line of each file; the epoch, higher than everybody's before."""
    tx.serialize(f"arrivals:{repository}")
    mine = arrivals.c.repository == repository
    tx.execute(
        arrivals.delete().where(
            mine,
            sa.or_(arrivals.c.holder == holder, arrivals.c.until < tx.now - _FORGET_SECONDS),
        )
    )
    row = tx.find(sa.select(sa.func.max(arrivals.c.epoch).label("last")).where(mine))
    epoch = int(row["last"] or 0) + 1 if row else 1
    same = {"repository": repository, "holder": holder, "node": node, "store": store}
    rows = [
        {**same, "digest": digest, "upstream": None, "epoch": epoch, "until": tx.now + ttl_seconds}
        for digest in sorted(digests)
    ]
    if rows:
        tx.execute(arrivals.insert(), rows)
    return epoch


def renew(tx: Transaction, *, repository: str, holder: str, ttl_seconds: float) -> bool:
    """The fetch lives; False where it was forgotten."""
    until = tx.now + ttl_seconds
    return bool(tx.change(arrivals.update().where(_mine(repository, holder)).values(until=until)))


def note_upstreams(
    tx: Transaction, *, repository: str, holder: str, upstreams: Mapping[str, str | None]
) -> None:
    """Whom each file is read from by now."""
    for digest, upstream in upstreams.items():
        one = sa.and_(_mine(repository, holder), arrivals.c.digest == digest)
        tx.execute(arrivals.update().where(one).values(upstream=upstream))


def leave(tx: Transaction, *, repository: str, holder: str) -> None:
    """The fetch has ended, whichever way."""
    tx.execute(arrivals.delete().where(_mine(repository, holder)))


def list_arrivals(tx: Transaction, repository: str) -> Sequence[Arrival]:
    """All that live, by epoch."""
    query = (
        sa.select(arrivals)
        .where(arrivals.c.repository == repository, arrivals.c.until >= tx.now)
        .order_by(arrivals.c.epoch)
    )
    return [Arrival(**{name: row[name] for name in Arrival.__slots__}) for row in tx.list(query)]


def _mine(repository: str, holder: str) -> sa.ColumnElement[bool]:
    return sa.and_(arrivals.c.repository == repository, arrivals.c.holder == holder)
