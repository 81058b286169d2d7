"""Several fetches at once: two processes on one folder, ranks on one line, one budget, peers."""

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

import pytest
from blake3 import blake3

from tests.hub.control import CHECKOUT, Hub, running_hub
from tests.hub.faults import Origin, Stall, Status, too_many_requests
from tests.services.stores import Store
from tests.services.test_fetch_snapshot import (
    LARGE_BYTES,
    MODEL,
    Rig,
    read_folder,
    write_repository,
)
from warmrack_store.errors import RateLimited
from warmrack_store.facts import FileFact
from warmrack_store.hub import HubFacts
from warmrack_store.hub_budget import SharedBudget
from warmrack_store.pieces import list_pieces
from warmrack_store.refs import ModelRef
from warmrack_workers.fetch.fetcher import FetchedSnapshot, fetch_snapshot
from warmrack_workers.fetch.line import Line
from warmrack_workers.fetch.patience import Patience
from warmrack_workers.fetch.pieces_known import PieceExchange

PATIENCE = Patience(first_seconds=0.02, longest_seconds=5.0)
LARGE = r"/model\.bin"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_repository(tmp_path_factory.mktemp("repository"))


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with running_hub() as running:
        yield running


@pytest.fixture
def rig(hub: Hub, folder: Path, tmp_path: Path) -> Rig:
    hub.add_repository(MODEL, folder)
    hub.clear_faults()
    hub.reset_counts()
    return Rig(hub=hub, cache_dir=tmp_path / "cache")


@dataclass(slots=True)
class FolderSource:
    """A peer that holds the repository, and spoils some pieces of the large file."""

    name: str
    folder: Path
    spoiled: frozenset[int] = frozenset()
    is_peer: bool = True
    ranged: bool = True
    received_bytes: int = 0
    asked: list[tuple[int, int]] = field(default_factory=list)

    @contextmanager
    def open(self, file: FileFact, start: int, end: int) -> Iterator[Iterator[bytes]]:
        self.asked.append((start, end))
        body = (self.folder / file.path).read_bytes()
        yield self._send(body[:end], start)

    def interrupt(self) -> None:
        """It never blocks."""

    def _send(self, body: bytes, start: int) -> Iterator[bytes]:
        pieces = list_pieces(LARGE_BYTES)
        for at in range(start, len(body), 65_536):
            chunk = bytearray(body[at : at + 65_536])
            if any(pieces[index].start <= at < pieces[index].end for index in self.spoiled):
                chunk[0] ^= 1
            self.received_bytes += len(chunk)
            yield bytes(chunk)


def fetch(
    rig: Rig, line: Line, *, rank: int = 0, peers: Sequence[FolderSource] = (), **options: object
) -> FetchedSnapshot:
    plan = rig.plan()
    with rig.source(plan) as source:
        return fetch_snapshot(
            plan,
            source,
            on_progress=lambda _progress: None,
            stop=Event(),
            patience=PATIENCE,
            line=line,
            rank=rank,
            peers=peers,
            **options,  # type: ignore[arg-type]
        )


@pytest.mark.slow
def test_two_processes_on_one_folder_ask_for_each_byte_once(rig: Rig, folder: Path) -> None:
    """The second comes while the first is in the middle of the file."""
    gate = rig.hub.add_fault(Stall(after_bytes=1_500_000), path=LARGE, origin=Origin.CDN)
    command = [sys.executable, "-m", "tests.services.test_fetch_together"]
    given = [rig.hub.url, rig.hub.cdn_url, str(rig.hub.pid), str(rig.cache_dir)]
    with subprocess.Popen([*command, *given], cwd=CHECKOUT) as other:
        rig.hub.wait_for(sent_bytes=1_500_000, origin="cdn", timeout_seconds=30)
        seen: list[int] = []
        plan = rig.plan()

        def release(_progress: object) -> None:
            if not seen:
                rig.hub.clear_faults(gate)
            seen.append(1)

        with rig.source(plan) as source:
            fetched = fetch_snapshot(plan, source, on_progress=release, stop=Event())
        assert other.wait(timeout=30) == 0
    assert read_folder(fetched.snapshot_dir) == read_folder(folder)
    assert rig.hub.read_counts().file_bytes(file="model.bin") == LARGE_BYTES


def main() -> None:
    """The other process: one fetch to its end."""
    url, cdn_url, pid, cache_dir = sys.argv[1:]
    Rig(hub=Hub(url=url, cdn_url=cdn_url, pid=int(pid)), cache_dir=Path(cache_dir)).fetch()


def test_a_rate_holds_for_all_fetches_of_the_line_together(rig: Rig, folder: Path) -> None:
    started = time.monotonic()
    fetch(rig, Line(rate=10e6))
    assert LARGE_BYTES / 10e6 * 0.8 <= time.monotonic() - started <= LARGE_BYTES / 10e6 * 3


def test_a_fetch_of_a_lower_rank_asks_for_nothing_while_a_higher_one_runs(rig: Rig) -> None:
    line = Line()
    ended: list[FetchedSnapshot] = []
    thread = Thread(target=lambda: ended.append(fetch(rig, line, rank=0)))
    with line.entered(1):
        thread.start()
        thread.join(timeout=0.5)
        assert not ended
        assert rig.hub.list_requests(path="resolve") == []
    thread.join(timeout=20)
    assert ended[0].hub_bytes >= LARGE_BYTES


def test_a_429_of_one_node_makes_the_other_and_the_control_plane_wait(
    rig: Rig, sqlite: Store
) -> None:
    rig.hub.add_fault(too_many_requests(retry_after_seconds=300), path="resolve", times=1)
    with pytest.raises(RateLimited):
        fetch(rig, Line(budget=SharedBudget(sqlite.database, rig.hub.url)))
    rig.hub.reset_counts()
    with pytest.raises(RateLimited, match="pause") as caught:
        fetch(rig, Line(budget=SharedBudget(sqlite.database, rig.hub.url)))
    assert 290 < (caught.value.retry_after_seconds or 0) <= 300
    facts = HubFacts(rig.hub.url, budget=SharedBudget(sqlite.database, rig.hub.url))
    with pytest.raises(RateLimited, match="pause"):
        facts.find_ref(ModelRef(repository=MODEL), None)
    facts.close()
    assert rig.hub.list_requests(path="resolve") == []


def test_a_429_of_a_question_for_facts_holds_the_fetches_back_until_it_is_over(
    rig: Rig, sqlite: Store
) -> None:
    rig.hub.add_fault(Status(status=429, headers={"Retry-After": "1"}), path="/api/", times=1)
    facts = HubFacts(rig.hub.url, budget=SharedBudget(sqlite.database, rig.hub.url))
    started = time.monotonic()
    with pytest.raises(RateLimited):
        facts.find_ref(ModelRef(repository=MODEL), None)
    facts.close()
    fetch(rig, Line(budget=SharedBudget(sqlite.database, rig.hub.url)))
    assert time.monotonic() - started >= 1.0


def test_what_peers_have_costs_the_hub_nothing(rig: Rig, folder: Path) -> None:
    peer = FolderSource("node-1", folder)
    told: list[str] = []
    exchange = PieceExchange(on_pieces=lambda digest, _pieces: told.append(digest))
    fetched = fetch(rig, Line(), peers=[peer], exchange=exchange)
    assert read_folder(fetched.snapshot_dir) == read_folder(folder)
    assert fetched.peer_bytes == sum(file.size for file in rig.plan().blobs)
    assert rig.hub.read_counts().file_bytes() == 0
    assert told == [], "what a peer says is told to nobody"


def test_a_piece_that_differs_from_the_hubs_reader_names_the_peer_and_costs_itself(
    rig: Rig, folder: Path
) -> None:
    body = (folder / "model.bin").read_bytes()
    known = {p.index: blake3(body[p.start : p.end]).hexdigest() for p in list_pieces(len(body))}
    large = next(file for file in rig.plan().files if file.size == LARGE_BYTES)
    liar = FolderSource("node-1", folder, frozenset({1}))
    honest = FolderSource("node-2", folder)
    liars: list[str] = []
    exchange = PieceExchange(
        find_piece=lambda digest, index: known.get(index) if digest == large.digest else None,
        on_liar=lambda name, _what: liars.append(name),
    )
    fetched = fetch(rig, Line(), peers=[liar, honest], exchange=exchange)
    assert read_folder(fetched.snapshot_dir) == read_folder(folder)
    assert liars == ["node-1"]
    assert rig.hub.read_counts().file_bytes(file="model.bin") == 0


def test_a_peer_that_lies_where_no_piece_is_known_costs_one_read_of_the_hub(
    rig: Rig, folder: Path
) -> None:
    liar = FolderSource("node-1", folder, frozenset({0}))
    fetched = fetch(rig, Line(), peers=[liar])
    assert read_folder(fetched.snapshot_dir) == read_folder(folder)
    assert rig.hub.read_counts().file_bytes(file="model.bin") == LARGE_BYTES


def test_pieces_from_the_hub_are_told_with_their_digests(rig: Rig, folder: Path) -> None:
    body = (folder / "model.bin").read_bytes()
    told: dict[int, str] = {}
    large = next(file for file in rig.plan().files if file.size == LARGE_BYTES)

    def keep(digest: str, pieces: Sequence[tuple[int, str]]) -> None:
        if digest == large.digest:
            told.update(pieces)

    fetch(rig, Line(), exchange=PieceExchange(on_pieces=keep))
    assert told == {
        p.index: blake3(body[p.start : p.end]).hexdigest() for p in list_pieces(LARGE_BYTES)
    }


if __name__ == "__main__":
    main()
