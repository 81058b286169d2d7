"""Jobs as tests submit and claim them."""

from collections.abc import Sequence
from typing import Any

from warmrack_store.database import Database
from warmrack_store.ledgers import claims, events, jobs
from warmrack_store.ledgers.claims import Claim
from warmrack_store.ledgers.jobs import Job, NewJob
from warmrack_store.submissions import Submission, parse_submission

LEASE_SECONDS = 60.0
LAPSED_SECONDS = -1.0
"""A lease that has run out at once: its holder died."""


def submission(model: str = "org/name", **fields: Any) -> Submission:
    return parse_submission({"kind": "load", "request": {"model": model}, **fields})


def new_job(
    model: str = "org/name",
    *,
    tenant: str = "default",
    rights: str = "anonymous",
    token: bytes | None = None,
    key: str | None = None,
    max_queued: int = 10_000,
    max_unfinished: int | None = None,
    **fields: Any,
) -> NewJob:
    return NewJob(
        submission=submission(model, **fields),
        tenant=tenant,
        rights=rights,
        token_ciphertext=token,
        idempotency_key=key,
        max_queued=max_queued,
        max_unfinished=max_unfinished,
    )


def submit(database: Database, model: str = "org/name", **fields: Any) -> Job:
    with database.write() as tx:
        return jobs.submit_job(tx, new_job(model, **fields))


def claim(
    database: Database, *, node: str = "n0", holder: str = "h0", seconds: float = LEASE_SECONDS
) -> tuple[Claim, Job] | None:
    with database.write() as tx:
        return claims.claim_next(tx, node=node, holder=holder, lease_seconds=seconds)


def claimed(database: Database, **who: Any) -> Claim:
    found = claim(database, **who)
    assert found is not None, "no job waits"
    return found[0]


def look(database: Database, job_id: str) -> Job:
    with database.read() as tx:
        return jobs.get_job(tx, job_id)


def told(database: Database, job_id: str) -> Sequence[str]:
    """The types of a job's events, the first to the last."""
    with database.read() as tx:
        return [event.type for event in events.list_events(tx, job_id)]
