"""The residency loop: the one thread that owns what is in memory on this node.

Events come in through one queue, `decide` says what follows, `Effects` carries it out and answers
with further events. residency-design.md says why it is one loop. Nobody else changes a resident's
state; others ask (a drain, a pin) by a mark in the row, which the loop reads once a second.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import structlog

from warmrack_store.database import Database
from warmrack_store.errors import Defect, HostLost, StoreUnavailable, WarmrackError
from warmrack_store.ledgers.claims import Claim
from warmrack_store.ledgers.ids import new_id
from warmrack_store.states import ResidentState
from warmrack_workers.decide import Plan, Seat, Want, decide
from warmrack_workers.host_status import HostStatus
from warmrack_workers.orders import (
    Effects,
    Event,
    HostEnded,
    Launched,
    Nudge,
    Order,
    Seen,
    Wanted,
    Warmed,
    Withdrawn,
)
from warmrack_workers.resident_rows import ResidentRows

log = structlog.get_logger()
_TICK_SECONDS = 1.0
_FIRST_USE_SECONDS = 30.0
"""How long a model is kept for whoever just asked for it, if they do not use it before; longer
would lock small devices up."""


_STATUS_AGE_SECONDS = 0.5
"""How old a status may be when it is read: what was used within that of a lease may be older."""


@dataclass(kw_only=True)
class _Place:
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


class Residency:
    """Owns the seats of one node; `want` is called from any thread."""

    def __init__(
        self, *, database: Database, node: str, epoch: int, budgets: Mapping[str, int]
    ) -> None:
        self._rows = ResidentRows(database, node=node, epoch=epoch)
        self._budgets = dict(budgets)
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._untaken: deque[Event] = deque()
        """Events that have come and are not dealt with: SQL may be away in the middle of one."""
        self._places: dict[str, _Place] = {}
        self._wants: dict[tuple[str, int], tuple[Want, Wanted]] = {}
        self._effects: Effects | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="residency", daemon=True)
        self._looked_at = 0.0

    def post(self, event: Event) -> None:
        self._events.put(event)

    def adopt(self, effects: Effects, adopted: Mapping[str, tuple[Seat, str, str]]) -> None:
        """Take over the hosts that a former agent of this node has left running; before the start.

        `adopted` gives for each resident its seat, its resolution's id and its socket.
        """
        self._effects = effects
        for seat_id, (seat, resolution_id, socket) in adopted.items():
            self._places[seat_id] = _Place(
                seat=seat, resolution_id=resolution_id, socket=socket, started_at=time.monotonic()
            )

    def start(self) -> None:
        """Turn by itself, in a thread of its own."""
        self._thread.start()

    def list_seats(self) -> list[Seat]:
        return [place.seat for place in self._places.values()]

    def want(self, order: Order) -> "Future[Warmed]":
        """Ask for a model; the answer comes when it is warm, or as the error that it failed with."""
        answer: Future[Warmed] = Future()
        self.post(Wanted(order=order, answer=answer))
        return answer

    def withdraw(self, claim: Claim) -> None:
        """A job no longer wants its model. A load that nobody else wants is ended."""
        self.post(Withdrawn(claim=claim))

    def stop(self) -> None:
        self._stop.set()
        self.post(Nudge())
        if self._thread.is_alive():
            self._thread.join(timeout=2)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.turn(self._next_events())
            except StoreUnavailable as error:
                log.warning("Residency waits.", action="residency-wait", error=error.message)
                self._stop.wait(_TICK_SECONDS)
            except Exception:
                log.exception("A residency step failed.", action="residency-defect")
                self._stop.wait(_TICK_SECONDS)

    def _next_events(self) -> list[Event]:
        """Everything that has come, after waiting for the first of it for a tick at most."""
        events: list[Event] = []
        try:
            events.append(self._events.get(timeout=_TICK_SECONDS))
            while True:
                events.append(self._events.get_nowait())
        except queue.Empty:
            return events

    def turn(self, events: list[Event]) -> None:
        """One turn of the loop. An event that SQL is away for is taken again in the next turn; one
        that cannot be dealt with at all ends what it was about, and the loop goes on."""
        self._untaken.extend(events)
        nudged = any(isinstance(event, Nudge) for event in self._untaken)
        while self._untaken:
            event = self._untaken[0]
            try:
                self._take(event)
            except StoreUnavailable:
                raise
            except Exception as error:
                log.exception("An event could not be taken.", action="residency-defect")
                self._give_up(event, Defect(f"the residency loop failed: {error!r}"))
            self._untaken.popleft()
        now = time.monotonic()
        if nudged or now - self._looked_at >= _TICK_SECONDS:
            self._look_at_rows()
            self._looked_at = now
        wants = [want for want, _ in self._wants.values()]
        self._apply(decide(self._budgets, self.list_seats(), wants, now))
        self._note_use()

    def _take(self, event: Event) -> None:
        match event:
            case Wanted():
                order = event.order
                want = Want(
                    job_id=order.claim.job_id,
                    epoch=order.claim.epoch,
                    key=order.resolution.cache_key,
                    size_bytes=order.resolution.memory.total_bytes,
                    rank=order.rank,
                    since=time.monotonic(),
                )
                self._wants[want.job_id, want.epoch] = (want, event)
            case Withdrawn():
                self._withdraw(event.claim)
            case Launched():
                self._note_launch(event)
            case Seen():
                self._note_status(event)
            case HostEnded():
                self._note_end(event)
            case Nudge():
                return

    def _give_up(self, event: Event, error: Defect) -> None:
        match event:
            case Wanted():
                self._wants.pop((event.order.claim.job_id, event.order.claim.epoch), None)
                event.answer.set_exception(error)
            case Launched() | Seen():
                if place := self._places.get(event.seat_id):
                    place.error = error
                    self._effects_now().kill(event.seat_id)
            case HostEnded():
                if place := self._places.pop(event.seat_id, None):
                    self._fail_wants(place.seat.key, error)
            case Withdrawn() | Nudge():
                return

    def _withdraw(self, claim: Claim) -> None:
        found = self._wants.pop((claim.job_id, claim.epoch), None)
        if found is None:
            return
        key = found[0].key
        if any(want.key == key for want, _ in self._wants.values()):
            return
        for place in self._places.values():
            loading = place.seat.state not in (ResidentState.WARM, ResidentState.DRAINING)
            if place.seat.key == key and loading:
                # Draining: whoever wants it from now on starts a new one, this end is not theirs.
                place.seat = replace(place.seat, state=ResidentState.DRAINING)
                self._effects_now().kill(place.seat.id)

    def _note_launch(self, event: Launched) -> None:
        if event.seat_id in self._places:
            self._rows.note_launch(event.seat_id, event.identity)

    def _note_status(self, event: Seen) -> None:
        place, status = self._places.get(event.seat_id), event.status
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

    def _note_warm(self, place: _Place, seat: Seat, status: HostStatus, now: float) -> Seat:
        """The seat of a model that has just become warm, its receipt stored first."""
        load_seconds = status.timings.get("ready_seconds", now - place.started_at)
        place.receipt_id = self._rows.note_warm(seat.id, place.resolution_id, status, load_seconds)
        log.info("A model is warm.", action="warm", resident=seat.id, model=status.repository)
        leased = now + _FIRST_USE_SECONDS if place.starter else 0.0
        return replace(seat, load_seconds=load_seconds, leased_until=leased)

    def _note_end(self, event: HostEnded) -> None:
        place = self._places.get(event.seat_id)
        if place is None:
            return
        seat = place.seat
        error = event.error or place.error
        cause = error.code if error else "drained"
        self._rows.note_end(seat.id, cause)
        del self._places[seat.id]
        log.info("A host has ended.", action="host-ended", resident=seat.id, cause=cause)
        if seat.state in (ResidentState.WARM, ResidentState.DRAINING):
            return
        failure = error or HostLost(f"the host of {seat.id} ended while it loaded")
        self._fail_wants(seat.key, failure)

    def _fail_wants(self, key: str, error: WarmrackError) -> None:
        for claimed, (want, wanted) in list(self._wants.items()):
            if want.key == key:
                del self._wants[claimed]
                wanted.answer.set_exception(error)

    def _look_at_rows(self) -> None:
        """What others ask of residents, and which of them the pool has written off."""
        live = self._rows.list_live()
        for seat_id, place in self._places.items():
            row = live.get(seat_id)
            if row is None or row.drain_requested:
                place.seat = replace(place.seat, drain_requested=True, leased_until=0.0)
            elif row.pinned != place.seat.pinned:
                place.seat = replace(place.seat, pinned=row.pinned)

    def _apply(self, plan: Plan) -> None:
        for want, seat in plan.joins:
            with self._serving(want):
                self._join(want, seat)
        for want, error in plan.refusals:
            self._wants.pop((want.job_id, want.epoch))[1].answer.set_exception(error)
        for seat, cause in plan.drains:
            place = self._places[seat.id]
            place.seat = replace(place.seat, state=ResidentState.DRAINING)
            log.info("A resident drains.", action="drain", resident=seat.id, cause=cause)
            self._effects_now().drain(seat.id)
        for want, device in plan.starts:
            with self._serving(want):
                self._start(want, device)

    @contextmanager
    def _serving(self, want: Want) -> Iterator[None]:
        """A want that fails by our fault is told so, and holds nobody else up."""
        try:
            yield
        except StoreUnavailable:
            raise
        except Exception as error:
            log.exception("A want could not be served.", action="residency-defect")
            found = self._wants.pop((want.job_id, want.epoch), None)
            if found is not None:
                found[1].answer.set_exception(Defect(f"the residency loop failed: {error!r}"))

    def _join(self, want: Want, seat: Seat) -> None:
        _, wanted = self._wants[want.job_id, want.epoch]
        order, place = wanted.order, self._places[seat.id]
        keep_alive = max(seat.keep_alive_seconds, order.keep_alive_seconds)
        if keep_alive > seat.keep_alive_seconds or order.pinned:
            self._rows.note_lease(seat.id, keep_alive_seconds=keep_alive, pin=order.pinned)
        now = time.monotonic()
        place.seat = replace(
            place.seat,
            keep_alive_seconds=keep_alive,
            pinned=seat.pinned or order.pinned,
            last_used_at=now,
            leased_until=now + _FIRST_USE_SECONDS,
        )
        del self._wants[want.job_id, want.epoch]
        if place.receipt_id is None:
            wanted.answer.set_exception(HostLost(f"resident {seat.id} has no receipt"))
            return
        wanted.answer.set_result(
            Warmed(
                resident_id=seat.id,
                receipt_id=place.receipt_id,
                resolution_id=place.resolution_id,
                socket=place.socket,
                joined=place.starter != order.claim.job_id,
            )
        )

    def _start(self, want: Want, device: str) -> None:
        order = self._wants[want.job_id, want.epoch][1].order
        now = time.monotonic()
        seat = Seat(
            id=new_id("res"),
            key=want.key,
            device=device,
            size_bytes=want.size_bytes,
            state=ResidentState.STARTING,
            last_used_at=now,
            keep_alive_seconds=order.keep_alive_seconds,
            pinned=order.pinned,
        )
        socket = self._effects_now().socket_of(seat.id)
        self._rows.add(seat, order, socket)
        self._places[seat.id] = _Place(
            seat=seat,
            resolution_id=order.resolution_id,
            socket=socket,
            started_at=now,
            starter=order.claim.job_id,
        )
        self._effects_now().start(seat, order)

    def _note_use(self) -> None:
        """Write what others look at, where it has changed."""
        changed = {}
        for place in self._places.values():
            seat = place.seat
            seen = (seat.state, seat.in_flight, round(seat.last_used_at))
            if seen != place.noted:
                changed[seat.id] = seen
        if changed:
            seats = [self._places[seat_id].seat for seat_id in changed]
            self._rows.note_use(seats, time.monotonic())
        for seat_id, seen in changed.items():
            self._places[seat_id].noted = seen

    def _effects_now(self) -> Effects:
        assert self._effects is not None, "start() gives the loop its effects"
        return self._effects


def _is_used(status: HostStatus, used_at: float, leased_until: float) -> bool:
    """Whether the model was used since its lease was given, so that the lease has done its work."""
    given_at = leased_until - _FIRST_USE_SECONDS
    return status.in_flight > 0 or used_at > given_at + _STATUS_AGE_SECONDS
