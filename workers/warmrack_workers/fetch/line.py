"""The node's line to the outside, which all its fetches share: its rate, and who goes first."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Lock

from warmrack_store.hub_budget import HubBudget, NoBudget

CONNECTIONS = 8
_BURST_SECONDS = 0.1


class Line:
    """`rate` bytes a second for all fetches together (None: no limit), in turns by rank.

    While a fetch of a higher rank runs, the others of this node ask for nothing new; what was asked
    for already still comes.
    """

    def __init__(
        self,
        *,
        connections: int = CONNECTIONS,
        rate: float | None = None,
        budget: HubBudget | None = None,
    ) -> None:
        self.connections = connections
        self.budget: HubBudget = budget or NoBudget()
        self._rate = rate
        self._lock = Lock()
        self._free_at = 0.0
        self._ranks: Counter[int] = Counter()

    @contextmanager
    def entered(self, rank: int) -> Iterator[None]:
        """While a fetch runs."""
        with self._lock:
            self._ranks[rank] += 1
        try:
            yield
        finally:
            with self._lock:
                self._ranks[rank] -= 1
                self._ranks += Counter()  # forgets ranks that nobody has any more

    def must_yield(self, rank: int) -> bool:
        with self._lock:
            return any(other > rank for other in self._ranks)

    def pass_bytes(self, size_bytes: int, halt: Event) -> None:
        """Return when so many bytes more may have come, or `halt` is set."""
        if self._rate is None:
            return
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now - _BURST_SECONDS) + size_bytes / self._rate
            wait_seconds = self._free_at - now
        if wait_seconds > 0:
            halt.wait(wait_seconds)
