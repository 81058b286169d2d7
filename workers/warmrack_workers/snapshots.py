"""A resolution's files in this node's cache: found there, or fetched under the snapshot's claim."""

import structlog

from warmrack_store.brokers.wakeups import Wakeups
from warmrack_store.cache.layout import RepositoryLayout
from warmrack_store.cache.verified import VerifiedFile
from warmrack_store.database import Database
from warmrack_store.hub_budget import SharedBudget
from warmrack_store.ledgers import claims, copies, egress, leases
from warmrack_store.ledgers.copies import Copy
from warmrack_store.ledgers.jobs import Job
from warmrack_store.receipts import Receipt
from warmrack_store.resolution import Resolution
from warmrack_store.settings import Settings
from warmrack_workers.activity import Activity
from warmrack_workers.fetch.exchange import PeerAccess
from warmrack_workers.fetch.line import Line
from warmrack_workers.file_receipts import receipt_of
from warmrack_workers.snapshot_fetch import FetchParts, SnapshotFetch
from warmrack_workers.store_budget import StoreBudget

log = structlog.get_logger()
_LOOK_SECONDS = 0.3


class Snapshots:
    """One store's snapshots; single flight per snapshot by a lease in SQL."""

    def __init__(
        self,
        *,
        settings: Settings,
        database: Database,
        wakeups: Wakeups,
        node: str,
        store: str,
        peers: PeerAccess | None = None,
    ) -> None:
        self._settings = settings
        self._database = database
        self._node = node
        self._store = store
        self._parts = FetchParts(
            settings=settings,
            database=database,
            wakeups=wakeups,
            budget=StoreBudget(settings=settings, database=database, node=node, store=store),
            node=node,
            store=store,
            line=Line(
                connections=settings.download_connections,
                rate=settings.download_rate,
                budget=SharedBudget(database, settings.hub_endpoint),
            ),
            peers=peers,
        )

    def ensure(
        self, activity: Activity, job: Job, resolution: Resolution, token: str | None
    ) -> Receipt:
        """Return once every file is on disk and verified; the receipt has level `files`."""
        files: list[VerifiedFile] = []
        for part in resolution.parts:
            files += self._ensure_part(activity, job, part, token)
        self._show_done(activity, resolution)
        return receipt_of(resolution, files)

    def _ensure_part(
        self, activity: Activity, job: Job, resolution: Resolution, token: str | None
    ) -> tuple[VerifiedFile, ...]:
        waited = False
        while True:
            activity.check()
            copy = self._find_whole(resolution)
            if copy is not None:
                self._record_found(job, resolution, waited=waited)
                return copy.verified
            lease = self._acquire(activity, resolution)
            if lease is not None:
                try:
                    fetch = SnapshotFetch(
                        self._parts,
                        activity=activity,
                        job=job,
                        resolution=resolution,
                        token=token,
                    )
                    return fetch.run().files
                finally:
                    activity.lease = None
                    with self._database.write() as tx:
                        leases.release(tx, lease)
            self._mirror(activity, resolution)
            waited = True
            activity.stop.wait(_LOOK_SECONDS)

    def _find_whole(self, resolution: Resolution) -> Copy | None:
        """The copy, if it is complete and its files are what they were when they were verified."""
        with self._database.read() as tx:
            copy = copies.find_copy_of(tx, self._store, resolution)
        if copy is None or not copy.complete:
            return None
        layout = RepositoryLayout(cache_dir=self._settings.cache_dir, repository=copy.repository)
        folder = layout.snapshot(copy.commit)
        if not all(file.is_unchanged(folder / file.path) for file in copy.verified):
            log.warning(
                "A copy has changed on disk and is verified anew.",
                action="copy-changed",
                repository=resolution.repository,
            )
            with self._database.write() as tx:
                copies.forget_completeness(
                    tx,
                    store=self._store,
                    repository=resolution.repository,
                    commit=resolution.commit,
                )
            return None
        with self._database.write() as tx:
            copies.touch(tx, copy)
        return copy

    def _acquire(self, activity: Activity, resolution: Resolution) -> leases.Lease | None:
        subject = copies.subject(self._store, resolution.repository, resolution.commit)
        with self._database.write() as tx:
            activity.lease = leases.acquire(
                tx,
                subject=subject,
                kind="snapshot",
                holder=f"{activity.claim.holder}:{activity.claim.job_id}",
                ttl_seconds=self._settings.lease_seconds,
            )
        return activity.lease

    def _mirror(self, activity: Activity, resolution: Resolution) -> None:
        """Show the progress of whoever fetches it."""
        with self._database.write() as tx:
            copy = copies.find_copy_of(tx, self._store, resolution)
            claims.report_progress(
                tx,
                activity.claim,
                bytes_done=copy.bytes_done if copy else 0,
                bytes_total=resolution.size_bytes,
                waiting_for="another job fetches it",
            )

    def _show_done(self, activity: Activity, resolution: Resolution) -> None:
        total = resolution.size_bytes
        with self._database.write() as tx:
            claims.report_progress(tx, activity.claim, bytes_done=total, bytes_total=total)

    def _record_found(self, job: Job, resolution: Resolution, *, waited: bool) -> None:
        """Files that were whole: from before, or brought by whoever this job waited for."""
        repository, commit = resolution.repository, resolution.commit
        size_bytes = sum(file.size for file in resolution.files)
        with self._database.write() as tx:
            if egress.has_egress(
                tx, job_id=job.id, node=self._node, repository=repository, commit=commit
            ):
                return  # an attempt before this one has it in the ledger
            egress.record_egress(
                tx,
                job_id=job.id,
                tenant=job.tenant,
                node=self._node,
                repository=repository,
                commit=commit,
                local_bytes=0 if waited else size_bytes,
                deduplicated_bytes=size_bytes if waited else 0,
            )
