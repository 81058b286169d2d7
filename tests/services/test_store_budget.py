"""Room on a real disk with real rows: promised, made by evictions, and mended."""

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import pytest
from filelock import FileLock
from huggingface_hub import scan_cache_dir

from tests.hub.control import Hub, running_hub
from tests.services.hosts import make_snapshot, make_spec, runtime_folder
from tests.services.stores import Store
from tests.services.submitted import claimed, look, submit
from tests.services.test_fetch_snapshot import list_facts
from warmrack_store.brokers.wakeups import Wakeups
from warmrack_store.cache.layout import RepositoryLayout
from warmrack_store.cache.removal import remove_snapshot
from warmrack_store.cache_evictions import Eviction, EvictionQuestion
from warmrack_store.errors import DiskFull, NotFound
from warmrack_store.ledgers import copies, leases, reservations, resolutions, stores
from warmrack_store.resolution import Resolution
from warmrack_store.settings import Settings
from warmrack_workers.activity import Activity
from warmrack_workers.snapshots import Snapshots
from warmrack_workers.store_budget import StoreBudget
from warmrack_workers.store_tidying import StoreTidying

FIRST, SECOND = "org/first", "org/second"


@dataclass(kw_only=True)
class Rig:
    """A Hub with two repositories of different weights, and one store."""

    hub: Hub
    store: Store
    broker: str
    folder: Path
    resolutions: dict[str, Resolution]
    quota: int | None = None

    @property
    def settings(self) -> Settings:
        return Settings(
            hub_endpoint=self.hub.url, cache_dir=self.folder / "cache", cache_quota=self.quota
        )

    @property
    def budget(self) -> StoreBudget:
        return StoreBudget(
            settings=self.settings, database=self.store.database, node="n0", store="s0"
        )

    def size_bytes(self, name: str) -> int:
        return sum({file.digest: file.size for file in self.resolutions[name].files}.values())

    def layout(self, name: str) -> RepositoryLayout:
        return RepositoryLayout(cache_dir=self.settings.cache_dir, repository=name)

    def fetch(self, name: str) -> None:
        job = submit(self.store.database, f"org/asked-{time.monotonic_ns()}")
        activity = Activity(claim=claimed(self.store.database))
        snapshots = Snapshots(
            settings=self.settings,
            database=self.store.database,
            wakeups=Wakeups(self.broker),
            node="n0",
            store="s0",
        )
        held = look(self.store.database, job.id)
        snapshots.ensure(activity, held, self.resolutions[name], None)

    def list_whole(self) -> set[str]:
        with self.store.database.read() as tx:
            return {copy.repository for copy in copies.list_complete(tx, "s0")}

    def evict(self, **question: object) -> Eviction:
        return self.budget.evict(EvictionQuestion.model_validate(question))

    def take_claim(self, name: str, seconds: float = 60.0) -> leases.Lease:
        subject = copies.subject("s0", name, self.resolutions[name].commit)
        with self.store.database.write() as tx:
            lease = leases.acquire(
                tx, subject=subject, kind="snapshot", holder="somebody", ttl_seconds=seconds
            )
        assert lease is not None
        return lease


@pytest.fixture
def rig(sqlite: Store, broker: str) -> Iterator[Rig]:
    with runtime_folder() as folder, running_hub() as hub:
        made = {}
        for name, kind in ((FIRST, "tiny_llama"), (SECOND, "tiny_qwen")):
            snapshot = make_snapshot(kind, folder / kind)
            hub.add_repository(name, snapshot)
            commit = hub.get_commit(name).sha
            changes = {
                "repository": name,
                "commit": commit,
                "files": list_facts(hub, commit, model=name),
            }
            made[name] = make_spec(snapshot, folder).resolution.model_copy(update=changes)
        with sqlite.database.write() as tx:
            for resolution in made.values():
                resolutions.put_resolution(tx, resolution)
        yield Rig(hub=hub, store=sqlite, broker=broker, folder=folder, resolutions=made)


def test_over_the_quota_the_older_snapshot_goes_whole(rig: Rig) -> None:
    rig.fetch(FIRST)
    rig.quota = rig.size_bytes(FIRST) + rig.size_bytes(SECOND) - 1
    rig.fetch(SECOND)
    assert rig.list_whole() == {SECOND}
    assert not rig.layout(FIRST).folder.exists()
    assert rig.budget.look().disk.used_bytes <= rig.quota
    scanned = scan_cache_dir(rig.settings.cache_dir)
    assert ({repo.repo_id for repo in scanned.repos}, scanned.warnings) == ({SECOND}, [])


def test_a_quota_that_cannot_be_kept_refuses_and_deletes_nothing(rig: Rig) -> None:
    rig.fetch(FIRST)
    rig.take_claim(FIRST)
    rig.quota = rig.size_bytes(FIRST) + 100
    rig.hub.reset_counts()
    with pytest.raises(DiskFull, match=f"node n0.*{FIRST} .claimed by somebody"):
        rig.fetch(SECOND)
    assert rig.list_whole() == {FIRST}
    assert rig.hub.read_counts().sent_bytes() == 0


def test_two_fetches_cannot_be_promised_the_same_room(rig: Rig) -> None:
    rig.quota = rig.size_bytes(FIRST) + rig.size_bytes(SECOND) - 1
    lease = rig.take_claim(FIRST)
    submit(rig.store.database, "org/other")
    activity = Activity(claim=claimed(rig.store.database, holder="h1"), lease=lease)
    promise = rig.budget.reserved(activity, rig.layout(FIRST), rig.resolutions[FIRST].files)
    with promise, pytest.raises(DiskFull):
        rig.fetch(SECOND)
    rig.fetch(SECOND)
    with rig.store.database.read() as tx:
        assert reservations.list_reservations(tx, "s0") == []


def test_the_promise_of_a_dead_fetch_ends_with_its_claim(rig: Rig) -> None:
    lease = rig.take_claim(FIRST, seconds=5.0)
    with rig.store.database.write() as tx:
        reservations.put_reservation(
            tx, lease, store="s0", node="n9", folder="models--org--first", blobs={"a" * 64: 10**15}
        )
    assert rig.budget.look().disk.promised_bytes == 10**15
    rig.store.pass_time(6.0)
    assert rig.budget.look().disk.promised_bytes == 0


def test_a_dry_run_tells_what_would_go_and_why_and_deletes_nothing(rig: Rig) -> None:
    rig.fetch(FIRST)
    found = rig.evict(bytes_wanted=1, dry_run=True)
    (gone,) = found.gone
    assert (gone.repository, gone.freed_bytes) == (FIRST, rig.size_bytes(FIRST))
    assert "nobody needs it" in gone.reason
    assert rig.list_whole() == {FIRST}


def test_what_another_tool_put_into_the_cache_is_never_touched(rig: Rig) -> None:
    rig.fetch(FIRST)
    foreign = rig.layout(FIRST).snapshot(rig.resolutions[FIRST].commit) / "notes.txt"
    foreign.write_text("mine")
    other = rig.settings.cache_dir / "models--org--other" / "snapshots" / ("b" * 40) / "config.json"
    other.parent.mkdir(parents=True)
    other.write_text("{}")
    rig.evict(bytes_wanted=10**12)
    assert (foreign.read_text(), other.read_text()) == ("mine", "{}")
    assert [path.name for path in foreign.parent.iterdir()] == ["notes.txt"]
    with pytest.raises(NotFound):
        rig.evict(repository="org/other")


def test_a_stock_process_that_holds_hubs_lock_keeps_the_snapshot(rig: Rig) -> None:
    rig.fetch(FIRST)
    digest = rig.resolutions[FIRST].files[0].digest
    with FileLock(rig.layout(FIRST).lock(digest)):
        found = rig.evict(bytes_wanted=1)
    assert (found.gone, found.reached) == ((), False)
    assert "huggingface_hub's lock" in found.kept[0].reason
    assert rig.evict(bytes_wanted=1).reached


def test_hard_linked_bytes_stay_until_the_last_repository_goes(rig: Rig) -> None:
    rig.fetch(FIRST)
    twin = rig.resolutions[FIRST].model_copy(update={"repository": "org/twin"})
    rig.resolutions["org/twin"] = twin
    rig.fetch("org/twin")
    assert rig.budget.look().disk.used_bytes < 2 * rig.size_bytes(FIRST)
    (first,) = rig.evict(repository=FIRST).gone
    assert first.freed_bytes < rig.size_bytes(FIRST) // 2
    (last,) = rig.evict(repository="org/twin").gone
    assert last.freed_bytes >= rig.size_bytes(FIRST)
    assert rig.budget.look().disk.used_bytes == 0


def test_an_eviction_that_was_killed_is_ended_by_the_next_look(rig: Rig) -> None:
    rig.fetch(FIRST)
    commit = rig.resolutions[FIRST].commit
    with rig.store.database.write() as tx:
        copies.begin_leaving(tx, store="s0", repository=FIRST, commit=commit)
    shutil.rmtree(rig.layout(FIRST).snapshot(commit))  # refs and links were gone, blobs not yet
    assert rig.list_whole() == set()
    report = StoreTidying(rig.budget).tidy()
    assert "was ended" in report.mended[0]
    assert report.used_bytes == 0
    with rig.store.database.read() as tx:
        assert copies.list_of_store(tx, "s0") == []


def test_a_snapshot_deleted_by_hand_is_no_whole_copy_any_more(rig: Rig) -> None:
    rig.fetch(FIRST)
    shutil.rmtree(rig.layout(FIRST).snapshot(rig.resolutions[FIRST].commit))
    report = StoreTidying(rig.budget).tidy()
    assert report.unlinked_bytes == rig.size_bytes(FIRST)
    assert (rig.list_whole(), report.ours_bytes) == (set(), rig.size_bytes(FIRST))
    rig.hub.reset_counts()
    rig.fetch(FIRST)
    assert rig.list_whole() == {FIRST}
    assert rig.hub.read_counts().sent_bytes() < rig.size_bytes(FIRST) // 2, (
        "the blobs were still there"
    )


def test_a_part_that_nobody_wants_any_more_goes_after_a_day(rig: Rig) -> None:
    rig.fetch(FIRST)
    old, new = (rig.layout(FIRST).part(letter * 64) for letter in "ab")
    for part in (old, new):
        part.write_bytes(b"left")
    os.utime(old, (0, 0))
    StoreTidying(rig.budget).tidy()
    assert (old.exists(), new.exists()) == (False, True)


def test_only_one_node_of_a_shared_folder_has_the_turn(rig: Rig) -> None:
    stopped = Event()

    def check() -> None:
        stopped.set()
        raise TimeoutError

    with rig.budget.taken(lambda: None):
        other = StoreBudget(
            settings=rig.settings, database=rig.store.database, node="n1", store="s0"
        )
        with pytest.raises(TimeoutError), other.taken(check):
            pytest.fail("both have the turn")
    assert stopped.is_set()
    with other.taken(check):
        pass


def test_a_look_tells_placement_how_much_may_still_come(rig: Rig) -> None:
    rig.fetch(FIRST)
    rig.quota = 2 * rig.size_bytes(FIRST)
    StoreTidying(rig.budget).tidy()
    with rig.store.database.read() as tx:
        (state,) = stores.list_stores(tx)
    ref_bytes = len(rig.resolutions[FIRST].commit)
    assert state.used_bytes == rig.size_bytes(FIRST) + ref_bytes
    assert state.room_bytes == rig.quota - ref_bytes


def test_a_blob_that_hub_shares_between_repositories_goes_with_its_last_reference(
    tmp_path: Path,
) -> None:
    digest, xet, commit = "d" * 64, "e" * 64, "c" * 40
    store = tmp_path / "blobs" / xet[:2]
    store.mkdir(parents=True)
    (tmp_path / "blobs" / ".huggingface-shared-blobs").write_text("1\n")
    (store / xet).write_bytes(b"weights")
    names = []
    for name in (FIRST, SECOND):
        layout = RepositoryLayout(cache_dir=tmp_path, repository=name)
        layout.blobs.mkdir(parents=True)
        layout.snapshot(commit).mkdir(parents=True)
        layout.blob(digest).symlink_to(f"../../blobs/{xet[:2]}/{xet}")
        (layout.snapshot(commit) / "w").symlink_to(layout.link_target("w", digest))
        names.append(layout.blob(digest).relative_to(tmp_path).as_posix())
    (store / f"{xet}.refs").write_text("".join(f"{name}\n" for name in names))
    for name, left in ((FIRST, True), (SECOND, False)):
        layout = RepositoryLayout(cache_dir=tmp_path, repository=name)
        remove_snapshot(layout, commit, {"w": digest})
        assert not os.path.lexists(layout.blob(digest))
        assert (store / xet).exists() is left
