"""A resolution's files in this node's cache: found there, or fetched under the snapshot's claim."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import structlog

from warmrack_store.brokers.wakeups import Wakeups
from warmrack_store.cache.layout import RepositoryLayout
from warmrack_store.cache.sharing import link_known_blobs
from warmrack_store.cache.verified import VerifiedFile
from warmrack_store.database import Database, Transaction
from warmrack_store.facts import FileFact
from warmrack_store.ledgers import claims, copies, egress, leases, rates, resolutions, tensors
from warmrack_store.ledgers.copies import Copy
from warmrack_store.ledgers.jobs import Job
from warmrack_store.ledgers.pool import HUB_RATE
from warmrack_store.receipts import Check, Level, Receipt, ServedFile, check_name, name_served
from warmrack_store.refs import is_commit
from warmrack_store.requests import Network
from warmrack_store.resolution import Resolution
from warmrack_store.settings import Settings
from warmrack_store.tensors import root_digest
from warmrack_workers.activity import Activity
from warmrack_workers.fetch.fetcher import FetchedSnapshot, FetchPlan, fetch_snapshot
from warmrack_workers.fetch.hub_source import HubSource
from warmrack_workers.fetch.offline_source import OfflineSource
from warmrack_workers.fetch.tally import FetchProgress, Tally
from warmrack_workers.store_budget import StoreBudget

log = structlog.get_logger()
_REPORT_SECONDS = 0.5
_LOOK_SECONDS = 0.3
_WORTH_A_RATE_BYTES = 1 << 20
"""A fetch shorter than this measures latency, not the line."""


class Snapshots:
    """One store's snapshots; single flight per snapshot by a lease in SQL."""

    def __init__(
        self, *, settings: Settings, database: Database, wakeups: Wakeups, node: str, store: str
    ) -> None:
        self._settings = settings
        self._database = database
        self._wakeups = wakeups
        self._node = node
        self._store = store
        self._budget = StoreBudget(settings=settings, database=database, node=node, store=store)

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
                return _verified(copy)
            lease = self._acquire(activity, resolution)
            if lease is not None:
                try:
                    return self._fetch(activity, job, resolution, token).files
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
            copy = self._find_copy(tx, resolution)
        if copy is None or not copy.complete:
            return None
        folder = self._layout(copy.repository).snapshot(copy.commit)
        if not all(file.is_unchanged(folder / file.path) for file in _verified(copy)):
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

    def _find_copy(self, tx: Transaction, resolution: Resolution) -> Copy | None:
        return copies.find_copy(
            tx,
            store=self._store,
            repository=resolution.repository,
            commit=resolution.commit,
            selection=resolution.selection,
        )

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
            copy = self._find_copy(tx, resolution)
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

    def _fetch(
        self, activity: Activity, job: Job, resolution: Resolution, token: str | None
    ) -> FetchedSnapshot:
        plan = self._plan(resolution)
        report = _Report(self, activity, resolution)
        tally = plan.make_tally()
        started = time.monotonic()
        with (
            self._budget.reserved(activity, plan.layout, plan.blobs),
            self._source(job, resolution, token) as source,
        ):
            try:
                fetched = fetch_snapshot(
                    plan, source, on_progress=report, stop=activity.stop, tally=tally
                )
            except Exception:
                activity.check()  # a stop of ours says more than the fetch's own word for it
                raise
            finally:
                self._record_egress(job, resolution, source.received_bytes, tally)
        self._complete(resolution, fetched, time.monotonic() - started)
        return fetched

    def _source(
        self, job: Job, resolution: Resolution, token: str | None
    ) -> HubSource | OfflineSource:
        if job.get_submission().request.network is Network.OFFLINE:
            return OfflineSource(repository=resolution.repository, commit=resolution.commit)
        return HubSource(
            endpoint=self._settings.hub_endpoint,
            repository=resolution.repository,
            commit=resolution.commit,
            token=token,
            allowed_hosts=self._settings.hub_endpoints_allowed,
        )

    def _plan(self, resolution: Resolution) -> FetchPlan:
        with self._database.read() as tx:
            copy = self._find_copy(tx, resolution)
            facts = resolutions.find_facts(tx, resolution.repository, resolution.commit)
            on_record = {
                file.digest
                for file in resolution.files
                if file.path in resolution.weights and tensors.list_leaves(tx, file.digest)
            }
            held = copies.list_complete(tx, self._store) if resolution.public else ()
        layout = self._layout(resolution.repository)
        shared = link_known_blobs(layout, resolution.files, self._list_places(held))
        ref = resolution.ref_asked
        return FetchPlan(
            cache_dir=self._settings.cache_dir,
            repository=resolution.repository,
            commit=resolution.commit,
            ref=None if is_commit(ref) else ref or "main",
            files=resolution.files,
            tree=facts.files if facts is not None else (),
            public=resolution.public,
            known=(*(_verified(copy) if copy is not None else ()), *shared),
            leaves_known=frozenset(on_record),
        )

    def _layout(self, repository: str) -> RepositoryLayout:
        """Where it lies for this node; another one may see the same store at another path."""
        return RepositoryLayout(cache_dir=self._settings.cache_dir, repository=repository)

    def _list_places(self, held: Sequence[Copy]) -> Iterator[tuple[Path, VerifiedFile]]:
        for copy in held:
            folder = self._layout(copy.repository).snapshot(copy.commit)
            for file in _verified(copy):
                yield folder / file.path, file

    def _complete(self, resolution: Resolution, fetched: FetchedSnapshot, seconds: float) -> None:
        with self._database.write() as tx:
            for digest, found in fetched.leaves.items():
                tensors.put_leaves(tx, digest, found)
            self._note_root(tx, resolution)
            copies.put_copy(
                tx,
                store=self._store,
                repository=resolution.repository,
                commit=resolution.commit,
                selection=resolution.selection,
                complete=True,
                bytes_done=resolution.size_bytes,
                bytes_total=resolution.size_bytes,
                files=[asdict(file) for file in fetched.files],
            )
            if fetched.hub_bytes >= _WORTH_A_RATE_BYTES:
                rates.record_rate(tx, self._node, HUB_RATE, fetched.hub_bytes / max(seconds, 1e-3))

    def _note_root(self, tx: Transaction, resolution: Resolution) -> None:
        digests = [file.digest for file in resolution.files if file.path in resolution.weights]
        leaves = {
            leaf.name: leaf.leaf for digest in digests for leaf in tensors.list_leaves(tx, digest)
        }
        if leaves:
            root = root_digest(leaves)
            resolutions.put_root(tx, resolution.repository, resolution.commit, root)

    def _record_egress(
        self, job: Job, resolution: Resolution, hub_bytes: int, tally: Tally
    ) -> None:
        with self._database.write() as tx:
            egress.record_egress(
                tx,
                job_id=job.id,
                tenant=job.tenant,
                node=self._node,
                repository=resolution.repository,
                commit=resolution.commit,
                hub_bytes=hub_bytes,
                local_bytes=tally.local_bytes + tally.resumed_bytes,
            )

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

    def report(
        self,
        activity: Activity,
        resolution: Resolution,
        progress: FetchProgress,
        rate: float | None,
    ) -> None:
        """Show how far a fetch is, on its job and on its copy. Raises LostClaim."""
        with self._database.write() as tx:
            claims.report_progress(
                tx,
                activity.claim,
                bytes_done=progress.bytes_done,
                bytes_total=progress.bytes_total,
                rate=rate,
            )
            copies.put_copy(
                tx,
                store=self._store,
                repository=resolution.repository,
                commit=resolution.commit,
                selection=resolution.selection,
                bytes_done=progress.bytes_done,
                bytes_total=progress.bytes_total,
            )
        self._wakeups.publish(activity.claim.job_id)


class _Report:
    """Passes progress on at most twice a second, with the rate since the last time."""

    def __init__(self, snapshots: Snapshots, activity: Activity, resolution: Resolution) -> None:
        self._snapshots = snapshots
        self._activity = activity
        self._resolution = resolution
        self._last: tuple[float, int] | None = None

    def __call__(self, progress: FetchProgress) -> None:
        now = time.monotonic()
        rate = None
        if self._last is not None:
            since, before = self._last
            if now - since < _REPORT_SECONDS:
                return
            rate = max(0.0, (progress.bytes_done - before) / (now - since))
        self._last = (now, progress.bytes_done)
        self._snapshots.report(self._activity, self._resolution, progress, rate)


def _verified(copy: Copy) -> tuple[VerifiedFile, ...]:
    return tuple(VerifiedFile(**file) for file in copy.files)


def receipt_of(resolution: Resolution, files: Sequence[VerifiedFile]) -> Receipt:
    """The proof at level `files`: the name and every file's digest."""
    wanted: dict[str, FileFact] = {
        file.path: file for part in resolution.parts for file in part.files
    }
    have = {file.path: file.digest for file in files}
    wrong = [path for path, file in wanted.items() if have.get(path) != file.digest]
    return Receipt(
        level=Level.FILES,
        asked=resolution.asked,
        served=name_served(resolution),
        checks={
            "E1": check_name(resolution),
            "E2": Check(
                passed=not wrong,
                detail=f"{len(wanted)} files have the Hub's digests"
                if not wrong
                else f"{wrong[0]} has not the Hub's digest",
            ),
        },
        files=tuple(
            ServedFile(path=file.path, size=file.size_bytes, sha256=file.sha256) for file in files
        ),
        tensor_root=None,
        identical=resolution.same_values and not wrong,
    )
