"""The equal pieces that a file is cut into, the same on every node; pure."""

from dataclasses import dataclass

SMALLEST_PIECE_BYTES = 4 * 2**20
LARGEST_PIECE_BYTES = 64 * 2**20
_PIECES_WANTED = 2_048
"""Where a file would have more, its pieces get longer, up to the largest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Bytes `start` up to, not including, `end` of a file; only the last may be shorter."""

    index: int
    start: int
    end: int

    @property
    def size_bytes(self) -> int:
        return self.end - self.start


def piece_bytes(size_bytes: int) -> int:
    """How long the pieces of a file of this size are: a power of two.

    Nodes name pieces to each other by index alone, so a change here is a change of the protocol.
    """
    length = SMALLEST_PIECE_BYTES
    while length < LARGEST_PIECE_BYTES and size_bytes > length * _PIECES_WANTED:
        length *= 2
    return length


def list_pieces(size_bytes: int, length: int | None = None) -> tuple[Piece, ...]:
    """The pieces in their order; none for an empty file. `length` is only for who tests."""
    step = length or piece_bytes(size_bytes)
    return tuple(
        Piece(index=index, start=start, end=min(start + step, size_bytes))
        for index, start in enumerate(range(0, size_bytes, step))
    )
