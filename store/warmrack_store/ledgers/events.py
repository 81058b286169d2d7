"""What happened to each job, in order; clients replay it from any point."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from warmrack_store.database import Transaction
from warmrack_store.schema import job_events, jobs


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event; `id` grows within a job, `type` is the state it moved to, or `note`."""

    id: int
    job_id: str
    at: float
    type: str
    data: dict[str, Any]


def append(tx: Transaction, job_id: str, kind: str, data: Mapping[str, Any]) -> None:
    """Record one event of one job."""
    tx.execute(
        job_events.insert().values(job_id=job_id, at=tx.now, type=str(kind), data=dict(data))
    )


def append_with_joined(tx: Transaction, job_id: str, kind: str, data: Mapping[str, Any]) -> None:
    """Record the same event for a job and for all that have joined it."""
    who = sa.select(jobs.c.id).where(sa.or_(jobs.c.id == job_id, jobs.c.joined_to == job_id))
    rows = [
        {"job_id": row["id"], "at": tx.now, "type": str(kind), "data": dict(data)}
        for row in tx.list(who)
    ]
    if rows:
        tx.execute(job_events.insert(), rows)


def list_events(tx: Transaction, job_id: str, *, after: int = 0) -> Sequence[Event]:
    rows = tx.list(
        sa.select(job_events)
        .where(job_events.c.job_id == job_id, job_events.c.id > after)
        .order_by(job_events.c.id)
    )
    return [Event(**row) for row in rows]
