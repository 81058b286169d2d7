"""A node's snapshots over a real Hub and database: found again, and where the bytes came from."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.hub.control import Hub, running_hub
from tests.hub.faults import Close, Origin, Status
from tests.services.hosts import make_snapshot, make_spec, runtime_folder
from tests.services.stores import Store
from tests.services.submitted import claimed, look, submit
from tests.services.test_fetch_snapshot import MODEL, list_facts
from warmrack_store.brokers.wakeups import Wakeups
from warmrack_store.errors import NotFound
from warmrack_store.ledgers import egress
from warmrack_store.receipts import Receipt
from warmrack_store.resolution import Resolution
from warmrack_store.settings import Settings
from warmrack_workers.activity import Activity
from warmrack_workers.snapshots import Snapshots

WEIGHTS = "model.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rig:
    """A Hub with one repository, and a node without a copy."""

    hub: Hub
    store: Store
    broker: str
    folder: Path
    resolution: Resolution

    def ensure(self, cache: str = "cache", *, xet: bool = False) -> Receipt:
        """A node of one store, which it sees at `cache`, works on a job of its own."""
        snapshots = Snapshots(
            settings=Settings(hub_endpoint=self.hub.url, cache_dir=self.folder / cache, xet=xet),
            database=self.store.database,
            wakeups=Wakeups(self.broker),
            node="n0",
            store="s0",
        )
        job = submit(self.store.database, f"org/asked-{time.monotonic_ns()}")
        activity = Activity(claim=claimed(self.store.database))
        held = look(self.store.database, job.id)
        return snapshots.ensure(activity, held, self.resolution, None)

    def list_sources(self) -> list[tuple[int, int]]:
        """Bytes from the Hub and from here, one pair a job in the order of their ids."""
        with self.store.database.read() as tx:
            rows = egress.list_egress(tx, "job")
        return [(row["hub_bytes"], row["local_bytes"]) for row in rows]

    @property
    def size_bytes(self) -> int:
        return sum(file.size for file in self.resolution.files)


@pytest.fixture
def rig(sqlite: Store, broker: str) -> Iterator[Rig]:
    with runtime_folder() as folder, running_hub() as hub:
        snapshot = make_snapshot("tiny_llama", folder / "published")
        hub.add_repository(MODEL, snapshot)
        commit = hub.get_commit(MODEL).sha
        changes = {"repository": MODEL, "commit": commit, "files": list_facts(hub, commit)}
        resolution = make_spec(snapshot, folder).resolution.model_copy(update=changes)
        yield Rig(hub=hub, store=sqlite, broker=broker, folder=folder, resolution=resolution)


@pytest.mark.parametrize("xet", [True, False])
def test_xet_storage_is_asked_where_the_setting_says_so(rig: Rig, xet: bool) -> None:
    rig.hub.serve_xet(rig.folder / "xet")
    rig.hub.reset_counts()
    rig.ensure(xet=xet)
    assert rig.list_sources() == [(rig.size_bytes, 0)]
    counts = rig.hub.read_counts()
    assert (counts.requests(path="xet-read-token") > 0) is xet
    assert (counts.requests(origin=Origin.CDN) == 0) is xet


def test_store_is_the_same_at_whatever_path_a_node_sees_it(rig: Rig) -> None:
    first = rig.ensure("cache")
    (rig.folder / "cache").rename(rig.folder / "mounted")
    rig.hub.reset_counts()
    assert rig.ensure("mounted").files == first.files
    assert rig.list_sources()[1:] == [(0, rig.size_bytes)], "the second node found it whole"


def test_failed_fetch_counts_what_came_and_the_next_one_what_it_left(rig: Rig) -> None:
    size_bytes = next(file.size for file in rig.resolution.files if file.path == WEIGHTS)
    rig.hub.add_fault(Close(after_bytes=size_bytes // 2), path=WEIGHTS, origin=Origin.CDN, times=1)
    rig.hub.add_fault(Status(status=403), path=WEIGHTS, origin=Origin.CDN, skip=1)
    rig.hub.add_fault(Status(status=404), path=WEIGHTS, origin=Origin.HUB, skip=1)
    with pytest.raises(NotFound):
        rig.ensure()
    ((first_hub_bytes, first_local_bytes),) = rig.list_sources()
    assert (first_hub_bytes >= size_bytes // 2, first_local_bytes) == (True, 0)
    rig.hub.clear_faults()
    rig.ensure()
    rows = sorted(rig.list_sources())
    rows.remove((first_hub_bytes, 0))
    ((hub_bytes, local_bytes),) = rows
    assert hub_bytes + local_bytes == rig.size_bytes
    assert local_bytes >= size_bytes // 2
