"""How a submission becomes a stored job, from whichever side it comes."""

from dataclasses import replace

from warmrack_daemon.locking import settle_lock
from warmrack_daemon.services import Services
from warmrack_daemon.stored_tokens import pick_token
from warmrack_store.errors import StoreUnavailable
from warmrack_store.ledgers import nodes, outbox
from warmrack_store.ledgers.jobs import Job, NewJob, submit_job
from warmrack_store.ledgers.spreads import submit_spread
from warmrack_store.named_hubs import check_hub
from warmrack_store.states import JobState
from warmrack_store.submissions import Submission, check_supported


def submit(
    services: Services,
    submission: Submission,
    *,
    token: str | None,
    tenant: str = "default",
    idempotency_key: str | None = None,
    owed_to_celery: str | None = None,
) -> Job:
    """Store the job, then ring. Accepted means committed: a bell that fails is made up for.

    `owed_to_celery` is the id of the Celery task that waits for the job's end.
    """
    check_supported(submission)
    check_hub(submission.request, services.settings.hub_endpoint)
    token = pick_token(services, submission.request, token, tenant)
    new = NewJob(
        submission=submission,
        tenant=tenant,
        rights=services.vault.mark(token),
        token_ciphertext=services.vault.encrypt(token) if token else None,
        idempotency_key=idempotency_key,
        max_queued=services.settings.max_queued,
        max_unfinished=services.settings.max_queued_per_tenant,
    )
    with services.database.write() as tx:
        if submission.task is not None:
            nodes.check_task(tx, submission.task)
        new = replace(new, submission=settle_lock(tx, submission, tenant))
        store_job = submit_spread if submission.is_spread else submit_job
        job = store_job(tx, new)
        if owed_to_celery is not None:
            outbox.owe(tx, job_id=job.id, kind="celery", address=owed_to_celery)
    if job.state is JobState.QUEUED or submission.is_spread:
        # A joined one rings too: while it was stored, its leader was locked and may have been missed.
        _ring(services)
    return job


def _ring(services: Services) -> None:
    try:
        services.doorbell.ring(None)
    except StoreUnavailable:
        return  # the job stands; the reconciler rings for it
