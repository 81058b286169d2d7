"""Answers owed to somebody outside once a job has ended."""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from warmrack_store.database import Transaction
from warmrack_store.schema import jobs, outbox
from warmrack_store.states import TERMINAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Owed:
    """One answer; `address` is where it goes, by `kind` (celery: the task's id)."""

    id: int
    job_id: str
    kind: str
    address: str


def owe(tx: Transaction, *, job_id: str, kind: str, address: str) -> None:
    """Promise an answer for a job; promising it twice owes it once."""
    tx.serialize(f"owe:{kind}:{address}")
    mine = sa.and_(outbox.c.kind == kind, outbox.c.address == address)
    if tx.find(sa.select(outbox.c.id).where(mine)) is None:
        tx.execute(
            outbox.insert().values(job_id=job_id, kind=kind, address=address, created_at=tx.now)
        )


def list_due(tx: Transaction, kind: str) -> Sequence[Owed]:
    """What can be answered now: the job has ended."""
    rows = tx.list(
        sa.select(outbox.c.id, outbox.c.job_id, outbox.c.kind, outbox.c.address)
        .join(jobs, jobs.c.id == outbox.c.job_id)
        .where(outbox.c.kind == kind, jobs.c.state.in_(TERMINAL))
        .order_by(outbox.c.id)
    )
    return [Owed(**row) for row in rows]


def settle(tx: Transaction, owed_id: int) -> None:
    tx.execute(outbox.delete().where(outbox.c.id == owed_id))
