"""The residency loop, turned by hand: events in, effects and answers out; no host, no thread."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.services.stores import make_sqlite_template, sqlite_store
from tests.unit.residency_rig import BUDGET_BYTES, Rig, make_claim, make_order, make_status
from warmrack_store.errors import (
    Defect,
    HostLost,
    Integrity,
    NotExact,
    StoreUnavailable,
    WarmrackError,
    WontFit,
)
from warmrack_store.ledgers import residents
from warmrack_store.schema import residents as rows
from warmrack_store.states import ResidentState
from warmrack_workers.host_status import ErrorRecord
from warmrack_workers.orders import HostEnded, Launched, Nudge, Seen, Withdrawn
from warmrack_workers.processes import ProcessIdentity
from warmrack_workers.residency import Residency

NOT_STORED = float("nan")
"""SQLite takes it for NULL, which the columns refuse."""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sqlite_template(tmp_path_factory.mktemp("template"))


@pytest.fixture
def rig(template: Path, tmp_path: Path) -> Iterator[Rig]:
    with sqlite_store(tmp_path, template) as store:
        yield Rig(store)


def test_a_want_starts_a_host_and_is_answered_when_it_is_warm(rig: Rig) -> None:
    answer = rig.want("job1", make_order())
    [(seat, order)] = rig.effects.started
    assert (seat.device, order.claim.job_id) == ("cpu:0", "job1")
    assert rig.row(seat.id).state is ResidentState.STARTING
    rig.turn(Launched(seat_id=seat.id, identity=ProcessIdentity(pid=4242, start_time=7)))
    rig.say(seat.id, ResidentState.LOADING)
    assert not answer.done()
    assert rig.row(seat.id).state is ResidentState.LOADING
    rig.say(seat.id, ResidentState.WARM)
    warmed = answer.result(timeout=0)
    row = rig.row(seat.id)
    assert (row.state, row.pid, row.receipt_id) == ("warm", 4242, warmed.receipt_id)
    assert (warmed.resident_id, warmed.joined) == (seat.id, False)


def test_a_second_want_joins_the_load_already_running(rig: Rig) -> None:
    first, second = rig.want("job1", make_order()), rig.want("job2", make_order())
    assert len(rig.effects.started) == 1
    rig.say(rig.effects.started[0][0].id, ResidentState.WARM)
    assert [first.result(0).joined, second.result(0).joined] == [False, True]
    assert first.result(0).receipt_id == second.result(0).receipt_id


def test_a_want_for_a_warm_model_is_answered_at_once(rig: Rig) -> None:
    seat_id, _ = rig.warm("job1", make_order())
    assert rig.want("job2", make_order()).result(0).resident_id == seat_id
    assert len(rig.effects.started) == 1


def test_a_join_raises_keep_alive_and_pins_but_never_lowers_them(rig: Rig) -> None:
    seat_id, _ = rig.warm("job1", make_order(keep_alive_seconds=600.0))
    rig.want("job2", make_order(keep_alive_seconds=60.0))
    assert rig.row(seat_id).keep_alive_seconds == 600.0
    rig.want("job3", make_order(keep_alive_seconds=900.0, pinned=True))
    assert (rig.row(seat_id).keep_alive_seconds, rig.row(seat_id).pinned) == (900.0, True)


def test_of_two_that_join_at_once_the_one_that_wants_less_takes_nothing_away(rig: Rig) -> None:
    seat_id, _ = rig.warm("job1", make_order(keep_alive_seconds=600.0))
    longer = make_order(keep_alive_seconds=900.0, pinned=True)
    rig.want_at_once({"job2": longer, "job3": make_order(keep_alive_seconds=60.0)})
    [seat] = rig.loop.list_seats()
    assert (seat.id, seat.keep_alive_seconds, seat.pinned) == (seat_id, 900.0, True)


def test_a_model_that_was_just_asked_for_is_kept_until_it_is_used(rig: Rig) -> None:
    seat_id, _ = rig.warm("job1", make_order())
    rig.want("job2", make_order("org/b"))
    assert rig.effects.drained == [], "whoever asked for it has not used it yet"
    rig.say(seat_id, ResidentState.WARM, in_flight=1)
    assert rig.effects.drained == [], "it is in use"
    rig.say(seat_id, ResidentState.WARM, in_flight=0)
    assert rig.effects.drained == [seat_id]


def test_a_join_leases_the_model_that_it_was_given(rig: Rig) -> None:
    seat_id, _ = rig.warm("job1", make_order(keep_alive_seconds=0.0))
    rig.say(seat_id, ResidentState.WARM, in_flight=1)
    rig.want("job2", make_order(keep_alive_seconds=0.0)).result(0)
    rig.turn()
    assert rig.effects.drained == []


def test_a_want_that_no_device_holds_is_refused(rig: Rig) -> None:
    refused = rig.want("job1", make_order(size_bytes=BUDGET_BYTES + 1))
    assert isinstance(refused.exception(0), WontFit)
    assert rig.effects.started == []


@pytest.mark.parametrize("failure", [NotExact("E1 failed"), Integrity("E2 failed")])
def test_a_failed_load_is_told_to_everybody_who_waited_for_it(
    rig: Rig, failure: WarmrackError
) -> None:
    answers = [rig.want(f"job{number}", make_order()) for number in range(2)]
    seat_id = rig.effects.started[0][0].id
    record = ErrorRecord.model_validate(failure.to_record())
    rig.say(seat_id, ResidentState.GONE, error=record)
    assert not answers[0].done(), "the process is not gone yet"
    rig.turn(HostEnded(seat_id=seat_id, error=None))
    for answer in answers:
        assert isinstance(answer.exception(0), type(failure))
    assert (rig.row(seat_id).state, rig.row(seat_id).cause) == ("gone", failure.code)


def test_a_host_that_dies_while_it_loads_is_lost(rig: Rig) -> None:
    answer = rig.want("job1", make_order())
    rig.turn(HostEnded(seat_id=rig.effects.started[0][0].id, error=None))
    assert isinstance(answer.exception(0), HostLost)
    rig.want("job2", make_order())
    assert len(rig.effects.started) == 2


def test_a_warm_host_that_dies_is_started_again_for_the_next_want(rig: Rig) -> None:
    seat_id, _ = rig.warm("job1", make_order())
    rig.turn(HostEnded(seat_id=seat_id, error=None))
    assert rig.row(seat_id).state is ResidentState.GONE
    assert not rig.want("job2", make_order()).done()
    assert len(rig.effects.started) == 2


def test_a_withdrawn_load_that_nobody_else_wants_is_ended(rig: Rig) -> None:
    rig.want("job1", make_order())
    rig.want("job2", make_order())
    rig.turn(Withdrawn(claim=make_claim("job1")))
    assert rig.effects.killed == []
    rig.turn(Withdrawn(claim=make_claim("job2")))
    assert rig.effects.killed == [rig.effects.started[0][0].id]


def test_a_want_that_comes_while_a_withdrawn_load_ends_is_no_victim_of_it(rig: Rig) -> None:
    rig.want("job1", make_order())
    killed = rig.effects.started[0][0].id
    rig.turn(Withdrawn(claim=make_claim("job1")))
    again = rig.want("job2", make_order())
    rig.turn(HostEnded(seat_id=killed, error=None))
    assert not again.done()
    seat_id = rig.effects.started[-1][0].id
    assert seat_id != killed
    rig.say(seat_id, ResidentState.WARM)
    assert again.result(0).resident_id == seat_id


def test_a_job_claimed_again_is_not_withdrawn_by_its_older_claim(rig: Rig) -> None:
    lost = rig.want("job1", make_order(), epoch=1)
    again = rig.want("job1", make_order(), epoch=2)
    rig.turn(Withdrawn(claim=make_claim("job1", epoch=1)))
    assert rig.effects.killed == []
    rig.say(rig.effects.started[0][0].id, ResidentState.WARM)
    assert again.result(0).resident_id == rig.effects.started[0][0].id
    assert not lost.done()


def test_an_unload_drains_even_what_was_just_asked_for(rig: Rig) -> None:
    seat_id, _ = rig.warm("job1", make_order(pinned=True))
    rig.drain_marked(seat_id)
    rig.drain_marked(seat_id)
    assert rig.effects.drained == [seat_id]
    assert rig.row(seat_id).state is ResidentState.DRAINING
    rig.turn(HostEnded(seat_id=seat_id, error=None))
    assert (rig.row(seat_id).state, rig.row(seat_id).cause) == ("gone", "drained")


def test_a_resident_that_the_pool_wrote_off_drains(rig: Rig) -> None:
    seat_id, _ = rig.warm("job1", make_order())
    with rig.store.database.write() as tx:
        residents.write_off(tx, "n0", "node-lost", epoch=1)
    rig.turn(Nudge())
    assert rig.effects.drained == [seat_id]
    assert rig.row(seat_id).state is ResidentState.GONE, "gone is gone"


def test_a_pin_in_the_row_reaches_the_loop(rig: Rig) -> None:
    seat_id, _ = rig.warm("job1", make_order())
    rig.say(seat_id, ResidentState.WARM, in_flight=1)
    with rig.store.database.write() as tx:
        residents.set_pinned(tx, seat_id, True)
    rig.turn(Nudge())
    rig.say(seat_id, ResidentState.WARM, in_flight=0)
    rig.want("job2", make_order("org/b"))
    assert rig.effects.drained == []


@pytest.mark.parametrize("keep_alive_seconds", [60.0, 900.0])
def test_a_join_leaves_a_pin_alone_that_the_loop_has_not_read_yet(
    rig: Rig, keep_alive_seconds: float
) -> None:
    seat_id, _ = rig.warm("job1", make_order(keep_alive_seconds=600.0))
    with rig.store.database.write() as tx:
        residents.set_pinned(tx, seat_id, True)
    rig.want("job2", make_order(keep_alive_seconds=keep_alive_seconds))
    assert rig.row(seat_id).pinned
    rig.turn(Nudge())
    [seat] = rig.loop.list_seats()
    assert seat.pinned


def test_memory_is_free_only_when_the_process_is_gone(rig: Rig) -> None:
    seat_id, _ = rig.warm("job1", make_order())
    rig.say(seat_id, ResidentState.WARM, in_flight=1)
    rig.want("job2", make_order("org/b"))
    rig.say(seat_id, ResidentState.WARM, in_flight=0)
    rig.say(seat_id, ResidentState.DRAINING)
    assert len(rig.effects.started) == 1
    rig.turn(HostEnded(seat_id=seat_id, error=None))
    assert rig.effects.started[-1][1].claim.job_id == "job2"


def test_an_event_that_could_not_be_written_is_taken_again(rig: Rig) -> None:
    answer = rig.want("job1", make_order())
    seat_id = rig.effects.started[0][0].id
    away = sa.text("ALTER TABLE residents RENAME TO away")
    back = sa.text("ALTER TABLE away RENAME TO residents")
    with rig.store.database.write() as tx:
        tx.execute(away)
    with pytest.raises(StoreUnavailable):
        rig.say(seat_id, ResidentState.WARM)
    assert not answer.done()
    with rig.store.database.write() as tx:
        tx.execute(back)
    rig.turn()
    assert answer.result(0).resident_id == seat_id
    assert rig.row(seat_id).receipt_id == answer.result(0).receipt_id


def test_an_event_that_cannot_be_dealt_with_ends_its_host_and_not_the_loop(rig: Rig) -> None:
    answer = rig.want("job1", make_order(size_bytes=30))
    seat_id = rig.effects.started[0][0].id
    rig.say(seat_id, ResidentState.WARM, timings={"ready_seconds": NOT_STORED})
    assert rig.effects.killed == [seat_id]
    rig.turn(HostEnded(seat_id=seat_id, error=None))
    assert isinstance(answer.exception(0), Defect)
    rig.warm("job2", make_order("org/b"))


def test_a_want_that_cannot_be_served_is_told_so_and_holds_nobody_up(rig: Rig) -> None:
    refused = rig.want("job1", make_order(keep_alive_seconds=NOT_STORED))
    assert isinstance(refused.exception(0), Defect)
    rig.warm("job2", make_order("org/b"))
    seats = rig.loop.list_seats()
    assert [seat.device for seat in seats] == ["cpu:0"]


def test_an_event_of_a_seat_that_is_gone_changes_nothing(rig: Rig) -> None:
    seat_id, _ = rig.warm("job1", make_order())
    rig.turn(HostEnded(seat_id=seat_id, error=None))
    before = rig.row(seat_id)
    rig.say(seat_id, ResidentState.WARM)
    rig.turn(
        HostEnded(seat_id=seat_id, error=None),
        Launched(seat_id=seat_id, identity=ProcessIdentity(pid=1, start_time=1)),
        Withdrawn(claim=make_claim("job1")),
    )
    assert rig.row(seat_id) == before


def test_an_adopted_host_keeps_its_receipt_and_serves_the_next_want(rig: Rig) -> None:
    seat_id, first = rig.warm("job1", make_order())
    later = Residency(
        database=rig.store.database, node="n0", epoch=2, budgets={"cpu:0": BUDGET_BYTES}
    )
    [seat] = rig.loop.list_seats()
    starting = replace(seat, state=ResidentState.STARTING)
    later.adopt(rig.effects, {seat_id: (starting, first.resolution_id, first.socket)})
    later.start()
    try:
        later.post(Seen(seat_id=seat_id, status=make_status(seat_id, ResidentState.WARM)))
        warmed = later.want(replace(make_order(), claim=make_claim("job2"))).result(timeout=20)
    finally:
        later.stop()
    assert (warmed.resident_id, warmed.receipt_id) == (seat_id, first.receipt_id)
    assert warmed.joined


def test_one_row_is_written_for_each_host(rig: Rig) -> None:
    rig.warm("job1", make_order())
    rig.warm("job2", make_order("org/b", size_bytes=40))
    with rig.store.database.read() as tx:
        assert tx.execute(sa.select(sa.func.count()).select_from(rows)).scalar_one() == 2
