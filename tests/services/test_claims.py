"""Who gets a job, what its holder may do with it, and what happens to those that joined it."""

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event
from typing import Any

import pytest
import sqlalchemy as sa

from tests.services.stores import Postgres, Store
from tests.services.submitted import (
    LAPSED_SECONDS,
    LEASE_SECONDS,
    claim,
    claimed,
    look,
    submit,
    told,
)
from warmrack_store.database import Database
from warmrack_store.errors import BadRequest, Cancelled, Expired, HubUnavailable, Timeout
from warmrack_store.ledgers import cancels, claims, deadlines, events, jobs, moves, secrets
from warmrack_store.ledgers.claims import Claim
from warmrack_store.ledgers.jobs import Job
from warmrack_store.ledgers.moves import LostClaim
from warmrack_store.schema import jobs as rows
from warmrack_store.schema import secrets as secret_rows
from warmrack_store.states import MOVES, TERMINAL, JobState

WORK = (JobState.PLACED, JobState.FETCHING, JobState.LOADING, JobState.RUNNING)
_DEATHS = 3


def move(database: Database, held: Claim, state: JobState, **changes: Any) -> Job:
    with database.write() as tx:
        return claims.move(tx, held, state, **changes)


def cancel(database: Database, job_id: str, error: Cancelled | Timeout | Expired) -> Job:
    with database.write() as tx:
        return cancels.request_cancel(tx, job_id, error)


def bring_to(database: Database, held: Claim, state: JobState) -> None:
    """Take a resolving job along the usual way to a state."""
    for step in WORK:
        if look(database, held.job_id).state is state:
            return
        move(database, held, step, **({"resolution_id": "res_1"} if step is WORK[0] else {}))


def requeue_all_lost(database: Database) -> list[str]:
    with database.read() as tx:
        lost = deadlines.list_expired_leases(tx)
    for job in lost:
        with database.write() as tx:
            deadlines.requeue_lost(tx, job, max_load_deaths=_DEATHS)
    return [job.id for job in lost]


def count_secrets(database: Database) -> int:
    with database.read() as tx:
        query = sa.select(sa.func.count()).select_from(secret_rows)
        return int(tx.execute(query).scalar_one())


def test_claims_go_by_priority_then_age(database: Database) -> None:
    late = submit(database, "org/late", priority="background")
    first = submit(database, "org/first")
    second = submit(database, "org/second")
    urgent = submit(database, "org/urgent", priority="interactive")
    order = [claimed(database).job_id for _ in range(4)]
    assert order == [urgent.id, first.id, second.id, late.id]
    assert claim(database) is None


def test_a_claim_gives_a_lease_and_a_higher_epoch(database: Database) -> None:
    submit(database)
    found = claim(database, node="n1", holder="h1")
    assert found is not None
    held, job = found
    assert (job.state, job.holder, job.epoch) == (JobState.RESOLVING, "h1", held.epoch)
    assert job.lease_until is not None
    assert job.started_at is not None
    assert job.lease_until - job.started_at == pytest.approx(LEASE_SECONDS, abs=5)


def test_a_job_placed_on_a_node_is_for_that_node_alone(database: Database) -> None:
    submit(database)
    held = claimed(database, node="n0")
    with database.write() as tx:
        claims.hand_over(tx, held, "n1", resolution_id="res_1", event={"why": "it is warm there"})
    assert claim(database, node="n0") is None
    found = claim(database, node="n1")
    assert found is not None
    assert (found[1].state, found[1].node) == (JobState.PLACED, "n1")


def test_a_job_that_backs_off_is_not_chosen_before_its_time(store: Store) -> None:
    submit(store.database)
    held = claimed(store.database)
    with store.database.write() as tx:
        claims.retry_later(tx, held, HubUnavailable("502"), 30.0)
    waiting = look(store.database, held.job_id)
    assert (waiting.state, waiting.attempt, waiting.cause) == ("queued", 2, "hub-unavailable")
    assert claim(store.database) is None
    store.pass_time(31)
    assert claimed(store.database).epoch == held.epoch + 1


def test_many_threads_claim_each_job_once(database: Database) -> None:
    made = {submit(database, f"org/m{n}").id for n in range(24)}
    together = Barrier(8)

    def run(number: int) -> list[str]:
        together.wait()
        mine = []
        while found := claim(database, node=f"n{number}", holder=f"h{number}"):
            mine.append(found[0].job_id)
        return mine

    with ThreadPoolExecutor(8) as pool:
        taken = [job_id for mine in pool.map(run, range(8)) for job_id in mine]
    while found := claim(database):  # what a locked row hid from the last ones
        taken.append(found[0].job_id)
    assert sorted(taken) == sorted(made)


@pytest.mark.parametrize("state", JobState)
def test_only_the_moves_of_the_table_are_possible(sqlite: Store, state: JobState) -> None:
    database = sqlite.database
    job = submit(database)
    held = claimed(database)
    for goal in JobState:
        with database.write() as tx:
            tx.execute(rows.update().where(rows.c.id == job.id).values(state=state))
        if state in TERMINAL:
            with pytest.raises(LostClaim):
                move(database, held, goal)
        elif goal is state or goal in MOVES[state]:
            assert move(database, held, goal).state is goal
        else:
            with pytest.raises(ValueError, match="cannot move"):
                move(database, held, goal)
            assert look(database, job.id).state is state


def test_a_job_is_placed_again_after_it_went_back_with_its_resolution(database: Database) -> None:
    submit(database)
    first = claimed(database, node="n0")
    move(database, first, JobState.PLACED, resolution_id="res_1", target_node="n0")
    with database.write() as tx:
        claims.give_back(tx, first, "worker-stopped")
    found = claim(database, node="n1")
    assert found is not None
    again, job = found
    assert (job.state, job.resolution_id, job.target_node) == (JobState.PLACED, "res_1", None)
    move(database, again, JobState.PLACED, event={"why": "least time"}, target_node="n1")
    with database.write() as tx:
        claims.hand_over(tx, again, "n2", event={"why": "it is warm there"})
    assert look(database, job.id).target_node == "n2"
    kinds = ["queued", "resolving", "placed", "queued", "placed", "placed", "placed"]
    assert told(database, job.id) == kinds


def test_a_holder_that_lost_its_claim_writes_nothing(database: Database) -> None:
    job = submit(database)
    lost = claimed(database, holder="paused", seconds=LAPSED_SECONDS)
    assert requeue_all_lost(database) == [job.id]
    holder = claimed(database, holder="other")
    before = look(database, job.id)
    for write in (
        lambda tx: claims.move(tx, lost, JobState.PLACED),
        lambda tx: claims.hand_over(tx, lost, "n9"),
        lambda tx: claims.give_back(tx, lost, "late"),
        lambda tx: claims.retry_later(tx, lost, HubUnavailable("late"), 1.0),
        lambda tx: claims.finish(tx, lost, JobState.SUCCEEDED),
        lambda tx: claims.report_progress(tx, lost, bytes_done=9, bytes_total=9),
    ):
        with pytest.raises(LostClaim), database.write() as tx:
            write(tx)
    assert look(database, job.id) == before
    assert before.holder == holder.holder


def test_the_same_holder_with_an_old_epoch_writes_nothing_either(database: Database) -> None:
    submit(database)
    old = claimed(database, holder="h0", seconds=LAPSED_SECONDS)
    requeue_all_lost(database)
    claimed(database, holder="h0")
    with pytest.raises(LostClaim):
        move(database, old, JobState.PLACED)


def test_a_lapsed_lease_puts_the_job_back_and_counts_no_attempt(store: Store) -> None:
    job = submit(store.database)
    held = claimed(store.database)
    assert requeue_all_lost(store.database) == []
    store.pass_time(LEASE_SECONDS + 1)
    assert requeue_all_lost(store.database) == [job.id]
    back = look(store.database, job.id)
    assert (back.state, back.cause, back.holder, back.attempt) == ("queued", "lease-lost", None, 1)
    assert claimed(store.database).epoch == held.epoch + 1


def test_a_holder_that_renews_in_time_keeps_its_jobs(store: Store) -> None:
    submit(store.database)
    submit(store.database, "org/other")
    held = [claimed(store.database, holder="h0") for _ in range(2)]
    store.pass_time(LEASE_SECONDS - 5)
    with store.database.write() as tx:
        claims.renew(tx, held, LEASE_SECONDS)
    store.pass_time(10)
    assert requeue_all_lost(store.database) == []


def test_a_claim_that_its_holder_no_longer_names_runs_out(store: Store) -> None:
    for model in ("org/forgotten", "org/kept"):
        submit(store.database, model)
    forgotten, kept = [claimed(store.database, holder="h0") for _ in range(2)]
    store.pass_time(LEASE_SECONDS - 5)
    with store.database.write() as tx:
        claims.renew(tx, [kept], LEASE_SECONDS)
    store.pass_time(10)
    assert requeue_all_lost(store.database) == [forgotten.job_id]
    with store.database.write() as tx:
        claims.renew(tx, [forgotten], LEASE_SECONDS)
        claims.renew(tx, [], LEASE_SECONDS)
    assert look(store.database, forgotten.job_id).lease_until is None


def test_a_lease_renewed_between_the_look_and_the_requeue_stands(database: Database) -> None:
    job = submit(database)
    held = claimed(database, seconds=LAPSED_SECONDS)
    with database.read() as tx:
        lost = deadlines.list_expired_leases(tx)
    with database.write() as tx:
        claims.renew(tx, [held], LEASE_SECONDS)
    with pytest.raises(LostClaim), database.write() as tx:
        deadlines.requeue_lost(tx, lost[0], max_load_deaths=_DEATHS)
    assert look(database, job.id).holder == held.holder


def test_the_third_death_in_loading_makes_a_job_poisonous(database: Database) -> None:
    job = submit(database)
    for death in range(1, _DEATHS + 1):
        held = claimed(database, seconds=LAPSED_SECONDS)
        bring_to(database, held, JobState.LOADING)
        requeue_all_lost(database)
        assert look(database, job.id).load_deaths == death
    dead = look(database, job.id)
    assert (dead.state, dead.cause) == (JobState.FAILED, "poisonous")
    assert dead.error is not None
    assert dead.error["code"] == "poisonous"


def test_deaths_elsewhere_are_not_counted(database: Database) -> None:
    job = submit(database)
    for _ in range(_DEATHS + 1):
        bring_to(database, claimed(database, seconds=LAPSED_SECONDS), JobState.FETCHING)
        requeue_all_lost(database)
    assert (look(database, job.id).state, look(database, job.id).load_deaths) == ("queued", 0)


def test_a_joined_job_mirrors_every_move_and_ends_with_its_leader(database: Database) -> None:
    leader, joined = submit(database), submit(database)
    held = claimed(database)
    bring_to(database, held, JobState.LOADING)
    assert look(database, joined.id).state is JobState.LOADING
    with database.write() as tx:
        claims.report_progress(tx, held, bytes_done=3, bytes_total=9)
        claims.finish(tx, held, JobState.SUCCEEDED, resident_id="r", receipt_id="rec")
    ended = look(database, joined.id)
    assert (ended.state, ended.bytes_done, ended.bytes_total) == ("succeeded", 3, 9)
    assert (ended.resident_id, ended.receipt_id, ended.holder) == ("r", "rec", None)
    assert told(database, joined.id) == told(database, leader.id)
    assert claim(database) is None


def test_a_job_that_joins_late_starts_where_its_leader_is(database: Database) -> None:
    submit(database)
    held = claimed(database)
    bring_to(database, held, JobState.FETCHING)
    late = submit(database)
    assert late.state is JobState.FETCHING
    assert late.started_at is not None
    assert late.started_at >= late.created_at, "its own time runs from when it came"
    assert told(database, late.id) == ["fetching"]


def test_a_requeued_leader_does_not_turn_back_the_clock_of_a_joined_job(store: Store) -> None:
    submit(store.database)
    held = claimed(store.database)
    store.pass_time(10)
    joined = submit(store.database)
    with store.database.write() as tx:
        claims.give_back(tx, held, "worker-stopped")
    claimed(store.database)
    after = look(store.database, joined.id)
    assert after.started_at is not None
    assert after.started_at >= after.created_at


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.PLACED])
def test_a_job_that_nobody_holds_is_cancelled_at_once(database: Database, state: JobState) -> None:
    job = submit(database, token=b"ciphertext")
    if state is JobState.PLACED:
        held = claimed(database)
        with database.write() as tx:
            claims.hand_over(tx, held, "n1", resolution_id="res_1")
    ended = cancel(database, job.id, Cancelled("enough"))
    assert (ended.state, ended.cause) == (JobState.CANCELLED, "cancelled")
    assert ended.error is not None
    assert ended.finished_at is not None
    assert count_secrets(database) == 0
    assert claim(database, node="n1") is None


@pytest.mark.parametrize("state", [JobState.RESOLVING, *WORK])
def test_the_holder_of_a_cancelled_job_is_asked_and_ends_it(
    database: Database, state: JobState
) -> None:
    job = submit(database)
    held = claimed(database)
    bring_to(database, held, state)
    asked = cancel(database, job.id, Timeout("too long"))
    assert (asked.state, asked.cancel_cause, asked.holder) == (state, "timeout", "h0")
    with database.write() as tx:
        moves.end_ended(tx, claims.get_held(tx, held), Timeout("too long"))
    assert look(database, job.id).state is JobState.CANCELLED


@pytest.mark.parametrize("how", ["dies", "gives back", "retries", "hands over"])
def test_a_cancelled_job_never_goes_back_to_the_queue(database: Database, how: str) -> None:
    job = submit(database)
    held = claimed(database, seconds=LAPSED_SECONDS)
    cancel(database, job.id, Timeout("too long"))
    with database.write() as tx:
        if how == "gives back":
            claims.give_back(tx, held, "worker-stopped")
        elif how == "retries":
            claims.retry_later(tx, held, HubUnavailable("502"), 0.0)
        elif how == "hands over":
            claims.hand_over(tx, held, "n1", resolution_id="res_1")
    requeue_all_lost(database)
    ended = look(database, job.id)
    assert (ended.state, ended.cause, ended.holder) == (JobState.CANCELLED, "timeout", None)
    assert claim(database) is None


@pytest.mark.parametrize("end", sorted(TERMINAL))
def test_a_job_that_has_ended_stays_as_it_ended(database: Database, end: JobState) -> None:
    job = submit(database)
    held = claimed(database)
    with database.write() as tx:
        claims.finish(tx, held, end, cause="whatever")
    ended = look(database, job.id)
    assert cancel(database, job.id, Cancelled("too late")) == ended
    assert told(database, job.id)[-1] == end


def test_cancelling_a_joined_job_leaves_the_others_alone(database: Database) -> None:
    leader, joined, third = (submit(database) for _ in range(3))
    held = claimed(database)
    assert cancel(database, joined.id, Cancelled("enough")).state is JobState.CANCELLED
    with database.write() as tx:
        claims.finish(tx, held, JobState.SUCCEEDED)
    assert look(database, joined.id).state is JobState.CANCELLED
    assert look(database, leader.id).state is JobState.SUCCEEDED
    assert look(database, third.id).state is JobState.SUCCEEDED
    assert told(database, joined.id)[-1] == "cancelled"


@pytest.mark.parametrize("held_by_a_worker", [False, True])
def test_the_oldest_joined_job_takes_over_from_a_cancelled_leader(
    database: Database, held_by_a_worker: bool
) -> None:
    leader = submit(database)
    heir = submit(database, priority="background", token=b"heir")
    third = submit(database, priority="interactive")
    held = None
    if held_by_a_worker:
        held = claimed(database)
        bring_to(database, held, JobState.FETCHING)
    assert cancel(database, leader.id, Cancelled("enough")).state is JobState.CANCELLED
    first, other = look(database, heir.id), look(database, third.id)
    assert (first.state, first.joined_to, first.cause) == ("queued", None, "promoted")
    assert (other.state, other.joined_to) == ("queued", heir.id)
    assert told(database, third.id)[-1] == told(database, heir.id)[-1] == "queued"
    if held is not None:
        assert first.resolution_id == "res_1"
        with pytest.raises(LostClaim):
            move(database, held, JobState.LOADING)
    submit(database, "org/other", priority="normal")
    assert claimed(database, holder="h9").job_id == heir.id, "it keeps the priority they lent it"
    assert count_secrets(database) == 1


def test_leaders_and_joined_jobs_cancelled_at_once_all_end_once(database: Database) -> None:
    made = [submit(database).id for _ in range(8)]
    claimed(database, seconds=LAPSED_SECONDS)
    together = Barrier(len(made))

    def run(job_id: str) -> None:
        together.wait()
        cancel(database, job_id, Cancelled("enough"))

    with ThreadPoolExecutor(len(made)) as pool:
        list(pool.map(run, made))
    requeue_all_lost(database)
    for job_id in made:
        assert look(database, job_id).state is JobState.CANCELLED
        assert told(database, job_id).count("cancelled") == 1


def await_blocked(store: Store) -> None:
    """Until some transaction of this database waits for another one's lock."""
    waiting = sa.text(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    deadline = time.monotonic() + 20
    while True:
        with store.database.read() as tx:
            if tx.execute(waiting).scalar_one():
                return
        assert time.monotonic() < deadline, "nobody waits"
        Event().wait(0.01)


def test_an_heir_that_is_cancelled_while_it_takes_over_hands_on_its_place(
    postgres: Postgres,
) -> None:
    with postgres.store() as store, ThreadPoolExecutor(1) as pool:
        leader, heir, third = (submit(store.database) for _ in range(3))
        with store.database.write() as tx:
            cancels.request_cancel(tx, leader.id, Cancelled("enough"))
            ending = pool.submit(cancel, store.database, heir.id, Cancelled("enough"))
            await_blocked(store)
        assert ending.result().state is JobState.CANCELLED
        last = look(store.database, third.id)
        assert (last.state, last.joined_to) == (JobState.QUEUED, None)
        assert claimed(store.database).job_id == third.id


def test_a_leader_that_is_cancelled_while_its_heir_is_passes_over_it(postgres: Postgres) -> None:
    with postgres.store() as store, ThreadPoolExecutor(1) as pool:
        leader, heir, third = (submit(store.database) for _ in range(3))
        with store.database.write() as tx:
            cancels.request_cancel(tx, heir.id, Cancelled("enough"))
            ending = pool.submit(cancel, store.database, leader.id, Cancelled("enough"))
            await_blocked(store)
        assert ending.result().state is JobState.CANCELLED
        assert look(store.database, heir.id).state is JobState.CANCELLED
        assert look(store.database, third.id).joined_to is None
        assert told(store.database, heir.id) == ["queued", "cancelled"]


def test_a_submit_that_meets_the_end_of_its_leader_leads_itself(postgres: Postgres) -> None:
    with postgres.store() as store, ThreadPoolExecutor(1) as pool:
        submit(store.database)
        held = claimed(store.database)
        with store.database.write() as tx:
            claims.finish(tx, held, JobState.SUCCEEDED)
            coming = pool.submit(submit, store.database)
            await_blocked(store)
        assert (coming.result().state, coming.result().joined_to) == (JobState.QUEUED, None)


def test_cancels_that_race_with_claims_lose_nothing(database: Database) -> None:
    made = [submit(database, f"org/m{n}").id for n in range(12)]
    together = Barrier(2)

    def work() -> None:
        together.wait()
        while found := claim(database):
            with database.write() as tx:
                claims.finish(tx, found[0], JobState.SUCCEEDED)

    def stop() -> None:
        together.wait()
        for job_id in reversed(made):
            cancel(database, job_id, Cancelled("enough"))

    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(work), pool.submit(stop)]:
            future.result()
    work_left = claim(database)
    assert work_left is None
    for job_id in made:
        ends = [kind for kind in told(database, job_id) if kind in TERMINAL]
        assert len(ends) == 1


def test_the_secret_of_a_job_goes_when_it_ends_and_not_before(database: Database) -> None:
    job = submit(database, token=b"mine")
    joined = submit(database, token=b"theirs")
    held = claimed(database)
    with database.read() as tx:
        assert secrets.find_ciphertext(tx, job.secret_id) == b"mine"
    cancel(database, joined.id, Cancelled("enough"))
    assert count_secrets(database) == 1
    with database.write() as tx:
        claims.give_back(tx, held, "worker-stopped")
    assert count_secrets(database) == 1
    held = claimed(database)
    with database.write() as tx:
        claims.finish(tx, held, JobState.FAILED)
    assert count_secrets(database) == 0


def test_a_cause_and_an_error_do_not_outlive_the_state_they_explain(database: Database) -> None:
    job = submit(database)
    held = claimed(database)
    with database.write() as tx:
        claims.retry_later(tx, held, HubUnavailable("502"), 0.0)
    held = claimed(database)
    assert look(database, job.id).cause is None
    with database.write() as tx:
        claims.finish(tx, held, JobState.SUCCEEDED)
    assert (look(database, job.id).cause, look(database, job.id).error) == (None, None)


def test_every_event_of_a_move_says_why(database: Database) -> None:
    job = submit(database)
    held = claimed(database)
    with database.write() as tx:
        claims.retry_later(tx, held, HubUnavailable("502"), 1.5)
    with database.read() as tx:
        last = events.list_events(tx, job.id)[-1]
        first_only = events.list_events(tx, job.id, after=last.id)
    assert last.data["cause"] == "hub-unavailable"
    assert last.data["retry_in_seconds"] == 1.5
    assert last.data["error"]["retryable"] is True
    assert first_only == []


def test_a_holder_sees_the_jobs_it_holds(database: Database) -> None:
    submit(database, "org/a")
    submit(database, "org/b")
    mine = claimed(database, holder="h0")
    claimed(database, holder="h1")
    with database.read() as tx:
        assert [job.id for job in claims.list_claimed(tx, "h0")] == [mine.job_id]
        assert jobs.count_waiting(tx) == 0


def test_a_job_that_starts_between_the_look_and_the_expiry_goes_on(store: Store) -> None:
    job = submit(store.database, expires_at="2100-01-01T00:00:00Z")
    with store.database.write() as tx:
        tx.execute(rows.update().values(expires_at=tx.now - 1))
    with store.database.read() as tx:
        assert [late.id for late in deadlines.list_expired(tx)] == [job.id]
    with store.database.write() as tx:  # whoever claims it reads a clock that is a little behind
        tx.execute(rows.update().values(expires_at=tx.now + 60))
    claimed(store.database)
    with store.database.write() as tx:
        tx.execute(rows.update().values(expires_at=tx.now - 1))
    with pytest.raises(LostClaim), store.database.write() as tx:
        cancels.expire(tx, job.id)
    assert look(store.database, job.id).cancel_cause is None


def test_a_job_that_has_expired_is_refused_and_one_that_expires_waiting_is_not_claimed(
    store: Store,
) -> None:
    with pytest.raises(BadRequest, match="expires_at"):
        submit(store.database, expires_at="2020-01-01T00:00:00Z")
    job = submit(store.database, expires_at="2100-01-01T00:00:00Z")
    with store.database.write() as tx:
        tx.execute(rows.update().values(expires_at=tx.now - 1))
    assert claim(store.database) is None
    assert look(store.database, job.id).state is JobState.QUEUED


def test_a_job_that_was_started_in_time_is_claimed_again_after_its_expiry(store: Store) -> None:
    submit(store.database, expires_at="2100-01-01T00:00:00Z")
    held = claimed(store.database)
    with store.database.write() as tx:
        claims.give_back(tx, held, "worker-stopped")
        tx.execute(rows.update().values(expires_at=tx.now - 1))
    assert claimed(store.database).job_id == held.job_id
