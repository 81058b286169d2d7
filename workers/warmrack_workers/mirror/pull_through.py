"""What the mirror does not hold, fetched for who asks: an ordinary prefetch job that is waited for."""

import threading
import time

import structlog

from warmrack_store.brokers.doorbell import Doorbell
from warmrack_store.database import Database
from warmrack_store.errors import StoreUnavailable, Timeout, Transient, WarmrackError
from warmrack_store.ledgers.jobs import Job, NewJob, get_job, submit_job
from warmrack_store.requests import LoadRequest
from warmrack_store.settings import Settings
from warmrack_store.states import TERMINAL, JobKind, JobState
from warmrack_store.submissions import Submission
from warmrack_store.vault import Vault
from warmrack_workers.mirror.targets import DEFAULT_BRANCH

log = structlog.get_logger()
TENANT = "mirror"
"""Whose jobs these are in every list and in the egress ledger."""
_LOOK_SECONDS = 0.1
_RETRY_SECONDS = 5.0


class PullThrough:
    """The job runs on this node, with the asker's own token and so with its rights alone."""

    def __init__(
        self, *, settings: Settings, database: Database, doorbell: Doorbell, vault: Vault
    ) -> None:
        self._settings = settings
        self._database = database
        self._doorbell = doorbell
        self._vault = vault

    def __call__(self, repository: str, revision: str, token: str | None) -> bool:
        """Return once it is here. Raises what the job ended with, and a Transient once patience is
        at its end; the job goes on, and who asks again waits for the same one."""
        job = self._submit(repository, revision, token)
        never, deadline = threading.Event(), time.monotonic() + self._settings.patience_seconds
        while job.state not in TERMINAL:
            if time.monotonic() > deadline:
                raise Transient(
                    f"{repository} is on its way here: job {job.id}",
                    retry_after_seconds=_RETRY_SECONDS,
                )
            never.wait(_LOOK_SECONDS)
            with self._database.read() as tx:
                job = get_job(tx, job.id)
        if job.state is not JobState.SUCCEEDED:
            raise _error_of(job)
        return True

    def _submit(self, repository: str, revision: str, token: str | None) -> Job:
        pinned = None if revision == DEFAULT_BRANCH else revision
        submission = Submission(
            kind=JobKind.PREFETCH,
            request=LoadRequest(model=repository, revision=pinned),
            nodes=(self._settings.node,),
        )
        new = NewJob(
            submission=submission,
            tenant=TENANT,
            rights=self._vault.mark(token),
            token_ciphertext=self._vault.encrypt(token) if token else None,
            max_queued=self._settings.max_queued,
            max_unfinished=self._settings.max_queued_per_tenant,
        )
        with self._database.write() as tx:
            job = submit_job(tx, new)
        try:
            self._doorbell.ring(self._settings.node)
        except StoreUnavailable:
            log.info("A bell was not heard.", action="bell-lost", node=self._settings.node)
        return job


def _error_of(job: Job) -> WarmrackError:
    if job.error is None:
        return Timeout(f"job {job.id} ended as {job.cause or job.state}")
    return WarmrackError.from_record(job.error)
