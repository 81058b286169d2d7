"""Celery messages from an app that knows nothing of us, through a real broker."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis
import sqlalchemy as sa
from celery import Celery
from celery.result import AsyncResult

from tests.services.submitted import claimed, look
from warmrack_daemon.reconciler import Reconciler
from warmrack_daemon.serve import receive
from warmrack_daemon.services import Services
from warmrack_store.brokers.celery_doorbell import INTAKE_QUEUE, Intake
from warmrack_store.ledgers import claims
from warmrack_store.schema import jobs, outbox
from warmrack_store.states import JobState

pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")
_SECONDS = 30.0
REQUEST = {"model": "org/name"}
GARBAGE = (
    b"garbage",
    b"\xff\xfe",
    b"[]",
    b"7",
    b"null",
    b"{}",
    b'{"properties": {}}',
    b'{"properties": 7}',
    b'{"body": 7}',
)


@pytest.fixture
def foreign(broker: str) -> Iterator[Celery]:
    """Somebody else's application on the same broker, with Celery's own defaults."""
    app = Celery("foreign", broker=broker, backend=broker, set_as_current=False)
    yield app
    app.close()


@pytest.fixture
def intake(services: Services) -> Iterator[Intake]:
    made = Intake(
        services.broker_url,
        result_backend=services.broker_url,
        submit=lambda kind, kwargs, task_id: receive(services, kind, kwargs, task_id),
    )
    made.start()
    yield made
    made.stop()


def send(app: Celery, name: str = "warmrack.load", **kwargs: Any) -> AsyncResult:
    return app.send_task(name, kwargs={"request": REQUEST, **kwargs}, queue=INTAKE_QUEUE)


def count(services: Services, table: sa.Table) -> int:
    with services.database.read() as tx:
        return int(tx.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


def test_a_message_becomes_a_job_and_its_result_is_the_id(
    services: Services, intake: Intake, foreign: Celery
) -> None:
    for name, kind, more in (
        ("warmrack.load", "load", {"priority": "interactive"}),
        ("warmrack.prefetch", "prefetch", {}),
        ("warmrack.task", "task", {"task": "generate", "payload": {"prompt": "hi"}}),
    ):
        job_id = send(foreign, name, **more).get(timeout=_SECONDS, disable_sync_subtasks=False)
        job = look(services.database, job_id)
        assert (job.kind, job.tenant, job.model) == (kind, "default", "org/name")


def test_messages_that_nobody_can_read_are_dropped_and_the_next_one_is_taken(
    services: Services, intake: Intake, foreign: Celery, broker: str
) -> None:
    with redis.Redis.from_url(broker) as client:
        client.lpush(INTAKE_QUEUE, *GARBAGE)
        job_id = send(foreign).get(timeout=_SECONDS, disable_sync_subtasks=False)
        assert look(services.database, job_id).model == "org/name"
        assert client.llen(INTAKE_QUEUE) == 0
    assert intake.is_running()


def test_an_intake_whose_worker_has_ended_by_itself_starts_another_one(
    services: Services, intake: Intake, foreign: Celery
) -> None:
    send(foreign).get(timeout=_SECONDS, disable_sync_subtasks=False)
    intake._worker.stop(in_sighandler=False)  # as Celery's own worker does on a fatal error
    job_id = send(foreign).get(timeout=_SECONDS, disable_sync_subtasks=False)
    assert look(services.database, job_id).model == "org/name"
    intake.stop()
    assert not intake.is_running()


def test_a_caller_that_waits_gets_the_finished_job(
    services: Services, intake: Intake, foreign: Celery
) -> None:
    result = send(foreign, wait=True)
    job_id = send(foreign, idempotency_key="after").get(
        timeout=_SECONDS, disable_sync_subtasks=False
    )
    leader = look(services.database, job_id).joined_to or job_id
    held = claimed(services.database)
    assert held.job_id == leader
    assert not result.ready()
    with services.database.write() as tx:
        claims.finish(tx, held, JobState.SUCCEEDED)
    Reconciler(services, intake.answer).reconcile()
    finished = result.get(timeout=_SECONDS, disable_sync_subtasks=False)
    assert (finished["state"], finished["model"]) == ("succeeded", "org/name")
    assert count(services, outbox) == 0


def test_a_message_that_is_delivered_twice_is_one_job(
    services: Services, intake: Intake, foreign: Celery, broker: str
) -> None:
    intake.stop()
    result = send(foreign)
    with redis.Redis.from_url(broker) as client:
        (message,) = client.lrange(INTAKE_QUEUE, 0, -1)
        copy = json.loads(message)
        copy["properties"]["delivery_tag"] = "another-delivery"
        client.lpush(INTAKE_QUEUE, json.dumps(copy))
    again = Intake(
        services.broker_url,
        result_backend=services.broker_url,
        submit=lambda kind, kwargs, task_id: receive(services, kind, kwargs, task_id),
    )
    again.start()
    try:
        result.get(timeout=_SECONDS, disable_sync_subtasks=False)
        send(foreign, request={"model": "org/last"}).get(
            timeout=_SECONDS, disable_sync_subtasks=False
        )
    finally:
        again.stop()
    assert count(services, jobs) == 2


def test_messages_with_one_idempotency_key_are_one_job(
    services: Services, intake: Intake, foreign: Celery
) -> None:
    ids = {
        send(foreign, idempotency_key="k").get(timeout=_SECONDS, disable_sync_subtasks=False)
        for _ in range(3)
    }
    assert len(ids) == 1


@pytest.mark.parametrize(
    ("kwargs", "code"),
    [
        ({"request": {"model": "../.."}}, "bad-request"),
        ({"request": {"model": "org/name", "mode": "magic"}}, "bad-request"),
        ({"request": {"model": "org/name", "attn": "eager"}}, "not-supported"),
        ({"surprise": 1}, "bad-request"),
        ({"api_key": "k"}, "not-supported"),
        ({"hub_token": "hf_secret"}, "not-supported"),
        ({"wait": "no"}, "bad-request"),
        ({"idempotency_key": 7}, "bad-request"),
        ({"idempotency_key": "a\0b"}, "bad-request"),
        ({"idempotency_key": "k" * 201}, "bad-request"),
    ],
)
def test_a_bad_message_is_refused_with_its_code_and_stores_nothing(
    services: Services, kwargs: dict[str, Any], code: str
) -> None:
    with pytest.raises(ValueError, match=f"^{code}: ") as refused:
        receive(services, "load", {"request": REQUEST, **kwargs}, "task-1")
    assert "hf_secret" not in str(refused.value)
    assert count(services, jobs) == count(services, outbox) == 0


def test_a_refusal_reaches_the_caller(intake: Intake, foreign: Celery) -> None:
    with pytest.raises(Exception, match="bad-request: model"):
        send(foreign, request={"model": "../.."}).get(timeout=_SECONDS, disable_sync_subtasks=False)


def test_a_pool_without_an_intake_tenant_refuses_messages(services: Services) -> None:
    closed = services.settings.model_copy(update={"intake_tenant": None})
    with pytest.raises(ValueError, match="bad-request: this pool accepts no Celery messages"):
        receive(replace(services, settings=closed), "load", {"request": REQUEST}, "task-1")
