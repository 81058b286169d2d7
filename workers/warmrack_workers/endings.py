"""How the work on a job ends: done, given back, tried again, refused; each written down once."""

import random
from collections.abc import Callable

import structlog

from warmrack_store.database import Database, Transaction
from warmrack_store.errors import (
    Defect,
    Ended,
    HostLost,
    Poisonous,
    StoreUnavailable,
    Transient,
    WarmrackError,
)
from warmrack_store.ledgers import claims, deadlines, moves
from warmrack_store.ledgers.claims import Claim
from warmrack_store.ledgers.jobs import Job
from warmrack_store.ledgers.moves import LostClaim
from warmrack_store.states import JobState
from warmrack_workers.activity import Activity, Stopping

log = structlog.get_logger()
_FIRST_BACKOFF_SECONDS = 1.0
_LONGEST_BACKOFF_SECONDS = 300.0


class Endings:
    """Does a piece of work and writes down how it ended."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def conclude(self, activity: Activity, job: Job, work: Callable[[], None]) -> None:
        """Do the work, and write down how it ended."""
        claim = activity.claim
        try:
            work()
        except LostClaim:
            log.info("A job was taken over.", action="claim-lost", job=job.id)
        except Stopping:
            self._write(lambda tx: claims.give_back(tx, claim, "worker-stopped"))
        except Ended as error:
            self._end(claim, error)
        except Transient as error:
            self._retry(claim, error)
        except WarmrackError as error:
            self._fail(claim, error)
        except Exception as error:
            log.exception("A job failed by our fault.", action="job-defect", job=job.id)
            self._fail(claim, Defect(f"{type(error).__name__}: {error}"))

    def _write(self, change: Callable[..., object]) -> None:
        """One short transaction; where the claim is lost there is nothing to write."""
        try:
            with self._database.write() as tx:
                change(tx)
        except LostClaim:
            log.info("A job was taken over.", action="claim-lost")
        except StoreUnavailable as error:
            # The lease runs out and the reconciler queues the job again.
            log.warning("A job's end is not stored.", action="store-wait", error=error.message)

    def _end(self, claim: Claim, error: Ended) -> None:
        self._write(lambda tx: moves.end_ended(tx, claims.get_held(tx, claim), error))

    def _fail(self, claim: Claim, error: WarmrackError) -> None:
        log.info("A job failed.", action="job-failed", job=claim.job_id, code=error.code)
        record = error.to_record()
        self._write(
            lambda tx: claims.finish(tx, claim, JobState.FAILED, cause=error.code, error=record)
        )

    def _retry(self, claim: Claim, error: Transient) -> None:
        """Back to the queue, or failed where the attempts are used up or it keeps dying in loads."""
        self._write(lambda tx: self._retry_in(tx, claim, error))

    def _retry_in(self, tx: Transaction, claim: Claim, error: Transient) -> None:
        job = claims.get_held(tx, claim)
        died = isinstance(error, HostLost) and job.state is JobState.LOADING
        deaths = job.load_deaths + (1 if died else 0)
        last: WarmrackError = error
        if deaths >= deadlines.MAX_LOAD_DEATHS:
            last = Poisonous(f"its host died {deaths} times while loading: {error.message}")
        elif job.attempt < job.max_attempts:
            delay = backoff_seconds(job.attempt, error.retry_after_seconds)
            claims.retry_later(tx, claim, error, delay, load_deaths=deaths)
            return
        record = last.to_record()
        claims.finish(tx, claim, JobState.FAILED, cause=last.code, error=record)


def backoff_seconds(attempt: int, retry_after_seconds: float | None) -> float:
    """Exponential with full jitter; never sooner than the other side asked for."""
    longest = min(_LONGEST_BACKOFF_SECONDS, _FIRST_BACKOFF_SECONDS * 2.0 ** (attempt - 1))
    return max(random.uniform(0.0, longest), retry_after_seconds or 0.0)
