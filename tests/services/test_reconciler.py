"""The reconciler's steps, each against real rows, a real broker and no worker."""

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from tests.services.listening import listening, next_id
from tests.services.residing import put_resident
from tests.services.stores import Store
from tests.services.submitted import LAPSED_SECONDS, claim, claimed, look, submit, told
from warmrack_daemon.leading import Leading
from warmrack_daemon.reconciler import Reconciler
from warmrack_daemon.services import Services
from warmrack_store.brokers.celery_doorbell import RESOLVE_QUEUE, node_queue
from warmrack_store.database import Database
from warmrack_store.ledgers import claims, deadlines, nodes, outbox, residents
from warmrack_store.schema import jobs as rows
from warmrack_store.states import JobState, NodeState

_LEASE_SECONDS = 6.0
_LONG_SECONDS = 3600.0
_GRACE_SECONDS = 3.0


class Answers(list[tuple[str, dict[str, Any]]]):
    """What Celery callers were sent."""

    def send(self, task_id: str, result: dict[str, Any]) -> None:
        self.append((task_id, result))


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def reconciler(services: Services, answers: Answers) -> Reconciler:
    return Reconciler(services, answers.send)


@pytest.fixture
def queues(broker: str) -> Iterator["redis.Redis[bytes]"]:
    with redis.Redis.from_url(broker) as client:
        yield client


def register(database: Database, name: str) -> int:
    with database.write() as tx:
        return nodes.register(
            tx,
            name,
            machine="m",
            store=f"store-{name}",
            devices=[],
            labels={},
            tasks={},
            versions={},
            pid=1,
        )


def state_of(database: Database, name: str) -> NodeState:
    with database.read() as tx:
        node = nodes.find_node(tx, name)
    assert node is not None
    return node.state


def hand_to(database: Database, node: str, **fields: Any) -> str:
    """A job that waits for a node; gives its id."""
    job = submit(database, **fields)
    held = claimed(database, node="resolver")
    with database.write() as tx:
        claims.hand_over(tx, held, node, resolution_id="res_1")
    return job.id


def test_a_job_whose_worker_died_goes_back_to_the_queue_and_is_rung(
    database: Database, reconciler: Reconciler, queues: "redis.Redis[bytes]"
) -> None:
    job = submit(database)
    claimed(database, seconds=LAPSED_SECONDS)
    reconciler.reconcile()
    back = look(database, job.id)
    assert (back.state, back.cause, back.holder) == ("queued", "lease-lost", None)


def test_a_job_not_started_by_its_time_is_expired(
    database: Database, reconciler: Reconciler
) -> None:
    late = submit(database, expires_at="2100-01-01T00:00:00Z")
    with database.write() as tx:
        tx.execute(rows.update().values(expires_at=tx.now - 1))
    early = submit(database, "org/other", expires_at="2100-01-01T00:00:00Z")
    reconciler.reconcile()
    assert (look(database, late.id).state, look(database, late.id).cause) == (
        "cancelled",
        "expired",
    )
    assert look(database, early.id).state is JobState.QUEUED


def test_a_job_that_was_started_in_time_does_not_expire(
    store: Store, reconciler: Reconciler
) -> None:
    job = submit(store.database, expires_at="2100-01-01T00:00:00Z")
    claimed(store.database, seconds=10 * _LONG_SECONDS)
    store.pass_time(_LONG_SECONDS)
    reconciler.reconcile()
    assert look(store.database, job.id).state is JobState.RESOLVING


def test_a_job_over_its_time_is_asked_to_end_once(store: Store, reconciler: Reconciler) -> None:
    job = submit(store.database, timeout_seconds=30)
    claimed(store.database, seconds=10 * _LONG_SECONDS)
    reconciler.reconcile()
    assert look(store.database, job.id).cancel_cause is None
    store.pass_time(31)
    reconciler.reconcile()
    reconciler.reconcile()
    assert look(store.database, job.id).cancel_cause == "timeout"
    assert told(store.database, job.id) == ["queued", "resolving"]


def test_a_jobs_time_runs_while_it_waits_for_a_node_or_for_the_job_it_joined(
    store: Store, reconciler: Reconciler
) -> None:
    leader = submit(store.database)
    joined = submit(store.database, timeout_seconds=30)
    alone = submit(store.database, "org/other", timeout_seconds=30)
    assert joined.joined_to == leader.id
    store.pass_time(31)
    reconciler.reconcile()
    for job in (joined, alone):
        ended = look(store.database, job.id)
        assert (ended.state, ended.cause) == (JobState.CANCELLED, "timeout")
        assert "waiting" in (ended.error or {})["message"]
    assert look(store.database, leader.id).state is JobState.QUEUED


def test_a_job_over_its_time_that_waits_again_ends_at_once(
    store: Store, reconciler: Reconciler
) -> None:
    job = submit(store.database, timeout_seconds=30)
    held = claimed(store.database)
    with store.database.write() as tx:
        claims.give_back(tx, held, "worker-stopped")
    store.pass_time(31)
    reconciler.reconcile()
    assert (look(store.database, job.id).state, look(store.database, job.id).cause) == (
        "cancelled",
        "timeout",
    )


def test_a_node_is_unreachable_then_lost_and_comes_back_with_its_next_beat(
    store: Store, reconciler: Reconciler
) -> None:
    epoch = register(store.database, "n0")
    reconciler.reconcile()
    assert state_of(store.database, "n0") is NodeState.READY
    store.pass_time(_LEASE_SECONDS + 1)
    reconciler.reconcile()
    assert state_of(store.database, "n0") is NodeState.UNREACHABLE
    store.pass_time(_LEASE_SECONDS)
    reconciler.reconcile()
    assert state_of(store.database, "n0") is NodeState.LOST
    with store.database.write() as tx:
        assert nodes.heartbeat(tx, "n0", epoch)
    assert state_of(store.database, "n0") is NodeState.READY


@pytest.mark.parametrize("how", ["lost", "stopped"])
def test_what_a_gone_node_had_is_written_off_and_its_jobs_are_placed_again(
    store: Store, reconciler: Reconciler, how: str
) -> None:
    database = store.database
    for name in ("n0", "n1"):
        register(database, name)
        put_resident(database, name)
    waiting = hand_to(database, "n0", model="org/a")
    joined = submit(database, "org/a").id
    named = hand_to(database, "n0", model="org/b", nodes="n0")
    if how == "stopped":
        with database.write() as tx:
            nodes.set_state(tx, "n0", NodeState.STOPPED)
    else:
        store.pass_time(100)
        register(database, "n1")
        reconciler.reconcile()
    reconciler.reconcile()
    moved = look(database, waiting)
    assert (moved.state, moved.target_node, moved.cause) == ("queued", None, "node-lost")
    assert look(database, joined).state is JobState.QUEUED
    assert told(database, waiting)[-1] == "queued"
    assert told(database, joined)[-1] == "queued"
    assert look(database, named).target_node == "n0", "it asked for this node"
    with database.read() as tx:
        assert [resident.node for resident in residents.list_live(tx)] == ["n1"]
    found = claim(database, node="n1")
    assert found is not None
    assert found[0].job_id == waiting


def test_waiting_work_is_rung_once_a_grace_by_queue(
    store: Store, reconciler: Reconciler, queues: "redis.Redis[bytes]"
) -> None:
    epoch = register(store.database, "n7")
    hand_to(store.database, "n7", model="org/a")
    for number in range(3):
        submit(store.database, f"org/m{number}")
    reconciler.reconcile()
    assert queues.llen(RESOLVE_QUEUE) == 0, "a submit has rung a moment ago"
    for round_ in (1, 2):
        store.pass_time(_GRACE_SECONDS + 0.5)
        with store.database.write() as tx:
            assert nodes.heartbeat(tx, "n7", epoch)
        reconciler.reconcile()
        reconciler.reconcile()
        assert queues.llen(RESOLVE_QUEUE) == round_
        assert queues.llen(node_queue("n7")) == round_


def test_nobody_is_rung_where_nobody_listens(
    store: Store, reconciler: Reconciler, queues: "redis.Redis[bytes]"
) -> None:
    hand_to(store.database, "n7", model="org/a")
    submit(store.database, "org/b")
    for state in (NodeState.STOPPED, NodeState.READY):
        store.pass_time(_GRACE_SECONDS + 0.5)
        register(store.database, "n8")
        with store.database.write() as tx:
            nodes.set_state(tx, "n8", state)
        reconciler.reconcile()
        assert queues.llen(RESOLVE_QUEUE) == (state is NodeState.READY)
        assert queues.llen(node_queue("n7")) == 0


def test_no_queue_is_rung_for_work_that_is_held_joined_over_or_not_due(
    store: Store, reconciler: Reconciler, queues: "redis.Redis[bytes]"
) -> None:
    submit(store.database)
    submit(store.database)
    claimed(store.database, seconds=_LONG_SECONDS)
    store.pass_time(60)
    with store.database.write() as tx:
        assert list(deadlines.take_unrung(tx, grace_seconds=_GRACE_SECONDS)) == []
    assert queues.llen(RESOLVE_QUEUE) == 0


def test_one_leads_and_another_takes_over_when_it_is_silent(store: Store) -> None:
    first, other = (
        Leading(store.database, name, lambda: None, subject="leader", ttl_seconds=5.0)
        for name in ("first", "other")
    )
    assert first.lead()
    assert not other.lead()
    assert first.lead()
    store.pass_time(60)
    assert other.lead()
    assert not first.lead()


def test_two_reconcilers_at_once_do_each_thing_once(
    database: Database, services: Services, reconciler: Reconciler
) -> None:
    job = submit(database)
    claimed(database, seconds=LAPSED_SECONDS)
    reconciler.reconcile()
    Reconciler(services, lambda _task, _result: None).reconcile()
    assert told(database, job.id) == ["queued", "resolving", "queued"]


def test_an_owed_answer_is_sent_once_when_the_job_has_ended(
    database: Database, reconciler: Reconciler, answers: Answers
) -> None:
    job = submit(database)
    with database.write() as tx:
        for _ in range(2):
            outbox.owe(tx, job_id=job.id, kind="celery", address="task-1")
    reconciler.reconcile()
    assert answers == []
    held = claimed(database)
    with database.write() as tx:
        claims.finish(tx, held, JobState.FAILED, cause="gated")
    reconciler.reconcile()
    reconciler.reconcile()
    assert [task_id for task_id, _ in answers] == ["task-1"]
    assert (answers[0][1]["id"], answers[0][1]["state"]) == (job.id, "failed")


def test_an_answer_that_could_not_be_sent_stays_owed(
    database: Database, services: Services, answers: Answers
) -> None:
    job = submit(database)
    with database.write() as tx:
        outbox.owe(tx, job_id=job.id, kind="celery", address="task-1")
    held = claimed(database)
    with database.write() as tx:
        claims.finish(tx, held, JobState.SUCCEEDED)

    def fail(_task_id: str, _result: dict[str, Any]) -> None:
        raise redis.ConnectionError

    with pytest.raises(redis.ConnectionError):
        Reconciler(services, fail).reconcile()
    Reconciler(services, answers.send).reconcile()
    assert len(answers) == 1


def test_the_thread_reconciles_by_itself_and_wakes_those_who_wait(
    database: Database, services: Services, reconciler: Reconciler
) -> None:
    job = submit(database)
    claimed(database, seconds=LAPSED_SECONDS)
    with listening(services.wakeups) as heard:
        reconciler.start()
        try:
            assert next_id(heard) == job.id
        finally:
            reconciler.stop()
    assert look(database, job.id).state is JobState.QUEUED
