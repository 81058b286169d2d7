"""However a fetch is cut into pieces, the same bytes are published, or none."""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Lock

from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from warmrack_store.errors import HubUnavailable
from warmrack_store.facts import FileFact
from warmrack_store.pieces import Piece, list_pieces
from warmrack_workers.fetch.fetcher import FetchPlan, fetch_snapshot
from warmrack_workers.fetch.line import Line
from warmrack_workers.fetch.patience import Patience
from warmrack_workers.fetch.pieces_known import PieceExchange
from warmrack_workers.fetch.sources import Source
from warmrack_workers.fetch.tally import FetchProgress

PATIENCE = Patience(tries=9, first_seconds=0.0)


class Killed(BaseException):
    """The process ends here: nobody handles it."""


class CutSource:
    """A source over bytes in memory; each transfer takes the next number from `cuts` and ends
    after so many bytes: a positive one as a broken connection, a negative one as the death of the
    process. It never blocks, so there is nothing to interrupt."""

    name = "cut"
    is_peer = False
    ranged = True

    def __init__(self, body: bytes, cuts: list[int]) -> None:
        self.body = body
        self.cuts = cuts
        self.received_bytes = 0
        self.lock = Lock()

    @contextmanager
    def open(self, file: FileFact, start: int, end: int) -> Iterator[Iterator[bytes]]:
        yield self._send(start, end)

    def interrupt(self) -> None:
        return

    def _send(self, start: int, end: int) -> Iterator[bytes]:
        with self.lock:
            cut = self.cuts.pop(0) if self.cuts else len(self.body)
        stop = min(start + abs(cut), end)
        for at in range(start, stop, 7):
            chunk = self.body[at : min(at + 7, stop)]
            with self.lock:
                self.received_bytes += len(chunk)
            yield chunk
        if cut < 0:
            raise Killed
        if stop < end:
            raise HubUnavailable("cut")


def cut_small(size_bytes: int) -> tuple[Piece, ...]:
    """Pieces short enough that a short body has several."""
    return list_pieces(size_bytes, 32)


def run(plan: FetchPlan, source: Source, connections: int) -> Path | None:
    """The snapshot, or None where the process was killed before."""
    seen: list[FetchProgress] = []
    told: dict[int, str] = {}
    exchange = PieceExchange(on_pieces=lambda _digest, pieces: told.update(pieces))
    try:
        fetched = fetch_snapshot(
            plan,
            source,
            on_progress=seen.append,
            stop=Event(),
            patience=PATIENCE,
            line=Line(connections=connections),
            exchange=exchange,
            cut=cut_small,
        )
    except Killed:
        return None
    assert seen[-1].bytes_done == seen[-1].bytes_total
    body = (fetched.snapshot_dir / plan.files[0].path).read_bytes()
    for piece in cut_small(len(body)):
        expected = blake3(body[piece.start : piece.end]).hexdigest()
        assert told.get(piece.index, expected) == expected
    return fetched.snapshot_dir


@settings(max_examples=60, deadline=None)
@given(
    body=st.binary(max_size=200),
    cuts=st.lists(st.integers(-60, 60).filter(bool), max_size=8),
    lfs=st.booleans(),
    connections=st.integers(1, 4),
)
def test_any_cuts_and_kills_lead_to_the_same_bytes_each_of_them_sent_once(
    body: bytes, cuts: list[int], lfs: bool, connections: int
) -> None:
    fact = FileFact(
        path="folder/file.bin",
        size=len(body),
        git_sha1=hashlib.sha1(b"blob %d\x00" % len(body) + body).hexdigest(),
        sha256=hashlib.sha256(body).hexdigest() if lfs else None,
    )
    with tempfile.TemporaryDirectory() as cache:
        plan = FetchPlan(
            cache_dir=Path(cache),
            repository="acme/tiny",
            commit="c" * 40,
            files=(fact,),
            tree=(fact,),
            public=True,
        )
        source = CutSource(body, list(cuts))
        while (snapshot := run(plan, source, connections)) is None:
            assert not plan.layout.snapshot(plan.commit).exists()
            assert list(plan.layout.blobs.iterdir()) == []
        assert (snapshot / fact.path).read_bytes() == body
        assert list(plan.layout.work.iterdir()) == []
        assert source.received_bytes == len(body)
