"""Who works on a job: claims with a lease and a fence, and every move of a held job.

A claim is a compare-and-set in the job's own row. Its epoch is the fence: each write of the
holder names it, so that a holder that lost its claim (paused, partitioned) changes nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from warmrack_store.database import Transaction
from warmrack_store.errors import (
    Cancelled,
    Ended,
    Expired,
    Poisonous,
    Timeout,
    WarmrackError,
)
from warmrack_store.ledgers import events, secrets
from warmrack_store.ledgers.jobs import Job, find_job, get_job
from warmrack_store.schema import jobs
from warmrack_store.states import HELD, MOVES, TERMINAL, WAITING, JobState


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The right to move one job, until the lease runs out or the epoch changes."""

    job_id: str
    holder: str
    epoch: int


class LostClaim(Exception):
    """Somebody else holds the job, or it has ended: stop working on it, write nothing."""


def claim_next(
    tx: Transaction, *, node: str, holder: str, lease_seconds: float
) -> tuple[Claim, Job] | None:
    """The next job that this node may work on, claimed; None when there is none.

    Order: priority, then age. A job placed on another node is never chosen.
    """
    free = sa.and_(
        jobs.c.holder.is_(None),
        jobs.c.joined_to.is_(None),
        jobs.c.cancel_cause.is_(None),
        jobs.c.not_before <= tx.now,
        jobs.c.state.in_(WAITING),
        sa.or_(jobs.c.target_node.is_(None), jobs.c.target_node == node),
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
        _update(tx, job.id, taken, sa.and_(jobs.c.id == job.id, jobs.c.epoch == job.epoch))
    else:
        _move(tx, job, state, node=node, **taken)
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


def renew(tx: Transaction, holder: str, lease_seconds: float) -> None:
    """Extend the leases of all claims of one holder."""
    tx.execute(
        jobs.update()
        .where(jobs.c.holder == holder, jobs.c.state.not_in(TERMINAL))
        .values(lease_until=tx.now + lease_seconds)
    )


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
        _move(tx, job, state, event=event, **changes)
    elif changes:
        _update(tx, job.id, changes, _held(claim))
    return get_job(tx, job.id)


def hand_over(tx: Transaction, claim: Claim, node: str, **changes: Any) -> None:
    """Give a resolved job to the node it was placed on; that node's bell is the caller's.

    A job that was cancelled meanwhile ends instead.
    """
    job = get_held(tx, claim)
    if job.cancel_cause is not None:
        end_ended(tx, job, _ended(job.id, job.cancel_cause))
        return
    _move(
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


def end(tx: Transaction, job: Job, state: JobState, **changes: Any) -> None:
    """End a job in whatever state it is; the transaction must have read it just now."""
    changes.setdefault("error", None)
    _move(
        tx,
        job,
        state,
        holder=None,
        lease_until=None,
        finished_at=tx.now,
        waiting_for=None,
        rate=None,
        **changes,
    )
    secrets.delete_ended(tx, job.id)


def request_cancel(tx: Transaction, job_id: str, error: Ended) -> Job:
    """Cancel a job: at once when nobody holds it, else its holder is asked to stop.

    `error` says why (Cancelled, Timeout, Expired). A joined job ends alone; a job that others
    have joined hands its place to the oldest of them first.
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
        _update(tx, job.id, {"cancel_cause": error.code}, held)
    return get_job(tx, job_id)


def end_ended(tx: Transaction, job: Job, error: Ended) -> None:
    """End a job as cancelled, for the reason that `error` gives."""
    end(tx, job, JobState.CANCELLED, cause=error.code, error=error.to_record())


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


def requeue(
    tx: Transaction, job: Job, cause: str, event: Mapping[str, Any] | None = None, **changes: Any
) -> None:
    """Back to the queue; placed anew next time, by then the pool may look otherwise.

    A job that was cancelled meanwhile ends instead.
    """
    if job.cancel_cause is not None:
        end_ended(tx, job, _ended(job.id, job.cancel_cause))
        return
    changes |= {"holder": None, "lease_until": None, "rate": None, "waiting_for": None}
    _move(tx, job, JobState.QUEUED, cause=cause, event=event, target_node=None, **changes)


def _ended(job_id: str, cause: str) -> Ended:
    kinds = {kind.code: kind for kind in (Cancelled, Timeout, Expired)}
    return kinds.get(cause, Cancelled)(f"job {job_id} was asked to end: {cause}")


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


def list_expired_leases(tx: Transaction) -> Sequence[Job]:
    rows = tx.list(
        sa.select(jobs).where(
            jobs.c.holder.is_not(None),
            jobs.c.state.in_(HELD | WAITING),
            jobs.c.lease_until < tx.now,
        )
    )
    return [Job.from_row(row) for row in rows]


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
    _update(tx, claim.job_id, {**shown, "waiting_for": waiting_for}, _held(claim))


def _move(
    tx: Transaction,
    job: Job,
    state: JobState,
    *,
    event: Mapping[str, Any] | None = None,
    **changes: Any,
) -> None:
    """One compare-and-set with its event. Raises LostClaim where the row has moved since `job`.

    A cause is that of one state: a move without one leaves none behind.
    """
    if state not in MOVES[job.state] and (state is not job.state or state.terminal):
        raise ValueError(f"{job.id} cannot move from {job.state} to {state}")
    changes.setdefault("cause", None)
    shown = {name: changes[name] for name in ("cause", "node", "error") if changes.get(name)}
    unmoved = sa.and_(jobs.c.id == job.id, jobs.c.state == job.state, jobs.c.epoch == job.epoch)
    _update(tx, job.id, {"state": state, **changes}, unmoved)
    events.append_with_joined(tx, job.id, state, {**shown, **(event or {})})


_OWN = frozenset(
    {"holder", "epoch", "lease_until", "cancel_cause", "target_node", "not_before", "rung_at"}
)
"""Columns that a joined job does not mirror: they steer work, and it has none of its own."""


def _update(
    tx: Transaction, job_id: str, changes: Mapping[str, Any], guard: sa.ColumnElement[bool]
) -> None:
    """Change a job where `guard` holds, and what joined jobs mirror; LostClaim where it does not."""
    now = {"updated_at": tx.now}
    if not tx.change(jobs.update().where(guard).values(**changes, **now)):
        raise LostClaim(job_id)
    mirrored = {name: value for name, value in changes.items() if name not in _OWN}
    if mirrored:
        live = sa.and_(jobs.c.joined_to == job_id, jobs.c.state.not_in(TERMINAL))
        tx.execute(jobs.update().where(live).values(**mirrored, **now))
