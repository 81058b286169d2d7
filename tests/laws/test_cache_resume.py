"""However a fetch is cut into pieces, the same bytes are published, or none."""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

from hypothesis import given, settings
from hypothesis import strategies as st

from warmrack_store.errors import HubUnavailable
from warmrack_store.facts import FileFact
from warmrack_workers.fetch.fetcher import FetchPlan, fetch_snapshot
from warmrack_workers.fetch.patience import Patience
from warmrack_workers.fetch.sources import Source
from warmrack_workers.fetch.tally import FetchProgress

PATIENCE = Patience(tries=3, first_seconds=0.0)


class Killed(BaseException):
    """The process ends here: nobody handles it."""


class CutSource:
    """A source over bytes in memory; each transfer takes the next number from `cuts` and ends
    after so many bytes: a positive one as a broken connection, a negative one as the death of the
    process. It never blocks, so there is nothing to interrupt."""

    def __init__(self, body: bytes, cuts: list[int]) -> None:
        self.body = body
        self.cuts = cuts
        self.received_bytes = 0

    @property
    def name(self) -> str:
        return "cut"

    @contextmanager
    def open(self, file: FileFact, start: int, end: int) -> Iterator[Iterator[bytes]]:
        yield self._send(start)

    def interrupt(self) -> None:
        return

    def _send(self, start: int) -> Iterator[bytes]:
        cut = self.cuts.pop(0) if self.cuts else len(self.body)
        for at in range(start, min(start + abs(cut), len(self.body)), 7):
            chunk = self.body[at : min(at + 7, start + abs(cut))]
            self.received_bytes += len(chunk)
            yield chunk
        if cut < 0:
            raise Killed
        if start + cut < len(self.body):
            raise HubUnavailable("cut")


def run(plan: FetchPlan, source: Source) -> Path | None:
    """The snapshot, or None where the process was killed before."""
    seen: list[FetchProgress] = []
    try:
        fetched = fetch_snapshot(
            plan, source, on_progress=seen.append, stop=Event(), patience=PATIENCE
        )
    except Killed:
        return None
    assert seen[-1].bytes_done == seen[-1].bytes_total
    return fetched.snapshot_dir


@settings(max_examples=60, deadline=None)
@given(
    body=st.binary(max_size=200),
    cuts=st.lists(st.integers(-60, 60).filter(bool), max_size=8),
    lfs=st.booleans(),
)
def test_any_cuts_and_kills_lead_to_the_same_bytes(body: bytes, cuts: list[int], lfs: bool) -> None:
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
        while (snapshot := run(plan, source)) is None:
            assert not plan.layout.snapshot(plan.commit).exists()
            assert list(plan.layout.blobs.iterdir()) == []
        assert (snapshot / fact.path).read_bytes() == body
        assert source.received_bytes == len(body)
