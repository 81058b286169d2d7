"""Another node as a source of bytes, also of files that are still on their way to it."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from warmrack_store.errors import HubUnavailable, Integrity, Transient
from warmrack_store.facts import FileFact
from warmrack_workers.fetch.chain_place import source_name
from warmrack_workers.fetch.http_lines import HttpLines, Timeouts
from warmrack_workers.mirror.peer_tokens import HEADER, make_peer_token

_TIMEOUTS = Timeouts(connect_seconds=2.0, read_seconds=30.0)


class PeerSource:
    """One node, for one repository. It shows the cluster's token, never a user's; what it sends is
    checked by who asks."""

    is_peer = True
    ranged = True

    def __init__(
        self,
        *,
        node: str,
        url: str,
        repository: str,
        node_token: str,
        on_trouble: Callable[[str], None],
    ) -> None:
        """`on_trouble` hears the node's name, from any thread, each time that it gave too little."""
        self.node = node
        self._base = f"{url}/.warmrack/blobs/{repository}"
        self._repository = repository
        self._node_token = node_token
        self._on_trouble = on_trouble
        self._lines = HttpLines(_TIMEOUTS)
        self._lock = threading.Lock()
        self._received_bytes = 0

    @property
    def name(self) -> str:
        return source_name(self.node)

    @property
    def received_bytes(self) -> int:
        with self._lock:
            return self._received_bytes

    @contextmanager
    def open(self, file: FileFact, start: int, end: int) -> Iterator[Iterator[memoryview]]:
        what = f"{self._repository}/{file.path} from {self.name}"
        headers = {
            HEADER: make_peer_token(self._node_token, self._repository, time.time()),
            "Range": f"bytes={start}-{end - 1}",
        }
        try:
            with self._lines.get(f"{self._base}/{file.digest}", headers, what) as answer:
                if answer.status != 206:
                    raise HubUnavailable(f"{what}: HTTP {answer.status}")
                if answer.headers.get("content-range") != f"bytes {start}-{end - 1}/{file.size}":
                    raise Integrity(f"{what}: another range was sent than the one asked for")
                yield self._iterate(answer.chunks)
        except Transient:
            self._on_trouble(self.node)
            raise

    def interrupt(self) -> None:
        self._lines.interrupt()

    def close(self) -> None:
        self._lines.close()

    def _iterate(self, chunks: Iterator[memoryview]) -> Iterator[memoryview]:
        for chunk in chunks:
            with self._lock:
                self._received_bytes += len(chunk)
            yield chunk
