"""How a fetch tells others of its pieces, and learns of theirs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from warmrack_workers.fetch.part import Part

FindPiece = Callable[[str, int], str | None]
"""(digest of the file, index) -> the BLAKE3 that the Hub's reader saw; from several threads."""
Choose = Callable[[str, bool], str | None]
"""(digest of the file, whether peers may be asked) -> the name of the one source that may be asked
for it now; None: none yet. Asked often, from several threads and under a lock, so at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PieceExchange:
    """All are optional; none decides whether a file is right, its whole digest does."""

    on_pieces: Callable[[str, Sequence[tuple[int, str]]], None] | None = None
    """Called in the fetch's own thread with pieces that came from no peer: the file's digest, and
    index and BLAKE3 of each. It may raise, which ends the fetch."""
    find_piece: FindPiece | None = None
    """Asked for each piece that a peer sent."""
    on_liar: Callable[[str, str], None] | None = None
    """Called from any thread with a peer's name and what it did."""
    choose: Choose | None = None
    """Without it the sources are asked in their order."""
    on_start: Callable[[Part], None] | None = None
    """Called before the first byte of a file comes."""
    on_end: Callable[[Part], None] | None = None
    """Called once it is whole, and where it is given up."""
