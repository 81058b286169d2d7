"""What a host says of itself, as its agent reads it from the socket."""

from warmrack_store.receipts import Receipt
from warmrack_store.records import Record
from warmrack_store.states import ResidentState


class ErrorRecord(Record):
    """An error of the tree as it crosses the socket."""

    code: str
    message: str
    hint: str
    retryable: bool


class HostStatus(Record):
    resident_id: str
    epoch: int
    state: ResidentState
    pid: int
    start_time: int
    """With the pid, the process's identity; in clock ticks since boot."""
    model: str
    """As asked."""
    repository: str
    commit: str
    device: str
    in_flight: int
    idle_seconds: float
    """Since the last task ended; 0 while one runs."""
    bytes: int
    """Charged to the device: weights, caches in use, workspace by formula."""
    error: ErrorRecord | None
    """Why the load failed; only in state `gone`."""
    receipt: Receipt | None
    timings: dict[str, float]


class DrainRequest(Record):
    idle_seconds: float = 0.0
    """Drain only a host that has been idle this long; 0: drain whatever it does."""


class DrainAnswer(Record):
    draining: bool
