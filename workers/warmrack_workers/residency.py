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

import structlog

from warmrack_store.database import Database
from warmrack_store.errors import Defect, HostLost, StoreUnavailable, WarmrackError
from warmrack_store.eviction import DEFAULT_POLICY
from warmrack_store.ledgers.claims import Claim
from warmrack_store.ledgers.ids import new_id
from warmrack_store.states import ResidentState
from warmrack_workers.decide import Plan, Seat, Want, decide
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
from warmrack_workers.places import Places
from warmrack_workers.resident_rows import ResidentRows

log = structlog.get_logger()
_TICK_SECONDS = 1.0


class Residency:
    """Owns the seats of one node; `want` is called from any thread."""

    def __init__(
        self,
        *,
        database: Database,
        node: str,
        epoch: int,
        budgets: Mapping[str, int],
        policy: str = DEFAULT_POLICY,
    ) -> None:
        self._places = Places(ResidentRows(database, node=node, epoch=epoch))
        self._budgets = dict(budgets)
        self._policy = policy
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._untaken: deque[Event] = deque()
        """Events that have come and are not dealt with: SQL may be away in the middle of one."""
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
        for seat, resolution_id, socket in adopted.values():
            self._places.adopt(seat, resolution_id, socket)

    def start(self) -> None:
        """Turn by itself, in a thread of its own."""
        self._thread.start()

    def list_seats(self) -> list[Seat]:
        return self._places.list_seats()

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
            self._places.look_at_rows()
            self._looked_at = now
        wants = [want for want, _ in self._wants.values()]
        plan = decide(self._budgets, self.list_seats(), wants, now, policy=self._policy)
        self._apply(plan)
        self._places.note_use()

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
                self._places.note_launch(event)
            case Seen():
                self._places.note_status(event)
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
                if place := self._places.find(event.seat_id):
                    place.error = error
                    self._effects_now().kill(event.seat_id)
            case HostEnded():
                if place := self._places.drop(event.seat_id):
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
        for seat in self._places.list_seats():
            loading = seat.state not in (ResidentState.WARM, ResidentState.DRAINING)
            if seat.key == key and loading:
                # Draining: whoever wants it from now on starts a new one, this end is not theirs.
                self._places.drain(seat.id)
                self._effects_now().kill(seat.id)

    def _note_end(self, event: HostEnded) -> None:
        place = self._places.note_end(event)
        if place is None or place.seat.state in (ResidentState.WARM, ResidentState.DRAINING):
            return
        lost = HostLost(f"the host of {place.seat.id} ended while it loaded")
        self._fail_wants(place.seat.key, place.error or lost)

    def _fail_wants(self, key: str, error: WarmrackError) -> None:
        for claimed, (want, wanted) in list(self._wants.items()):
            if want.key == key:
                del self._wants[claimed]
                wanted.answer.set_exception(error)

    def _apply(self, plan: Plan) -> None:
        for want, seat in plan.joins:
            with self._serving(want):
                self._join(want, seat)
        for want, error in plan.refusals:
            self._wants.pop((want.job_id, want.epoch))[1].answer.set_exception(error)
        for seat, cause in plan.drains:
            self._places.drain(seat.id)
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
        place = self._places.join(seat.id, wanted.order)
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
                joined=place.starter != want.job_id,
            )
        )

    def _start(self, want: Want, device: str) -> None:
        order = self._wants[want.job_id, want.epoch][1].order
        seat = Seat(
            id=new_id("res"),
            key=want.key,
            device=device,
            size_bytes=want.size_bytes,
            state=ResidentState.STARTING,
            last_used_at=time.monotonic(),
            keep_alive_seconds=order.keep_alive_seconds,
            pinned=order.pinned,
        )
        self._places.add(seat, order, self._effects_now().socket_of(seat.id))
        self._effects_now().start(seat, order)

    def _effects_now(self) -> Effects:
        assert self._effects is not None, "start() gives the loop its effects"
        return self._effects
