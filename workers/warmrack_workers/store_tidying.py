"""A store's disk and its rows compared, now and then, and what is ours and wrong mended."""

import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import structlog

from warmrack_store.cache.layout import RepositoryLayout
from warmrack_store.cache_budget import count_freed
from warmrack_store.cache_evictions import DiskReport
from warmrack_store.errors import StoreUnavailable, Transient
from warmrack_store.ledgers import copies, leases
from warmrack_store.ledgers.copies import Copy
from warmrack_store.ledgers.leases import Lease
from warmrack_workers.store_budget import StoreBudget
from warmrack_workers.store_looks import StoreLook

log = structlog.get_logger()
_SECONDS = 60.0
_FIRST_SECONDS = 2.0
_STALE_SECONDS = 86400.0
"""A part that nobody wants any more may be of a job that comes back; after a day it is not."""


class StoreTidying:
    """Mends by `tidy`, and by itself once a minute in a thread of its own."""

    def __init__(self, budget: StoreBudget) -> None:
        self._budget = budget
        self._holder = f"{budget.node}:tidy:{secrets.token_hex(6)}"
        self._stop = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._run, name="store-tidying", daemon=True).start()

    def stop(self) -> None:
        self._stop.set()

    def _run(self) -> None:
        pause = _FIRST_SECONDS
        while not self._stop.wait(pause):
            pause = _SECONDS
            try:
                turn = self._budget.find_turn(self._holder)
                if turn is not None:
                    self._tidy(turn)
            except (StoreUnavailable, OSError, Transient) as error:
                log.warning("The disk was not looked at.", action="tidy-wait", error=repr(error))
            except Exception:
                log.exception("Looking at the disk failed.", action="tidy-defect")

    def tidy(self) -> DiskReport:
        """Compare and mend now; what was found and done. Raises Transient where another node of
        the store does not end its turn."""
        with self._budget.taken(lambda: None) as turn:
            return self._compare(turn)

    def _tidy(self, turn: Lease) -> None:
        try:
            self._compare(turn)
        finally:
            with self._budget.database.write() as tx:
                leases.release(tx, turn)

    def _compare(self, turn: Lease) -> DiskReport:
        budget = self._budget
        look = budget.look()
        mended = [*self._end_removals(look), *self._forget(look), *self._drop_parts(look)]
        for victim in budget.evict_over_quota(budget.look(), turn):
            mended.append(f"{victim.snapshot.key} went: the cache is over its quota")
        look = budget.look()
        budget.publish(look)
        for line in mended:
            log.info("The cache was mended.", action="cache-mended", what=line)
        return DiskReport(
            node=budget.node,
            store=budget.store,
            used_bytes=look.disk.used_bytes,
            promised_bytes=look.disk.promised_bytes,
            ours_bytes=count_freed(look.files, {one.key for one in look.snapshots}),
            quota_bytes=budget.limits.quota_bytes,
            free_bytes=look.disk.free_bytes,
            total_bytes=look.disk.total_bytes,
            unlinked_bytes=_count_unlinked(look),
            mended=tuple(mended),
        )

    def _end_removals(self, look: StoreLook) -> Iterator[str]:
        """An eviction that was killed in the middle goes on."""
        for name in {(copy.repository, copy.commit) for copy in look.copies if copy.leaving}:
            if self._budget.remove(*name, look.owned[name]):
                yield f"{name[0]}@{name[1]}: an eviction that broke off was ended"

    def _forget(self, look: StoreLook) -> Iterator[str]:
        """What SQL calls whole and the disk does not have is fetched anew when it is asked for."""
        cache_dir = self._budget.settings.cache_dir
        held = {(one.repository, one.commit) for one in look.snapshots if one.holds}
        for copy in look.copies:
            layout = RepositoryLayout(cache_dir=cache_dir, repository=copy.repository)
            if copy.complete and not _is_there(layout, copy):
                with self._budget.database.write() as tx:
                    copies.forget_completeness(
                        tx,
                        store=copy.store,
                        repository=copy.repository,
                        commit=copy.commit,
                    )
                yield f"{copy.repository}@{copy.commit}: not all of its files are there any more"
            if not layout.folder.exists() and (copy.repository, copy.commit) not in held:
                with self._budget.database.write() as tx:
                    copies.delete_of_repository(tx, copy.store, copy.repository)

    def _drop_parts(self, look: StoreLook) -> Iterator[str]:
        """Parts in our own work folders that no fetch, job or row stands for any more."""
        cache_dir = self._budget.settings.cache_dir
        wanted = {digest for files in look.owned.values() for digest in files.values()}
        for folder, digest in look.inventory.parts:
            work = cache_dir / folder / ".warmrack"
            part = work / f"{digest}.part"
            if digest not in wanted and _is_stale(part):
                part.unlink(missing_ok=True)
                (work / f"{digest}.pieces").unlink(missing_ok=True)
                yield f"{folder}: part {digest[:12]} of a download that nobody wants was removed"


def _is_there(layout: RepositoryLayout, copy: Copy) -> bool:
    folder = layout.snapshot(copy.commit)
    return all(file.is_unchanged(folder / file.path) for file in copy.verified)


def _is_stale(part: Path) -> bool:
    try:
        return time.time() - part.stat().st_mtime > _STALE_SECONDS
    except FileNotFoundError:
        return False


def _count_unlinked(look: StoreLook) -> int:
    return sum(look.inventory.sizes.get(file, 0) for _, _, file in look.inventory.list_unlinked())
