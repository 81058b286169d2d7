"""Which jobs are overdue, unheard or left by their holder: what the reconciler looks for."""

from collections.abc import Sequence

import sqlalchemy as sa

from warmrack_store.database import Transaction
from warmrack_store.errors import Poisonous
from warmrack_store.ledgers.jobs import Job, get_job
from warmrack_store.ledgers.moves import LostClaim, end, requeue
from warmrack_store.schema import jobs
from warmrack_store.states import HELD, TERMINAL, WAITING, JobState

MAX_LOAD_DEATHS = 3
"""Hosts or agents that the load of one job may cost; then it is poisonous."""


def list_expired(tx: Transaction) -> Sequence[Job]:
    """Jobs that nobody had started when their expires_at came."""
    late = sa.and_(
        jobs.c.expires_at < tx.now,
        jobs.c.started_at.is_(None),
        jobs.c.state == JobState.QUEUED,
    )
    return [Job.from_row(row) for row in tx.list(sa.select(jobs).where(late))]


def list_timed_out(tx: Transaction) -> Sequence[Job]:
    """Jobs that were submitted longer ago than their timeout_seconds, waiting included."""
    late = sa.and_(
        jobs.c.timeout_seconds.is_not(None),
        jobs.c.created_at + jobs.c.timeout_seconds < tx.now,
        jobs.c.state.not_in(TERMINAL),
        jobs.c.cancel_cause.is_(None),
    )
    return [Job.from_row(row) for row in tx.list(sa.select(jobs).where(late))]


def take_unrung(tx: Transaction, *, grace_seconds: float) -> Sequence[str | None]:
    """The queues (a node, or None for any) whose waiting work nobody has taken for a while.

    Marks that work as rung, so that a queue is rung once a grace, however much waits in it.
    """
    waiting = sa.and_(
        jobs.c.holder.is_(None),
        jobs.c.joined_to.is_(None),
        jobs.c.state.in_(WAITING),
        jobs.c.not_before <= tx.now,
    )
    unheard = sa.and_(waiting, _rung() < tx.now - grace_seconds)
    queues = sa.select(jobs.c.target_node, jobs.c.resolution_id.is_(None).label("any"))
    found = {
        None if row["any"] else row["target_node"]
        for row in tx.list(queues.where(unheard).distinct())
    }
    if found:
        tx.execute(jobs.update().where(waiting).values(rung_at=tx.now))
    return sorted(found, key=lambda node: node or "")


def _rung() -> sa.ColumnElement[float]:
    """When a job's queue was last rung for it; a submit rings at once."""
    later = sa.case((jobs.c.rung_at > jobs.c.created_at, jobs.c.rung_at), else_=jobs.c.created_at)
    return sa.case((jobs.c.attempt > 1, jobs.c.rung_at), else_=later)


def release_from_node(tx: Transaction, node: str) -> int:
    """Let jobs that wait for a lost node be placed again, unless they asked for it by name."""
    waiting = sa.and_(
        jobs.c.target_node == node,
        jobs.c.holder.is_(None),
        jobs.c.state == JobState.PLACED,
        jobs.c.joined_to.is_(None),
        jobs.c.asked_node.is_(None),
    )
    rows = tx.list(sa.select(jobs).where(waiting).order_by(jobs.c.id).with_for_update())
    for row in rows:
        requeue(tx, Job.from_row(row), "node-lost", rung_at=0.0)
    return len(rows)


def list_expired_leases(tx: Transaction) -> Sequence[Job]:
    rows = tx.list(
        sa.select(jobs).where(
            jobs.c.holder.is_not(None),
            jobs.c.state.in_(HELD | WAITING),
            jobs.c.lease_until < tx.now,
        )
    )
    return [Job.from_row(row) for row in rows]


def requeue_lost(tx: Transaction, lost: Job, *, max_load_deaths: int) -> Job:
    """Take a job from a holder whose lease ran out. Dying again and again in a load ends it.

    Raises LostClaim where the holder has come back or let go since `lost` was read.
    """
    job = get_job(tx, lost.id, locked=True)
    expired = job.lease_until is not None and job.lease_until < tx.now
    if job.state.terminal or job.epoch != lost.epoch or not expired:
        raise LostClaim(job.id)
    deaths = job.load_deaths + (1 if job.state is JobState.LOADING else 0)
    if deaths >= max_load_deaths and job.cancel_cause is None:
        error = Poisonous(f"its worker died {deaths} times while loading it")
        end(tx, job, JobState.FAILED, cause=error.code, error=error.to_record(), load_deaths=deaths)
    else:
        held = {"holder": job.holder or ""}
        requeue(tx, job, "lease-lost", held, load_deaths=deaths, rung_at=0.0)
    return get_job(tx, job.id)
