"""Bytes for other nodes: of whole blobs, and of pieces as they arrive here."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from warmrack_store.cache.layout import RepositoryLayout
from warmrack_workers.fetch.arriving import Arriving
from warmrack_workers.fetch.part import Part
from warmrack_workers.mirror.calls import Answer, Call, OneSpan, Span, Spans
from warmrack_workers.mirror.holdings import Holdings
from warmrack_workers.mirror.peer_tokens import HEADER, is_peer_token
from warmrack_workers.mirror.ranges import find_range
from warmrack_workers.mirror.refusals import Refused
from warmrack_workers.mirror.targets import Target

_BEGIN_SECONDS = 10.0
"""How long who asks waits for a file to begin here; a reader's own patience is longer."""
_LOOK_SECONDS = 0.25


class PeerBlobs:
    """Which repository a node may read, its token says; what it does with the bytes is checked
    where they arrive."""

    def __init__(
        self, holdings: Holdings, arriving: Arriving, *, node_token: str, cache_dir: Path
    ) -> None:
        self._holdings = holdings
        self._arriving = arriving
        self._node_token = node_token
        self._cache_dir = cache_dir

    def answer(self, call: Call, target: Target) -> Answer:
        """Raises Refused: 403 without a token of ours for this very repository, 404 for what is
        neither here nor on its way."""
        shown = call.headers.get(HEADER, "")
        if not is_peer_token(shown, self._node_token, target.repository, time.time()):
            raise Refused(403, None, "this is for other nodes of the cluster")
        place = self._holdings.find_blob(target.repository, target.path)
        if place is not None and (stream := _open(place)) is not None:
            return _answer(call, stream, os.fstat(stream.fileno()).st_size)
        return self._follow(call, target)

    def _follow(self, call: Call, target: Target) -> Answer:
        layout = RepositoryLayout(cache_dir=self._cache_dir, repository=target.repository)
        deadline = time.monotonic() + _BEGIN_SECONDS
        while self._arriving.is_expected(target.repository, target.path):
            if (stream := _open(layout.blob(target.path))) is not None:
                return _answer(call, stream, os.fstat(stream.fileno()).st_size)
            part = self._arriving.find_part(target.repository, target.path, _LOOK_SECONDS)
            if part is not None and (stream := _open(part.location)) is not None:
                return self._answer_arriving(call, target, part, stream)
            if time.monotonic() > deadline:
                raise Refused(503, None, "it has not begun to arrive here", {"Retry-After": "1"})
        raise Refused(404, None, "it is neither here nor on its way")

    def _answer_arriving(self, call: Call, target: Target, part: Part, stream: BinaryIO) -> Answer:
        def follow(start: int, end: int) -> Spans:
            return _ArrivingSpans(
                file=stream,
                part=part,
                arriving=self._arriving,
                repository=target.repository,
                start=start,
                end=end,
            )

        return _answer(call, stream, part.file.size, follow)


@dataclass(frozen=True, slots=True, kw_only=True)
class _ArrivingSpans:
    """Pieces in their order, each once it is here; ends early where the fetch does."""

    file: BinaryIO
    part: Part
    arriving: Arriving
    repository: str
    start: int
    end: int

    def __iter__(self) -> Iterator[Span]:
        position = self.start
        for piece in self.part.pieces:
            if piece.end <= position or piece.start >= self.end:
                continue
            if not self._await(piece.index):
                return
            stop = min(piece.end, self.end)
            yield Span(file=self.file, start=position, size_bytes=stop - position)
            position = stop

    def _await(self, index: int) -> bool:
        while not self.part.wait_here(index, _LOOK_SECONDS):
            live = self.arriving.find_part(self.repository, self.part.file.digest)
            if live is not self.part:
                return self.part.wait_here(index, 0.0)
        return True

    def close(self) -> None:
        self.file.close()


def _answer(
    call: Call,
    stream: BinaryIO,
    size_bytes: int,
    follow: Callable[[int, int], Spans] | None = None,
) -> Answer:
    """The part of the file that is asked for, sent as `follow` says; else all at once."""
    try:
        span = find_range(call.headers.get("range"), size_bytes)
    except Refused:
        stream.close()
        raise
    start, end = span or (0, size_bytes)
    headers = {"Content-Type": "application/octet-stream"}
    if span is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size_bytes}"
    whole = OneSpan(span=Span(file=stream, start=start, size_bytes=end - start))
    return Answer(
        status=200 if span is None else 206,
        headers=headers,
        spans=whole if follow is None else follow(start, end),
        size_bytes=end - start,
    )


def _open(place: Path) -> BinaryIO | None:
    try:
        return place.open("rb", buffering=0)
    except OSError:
        return None
