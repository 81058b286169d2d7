"""What a node gives to others while a file still arrives on it, over real connections."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from threading import Condition

import httpx
import pytest

from tests.services.stores import Store
from warmrack_store.cache.folders import make_folders
from warmrack_store.cache.layout import RepositoryLayout
from warmrack_store.errors import HubUnavailable
from warmrack_store.facts import FileFact
from warmrack_store.pieces import list_pieces
from warmrack_workers.fetch.arriving import Arriving
from warmrack_workers.fetch.journal import Journal
from warmrack_workers.fetch.part import Arrived, Part
from warmrack_workers.fetch.peer_source import PeerSource
from warmrack_workers.mirror.answers import MirrorAnswers
from warmrack_workers.mirror.blobs import PeerBlobs
from warmrack_workers.mirror.holdings import Holdings
from warmrack_workers.mirror.peer_tokens import HEADER, make_peer_token
from warmrack_workers.mirror.server import MirrorServer

_KEY = "k" * 64
_REPOSITORY = "org/name"
_PIECE_BYTES = 1000
_DATA = bytes(index % 251 for index in range(3500))
_FILE = FileFact(
    path="model.safetensors",
    size=len(_DATA),
    git_sha1="0" * 40,
    sha256=sha256(_DATA).hexdigest(),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rig:
    """A node on which one file is about to arrive, and another that reads from it."""

    url: str
    arriving: Arriving
    part: Part
    peer: PeerSource
    troubles: list[str]

    def bring(self, index: int) -> None:
        """One more piece is here."""
        stretch = self.part.claim(_PIECE_BYTES)
        assert stretch is not None
        assert stretch.first == index
        piece = self.part.pieces[index]
        self.part.write(memoryview(_DATA)[piece.start : piece.end], piece.start)
        self.part.finish(Arrived(index=index, blake3="", source="hub"))
        self.part.release(stretch)

    def read(self, start: int = 0, end: int = len(_DATA)) -> bytes:
        with self.peer.open(_FILE, start, end) as chunks:
            return b"".join(bytes(chunk) for chunk in chunks)


@pytest.fixture
def rig(sqlite: Store, tmp_path: Path) -> Iterator[Rig]:
    layout = RepositoryLayout(cache_dir=tmp_path / "hub", repository=_REPOSITORY)
    make_folders(layout, public=True)
    pieces = list_pieces(len(_DATA), _PIECE_BYTES)
    journal = Journal(layout.journal(_FILE.digest), pieces)
    part = Part(_FILE, layout.part(_FILE.digest), journal, pieces, Condition())
    part.allocate()
    arriving, troubles = Arriving(), list[str]()
    holdings = Holdings(sqlite.database, store="s0", cache_dir=layout.cache_dir)
    blobs = PeerBlobs(holdings, arriving, node_token=_KEY, cache_dir=layout.cache_dir)
    answers = MirrorAnswers(holdings, lambda _repository, _token: None, blobs=blobs)
    server = MirrorServer("127.0.0.1:0", answers.answer)
    server.start()
    peer = PeerSource(
        node="n0",
        url=server.url,
        repository=_REPOSITORY,
        node_token=_KEY,
        on_trouble=troubles.append,
    )
    yield Rig(url=server.url, arriving=arriving, part=part, peer=peer, troubles=troubles)
    peer.close()
    part.close()
    server.stop()


def test_pieces_are_read_while_they_arrive(rig: Rig) -> None:
    with (
        rig.arriving.entered(_REPOSITORY, [_FILE.digest]),
        ThreadPoolExecutor(1) as reader,
    ):
        rig.arriving.start(_REPOSITORY, rig.part)
        whole = reader.submit(rig.read, 500, 3200)
        for index in range(4):
            rig.bring(index)
        assert whole.result(timeout=10) == _DATA[500:3200]
    assert rig.peer.received_bytes == 2700
    assert not rig.troubles


def test_reader_that_comes_before_the_first_byte_waits_for_it(rig: Rig) -> None:
    with (
        rig.arriving.entered(_REPOSITORY, [_FILE.digest]),
        ThreadPoolExecutor(1) as reader,
    ):
        first = reader.submit(rig.read, 0, _PIECE_BYTES)
        rig.arriving.start(_REPOSITORY, rig.part)
        rig.bring(0)
        assert first.result(timeout=10) == _DATA[:_PIECE_BYTES]


def test_fetch_that_is_given_up_ends_its_readers_who_say_so(rig: Rig) -> None:
    with (
        rig.arriving.entered(_REPOSITORY, [_FILE.digest]),
        ThreadPoolExecutor(1) as reader,
    ):
        rig.arriving.start(_REPOSITORY, rig.part)
        rig.bring(0)
        whole = reader.submit(rig.read)
        rig.arriving.end(_REPOSITORY, rig.part)
    with pytest.raises(HubUnavailable):
        whole.result(timeout=10)
    assert rig.troubles == ["n0"]


def test_file_that_nobody_brings_is_a_trouble_at_once(rig: Rig) -> None:
    with pytest.raises(HubUnavailable, match="HTTP 404"):
        rig.read()
    assert rig.troubles == ["n0"]


@pytest.mark.parametrize(
    "shown",
    [
        None,
        "1.x",
        make_peer_token("x" * 64, _REPOSITORY, time.time()),
        make_peer_token(_KEY, "org/other", time.time()),
    ],
)
def test_no_byte_without_a_token_of_the_cluster_for_this_repository(
    rig: Rig, shown: str | None
) -> None:
    with rig.arriving.entered(_REPOSITORY, [_FILE.digest]):
        rig.arriving.start(_REPOSITORY, rig.part)
        rig.bring(0)
        answer = httpx.get(
            f"{rig.url}/.warmrack/blobs/{_REPOSITORY}/{_FILE.digest}",
            headers={} if shown is None else {HEADER: shown},
        )
    assert answer.status_code == 403
    assert _DATA[:20] not in answer.content
