"""How a job's row moves: one compare-and-set with its event, mirrored by those who joined it."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from warmrack_store.database import Transaction
from warmrack_store.errors import Cancelled, Ended, Expired, Timeout
from warmrack_store.ledgers import egress, events, resolutions, secrets
from warmrack_store.ledgers.jobs import Job
from warmrack_store.schema import jobs
from warmrack_store.states import MOVES, TERMINAL, JobState

_OWN = frozenset(
    {"holder", "epoch", "lease_until", "cancel_cause", "target_node", "not_before", "rung_at"}
)
"""Columns that a joined job does not mirror: they steer work, and it has none of its own."""


class LostClaim(Exception):
    """Somebody else holds the job, or it has ended: stop working on it, write nothing."""


def move_row(
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
    update_row(tx, job.id, {"state": state, **changes}, unmoved)
    events.append_with_joined(tx, job.id, state, {**shown, **(event or {})})


def update_row(
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


def end(tx: Transaction, job: Job, state: JobState, **changes: Any) -> None:
    """End a job in whatever state it is; the transaction must have read it just now."""
    changes.setdefault("error", None)
    move_row(
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
    if state is JobState.SUCCEEDED:
        _record_joined(tx, job)


def _record_joined(tx: Transaction, job: Job) -> None:
    """Those who joined needed the same files, and the fetch of this job brought them."""
    joined = tx.list(sa.select(jobs.c.id, jobs.c.tenant).where(jobs.c.joined_to == job.id))
    resolution = resolutions.find_resolution(tx, job.resolution_id) if joined else None
    for part in resolution.parts if resolution is not None else ():
        for row in joined:
            egress.record_egress(
                tx,
                job_id=row["id"],
                tenant=row["tenant"],
                node=job.node or "",
                repository=part.repository,
                commit=part.commit,
                deduplicated_bytes=sum(file.size for file in part.files),
            )


def end_ended(tx: Transaction, job: Job, error: Ended) -> None:
    """End a job as cancelled, for the reason that `error` gives."""
    end(tx, job, JobState.CANCELLED, cause=error.code, error=error.to_record())


def requeue(
    tx: Transaction, job: Job, cause: str, event: Mapping[str, Any] | None = None, **changes: Any
) -> None:
    """Back to the queue; placed anew next time, by then the pool may look otherwise.

    A job that was cancelled meanwhile ends instead.
    """
    if job.cancel_cause is not None:
        end_ended(tx, job, ended_as(job.id, job.cancel_cause))
        return
    changes |= {"holder": None, "lease_until": None, "rate": None, "waiting_for": None}
    move_row(tx, job, JobState.QUEUED, cause=cause, event=event, target_node=None, **changes)


def ended_as(job_id: str, cause: str) -> Ended:
    """The error with which a job ends that was asked to, for a `cancel_cause`."""
    kinds = {kind.code: kind for kind in (Cancelled, Timeout, Expired)}
    said = {"cancelled": "was cancelled", "timeout": "ran longer than its time"}
    why = said.get(cause, f"was asked to end: {cause}")
    return kinds.get(cause, Cancelled)(f"job {job_id} {why}")
