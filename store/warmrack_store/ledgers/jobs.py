"""The jobs as their clients see them: submitted, joined, found, listed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.engine import RowMapping

from warmrack_store.database import Transaction
from warmrack_store.errors import (
    BadRequest,
    IdempotencyConflict,
    JobNotFound,
    OverQuota,
    RateLimitedHere,
)
from warmrack_store.ledgers import events, secrets
from warmrack_store.ledgers.ids import new_id
from warmrack_store.records import digest_json, parse_record
from warmrack_store.schema import jobs
from warmrack_store.states import TERMINAL, WAITING, JobKind, JobState
from warmrack_store.submissions import Submission

IDEMPOTENCY_SECONDS = 24 * 3600.0
_BACKLOG_RETRY_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One row. `attempt` counts from 1; counters are bytes; times are epoch seconds."""

    id: str
    kind: JobKind
    tenant: str
    state: JobState
    cause: str | None
    model: str
    submission: dict[str, Any]
    fingerprint: str | None
    joined_to: str | None
    secret_id: str | None
    rights: str | None
    asked_node: str | None
    target_node: str | None
    attempt: int
    max_attempts: int
    load_deaths: int
    holder: str | None
    epoch: int
    lease_until: float | None
    cancel_cause: str | None
    node: str | None
    resolution_id: str | None
    resident_id: str | None
    receipt_id: str | None
    bytes_done: int
    bytes_total: int
    rate: float | None
    waiting_for: str | None
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    timeout_seconds: float | None
    expires_at: float | None
    not_before: float
    created_at: float
    updated_at: float
    started_at: float | None
    finished_at: float | None

    @classmethod
    def from_row(cls, row: RowMapping) -> Self:
        values = {name: row[name] for name in cls.__slots__}
        values["kind"] = JobKind(values["kind"])
        values["state"] = JobState(values["state"])
        return cls(**values)

    def get_submission(self) -> Submission:
        return parse_record(Submission, self.submission)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A validated submission and who it comes from.

    `rights` stands for the caller's Hub token (an HMAC): only callers with the same one join.
    """

    submission: Submission
    tenant: str
    rights: str
    token_ciphertext: bytes | None
    idempotency_key: str | None = None
    max_queued: int = 10_000
    max_unfinished: int | None = None
    """Of this tenant; None: as many as it likes."""

    def fingerprint(self) -> str | None:
        own = self.submission.fingerprint()
        return digest_json([own, self.rights]) if own else None


def submit_job(tx: Transaction, new: NewJob) -> Job:
    """The job for a submission: a new row, or the one an idempotency key stands for.

    A new row joins a live job with the same fingerprint and rights and ends with it. Raises
    BadRequest for one that has expired, IdempotencyConflict, RateLimitedHere when the queue is
    full, or OverQuota when the tenant has its share of it.
    """
    body = digest_json(new.submission.model_dump(mode="json"))
    if new.idempotency_key:
        tx.serialize(f"idempotency:{new.tenant}:{new.idempotency_key}")
        if earlier := _find_idempotent(tx, new, body):
            return earlier
    _check_expiry(tx, new)
    tx.serialize(f"submit:{new.tenant}:{new.fingerprint()}")
    leader = _find_leader(tx, new)
    if leader is None:
        _check_backlog(tx, new.max_queued)
        _check_quota(tx, new)
    job_id = new_id("job")
    tx.execute(jobs.insert().values(**_values(tx, new, job_id, body, leader)))
    joined = {"joined_to": leader.id} if leader else {}
    events.append(tx, job_id, leader.state if leader else JobState.QUEUED, joined)
    if leader is not None:
        _merge_rank(tx, leader.id, new.submission.priority.rank)
    return get_job(tx, job_id)


def _check_expiry(tx: Transaction, new: NewJob) -> None:
    expires_at = new.submission.expires_at
    if expires_at is not None and expires_at.timestamp() < tx.now:
        raise BadRequest(
            f"expires_at: {expires_at.isoformat()} is past",
            hint="Name a time to come, or leave it out.",
        )


def _find_idempotent(tx: Transaction, new: NewJob, body: str) -> Job | None:
    row = tx.find(
        sa.select(jobs).where(
            jobs.c.tenant == new.tenant, jobs.c.idempotency_key == new.idempotency_key
        )
    )
    if row is None:
        return None
    if row["created_at"] < tx.now - IDEMPOTENCY_SECONDS:
        tx.execute(jobs.update().where(jobs.c.id == row["id"]).values(idempotency_key=None))
        return None
    if row["body_digest"] != body:
        raise IdempotencyConflict(
            f"idempotency key {new.idempotency_key!r} came with another body for {row['id']}"
        )
    return Job.from_row(row)


def _find_leader(tx: Transaction, new: NewJob) -> Job | None:
    """The live job that this one may join, locked so that it cannot end before that is stored."""
    fingerprint = new.fingerprint()
    if fingerprint is None:
        return None
    row = tx.find(
        sa.select(jobs)
        .where(
            jobs.c.fingerprint == fingerprint,
            jobs.c.tenant == new.tenant,
            jobs.c.state.not_in(TERMINAL),
            jobs.c.joined_to.is_(None),
            jobs.c.cancel_cause.is_(None),
        )
        .order_by(jobs.c.created_at)
        .limit(1)
        .with_for_update()
    )
    return Job.from_row(row) if row else None


def _check_backlog(tx: Transaction, max_queued: int) -> None:
    if count_waiting(tx) >= max_queued:
        raise RateLimitedHere(
            f"{max_queued} jobs are waiting already", retry_after_seconds=_BACKLOG_RETRY_SECONDS
        )


def _check_quota(tx: Transaction, new: NewJob) -> None:
    """A job that joins another is no work of its own and is not counted."""
    if new.max_unfinished is None:
        return
    tx.serialize(f"quota:{new.tenant}")
    unfinished = sa.select(sa.func.count().label("unfinished")).where(
        jobs.c.tenant == new.tenant, jobs.c.state.not_in(TERMINAL), jobs.c.joined_to.is_(None)
    )
    row = tx.find(unfinished)
    if row is not None and row["unfinished"] >= new.max_unfinished:
        raise OverQuota(
            f"tenant {new.tenant} has {row['unfinished']} unfinished jobs, "
            f"and may have {new.max_unfinished}",
            retry_after_seconds=_BACKLOG_RETRY_SECONDS,
        )


def _values(
    tx: Transaction, new: NewJob, job_id: str, body: str, leader: Job | None
) -> dict[str, Any]:
    submission = new.submission
    names = submission.node_names()
    secret_id = None
    if new.token_ciphertext is not None:
        secret_id = secrets.insert_secret(tx, new.token_ciphertext)
    values: dict[str, Any] = {
        "id": job_id,
        "kind": submission.kind,
        "tenant": new.tenant,
        "state": JobState.QUEUED,
        "model": submission.request.ref().repository,
        "submission": submission.model_dump(mode="json"),
        "fingerprint": new.fingerprint(),
        "idempotency_key": new.idempotency_key,
        "body_digest": body,
        "secret_id": secret_id,
        "rights": new.rights,
        "rank": submission.priority.rank,
        "asked_node": names[0] if names else None,
        "max_attempts": submission.max_attempts,
        "timeout_seconds": submission.timeout_seconds,
        "expires_at": submission.expires_at.timestamp() if submission.expires_at else None,
        "created_at": tx.now,
        "updated_at": tx.now,
    }
    if leader is not None:
        shown = ("state", "cause", "node", "resolution_id", "bytes_done", "bytes_total")
        values |= {name: getattr(leader, name) for name in shown}
        values |= {"joined_to": leader.id, "started_at": tx.now if leader.started_at else None}
    return values


def _merge_rank(tx: Transaction, leader_id: str, rank: int) -> None:
    """A joined job lifts the one it joins to its own priority."""
    tx.execute(jobs.update().where(jobs.c.id == leader_id, jobs.c.rank > rank).values(rank=rank))


def find_job(tx: Transaction, job_id: str, *, locked: bool = False) -> Job | None:
    """The job; `locked`: nobody else moves it before this transaction ends."""
    if "\0" in job_id:
        return None  # PostgreSQL refuses to compare such a text
    query = sa.select(jobs).where(jobs.c.id == job_id)
    row = tx.find(query.with_for_update() if locked else query)
    return Job.from_row(row) if row else None


def get_job(tx: Transaction, job_id: str, *, locked: bool = False) -> Job:
    """As `find_job`; raises JobNotFound."""
    job = find_job(tx, job_id, locked=locked)
    if job is None:
        raise JobNotFound(f"there is no job {job_id[:80]!r}")
    return job


def list_jobs(
    tx: Transaction,
    *,
    state: JobState | None = None,
    model: str | None = None,
    before: str | None = None,
    limit: int = 50,
) -> Sequence[Job]:
    """The newest jobs first; `before` is the id that the last page ended with."""
    if "\0" in f"{model}{before}":
        return []  # as in find_job
    query = sa.select(jobs).order_by(jobs.c.id.desc()).limit(limit)
    if state is not None:
        query = query.where(jobs.c.state == state)
    if model is not None:
        query = query.where(sa.func.lower(jobs.c.model) == model.lower())
    if before is not None:
        query = query.where(jobs.c.id < before)
    return [Job.from_row(row) for row in tx.list(query)]


def list_running(tx: Transaction, *, rights: str) -> Sequence[Job]:
    """The task jobs at work that were submitted with one token, by its mark."""
    mine = sa.and_(jobs.c.state == JobState.RUNNING, jobs.c.rights == rights)
    return [Job.from_row(row) for row in tx.list(sa.select(jobs).where(mine))]


def count_waiting(tx: Transaction) -> int:
    query = sa.select(sa.func.count()).where(
        jobs.c.state.in_(WAITING), jobs.c.holder.is_(None), jobs.c.joined_to.is_(None)
    )
    row = tx.find(query)
    return int(row["count_1"]) if row else 0


def queue_position(tx: Transaction, job: Job) -> int:
    """Its place among the waiting jobs, from 1; 0 for one that is not waiting."""
    if job.state not in WAITING or job.holder is not None or job.joined_to is not None:
        return 0
    mine = sa.select(jobs.c.rank).where(jobs.c.id == job.id).scalar_subquery()
    query = sa.select(sa.func.count().label("ahead")).where(
        jobs.c.state.in_(WAITING),
        jobs.c.holder.is_(None),
        jobs.c.joined_to.is_(None),
        sa.or_(
            jobs.c.rank < mine,
            sa.and_(jobs.c.rank == mine, jobs.c.created_at < job.created_at),
        ),
    )
    row = tx.find(query)
    return int(row["ahead"]) + 1 if row else 0
