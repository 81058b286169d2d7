"""The jobs this agent works on right now, and the ways their work is told to stop."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from warmrack_store.ledgers.claims import Claim
from warmrack_store.ledgers.leases import Lease
from warmrack_store.ledgers.moves import LostClaim, ended_as


class Stopping(Exception):
    """The agent stops: the job goes back to the queue as it is."""


@dataclass(kw_only=True)
class Activity:
    """One claimed job under work. Whoever works on it calls `check` between steps."""

    claim: Claim
    stop: threading.Event = field(default_factory=threading.Event)
    lease: Lease | None = None
    """The snapshot lease that it holds, renewed together with its claim."""
    _reason: Exception | None = None
    _interrupts: list[Callable[[], None]] = field(default_factory=list)

    def end(self, reason: Exception) -> None:
        """Tell the worker to stop, and why; the first reason stands."""
        if self._reason is None:
            self._reason = reason
        self.stop.set()
        for interrupt in tuple(self._interrupts):
            interrupt()

    @contextmanager
    def interrupted_by(self, interrupt: Callable[[], None]) -> Iterator[None]:
        """While it waits for something that cannot `check`: `interrupt` ends that wait, from another
        thread, perhaps twice."""
        self._interrupts.append(interrupt)
        try:
            if self.stop.is_set():
                interrupt()
            yield
        finally:
            self._interrupts.remove(interrupt)

    def cancel(self, cause: str) -> None:
        self.end(ended_as(self.claim.job_id, cause))

    def lose(self) -> None:
        self.end(LostClaim(self.claim.job_id))

    def check(self) -> None:
        """Raise the reason to stop, if there is one."""
        if self.stop.is_set():
            raise self._reason or Stopping()


class Activities:
    """All of them, by claim: after a pause longer than the lease, an agent may claim a job again
    before it has heard that its older claim is lost. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_claim: dict[Claim, Activity] = {}

    def add(self, activity: Activity) -> None:
        with self._lock:
            self._by_claim[activity.claim] = activity

    def remove(self, activity: Activity) -> None:
        with self._lock:
            self._by_claim.pop(activity.claim, None)

    def list(self) -> list[Activity]:
        with self._lock:
            return list(self._by_claim.values())
