"""The way of one job: resolve, place, fetch, load, run, each step taken up where it stands."""

import random
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass
from typing import Any

import structlog

from warmrack_store.brokers.doorbell import Doorbell
from warmrack_store.brokers.wakeups import Wakeups
from warmrack_store.database import Database
from warmrack_store.durations import parse_duration
from warmrack_store.errors import (
    Defect,
    Ended,
    HostLost,
    Integrity,
    Poisonous,
    StoreUnavailable,
    Transient,
    WarmrackError,
)
from warmrack_store.hub import HubFacts
from warmrack_store.ledgers import claims, copies, receipts, resolutions, secrets
from warmrack_store.ledgers.claims import Claim, LostClaim
from warmrack_store.ledgers.jobs import Job
from warmrack_store.ledgers.pool import get_rates, list_views
from warmrack_store.placement import Need, plan_placement
from warmrack_store.receipts import Receipt
from warmrack_store.resolution import Resolution
from warmrack_store.resolving import resolve_request
from warmrack_store.states import JobKind, JobState, Tier
from warmrack_store.submissions import PINNED, Submission
from warmrack_store.vault import Vault
from warmrack_workers.activity import Activities, Activity, Stopping
from warmrack_workers.residency import Order, Residency, Warmed
from warmrack_workers.snapshots import Snapshots
from warmrack_workers.task_runs import run_task

log = structlog.get_logger()
_FIRST_BACKOFF_SECONDS = 1.0
_LONGEST_BACKOFF_SECONDS = 300.0
_MAX_LOAD_DEATHS = 3
_LOOK_SECONDS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the pipeline works with."""

    node: str
    database: Database
    hub: HubFacts
    vault: Vault
    doorbell: Doorbell
    wakeups: Wakeups
    residency: Residency
    snapshots: Snapshots
    activities: Activities
    keep_alive: str
    store: str
    versions: dict[str, str]


class Pipeline:
    """Runs claimed jobs, each in the thread that claimed it."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def run(self, claim: Claim, job: Job) -> None:
        """Work on a job until it has ended, moved to another node, or gone back to the queue."""
        activity = Activity(claim=claim)
        self._parts.activities.add(activity)
        try:
            self._conclude(activity, job, lambda: self._advance(activity, job))
        finally:
            self._parts.activities.remove(activity)
            self._parts.wakeups.publish(job.id)

    def _conclude(self, activity: Activity, job: Job, work: Callable[[], None]) -> None:
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
            with self._parts.database.write() as tx:
                change(tx)
        except LostClaim:
            log.info("A job was taken over.", action="claim-lost")
        except StoreUnavailable as error:
            # The lease runs out and the reconciler queues the job again.
            log.warning("A job's end is not stored.", action="store-wait", error=error.message)

    def _end(self, claim: Claim, error: Ended) -> None:
        self._write(lambda tx: claims.end_ended(tx, claims.get_held(tx, claim), error))

    def _fail(self, claim: Claim, error: WarmrackError) -> None:
        log.info("A job failed.", action="job-failed", job=claim.job_id, code=error.code)
        record = error.to_record()
        self._write(
            lambda tx: claims.finish(tx, claim, JobState.FAILED, cause=error.code, error=record)
        )

    def _retry(self, claim: Claim, error: Transient) -> None:
        """Back to the queue, or failed where the attempts are used up or it keeps dying in loads."""
        try:
            with self._parts.database.write() as tx:
                job = claims.get_held(tx, claim)
                died = isinstance(error, HostLost) and job.state is JobState.LOADING
                deaths = job.load_deaths + (1 if died else 0)
                if deaths >= _MAX_LOAD_DEATHS:
                    last = Poisonous(f"its host died {deaths} times while loading: {error.message}")
                    record = last.to_record()
                    claims.finish(tx, claim, JobState.FAILED, cause=last.code, error=record)
                elif job.attempt >= job.max_attempts:
                    record = error.to_record()
                    claims.finish(tx, claim, JobState.FAILED, cause=error.code, error=record)
                else:
                    delay = backoff_seconds(job.attempt, error.retry_after_seconds)
                    claims.retry_later(tx, claim, error, delay, load_deaths=deaths)
        except LostClaim:
            log.info("A job was taken over.", action="claim-lost", job=claim.job_id)
        except StoreUnavailable as failure:
            log.warning("A job's end is not stored.", action="store-wait", error=failure.message)

    def _advance(self, activity: Activity, job: Job) -> None:
        submission = job.get_submission()
        token = self._token(job)
        resolution_id, resolution = self._resolve(activity, job, submission, token)
        if not self._place(activity, job, submission, resolution_id, resolution):
            return
        self._move(activity, JobState.FETCHING)
        receipt = self._parts.snapshots.ensure(activity, job, resolution, token)
        if submission.reached_tier is Tier.DISK:
            self._succeed(activity, receipt=receipt, resolution_id=resolution_id)
            return
        self._move(activity, JobState.LOADING)
        warmed = self._load(activity, submission, resolution_id, resolution)
        receipt_id = self._own_receipt(warmed, resolution_id, resolution)
        if submission.kind is not JobKind.TASK:
            self._succeed(activity, resident_id=warmed.resident_id, receipt_id=receipt_id)
            return
        self._move(
            activity, JobState.RUNNING, resident_id=warmed.resident_id, receipt_id=receipt_id
        )
        result = run_task(activity, warmed.socket, str(submission.task), submission.payload or {})
        self._succeed(activity, result=result)

    def _token(self, job: Job) -> str | None:
        with self._parts.database.read() as tx:
            ciphertext = secrets.find_ciphertext(tx, job.secret_id)
        return self._parts.vault.decrypt(ciphertext) if ciphertext is not None else None

    def _resolve(
        self, activity: Activity, job: Job, submission: Submission, token: str | None
    ) -> tuple[str, Resolution]:
        """The job's pinned resolution; made now where it has none yet."""
        parts = self._parts
        with parts.database.read() as tx:
            known = resolutions.find_resolution(tx, job.resolution_id)
        if known is not None and job.resolution_id is not None:
            return job.resolution_id, known
        resolution = resolve_request(
            parts.database, parts.hub, submission.request, token, versions=parts.versions
        )
        activity.check()
        with parts.database.write() as tx:
            return resolutions.put_resolution(tx, resolution), resolution

    def _place(
        self,
        activity: Activity,
        job: Job,
        submission: Submission,
        resolution_id: str,
        resolution: Resolution,
    ) -> bool:
        """Choose the node; False where it is another one, which then has the job."""
        parts = self._parts
        if job.target_node == parts.node:
            return True
        disk_only = submission.reached_tier is Tier.DISK
        need = Need(
            size_bytes=resolution.size_bytes,
            memory_bytes=None if disk_only else resolution.memory.total_bytes,
            nodes=submission.node_names() or (),
        )
        with parts.database.write() as tx:
            tx.serialize("placement")
            chosen = plan_placement(need, list_views(tx, resolution), get_rates(tx))
            why = {
                "why": chosen.reason,
                "instead_of": [f"{other.node}: {other.reason}" for other in chosen.alternatives],
            }
            if chosen.node == parts.node:
                claims.move(
                    tx,
                    activity.claim,
                    JobState.PLACED,
                    event=why,
                    node=parts.node,
                    target_node=parts.node,
                    resolution_id=resolution_id,
                    bytes_total=resolution.size_bytes,
                )
            else:
                claims.hand_over(
                    tx, activity.claim, chosen.node, event=why, resolution_id=resolution_id,
                    bytes_total=resolution.size_bytes,
                )  # fmt: skip
        parts.wakeups.publish(job.id)
        if chosen.node != parts.node:
            self._ring(chosen.node)
        return chosen.node == parts.node

    def _ring(self, node: str) -> None:
        try:
            self._parts.doorbell.ring(node)
        except StoreUnavailable:
            log.info("A bell was not heard.", action="bell-lost", node=node)

    def _load(
        self, activity: Activity, submission: Submission, resolution_id: str, resolution: Resolution
    ) -> Warmed:
        keep_alive = submission.keep_alive or self._parts.keep_alive
        pinned = keep_alive == PINNED
        order = Order(
            job_id=activity.claim.job_id,
            resolution_id=resolution_id,
            resolution=resolution,
            rank=submission.priority.rank,
            keep_alive_seconds=0.0 if pinned else parse_duration(keep_alive),
            pinned=pinned,
            store=self._parts.store,
        )
        answer = self._parts.residency.want(order)
        try:
            return _wait(answer, activity)
        except Integrity:
            self._forget_copy(resolution)
            raise
        finally:
            if not answer.done():
                self._parts.residency.withdraw(order.job_id)

    def _forget_copy(self, resolution: Resolution) -> None:
        """What failed the audit is verified anew, and fetched anew where need be, next time."""
        with self._parts.database.write() as tx:
            copies.forget_completeness(
                tx,
                store=self._parts.store,
                repository=resolution.repository,
                commit=resolution.commit,
            )

    def _own_receipt(self, warmed: Warmed, resolution_id: str, resolution: Resolution) -> str:
        """The resident's receipt, or for another spelling of the same weights one that says so."""
        if warmed.resolution_id == resolution_id:
            return warmed.receipt_id
        with self._parts.database.write() as tx:
            proof = receipts.find_receipt(tx, warmed.receipt_id)
            if proof is None:
                raise HostLost(f"resident {warmed.resident_id} has no receipt")
            own = proof.model_copy(update={"asked": resolution.asked})
            return receipts.insert_receipt(tx, resolution_id, own)

    def _move(self, activity: Activity, state: JobState, **changes: Any) -> None:
        activity.check()
        with self._parts.database.write() as tx:
            claims.move(tx, activity.claim, state, **changes)
        self._parts.wakeups.publish(activity.claim.job_id)

    def _succeed(
        self,
        activity: Activity,
        *,
        receipt: Receipt | None = None,
        resolution_id: str = "",
        **changes: Any,
    ) -> None:
        activity.check()
        with self._parts.database.write() as tx:
            if receipt is not None:
                changes["receipt_id"] = receipts.insert_receipt(tx, resolution_id, receipt)
            claims.finish(tx, activity.claim, JobState.SUCCEEDED, **changes)


def _wait(answer: "Future[Warmed]", activity: Activity) -> Warmed:
    """The answer, while looking whether the job is still wanted."""
    while True:
        try:
            return answer.result(timeout=_LOOK_SECONDS)
        except NotYet:
            activity.check()


def backoff_seconds(attempt: int, retry_after_seconds: float | None) -> float:
    """Exponential with full jitter; never sooner than the other side asked for."""
    longest = min(_LONGEST_BACKOFF_SECONDS, _FIRST_BACKOFF_SECONDS * 2.0 ** (attempt - 1))
    return max(random.uniform(0.0, longest), retry_after_seconds or 0.0)
