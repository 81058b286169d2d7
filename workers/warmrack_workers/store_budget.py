"""The room on a store's disk: promised to fetches, and made by evictions. One at a time a store."""

import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from warmrack_store.cache.layout import RepositoryLayout
from warmrack_store.cache.removal import remove_empty_repository, remove_snapshot
from warmrack_store.cache_budget import (
    EvictionPlan,
    Limits,
    SnapshotView,
    Victim,
    count_room,
    plan_evictions,
    plan_low_watermark,
    plan_room,
    tell_freed,
)
from warmrack_store.cache_evictions import Eviction, EvictionQuestion, Gone, Kept
from warmrack_store.database import Database
from warmrack_store.durations import format_duration
from warmrack_store.errors import BadRequest, NotFound, Transient
from warmrack_store.facts import FileFact
from warmrack_store.ledgers import copies, leases, stores
from warmrack_store.ledgers.holders import list_holds
from warmrack_store.ledgers.leases import Lease
from warmrack_store.ledgers.reservations import end_reservation, put_reservation
from warmrack_store.settings import Settings
from warmrack_workers.activity import Activity
from warmrack_workers.store_looks import StoreLook, look_at_store

log = structlog.get_logger()
_LEASE_SECONDS = 60.0
"""For one walk over the cache, or the deletion of one snapshot; renewed between them."""
_LOOK_SECONDS = 0.1
_PATIENCE_SECONDS = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreBudget:
    """One node's hand on its store; other nodes on the same folder take turns by a lease in SQL."""

    settings: Settings
    database: Database
    node: str
    store: str

    @property
    def limits(self) -> Limits:
        return Limits(
            quota_bytes=self.settings.cache_quota,
            high_share=self.settings.cache_high_watermark,
            low_share=self.settings.cache_low_watermark,
        )

    @contextmanager
    def reserved(
        self, activity: Activity, layout: RepositoryLayout, files: Iterable[FileFact]
    ) -> Iterator[None]:
        """Within, there is room for these files, which nobody else is promised.

        Runs under the snapshot's lease, with which the promise ends too. Victims go first where
        the quota asks for it. Raises DiskFull where there is no room, and deletes nothing then.
        """
        lease = activity.lease
        blobs = {file.digest: file.size for file in files if not layout.blob(file.digest).exists()}
        if lease is None or not blobs:
            yield
            return
        with self.taken(activity.check) as turn:
            look = self.look()
            self._apply(self._plan_room(look, layout, blobs), look, turn)
            with self.database.write() as tx:
                if not leases.renew(tx, turn, _LEASE_SECONDS):
                    raise Transient(f"another node took the turn on store {self.store}")
                put_reservation(
                    tx, lease, store=self.store, node=self.node, folder=layout.folder_name,
                    blobs=blobs,
                )  # fmt: skip
        try:
            yield
        finally:
            with self.database.write() as tx:
                end_reservation(tx, lease)

    def _plan_room(
        self, look: StoreLook, layout: RepositoryLayout, blobs: Mapping[str, int]
    ) -> EvictionPlan:
        folder, inventory = layout.folder_name, look.inventory
        here = sum(
            inventory.sizes[inventory.parts[folder, digest]]
            for digest in blobs
            if (folder, digest) in inventory.parts
        )
        need_bytes = sum(blobs.values())
        return plan_room(
            need_bytes - here,
            max(0, need_bytes - here),
            look.disk,
            self.limits,
            look.snapshots,
            look.files,
            policy=self.settings.eviction,
            now=look.now,
            node=self.node,
        )

    @contextmanager
    def taken(self, check: Callable[[], None]) -> Iterator[Lease]:
        """The turn on this store's disk; `check` may raise to end the wait.

        Raises Transient where another node does not end its turn.
        """
        holder = f"{self.node}:{secrets.token_hex(6)}"
        until = time.monotonic() + _PATIENCE_SECONDS
        while (turn := self.find_turn(holder)) is None:
            check()
            if time.monotonic() >= until:
                raise Transient(f"another node is busy with the disk of store {self.store}")
            threading.Event().wait(_LOOK_SECONDS)
        try:
            yield turn
        finally:
            with self.database.write() as tx:
                leases.release(tx, turn)

    def find_turn(self, holder: str) -> Lease | None:
        with self.database.write() as tx:
            return leases.acquire(
                tx,
                subject=f"disk:{self.store}",
                kind="disk",
                holder=holder,
                ttl_seconds=_LEASE_SECONDS,
            )

    def look(self) -> StoreLook:
        return look_at_store(self.database, self.settings.cache_dir, self.store)

    def evict(self, question: EvictionQuestion) -> Eviction:
        """Plan, then delete unless it is a dry run.

        Raises NotFound for a name that is not here, BadRequest for a question that says nothing.
        """
        with self.taken(lambda: None) as turn:
            look = self.look()
            plan = self._plan(question, look)
            done = plan.victims if question.dry_run else self._apply(plan, look, turn)
            if not question.dry_run:
                self.publish(self.look())
        return Eviction(
            node=self.node,
            store=self.store,
            dry_run=question.dry_run,
            needed_bytes=plan.needed_bytes,
            freed_bytes=sum(victim.freed_bytes for victim in done),
            gone=tuple(self._tell_gone(victim, look.now) for victim in done),
            kept=tuple(_tell_kept(one) for one in plan.kept),
        )

    def _plan(self, question: EvictionQuestion, look: StoreLook) -> EvictionPlan:
        policy, now = self.settings.eviction, look.now
        if question.repository is not None:
            return _plan_named(question.repository, question.commit or "", look)
        if question.to_low_watermark:
            return plan_low_watermark(
                look.disk, self.limits, look.snapshots, look.files, policy=policy, now=now
            )
        if question.bytes_wanted is None:
            raise BadRequest("say how many bytes, or to the low watermark, or which model")
        return plan_evictions(question.bytes_wanted, look.snapshots, look.files, policy, now)

    def evict_over_quota(self, look: StoreLook, turn: Lease) -> tuple[Victim, ...]:
        """Down to the low watermark where the quota's high one is passed."""
        quota = self.limits.quota_bytes
        taken = look.disk.used_bytes + look.disk.promised_bytes
        if quota is None or taken <= quota * self.limits.high_share:
            return ()
        plan = self._plan(EvictionQuestion(to_low_watermark=True), look)
        return self._apply(plan, look, turn)

    def _apply(self, plan: EvictionPlan, look: StoreLook, turn: Lease) -> tuple[Victim, ...]:
        """The victims that went; one that somebody has come to need since stays."""
        gone = []
        for victim in plan.victims:
            with self.database.write() as tx:
                if not leases.renew(tx, turn, _LEASE_SECONDS):
                    break
            name = victim.snapshot.repository, victim.snapshot.commit
            if self.remove(*name, look.owned[name]):
                gone.append(victim)
        return tuple(gone)

    def remove(self, repository: str, commit: str, files: Mapping[str, str]) -> bool:
        """SQL first, then refs, links and blobs; False where somebody needs the snapshot."""
        lease = self._begin(repository, commit)
        if lease is None:
            return False
        layout = RepositoryLayout(cache_dir=self.settings.cache_dir, repository=repository)
        name = {"store": self.store, "repository": repository, "commit": commit}
        try:
            remove_snapshot(layout, commit, files)
            with self.database.write() as tx:
                copies.delete_leaving(tx, **name)
                others = [one for one in list_holds(tx, self.store) if one[0] == repository]
            if others == [(repository, commit)]:
                remove_empty_repository(layout)
        finally:
            with self.database.write() as tx:
                leases.release(tx, lease)
        log.info("A snapshot went.", action="evicted", repository=repository, commit=commit)
        return True

    def _begin(self, repository: str, commit: str) -> Lease | None:
        """The snapshot's claim, with its rows marked; None where it is needed by now."""
        holder = f"{self.node}:evict:{secrets.token_hex(6)}"
        with self.database.write() as tx:
            if list_holds(tx, self.store).get((repository, commit)):
                return None
            subject = copies.subject(self.store, repository, commit)
            lease = leases.acquire(
                tx, subject=subject, kind="snapshot", holder=holder, ttl_seconds=_LEASE_SECONDS
            )
            if lease is not None:
                copies.begin_leaving(tx, store=self.store, repository=repository, commit=commit)
        return lease

    def publish(self, look: StoreLook) -> None:
        """What placement reads: how much may still come here."""
        with self.database.write() as tx:
            stores.put_store(
                tx,
                self.store,
                used_bytes=look.disk.used_bytes,
                room_bytes=count_room(look.disk, self.limits, look.snapshots, look.files),
                free_bytes=look.disk.free_bytes,
                total_bytes=look.disk.total_bytes,
                quota_bytes=self.limits.quota_bytes,
            )

    def _tell_gone(self, victim: Victim, now: float) -> Gone:
        one = victim.snapshot
        idle = max(0.0, now - one.last_used_at)
        return Gone(
            repository=one.repository,
            commit=one.commit,
            freed_bytes=victim.freed_bytes,
            idle_seconds=idle,
            reason=f"nobody needs it; idle for {format_duration(idle)}, used {one.uses} times "
            f"({self.settings.eviction})",
        )


def _plan_named(repository: str, commit: str, look: StoreLook) -> EvictionPlan:
    named = [
        one
        for one in look.snapshots
        if one.repository.lower() == repository.lower() and one.commit.startswith(commit)
    ]
    if not named:
        shown = f"{repository}@{commit}" if commit else repository
        raise NotFound(
            f"warmrack has fetched or adopted no snapshot {shown[:150]!r} here",
            hint="`warmrack cache ls` lists what there is; what others put there is left alone.",
        )
    going = [one for one in named if not one.holds]
    return EvictionPlan(
        needed_bytes=0,
        victims=tell_freed(going, look.files),
        kept=tuple(one for one in named if one.holds),
    )


def _tell_kept(one: SnapshotView) -> Kept:
    return Kept(
        repository=one.repository,
        commit=one.commit,
        size_bytes=one.size_bytes,
        reason="; ".join(one.holds),
    )
