"""Who works on a job: claims with a lease and a fence, and what their holders may do.

A claim is a compare-and-set in the job's own row. Its epoch is the fence: each write of the
holder names it, so that a holder that lost its claim (paused, partitioned) changes nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from warmrack_store.database import Transaction
from warmrack_store.errors import WarmrackError
from warmrack_store.ledgers.jobs import Job, get_job
from warmrack_store.ledgers.moves import (
    LostClaim,
    end,
    end_ended,
    ended_as,
    move_row,
    requeue,
    update_row,
)
from warmrack_store.schema import jobs
from warmrack_store.states import TERMINAL, WAITING, JobState


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The right to move one job, until the lease runs out or the epoch changes."""

    job_id: str
    holder: str
    epoch: int


def claim_next(
    tx: Transaction, *, node: str, holder: str, lease_seconds: float
) -> tuple[Claim, Job] | None:
    """The next job that this node may work on, claimed; None when there is none.

    Order: priority, then age. A job placed on another node is never chosen, nor one that has
    expired before anybody started it.
    """
    free = sa.and_(
        jobs.c.holder.is_(None),
        jobs.c.joined_to.is_(None),
        jobs.c.cancel_cause.is_(None),
        jobs.c.not_before <= tx.now,
        jobs.c.state.in_(WAITING),
        sa.or_(jobs.c.target_node.is_(None), jobs.c.target_node == node),
        sa.or_(
            jobs.c.expires_at.is_(None),
            jobs.c.expires_at >= tx.now,
            jobs.c.started_at.is_not(None),
        ),
    )
    query = sa.select(jobs).where(free).order_by(jobs.c.rank, jobs.c.created_at).limit(1)
    row = tx.find(query.with_for_update(skip_locked=True) if tx.is_postgres else query)
    if row is None:
        return None
    job = Job.from_row(row)
    claim = Claim(job_id=job.id, holder=holder, epoch=job.epoch + 1)
    state = JobState.PLACED if job.resolution_id else JobState.RESOLVING
    taken: dict[str, Any] = {
        "holder": holder,
        "epoch": claim.epoch,
        "lease_until": tx.now + lease_seconds,
        "started_at": sa.func.coalesce(jobs.c.started_at, tx.now),
    }
    if job.state is state:
        update_row(tx, job.id, taken, sa.and_(jobs.c.id == job.id, jobs.c.epoch == job.epoch))
    else:
        move_row(tx, job, state, node=node, **taken)
    return claim, get_job(tx, job.id)


def _held(claim: Claim) -> sa.ColumnElement[bool]:
    return sa.and_(
        jobs.c.id == claim.job_id,
        jobs.c.holder == claim.holder,
        jobs.c.epoch == claim.epoch,
        jobs.c.state.not_in(TERMINAL),
    )


def get_held(tx: Transaction, claim: Claim) -> Job:
    """The job as it stands, locked; raises LostClaim where the claim no longer holds it."""
    row = tx.find(sa.select(jobs).where(_held(claim)).with_for_update())
    if row is None:
        raise LostClaim(claim.job_id)
    return Job.from_row(row)


def renew(tx: Transaction, claims: Sequence[Claim], lease_seconds: float) -> None:
    """Extend the leases of these claims, where they still hold their jobs.

    Never of all that a holder has in SQL: a claim that its holder no longer works on (its end
    could not be stored, or the answer to its taking was lost) must run out.
    """
    held = sa.or_(sa.false(), *(_held(claim) for claim in claims))
    tx.execute(jobs.update().where(held).values(lease_until=tx.now + lease_seconds))


def list_claimed(tx: Transaction, holder: str) -> Sequence[Job]:
    rows = tx.list(sa.select(jobs).where(jobs.c.holder == holder, jobs.c.state.not_in(TERMINAL)))
    return [Job.from_row(row) for row in rows]


def move(
    tx: Transaction,
    claim: Claim,
    state: JobState,
    *,
    event: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Job:
    """Move a held job (and all joined to it); `changes` are columns. Raises LostClaim.

    A job that is in that state already is only changed; an `event` is recorded all the same.
    """
    job = get_held(tx, claim)
    if job.state is not state or event is not None:
        move_row(tx, job, state, event=event, **changes)
    elif changes:
        update_row(tx, job.id, changes, _held(claim))
    return get_job(tx, job.id)


def hand_over(tx: Transaction, claim: Claim, node: str, **changes: Any) -> None:
    """Give a resolved job to the node it was placed on; that node's bell is the caller's.

    A job that was cancelled meanwhile ends instead.
    """
    job = get_held(tx, claim)
    if job.cancel_cause is not None:
        end_ended(tx, job, ended_as(job.id, job.cancel_cause))
        return
    move_row(
        tx,
        job,
        JobState.PLACED,
        target_node=node,
        node=node,
        holder=None,
        lease_until=None,
        rung_at=tx.now,
        **changes,
    )


def give_back(tx: Transaction, claim: Claim, cause: str) -> None:
    """Return a held job to the queue, untouched by attempts: its worker stops."""
    requeue(tx, get_held(tx, claim), cause)


def retry_later(
    tx: Transaction, claim: Claim, error: WarmrackError, delay_seconds: float, **changes: Any
) -> None:
    """Return a held job to the queue after a transient failure; the next attempt counts."""
    job = get_held(tx, claim)
    record = error.to_record()
    requeue(
        tx,
        job,
        error.code,
        {"error": record, "retry_in_seconds": round(delay_seconds, 3)},
        attempt=job.attempt + 1,
        not_before=tx.now + delay_seconds,
        error=record,
        **changes,
    )


def finish(tx: Transaction, claim: Claim, state: JobState, **changes: Any) -> None:
    """End a held job and all joined to it."""
    end(tx, get_held(tx, claim), state, **changes)


def report_progress(
    tx: Transaction,
    claim: Claim,
    *,
    bytes_done: int,
    bytes_total: int,
    rate: float | None = None,
    waiting_for: str | None = None,
) -> None:
    """Show how far a held job is; no event. Raises LostClaim."""
    shown = {"bytes_done": bytes_done, "bytes_total": bytes_total, "rate": rate}
    update_row(tx, claim.job_id, {**shown, "waiting_for": waiting_for}, _held(claim))
