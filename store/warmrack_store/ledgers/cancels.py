"""Jobs ended from outside, and who takes the place of one that others had joined."""

import sqlalchemy as sa

from warmrack_store.database import Transaction
from warmrack_store.errors import Ended, Expired
from warmrack_store.ledgers import events, secrets
from warmrack_store.ledgers.jobs import Job, find_job, get_job
from warmrack_store.ledgers.moves import LostClaim, end_ended, update_row
from warmrack_store.ledgers.spreads import list_children
from warmrack_store.schema import jobs
from warmrack_store.states import TERMINAL, JobState


def request_cancel(tx: Transaction, job_id: str, error: Ended) -> Job:
    """Cancel a job: at once when nobody holds it, else its holder is asked to stop.

    `error` says why (Cancelled, Timeout, Expired). A joined job ends alone; a job that others
    have joined hands its place to the oldest of them first. With a job for several nodes go those
    for each of them.
    """
    job = get_job(tx, job_id, locked=True)
    if job.state.terminal:
        return job
    if job.joined_to is not None or promote_joined(tx, job):
        _end_alone(tx, job_id, error)
    elif job.holder is None:
        end_ended(tx, job, error)
    else:
        held = sa.and_(jobs.c.id == job.id, jobs.c.epoch == job.epoch)
        update_row(tx, job.id, {"cancel_cause": error.code}, held)
    for child in list_children(tx, job.id):
        request_cancel(tx, child.id, error)
    return get_job(tx, job_id)


def expire(tx: Transaction, job_id: str) -> Job:
    """Cancel a job that nobody has started by its expires_at. Raises LostClaim where somebody has."""
    job = get_job(tx, job_id, locked=True)
    late = job.expires_at is not None and job.expires_at < tx.now
    if not late or job.started_at is not None or job.state is not JobState.QUEUED:
        raise LostClaim(job_id)
    return request_cancel(tx, job_id, Expired("it had not started when its expires_at came"))


def _end_alone(tx: Transaction, job_id: str, error: Ended) -> None:
    tx.execute(
        jobs.update()
        .where(jobs.c.id == job_id)
        .values(
            state=JobState.CANCELLED,
            cause=error.code,
            error=error.to_record(),
            joined_to=None,
            holder=None,
            lease_until=None,
            updated_at=tx.now,
            finished_at=tx.now,
        )
    )
    events.append(tx, job_id, JobState.CANCELLED, {"cause": error.code})
    secrets.delete_ended(tx, job_id)


def promote_joined(tx: Transaction, job: Job) -> Job | None:
    """Make the oldest joined job the leader of a new attempt; None where nobody has joined.

    The new leader starts from the queue with the resolution kept. The worker that still holds the
    old one finds its claim lost; what it fetched stays, so the new leader goes on from there.
    """
    joined = sa.select(jobs).where(jobs.c.joined_to == job.id, jobs.c.state.not_in(TERMINAL))
    rows = tx.list(joined.order_by(jobs.c.created_at, jobs.c.id).with_for_update())
    if not rows:
        return None
    heir = str(rows[0]["id"])
    queued = {"state": JobState.QUEUED, "cause": "promoted", "updated_at": tx.now, "rate": None}
    ids = [row["id"] for row in rows]
    tx.execute(jobs.update().where(jobs.c.id.in_(ids)).values(joined_to=heir, **queued))
    kept = {"resolution_id": job.resolution_id, "load_deaths": job.load_deaths}
    rank = min(row["rank"] for row in rows)
    tx.execute(jobs.update().where(jobs.c.id == heir).values(joined_to=None, rank=rank, **kept))
    why = {"cause": "promoted", "leader": heir, "instead_of": job.id}
    events.append_with_joined(tx, heir, JobState.QUEUED, why)
    return find_job(tx, heir)
