"""The residents of one node as its loop knows them, and what it writes down when they change."""

import time
from dataclasses import dataclass, field, replace

import structlog

from warmrack_store.errors import WarmrackError
from warmrack_store.states import ResidentState
from warmrack_workers.decide import Seat
from warmrack_workers.host_status import HostStatus
from warmrack_workers.orders import HostEnded, Launched, Order, Seen
from warmrack_workers.resident_rows import ResidentRows

log = structlog.get_logger()
_FIRST_USE_SECONDS = 30.0
"""How long a model is kept for whoever just asked for it, if they do not use it before; longer
would lock small devices up."""


_STATUS_AGE_SECONDS = 0.5
"""How old a status may be when it is read: what was used within that of a lease may be older."""


@dataclass(kw_only=True)
class Place:
    """A seat and what the pure part need not know of it."""

    seat: Seat
    resolution_id: str
    socket: str
    receipt_id: str | None = None
    started_at: float
    starter: str | None = None
    """The job that it was started for."""
    noted: tuple[object, ...] = field(default=())
    error: WarmrackError | None = None


class Places:
    """All of them; only the loop's thread calls it. What writes may raise StoreUnavailable, and has
    changed nothing then, so it may be called again."""

    def __init__(self, rows: ResidentRows) -> None:
        self._rows = rows
        self._by_id: dict[str, Place] = {}

    def list_seats(self) -> list[Seat]:
        return [place.seat for place in self._by_id.values()]

    def find(self, seat_id: str) -> Place | None:
        return self._by_id.get(seat_id)

    def drop(self, seat_id: str) -> Place | None:
        """Forget a place without a word in its row."""
        return self._by_id.pop(seat_id, None)

    def adopt(self, seat: Seat, resolution_id: str, socket: str) -> None:
        """A place whose row is there already."""
        self._by_id[seat.id] = Place(
            seat=seat, resolution_id=resolution_id, socket=socket, started_at=time.monotonic()
        )

    def add(self, seat: Seat, order: Order, socket: str) -> None:
        self._rows.add(seat, order, socket)
        self._by_id[seat.id] = Place(
            seat=seat,
            resolution_id=order.resolution_id,
            socket=socket,
            started_at=seat.last_used_at,
            starter=order.claim.job_id,
        )

    def drain(self, seat_id: str) -> None:
        place = self._by_id[seat_id]
        place.seat = replace(place.seat, state=ResidentState.DRAINING)

    def join(self, seat_id: str, order: Order) -> Place:
        """Lease a warm seat to one more; its keep-alive and its pin only ever rise."""
        place = self._by_id[seat_id]
        seat = place.seat
        keep_alive = max(seat.keep_alive_seconds, order.keep_alive_seconds)
        if keep_alive > seat.keep_alive_seconds or order.pinned:
            self._rows.note_lease(seat.id, keep_alive_seconds=keep_alive, pin=order.pinned)
        now = time.monotonic()
        place.seat = replace(
            seat,
            keep_alive_seconds=keep_alive,
            pinned=seat.pinned or order.pinned,
            last_used_at=now,
            leased_until=now + _FIRST_USE_SECONDS,
        )
        return place

    def note_launch(self, event: Launched) -> None:
        if event.seat_id in self._by_id:
            self._rows.note_launch(event.seat_id, event.identity)

    def note_status(self, event: Seen) -> None:
        place, status = self._by_id.get(event.seat_id), event.status
        if place is None:
            return
        now = time.monotonic()
        if status.state is ResidentState.GONE and status.error is not None:
            place.error = WarmrackError.from_record(status.error.model_dump())
            return  # its end comes as an event of its own
        state = status.state
        if place.seat.state is ResidentState.DRAINING or state is ResidentState.GONE:
            state = ResidentState.DRAINING
        used_at = now - status.idle_seconds
        leased_until = place.seat.leased_until
        seat = replace(
            place.seat,
            state=state,
            in_flight=status.in_flight,
            last_used_at=max(place.seat.last_used_at, used_at),
            leased_until=0.0 if _is_used(status, used_at, leased_until) else leased_until,
        )
        if state is ResidentState.WARM and place.seat.state is not ResidentState.WARM:
            seat = self._note_warm(place, seat, status, now)
        place.seat = seat

    def _note_warm(self, place: Place, seat: Seat, status: HostStatus, now: float) -> Seat:
        """The seat of a model that has just become warm, its receipt stored first."""
        load_seconds = status.timings.get("ready_seconds", now - place.started_at)
        place.receipt_id = self._rows.note_warm(seat.id, place.resolution_id, status, load_seconds)
        log.info("A model is warm.", action="warm", resident=seat.id, model=status.repository)
        leased = now + _FIRST_USE_SECONDS if place.starter else 0.0
        return replace(seat, load_seconds=load_seconds, leased_until=leased)

    def note_end(self, event: HostEnded) -> Place | None:
        """The place that is no more, with the error that its host ended with, if it had one."""
        place = self._by_id.get(event.seat_id)
        if place is None:
            return None
        place.error = event.error or place.error
        cause = place.error.code if place.error else "drained"
        self._rows.note_end(event.seat_id, cause)
        del self._by_id[event.seat_id]
        log.info("A host has ended.", action="host-ended", resident=event.seat_id, cause=cause)
        return place

    def look_at_rows(self) -> None:
        """What others ask of residents, and which of them the pool has written off."""
        live = self._rows.list_live()
        for seat_id, place in self._by_id.items():
            row = live.get(seat_id)
            if row is None or row.drain_requested:
                place.seat = replace(place.seat, drain_requested=True, leased_until=0.0)
            elif row.pinned != place.seat.pinned:
                place.seat = replace(place.seat, pinned=row.pinned)

    def note_use(self) -> None:
        """Write what others look at, where it has changed."""
        changed = {}
        for place in self._by_id.values():
            seat = place.seat
            seen = (seat.state, seat.in_flight, round(seat.last_used_at))
            if seen != place.noted:
                changed[seat.id] = seen
        if changed:
            seats = [self._by_id[seat_id].seat for seat_id in changed]
            self._rows.note_use(seats, time.monotonic())
        for seat_id, seen in changed.items():
            self._by_id[seat_id].noted = seen


def _is_used(status: HostStatus, used_at: float, leased_until: float) -> bool:
    """Whether the model was used since its lease was given, so that the lease has done its work."""
    given_at = leased_until - _FIRST_USE_SECONDS
    return status.in_flight > 0 or used_at > given_at + _STATUS_AGE_SECONDS
