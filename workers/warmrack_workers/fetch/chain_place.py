"""One fetch's place in the lines for its files: kept in SQL, and looked at while it runs."""

import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from warmrack_store.database import Database
from warmrack_store.ledgers import arrivals, copies, leases, nodes
from warmrack_store.ledgers.arrivals import Arrival
from warmrack_store.ledgers.nodes import Node
from warmrack_workers.fetch.chain import plan_upstream

_LOOK_SECONDS = 0.3
_CALM_SECONDS = 1.0
"""Between two looks while every file has a source: what could only be better may wait."""
_SHUN_SECONDS = (0.5, 2.0, 5.0)
"""How long a node is left out after its first, second and every later failure in a row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetching:
    """What is fetched, by whom. `holder` names the fetch; leases and arrivals live for
    `ttl_seconds` without being renewed."""

    repository: str
    commit: str
    digests: frozenset[str]
    holder: str
    node: str
    store: str
    ttl_seconds: float

    def subject(self, digest: str) -> str:
        """What the claim is named that lets one fetch of the cluster read this file from the Hub.
        By repository: who reads one that is not public never shares a claim with others."""
        return f"blob:{self.repository}@{digest}"


class ChainPlace:
    """`choose` and the notes are for any thread, the rest for the fetch's own."""

    def __init__(
        self, database: Database, fetching: Fetching, *, hub: str, needs_claim: bool = True
    ) -> None:
        """`hub` is the name of the last source; `needs_claim`: it is one that all share."""
        self._database = database
        self._fetching = fetching
        self._hub = hub
        self._needs_claim = needs_claim
        self._epoch = 0
        self._lock = threading.Lock()
        self._chosen: dict[str, str | None] = {}
        self._upstreams: dict[str, str | None] = {}
        self._held: dict[str, leases.Lease] = {}
        self._failures: dict[str, int] = {}
        self._shunned_until: dict[str, float] = {}
        self._liars: set[str] = set()
        self._distrusted: set[str] = set()
        self._looked_at = self._renewed_at = 0.0

    @contextmanager
    def taken(self) -> Iterator[None]:
        """While the fetch runs; in the end others no longer read from it, and the Hub is free."""
        fetching = self._fetching
        with self._database.write() as tx:
            self._epoch = arrivals.join(
                tx,
                repository=fetching.repository,
                digests=fetching.digests,
                holder=fetching.holder,
                node=fetching.node,
                store=fetching.store,
                ttl_seconds=fetching.ttl_seconds,
            )
        self._renewed_at = time.monotonic()
        try:
            self.look()
            yield
        finally:
            with self._database.write() as tx:
                arrivals.leave(tx, repository=fetching.repository, holder=fetching.holder)
                for lease in self._held.values():
                    leases.release(tx, lease)

    def choose(self, digest: str, trusts_peers: bool) -> str | None:
        """The source to ask for a file now, as the fetcher's exchange wants it."""
        with self._lock:
            if not trusts_peers:
                self._distrusted.add(digest)
            return self._chosen.get(digest)

    def note_trouble(self, node: str) -> None:
        """A peer gave too little: another one is planned, and this one is asked again later."""
        with self._lock:
            count = self._failures[node] = self._failures.get(node, 0) + 1
            seconds = _SHUN_SECONDS[min(count, len(_SHUN_SECONDS)) - 1]
            self._shunned_until[node] = time.monotonic() + seconds
            self._looked_at = 0.0
            self._unchoose(node)

    def note_liar(self, node: str) -> None:
        """A peer sent other bytes than the Hub's reader saw: it is not asked again."""
        with self._lock:
            self._liars.add(node)
            self._looked_at = 0.0
            self._unchoose(node)

    def _unchoose(self, node: str) -> None:
        name = source_name(node)
        self._chosen = {
            digest: None if chosen == name else chosen for digest, chosen in self._chosen.items()
        }

    def look(self) -> None:
        """Plan again from what SQL says by now; does nothing where it did just before."""
        now = time.monotonic()
        if now - self._looked_at < (_CALM_SECONDS if self._is_calm() else _LOOK_SECONDS):
            return
        self._looked_at = now
        self._renew(now)
        plan = self._plan(now)
        self._claim([digest for digest, upstream in plan.items() if upstream is None])
        with self._lock:
            self._chosen = {digest: self._name(digest, node) for digest, node in plan.items()}
        changed = {d: node for d, node in plan.items() if self._upstreams.get(d) != node}
        if changed:
            with self._database.write() as tx:
                arrivals.note_upstreams(
                    tx,
                    repository=self._fetching.repository,
                    holder=self._fetching.holder,
                    upstreams=changed,
                )
        self._upstreams = plan

    def _is_calm(self) -> bool:
        with self._lock:
            return None not in self._chosen.values()

    def _name(self, digest: str, node: str | None) -> str | None:
        if node is not None:
            return source_name(node)
        return self._hub if digest in self._held or not self._needs_claim else None

    def _plan(self, now: float) -> dict[str, str | None]:
        fetching = self._fetching
        with self._database.read() as tx:
            line = arrivals.list_arrivals(tx, fetching.repository)
            held = copies.list_copies_of(tx, fetching.repository, fetching.commit)
            there = nodes.list_nodes(tx)
        usable = self._list_usable(there, now)
        by_digest: dict[str, list[Arrival]] = {}
        for one in line:
            by_digest.setdefault(one.digest, []).append(one)
        holders = _list_holders(held, there)
        with self._lock:
            distrusted = set(self._distrusted)
        return {
            digest: None
            if digest in distrusted
            else plan_upstream(
                self._me(digest), by_digest.get(digest, []), holders.get(digest, ()), usable
            )
            for digest in fetching.digests
        }

    def _me(self, digest: str) -> Arrival:
        return Arrival(
            digest=digest,
            holder=self._fetching.holder,
            node=self._fetching.node,
            store=self._fetching.store,
            upstream=self._upstreams.get(digest),
            epoch=self._epoch,
        )

    def _list_usable(self, there: Sequence[Node], now: float) -> frozenset[str]:
        with self._lock:
            shunned = {node for node, until in self._shunned_until.items() if until > now}
            shunned |= self._liars
        return frozenset(
            node.name
            for node in list_peers(there, self._fetching.store)
            if node.state.answers and node.name not in shunned
        )

    def _renew(self, now: float) -> None:
        fetching = self._fetching
        if now - self._renewed_at < fetching.ttl_seconds / 3:
            return
        self._renewed_at = now
        with self._database.write() as tx:
            arrivals.renew(
                tx,
                repository=fetching.repository,
                holder=fetching.holder,
                ttl_seconds=fetching.ttl_seconds,
            )
            lost = [
                digest
                for digest, lease in self._held.items()
                if not leases.renew(tx, lease, fetching.ttl_seconds)
            ]
        for digest in lost:
            del self._held[digest]

    def _claim(self, digests: Collection[str]) -> None:
        """Take what is free of the claims that let this fetch ask the Hub."""
        wanted = sorted(set(digests) - self._held.keys()) if self._needs_claim else []
        if not wanted:
            return
        with self._database.write() as tx:
            for digest in wanted:
                lease = leases.acquire(
                    tx,
                    subject=self._fetching.subject(digest),
                    kind="blob",
                    holder=self._fetching.holder,
                    ttl_seconds=self._fetching.ttl_seconds,
                )
                if lease is not None:
                    self._held[digest] = lease


def source_name(node: str) -> str:
    """What a node is called as a source of bytes."""
    return f"peer {node}"


def list_peers(there: Sequence[Node], store: str) -> Sequence[Node]:
    """The nodes whose bytes are not this store's own anyway."""
    return [node for node in there if node.store != store and node.mirror_url is not None]


def _list_holders(
    held: Sequence[copies.Copy], there: Sequence[Node]
) -> Mapping[str, frozenset[str]]:
    """By the file's digest, the nodes that see a whole copy of it."""
    found: dict[str, set[str]] = {}
    for copy in held:
        if copy.complete:
            names = {node.name for node in there if node.store == copy.store}
            for file in copy.files:
                found.setdefault(file["digest"], set()).update(names)
    return {digest: frozenset(names) for digest, names in found.items()}
