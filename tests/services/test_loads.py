"""Bringing a model into memory for a job and all that join it, by the real loop and no host."""

from collections.abc import Iterator

import pytest

from tests.services.stores import Store
from tests.services.submitted import claimed, look, submit
from tests.unit.residency_rig import BUDGET_BYTES, RecordingEffects, make_order, make_status
from warmrack_store.ledgers import claims, residents
from warmrack_store.ledgers.residents import Resident
from warmrack_store.states import JobState, ResidentState
from warmrack_workers.activity import Activity
from warmrack_workers.decide import Seat
from warmrack_workers.loads import Loads
from warmrack_workers.orders import Order, Seen
from warmrack_workers.residency import Residency


class InstantHosts(RecordingEffects):
    """Every host is warm as soon as it is started."""

    loop: Residency

    def start(self, seat: Seat, order: Order) -> None:
        super().start(seat, order)
        self.loop.post(Seen(seat_id=seat.id, status=make_status(seat.id, ResidentState.WARM)))


@pytest.fixture
def loop(store: Store) -> Iterator[Residency]:
    made = Residency(database=store.database, node="n0", epoch=1, budgets={"cpu:0": BUDGET_BYTES})
    effects = InstantHosts()
    effects.loop = made
    made.adopt(effects, {})
    made.start()
    yield made
    made.stop()


@pytest.fixture
def loads(store: Store, loop: Residency) -> Loads:
    return Loads(database=store.database, residency=loop, keep_alive="10m", store="store")


def loading(store: Store) -> Activity:
    claim = claimed(store.database)
    with store.database.write() as tx:
        claims.move(tx, claim, JobState.PLACED, resolution_id="res_1", target_node="n0")
        claims.move(tx, claim, JobState.FETCHING)
        claims.move(tx, claim, JobState.LOADING)
    return Activity(claim=claim)


def resident(store: Store) -> Resident:
    with store.database.read() as tx:
        [found] = residents.list_live(tx)
    return found


def test_who_joins_before_the_load_is_heard_by_it(store: Store, loads: Loads) -> None:
    leader = submit(store.database, keep_alive="0")
    activity = loading(store)
    joined = submit(store.database, keep_alive="pinned")
    loaded = loads.load(activity, "res_1", make_order().resolution)
    assert (resident(store).pinned, resident(store).keep_alive_seconds) == (True, 600.0)
    assert loads.finish(activity, loaded)
    assert look(store.database, leader.id).state is JobState.SUCCEEDED
    assert look(store.database, joined.id).resident_id == resident(store).id


def test_who_joins_after_the_load_is_heard_before_the_job_ends(store: Store, loads: Loads) -> None:
    submit(store.database, keep_alive="0")
    activity, resolution = loading(store), make_order().resolution
    loaded = loads.load(activity, "res_1", resolution)
    joined = submit(store.database, keep_alive="pinned")
    assert not loads.finish(activity, loaded)
    assert look(store.database, joined.id).state is JobState.LOADING
    again = loads.load(activity, "res_1", resolution)
    assert loads.finish(activity, again)
    assert (again.resident_id, resident(store).pinned) == (loaded.resident_id, True)
