"""What the residency loop is asked, what it is told, and what it may cause."""

from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from warmrack_store.errors import WarmrackError
from warmrack_store.ledgers.claims import Claim
from warmrack_store.resolution import Resolution
from warmrack_workers.decide import Seat
from warmrack_workers.host_status import HostStatus
from warmrack_workers.processes import ProcessIdentity


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a job wants warm."""

    claim: Claim
    resolution_id: str
    resolution: Resolution
    rank: int
    keep_alive_seconds: float
    pinned: bool
    store: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Warmed:
    """The answer to an order."""

    resident_id: str
    receipt_id: str
    resolution_id: str
    """What the resident was loaded for: another spelling, perhaps, of the same weights."""
    socket: str
    joined: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    order: Order
    answer: "Future[Warmed]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawn:
    claim: Claim


@dataclass(frozen=True, slots=True, kw_only=True)
class Launched:
    seat_id: str
    identity: ProcessIdentity


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    seat_id: str
    status: HostStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class HostEnded:
    """The host's process is gone, or was never there; `error` says why, where it is known."""

    seat_id: str
    error: WarmrackError | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Nudge:
    """Something changed in SQL: look now rather than at the next tick."""


Event = Wanted | Withdrawn | Launched | Seen | HostEnded | Nudge


class Effects(Protocol):
    """All that the loop may cause. Each returns at once; what follows comes back as an event."""

    def socket_of(self, seat_id: str) -> str: ...

    def start(self, seat: Seat, order: Order) -> None: ...

    def drain(self, seat_id: str) -> None: ...

    def kill(self, seat_id: str) -> None: ...
