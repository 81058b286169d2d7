"""One fetch of one snapshot for one job: what is to come, from where, and what is kept of it."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from warmrack_store.brokers.wakeups import Wakeups
from warmrack_store.cache.layout import RepositoryLayout
from warmrack_store.cache.sharing import link_known_blobs
from warmrack_store.cache.verified import VerifiedFile
from warmrack_store.database import Database
from warmrack_store.ledgers import claims, copies, egress, rates, resolutions, tensors
from warmrack_store.ledgers.copies import Copy
from warmrack_store.ledgers.jobs import Job
from warmrack_store.ledgers.pool import HUB_RATE
from warmrack_store.refs import is_commit
from warmrack_store.requests import Network
from warmrack_store.resolution import Resolution
from warmrack_store.settings import Settings
from warmrack_workers.activity import Activity
from warmrack_workers.fetch.chain_place import ChainPlace, Fetching
from warmrack_workers.fetch.exchange import Exchange, PeerAccess
from warmrack_workers.fetch.fetcher import FetchedSnapshot, FetchPlan, fetch_snapshot
from warmrack_workers.fetch.hub_source import HubSource
from warmrack_workers.fetch.line import Line
from warmrack_workers.fetch.offline_source import OfflineSource
from warmrack_workers.fetch.pieces_known import PieceExchange
from warmrack_workers.fetch.sources import Source
from warmrack_workers.fetch.tally import FetchProgress, Tally
from warmrack_workers.fetch.xet_source import XetHub, XetSource
from warmrack_workers.selections import note_root
from warmrack_workers.store_budget import StoreBudget

_REPORT_SECONDS = 0.5
_WORTH_A_RATE_BYTES = 1 << 20
"""A fetch shorter than this measures latency, not the line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchParts:
    """What all fetches of a node work with."""

    settings: Settings
    database: Database
    wakeups: Wakeups
    budget: StoreBudget
    node: str
    store: str
    line: Line
    peers: PeerAccess | None
    """None: a node that meets no others."""


class SnapshotFetch:
    """Runs under the snapshot's lease, once."""

    def __init__(
        self,
        parts: FetchParts,
        *,
        activity: Activity,
        job: Job,
        resolution: Resolution,
        token: str | None,
    ) -> None:
        self._parts = parts
        self._database = parts.database
        self._activity = activity
        self._job = job
        self._resolution = resolution
        self._token = token

    def run(self) -> FetchedSnapshot:
        """Raises what the activity was stopped for, and the fetch's own errors."""
        plan = self._plan()
        tally = plan.make_tally()
        started = time.monotonic()
        with (
            self._parts.budget.reserved(self._activity, plan.layout, plan.blobs),
            self._source() as source,
            self._met(plan, source.name) as (exchange, pieces),
        ):
            report = _Report(self._report, exchange)
            try:
                fetched = fetch_snapshot(
                    plan,
                    source,
                    on_progress=report,
                    stop=self._activity.stop,
                    tally=tally,
                    line=self._parts.line,
                    rank=-self._job.get_submission().priority.rank,
                    peers=exchange.peers if exchange is not None else (),
                    exchange=pieces,
                )
            except Exception:
                self._activity.check()  # a stop of ours says more than the fetch's own word for it
                raise
            finally:
                peer_bytes = exchange.peer_bytes if exchange is not None else 0
                self._record_egress(source.received_bytes, peer_bytes, tally)
            self._complete(fetched, time.monotonic() - started)
        return fetched

    @contextmanager
    def _source(self) -> Iterator[Source]:
        resolution, settings = self._resolution, self._parts.settings
        if self._is_offline:
            yield OfflineSource(repository=resolution.repository, commit=resolution.commit)
            return
        hub = XetHub(
            endpoint=settings.hub_endpoint,
            repository=resolution.repository,
            commit=resolution.commit,
            token=self._token,
            allowed_hosts=settings.hub_endpoints_allowed,
        )
        with HubSource(
            endpoint=hub.endpoint,
            repository=hub.repository,
            commit=hub.commit,
            token=hub.token,
            allowed_hosts=hub.allowed_hosts,
        ) as plain:
            if not settings.xet:
                yield plain
                return
            with XetSource(hub, plain) as source:
                yield source

    @property
    def _is_offline(self) -> bool:
        return self._job.get_submission().request.network is Network.OFFLINE

    @contextmanager
    def _met(
        self, plan: FetchPlan, hub: str
    ) -> Iterator[tuple[Exchange | None, PieceExchange | None]]:
        """Other nodes, while the fetch runs; until what it brought is on record."""
        parts = self._parts
        if parts.peers is None:
            yield None, None
            return
        fetching = Fetching(
            repository=plan.repository,
            commit=plan.commit,
            digests=frozenset(file.digest for file in plan.blobs),
            holder=f"{self._activity.claim.holder}:{self._job.id}",
            node=parts.node,
            store=parts.store,
            ttl_seconds=parts.settings.lease_seconds,
        )
        place = ChainPlace(self._database, fetching, hub=hub, needs_claim=not self._is_offline)
        exchange = Exchange(self._database, parts.peers, fetching, place, self._job.id)
        with exchange.entered() as pieces:
            yield exchange, pieces

    def _plan(self) -> FetchPlan:
        resolution = self._resolution
        with self._database.read() as tx:
            copy = copies.find_copy_of(tx, self._parts.store, resolution)
            facts = resolutions.find_facts(tx, resolution.repository, resolution.commit)
            on_record = {
                file.digest
                for file in resolution.files
                if file.path in resolution.weights and tensors.list_leaves(tx, file.digest)
            }
            held = copies.list_complete(tx, self._parts.store) if resolution.public else ()
        layout = self._layout(resolution.repository)
        shared = link_known_blobs(layout, resolution.files, self._list_places(held))
        ref = resolution.ref_asked
        return FetchPlan(
            cache_dir=self._parts.settings.cache_dir,
            repository=resolution.repository,
            commit=resolution.commit,
            ref=None if is_commit(ref) else ref or "main",
            files=resolution.files,
            tree=facts.files if facts is not None else (),
            public=resolution.public,
            known=(*(copy.verified if copy is not None else ()), *shared),
            leaves_known=frozenset(on_record),
        )

    def _layout(self, repository: str) -> RepositoryLayout:
        """Where it lies for this node; another one may see the same store at another path."""
        return RepositoryLayout(cache_dir=self._parts.settings.cache_dir, repository=repository)

    def _list_places(self, held: Sequence[Copy]) -> Iterator[tuple[Path, VerifiedFile]]:
        for copy in held:
            folder = self._layout(copy.repository).snapshot(copy.commit)
            for file in copy.verified:
                yield folder / file.path, file

    def _complete(self, fetched: FetchedSnapshot, seconds: float) -> None:
        resolution = self._resolution
        with self._database.write() as tx:
            for digest, found in fetched.leaves.items():
                tensors.put_leaves(tx, digest, found)
            note_root(
                tx,
                resolution.repository,
                resolution.commit,
                [file.digest for file in resolution.files if file.path in resolution.weights],
            )
            copies.put_copy(
                tx,
                store=self._parts.store,
                repository=resolution.repository,
                commit=resolution.commit,
                selection=resolution.selection,
                complete=True,
                bytes_done=resolution.size_bytes,
                bytes_total=resolution.size_bytes,
                files=[asdict(file) for file in fetched.files],
            )
            if fetched.hub_bytes >= _WORTH_A_RATE_BYTES:
                rates.record_rate(
                    tx, self._parts.node, HUB_RATE, fetched.hub_bytes / max(seconds, 1e-3)
                )

    def _record_egress(self, hub_bytes: int, peer_bytes: int, tally: Tally) -> None:
        with self._database.write() as tx:
            egress.record_egress(
                tx,
                job_id=self._job.id,
                tenant=self._job.tenant,
                node=self._parts.node,
                repository=self._resolution.repository,
                commit=self._resolution.commit,
                hub_bytes=hub_bytes,
                peer_bytes=peer_bytes,
                local_bytes=tally.local_bytes + tally.resumed_bytes,
            )

    def _report(self, progress: FetchProgress, rate: float | None) -> None:
        """Show how far it is, on its job and on its copy. Raises LostClaim."""
        resolution = self._resolution
        with self._database.write() as tx:
            claims.report_progress(
                tx,
                self._activity.claim,
                bytes_done=progress.bytes_done,
                bytes_total=progress.bytes_total,
                rate=rate,
            )
            copies.put_copy(
                tx,
                store=self._parts.store,
                repository=resolution.repository,
                commit=resolution.commit,
                selection=resolution.selection,
                bytes_done=progress.bytes_done,
                bytes_total=progress.bytes_total,
            )
        self._parts.wakeups.publish(self._activity.claim.job_id)


class _Report:
    """Passes progress on at most twice a second, with the rate since the last time."""

    def __init__(
        self, tell: Callable[[FetchProgress, float | None], None], exchange: Exchange | None
    ) -> None:
        self._tell = tell
        self._exchange = exchange
        self._last: tuple[float, int] | None = None

    def __call__(self, progress: FetchProgress) -> None:
        if self._exchange is not None:
            self._exchange.look()
        now = time.monotonic()
        rate = None
        if self._last is not None:
            since, before = self._last
            if now - since < _REPORT_SECONDS:
                return
            rate = max(0.0, (progress.bytes_done - before) / (now - since))
        self._last = (now, progress.bytes_done)
        self._tell(progress, rate)
