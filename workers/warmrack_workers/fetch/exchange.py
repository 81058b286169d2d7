"""One fetch's dealings with the other nodes: whom it asks, and what it tells them of its pieces."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass

import structlog

from warmrack_store.database import Database
from warmrack_store.ledgers import events, nodes, pieces
from warmrack_workers.fetch.arriving import Arriving
from warmrack_workers.fetch.chain_place import ChainPlace, Fetching, list_peers
from warmrack_workers.fetch.peer_source import PeerSource
from warmrack_workers.fetch.pieces_known import PieceExchange

log = structlog.get_logger()
_ASK_SECONDS = 0.2
"""How long an unknown piece is taken as unknown: the Hub's reader tells of its own every 0.1 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerAccess:
    """What lets a node's fetches meet those of others."""

    arriving: Arriving
    node_token: str


class Exchange:
    """For the time of one fetch: its place in the chains, its peers, the pieces known."""

    def __init__(
        self,
        database: Database,
        access: PeerAccess,
        fetching: Fetching,
        place: ChainPlace,
        job: str,
    ) -> None:
        self._database = database
        self._access = access
        self._fetching = fetching
        self._place = place
        self._job = job
        self._lock = threading.Lock()
        self._pieces: dict[str, dict[int, str]] = {}
        self._asked_at: dict[str, float] = {}
        self.peers: Sequence[PeerSource] = ()

    @property
    def peer_bytes(self) -> int:
        """Body bytes from peers, those of no use included."""
        return sum(peer.received_bytes for peer in self.peers)

    @contextmanager
    def entered(self) -> Iterator[PieceExchange]:
        """While it runs, others may read from it, and it from them."""
        repository = self._fetching.repository
        arriving = self._access.arriving
        with self._database.read() as tx:
            there = list_peers(nodes.list_nodes(tx), self._fetching.store)
        with ExitStack() as stack:
            self.peers = [
                stack.enter_context(closing(self._make_peer(node.name, str(node.mirror_url))))
                for node in there
            ]
            stack.enter_context(arriving.entered(repository, self._fetching.digests))
            stack.enter_context(self._place.taken())
            yield PieceExchange(
                on_pieces=self._tell,
                find_piece=self._find_piece,
                on_liar=self._note_liar,
                choose=self._place.choose,
                on_start=lambda part: arriving.start(repository, part),
                on_end=lambda part: arriving.end(repository, part),
            )

    def look(self) -> None:
        """Called often, in the fetch's own thread."""
        self._place.look()

    def _make_peer(self, node: str, url: str) -> PeerSource:
        return PeerSource(
            node=node,
            url=url,
            repository=self._fetching.repository,
            node_token=self._access.node_token,
            on_trouble=self._place.note_trouble,
        )

    def _tell(self, digest: str, found: Sequence[tuple[int, str]]) -> None:
        with self._database.write() as tx:
            pieces.put_pieces(tx, digest, dict(found))

    def _find_piece(self, digest: str, index: int) -> str | None:
        with self._lock:
            known = self._pieces.setdefault(digest, {})
            asked_at, now = self._asked_at.get(digest, 0.0), time.monotonic()
            if index in known or now - asked_at < _ASK_SECONDS:
                return known.get(index)
            self._asked_at[digest] = now
        with self._database.read() as tx:
            found = pieces.list_pieces(tx, digest)
        with self._lock:
            known.update(found)
            return known.get(index)

    def _note_liar(self, name: str, what: str) -> None:
        node = next((peer.node for peer in self.peers if peer.name == name), name)
        log.warning("A peer sent wrong bytes.", action="peer-lied", node=node, what=what)
        self._place.note_liar(node)
        with self._database.write() as tx:
            events.append(tx, self._job, "note", {"peer": node, "why": what})
