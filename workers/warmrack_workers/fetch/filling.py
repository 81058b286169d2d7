"""One connection's way through a stretch of a part: every byte hashed, written and noted."""

from blake3 import blake3

from warmrack_store.errors import Integrity
from warmrack_workers.fetch.journal import Mark
from warmrack_workers.fetch.part import Arrived, Part, PieceState, Stretch
from warmrack_workers.fetch.pieces_known import FindPiece
from warmrack_workers.fetch.tally import Tally

MARK_BYTES = 2**18
"""A kill costs about so much of each piece under way, and what was on its way to it."""


class Filling:
    """Takes the bytes of a stretch in their order; used by one thread."""

    def __init__(
        self, part: Part, stretch: Stretch, source: str, tally: Tally, find_piece: FindPiece | None
    ) -> None:
        self._part = part
        self._stretch = stretch
        self._source = source
        self._tally = tally
        self._find_piece = find_piece
        self._index = stretch.first
        self._hash = blake3()
        self.position = self._noted = stretch.start
        self._begin()

    @property
    def is_done(self) -> bool:
        return self._index == self._stretch.last

    def take(self, data: bytes | memoryview) -> None:
        """Raises Integrity for bytes past the end, and for a piece that is not the expected one."""
        view = memoryview(data)
        while view:
            if self.is_done:
                raise Integrity(
                    f"{self._part.file.path}: {self._source} sends more than was asked for"
                )
            end = self._part.pieces[self._index].end
            taken, view = view[: end - self.position], view[end - self.position :]
            self._take_of_piece(taken)

    def _take_of_piece(self, view: memoryview) -> None:
        """Bytes within one piece."""
        part, piece = self._part, self._part.pieces[self._index]
        if part.state(self._index) is PieceState.CLAIMED:
            self._hash.update(view)
            part.write(view, self.position)
            self._tally.add_received(len(view))
        self.position += len(view)
        if self.position == piece.end:
            self._finish()
        elif self.position >= self._noted + MARK_BYTES:
            self.note()

    def _begin(self) -> None:
        """At the start of a piece or, in the first one, behind what an earlier fetch left of it."""
        if self.is_done or self._part.state(self._index) is not PieceState.CLAIMED:
            return
        kept_bytes = self._part.kept_of(self._index)
        if not kept_bytes:
            return
        if self.position > self._part.pieces[self._index].start:
            self.position, self._hash = self._part.open_piece(self._index)
            self._noted = self.position
        if self.position == self._part.pieces[self._index].start:
            self._part.drop_mark(self._index)
            self._tally.add_resumed(-kept_bytes)

    def note(self) -> None:
        """Keep what is here of the piece under way."""
        if self.is_done or self.position == self._noted:
            return
        piece = self._part.pieces[self._index]
        within = piece.start < self.position < piece.end
        if within and self._part.state(self._index) is PieceState.CLAIMED:
            size_bytes = self.position - piece.start
            mark = Mark(index=self._index, size_bytes=size_bytes, blake3=self._hash.hexdigest())
            self._part.mark(mark)
        self._noted = self.position

    def _finish(self) -> None:
        index = self._index
        found = self._hash.hexdigest()
        if self._part.state(index) is PieceState.CLAIMED:
            self._check(index, found)
            self._part.finish(Arrived(index=index, blake3=found, source=self._source))
        self._index += 1
        self._hash = blake3()
        self._noted = self.position
        self._begin()

    def _check(self, index: int, found: str) -> None:
        if self._find_piece is None:
            return
        expected = self._find_piece(self._part.file.digest, index)
        if expected not in (None, found):
            self._tally.add_received(-self._part.pieces[index].size_bytes)
            self._part.drop_mark(index)
            # Nothing of the piece is worth a mark.
            self.position = self._noted = self._part.pieces[index].start
            raise Integrity(
                f"{self._part.file.path}: piece {index} that {self._source} sent is "
                f"{found[:12]}..., the Hub's was {str(expected)[:12]}...",
                hint=f"{self._source} is left out; the piece is fetched from elsewhere.",
            )
