"""Where bytes can come from: the one interface that the Hub, ranges, peers and Xet implement."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from warmrack_store.facts import FileFact


class Source(Protocol):
    """Bytes of one repository at one commit, for one fetch; used by several threads at once.

    A source only supplies bytes: what they must hash to is the fetcher's business.
    """

    @property
    def name(self) -> str:
        """As the egress ledger spells it: hub, ..."""

    @property
    def received_bytes(self) -> int:
        """Body bytes of files that came over the wire, those that were of no use included."""

    @property
    def is_peer(self) -> bool:
        """Whether it is another node: its pieces are checked against those of the Hub's reader, and
        told to nobody."""

    @property
    def ranged(self) -> bool:
        """Whether it can give ranges; False once a server has ignored one. Then `open` is called
        for all that a file still lacks, and reads past what is not wanted."""

    def open(
        self, file: FileFact, start: int, end: int
    ) -> AbstractContextManager[Iterator[bytes | memoryview]]:
        """The bytes of `file` from `start` up to `end`; a chunk is valid until the next is asked
        for. Fewer bytes than that are a failure of the source, more are wrong.

        Entering and iterating may raise: a Transient is tried again from where it stands, an
        Integrity once more, anything else ends the fetch.
        """

    def interrupt(self) -> None:
        """End every transfer under way, from any thread; each raises soon, and so does each later
        `open`. What a stalled server cannot hold up."""
