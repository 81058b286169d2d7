"""How a fetch tells others of its pieces, and learns of theirs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

FindPiece = Callable[[str, int], str | None]
"""(digest of the file, index) -> the BLAKE3 that the Hub's reader saw; from several threads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PieceExchange:
    """Both are optional; neither decides whether a file is right, its whole digest does."""

    on_pieces: Callable[[str, Sequence[tuple[int, str]]], None] | None = None
    """Called in the fetch's own thread with pieces that came from no peer: the file's digest, and
    index and BLAKE3 of each. It may raise, which ends the fetch."""
    find_piece: FindPiece | None = None
    """Asked for each piece that a peer sent."""
    on_liar: Callable[[str, str], None] | None = None
    """Called from any thread with a peer's name and what it did."""
