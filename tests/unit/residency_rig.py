"""A residency loop that a test turns by hand: events in, effects and answers out."""

import hashlib
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

from tests.services.stores import Store
from warmrack_store.facts import FileFact
from warmrack_store.ledgers import residents
from warmrack_store.ledgers.claims import Claim
from warmrack_store.ledgers.residents import Resident
from warmrack_store.receipts import Receipt
from warmrack_store.resolution import Memory, Resolution, Substitution
from warmrack_store.states import ResidentState
from warmrack_workers.decide import Seat
from warmrack_workers.host_status import HostStatus
from warmrack_workers.orders import Event, Nudge, Order, Seen, Wanted, Warmed
from warmrack_workers.residency import Residency

BUDGET_BYTES = 100


@dataclass(kw_only=True)
class RecordingEffects:
    """Does nothing but remember what it was told."""

    started: list[tuple[Seat, Order]] = field(default_factory=list)
    drained: list[str] = field(default_factory=list)
    killed: list[str] = field(default_factory=list)

    def socket_of(self, seat_id: str) -> str:
        return f"/run/{seat_id}.sock"

    def start(self, seat: Seat, order: Order) -> None:
        self.started.append((seat, order))

    def drain(self, seat_id: str) -> None:
        self.drained.append(seat_id)

    def kill(self, seat_id: str) -> None:
        self.killed.append(seat_id)


class Rig:
    """One node with one device, its loop turned by the test."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.effects = RecordingEffects()
        self.loop = Residency(
            database=store.database, node="n0", epoch=1, budgets={"cpu:0": BUDGET_BYTES}
        )
        self.loop.adopt(self.effects, {})

    def turn(self, *events: Event) -> None:
        self.loop.turn(list(events))

    def want(self, job_id: str, order: Order, *, epoch: int = 1) -> "Future[Warmed]":
        answer: Future[Warmed] = Future()
        self.turn(Wanted(order=replace(order, claim=make_claim(job_id, epoch)), answer=answer))
        return answer

    def want_at_once(self, orders: Mapping[str, Order]) -> None:
        """The wants of several jobs, in one turn."""
        claimed = [replace(order, claim=make_claim(job_id)) for job_id, order in orders.items()]
        self.turn(*(Wanted(order=order, answer=Future()) for order in claimed))

    def say(self, seat_id: str, state: ResidentState, **fields: Any) -> None:
        self.turn(Seen(seat_id=seat_id, status=make_status(seat_id, state, **fields)))

    def warm(self, job_id: str, order: Order) -> tuple[str, Warmed]:
        """Load a model for a job; gives its seat and the answer."""
        answer = self.want(job_id, order)
        seat_id = self.effects.started[-1][0].id
        self.say(seat_id, ResidentState.WARM)
        return seat_id, answer.result(timeout=0)

    def row(self, seat_id: str) -> Resident:
        with self.store.database.read() as tx:
            found = residents.find_resident(tx, seat_id)
        assert found is not None
        return found

    def drain_marked(self, seat_id: str) -> None:
        with self.store.database.write() as tx:
            residents.request_drain(tx, seat_id)
        self.turn(Nudge())


def make_claim(job_id: str, epoch: int = 1) -> Claim:
    return Claim(job_id=job_id, holder="h0", epoch=epoch)


def make_order(name: str = "org/a", size_bytes: int = 60, **fields: Any) -> Order:
    digest = hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()
    resolution = Resolution(
        request_digest="d",
        asked=name,
        ref_asked=None,
        repository=name,
        commit="0" * 40,
        private=False,
        gated=False,
        substitution=Substitution.NONE,
        files=(FileFact(path="model.safetensors", size=1, git_sha1=digest),),
        weights=(),
        architecture=None,
        model_type=None,
        parameters=1,
        stored_dtypes={},
        precision="fp32",
        tokenizer_files=(),
        memory=Memory(weights_bytes=size_bytes, cache_bytes=0, context_tokens=1, workspace_bytes=0),
        generates=True,
        trail=(),
        catalog_version="1",
    )
    usual: dict[str, Any] = {"keep_alive_seconds": 600.0, "pinned": False, "rank": 1}
    return Order(
        claim=make_claim("job"),
        resolution_id=f"res_{name}",
        resolution=resolution,
        store="store",
        **(usual | fields),
    )


def make_status(seat_id: str, state: ResidentState, **fields: Any) -> HostStatus:
    receipt = Receipt.model_validate(
        {
            "level": "loaded",
            "asked": "org/a",
            "served": {"repository": "org/a", "commit": "0" * 40, "precision": "fp32"},
            "checks": {},
            "files": [],
            "tensor_root": "root",
            "identical": True,
        }
    )
    usual: dict[str, Any] = {
        "resident_id": seat_id,
        "epoch": 1,
        "state": state,
        "pid": 4242,
        "start_time": 7,
        "model": "org/a",
        "repository": "org/a",
        "commit": "0" * 40,
        "device": "cpu:0",
        "in_flight": 0,
        "idle_seconds": 0.0,
        "bytes": 60,
        "error": None,
        "receipt": receipt if state is ResidentState.WARM else None,
        "timings": {"ready_seconds": 1.5},
    }
    return HostStatus(**(usual | fields))
