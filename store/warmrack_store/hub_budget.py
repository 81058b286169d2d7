"""The pause that a Hub asked for: one node's 429 makes every node and control plane wait."""

import threading
import time
from typing import Protocol

from warmrack_store.database import Database
from warmrack_store.ledgers import hub_waits

_KNOWN_SECONDS = 0.5
"""How long an answer of the database is good for."""


class HubBudget(Protocol):
    """Whether the Hub may be asked; safe to share between threads."""

    def find_wait_seconds(self) -> float:
        """How long the Hub must still be left alone; 0 where it may be asked."""

    def put_wait(self, seconds: float) -> None:
        """The Hub has asked for a pause."""


class NoBudget:
    """For who asks a Hub outside of a pool: nobody else has to know."""

    def find_wait_seconds(self) -> float:
        return 0.0

    def put_wait(self, seconds: float) -> None:
        """Whoever was refused waits by itself."""


class SharedBudget:
    """The cluster's, as a row for each endpoint."""

    def __init__(self, database: Database, endpoint: str) -> None:
        self._database = database
        self._endpoint = endpoint.rstrip("/")
        self._lock = threading.Lock()
        self._known_until = 0.0
        self._pause_ends = 0.0

    def find_wait_seconds(self) -> float:
        """Raises StoreUnavailable."""
        with self._lock:
            now = time.monotonic()
            if now >= self._known_until:
                with self._database.read() as tx:
                    self._pause_ends = now + hub_waits.get_wait_seconds(tx, self._endpoint)
                self._known_until = now + _KNOWN_SECONDS
            return max(0.0, self._pause_ends - now)

    def put_wait(self, seconds: float) -> None:
        """Raises StoreUnavailable."""
        with self._lock:
            with self._database.write() as tx:
                hub_waits.put_wait(tx, self._endpoint, seconds)
            self._known_until = 0.0
