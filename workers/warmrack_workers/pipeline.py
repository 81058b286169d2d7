"""The way of one job: resolve, place, fetch, load, run, each step taken up where it stands."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from warmrack_store.brokers.doorbell import Doorbell
from warmrack_store.brokers.wakeups import Wakeups
from warmrack_store.database import Database
from warmrack_store.errors import StoreUnavailable
from warmrack_store.hub import HubFacts
from warmrack_store.ledgers import claims, receipts, resolutions, secrets
from warmrack_store.ledgers.claims import Claim
from warmrack_store.ledgers.jobs import Job
from warmrack_store.ledgers.pool import get_rates, list_views
from warmrack_store.placement import Need, plan_placement
from warmrack_store.receipts import Receipt
from warmrack_store.resolution import Resolution
from warmrack_store.resolving import resolve_request
from warmrack_store.rights import Rights
from warmrack_store.states import JobKind, JobState, Tier
from warmrack_store.submissions import Submission
from warmrack_store.vault import Vault
from warmrack_workers.activity import Activities, Activity
from warmrack_workers.endings import Endings
from warmrack_workers.loads import Loads
from warmrack_workers.skeleton import learn_skeleton
from warmrack_workers.snapshots import Snapshots
from warmrack_workers.task_runs import run_task

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the pipeline works with."""

    node: str
    database: Database
    hub: HubFacts
    vault: Vault
    rights: Rights
    doorbell: Doorbell
    wakeups: Wakeups
    loads: Loads
    snapshots: Snapshots
    activities: Activities
    versions: dict[str, str]


class Pipeline:
    """Runs claimed jobs, each in the thread that claimed it."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._endings = Endings(parts.database)

    def run(self, claim: Claim, job: Job) -> None:
        """Work on a job until it has ended, moved to another node, or gone back to the queue."""
        activity = Activity(claim=claim)
        self._parts.activities.add(activity)
        try:
            self._endings.conclude(activity, job, lambda: self._advance(activity, job))
        finally:
            self._parts.activities.remove(activity)
            self._parts.wakeups.publish(job.id)

    def _advance(self, activity: Activity, job: Job) -> None:
        submission = job.get_submission()
        token = self._token(job)
        resolution_id, resolution = self._resolve(activity, job, submission, token)
        if not self._place(activity, job, submission, resolution_id, resolution):
            return
        self._parts.rights.check_parts(resolution, token)
        self._move(activity, JobState.FETCHING)
        receipt = self._parts.snapshots.ensure(activity, job, resolution, token)
        if submission.reached_tier is Tier.DISK:
            self._succeed(activity, receipt=receipt, resolution_id=resolution_id)
            return
        self._parts.rights.check_parts(resolution, token)
        self._move(activity, JobState.LOADING)
        if submission.kind is JobKind.TASK:
            self._run_task(activity, submission, resolution_id, resolution)
            return
        loads, loaded = self._parts.loads, None
        while loaded is None or not loads.finish(activity, loaded):
            loaded = loads.load(activity, resolution_id, resolution)

    def _run_task(
        self, activity: Activity, submission: Submission, resolution_id: str, resolution: Resolution
    ) -> None:
        loaded = self._parts.loads.load(activity, resolution_id, resolution)
        found = {"resident_id": loaded.resident_id, "receipt_id": loaded.receipt_id}
        self._move(activity, JobState.RUNNING, **found)
        result = run_task(activity, loaded.socket, str(submission.task), submission.payload or {})
        self._succeed(activity, result={"receipt": loaded.receipt_id, **result})

    def _token(self, job: Job) -> str | None:
        with self._parts.database.read() as tx:
            ciphertext = secrets.find_ciphertext(tx, job.secret_id)
        return self._parts.vault.decrypt(ciphertext) if ciphertext is not None else None

    def _resolve_anew(self, submission: Submission, token: str | None) -> Resolution:
        parts = self._parts
        return resolve_request(
            parts.database,
            parts.hub,
            submission.request,
            token,
            versions=parts.versions,
            rights=parts.rights,
        )

    def _find_config(self, resolution: Resolution) -> Mapping[str, object]:
        with self._parts.database.read() as tx:
            facts = resolutions.find_facts(tx, resolution.repository, resolution.commit)
        return (facts and facts.config) or {}

    def _resolve(
        self, activity: Activity, job: Job, submission: Submission, token: str | None
    ) -> tuple[str, Resolution]:
        """The job's pinned resolution; made now where it has none yet."""
        parts = self._parts
        with parts.database.read() as tx:
            known = resolutions.find_resolution(tx, job.resolution_id)
        if known is not None and job.resolution_id is not None:
            return job.resolution_id, known
        resolution = self._resolve_anew(submission, token)
        if resolution.memory.notes and resolution.architecture is not None:
            # The rule by names was not sure: the layers are counted once, on no device.
            config = self._find_config(resolution)
            if learn_skeleton(parts.database, resolution.architecture, config) is not None:
                resolution = self._resolve_anew(submission, token)
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
