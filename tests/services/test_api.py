"""The HTTP API through a real server, on real databases and a real broker."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
import uvicorn

from tests.services.stores import Store, free_port
from tests.services.submitted import LEASE_SECONDS, claimed
from tests.services.test_nodes import register
from warmrack_daemon.api.app import create_app
from warmrack_daemon.services import Services
from warmrack_store.brokers.celery_doorbell import CeleryDoorbell
from warmrack_store.brokers.wakeups import Wakeups
from warmrack_store.ledgers import claims
from warmrack_store.schema import job_events, jobs, outbox, secrets
from warmrack_store.states import JobState

_SECONDS = 30.0
LOAD = {"kind": "load", "request": {"model": "org/name"}}


@contextmanager
def serving(services: Services) -> Iterator[httpx.Client]:
    """A client of a control plane that serves in a thread."""
    port = free_port()
    config = uvicorn.Config(
        create_app(services), host="127.0.0.1", port=port, log_level="error", ws="none"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=_SECONDS) as client:
            _await_server(client)
            yield client
    finally:
        server.should_exit = True
        thread.join(_SECONDS)


@pytest.fixture
def api(services: Services) -> Iterator[httpx.Client]:
    with serving(services) as client:
        yield client


def _await_server(client: httpx.Client) -> None:
    deadline = time.monotonic() + _SECONDS
    while True:
        try:
            client.get("/healthz")
        except httpx.ConnectError:
            assert time.monotonic() < deadline, "nobody serves"
            threading.Event().wait(0.01)
        else:
            return


def post_job(api: httpx.Client, **fields: Any) -> dict[str, Any]:
    answer = api.post("/api/v1/jobs", json=LOAD | fields)
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def is_problem(answer: httpx.Response, status: int, code: str) -> bool:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    body = answer.json()
    assert (answer.status_code, body["status"], body["code"]) == (status, status, code)
    assert body["detail"]
    assert len(answer.content) < 4_000
    return True


def count_rows(services: Services) -> int:
    with services.database.read() as tx:
        return sum(
            int(tx.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())
            for table in (jobs, job_events, secrets, outbox)
        )


def read_events(
    api: httpx.Client, job_id: str, after: str | None = None, most: int = 100
) -> list[tuple[str | None, str, dict[str, Any]]]:
    """(id, type, data) of the events until the stream ends or `most` have come."""
    headers = {} if after is None else {"Last-Event-ID": after}
    found: list[tuple[str | None, str, dict[str, Any]]] = []
    fields: dict[str, str] = {}
    with api.stream("GET", f"/api/v1/jobs/{job_id}/events", headers=headers) as answer:
        assert answer.status_code == 200
        for line in answer.iter_lines():
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
                continue
            if fields.get("event", "progress") != "progress":
                data = json.loads(fields["data"])
                found.append((fields.get("id"), fields["event"], data))
            fields = {}
            if len(found) >= most:
                break
    return found


def test_a_submit_is_stored_and_can_be_looked_at(api: httpx.Client) -> None:
    job = post_job(api, priority="interactive")
    assert (job["state"], job["kind"], job["model"]) == ("queued", "load", "org/name")
    assert job["progress"]["bytes_done"] == job["progress"]["bytes_total"] == 0
    shown = api.get(f"/api/v1/jobs/{job['id']}").json()
    assert shown == job


def test_the_same_key_is_the_same_job_and_another_body_a_conflict(api: httpx.Client) -> None:
    headers = {"Idempotency-Key": "one"}
    first = api.post("/api/v1/jobs", json=LOAD, headers=headers).json()
    assert api.post("/api/v1/jobs", json=LOAD, headers=headers).json()["id"] == first["id"]
    other = {"kind": "prefetch", "request": {"model": "org/name"}}
    refused = api.post("/api/v1/jobs", json=other, headers=headers)
    assert is_problem(refused, 409, "idempotency-conflict")


def test_a_hub_token_is_stored_encrypted_and_shown_nowhere(
    api: httpx.Client, services: Services
) -> None:
    answer = api.post("/api/v1/jobs", json=LOAD, headers={"X-Hub-Token": "hf_secret"})
    with services.database.read() as tx:
        stored = bytes(tx.execute(sa.select(secrets.c.ciphertext)).scalar_one())
    assert b"hf_secret" not in stored
    assert services.vault.decrypt(stored) == "hf_secret"
    assert "hf_secret" not in answer.text


def test_callers_with_different_hub_tokens_do_not_join(api: httpx.Client) -> None:
    first = api.post("/api/v1/jobs", json=LOAD, headers={"X-Hub-Token": "hf_a"}).json()
    other = api.post("/api/v1/jobs", json=LOAD, headers={"X-Hub-Token": "hf_b"}).json()
    same = api.post("/api/v1/jobs", json=LOAD, headers={"X-Hub-Token": "hf_a"}).json()
    assert (other["joined_to"], same["joined_to"]) == (None, first["id"])


def test_the_list_pages_through_every_job_once(api: httpx.Client) -> None:
    made = [post_job(api, request={"model": f"org/m{n}"})["id"] for n in range(5)]
    seen: list[str] = []
    query: dict[str, Any] = {"limit": 2}
    while True:
        page = api.get("/api/v1/jobs", params=query).json()
        seen += [job["id"] for job in page["items"]]
        if page["next"] is None:
            break
        query["after"] = page["next"]
    assert seen == sorted(made, reverse=True)
    narrow = api.get("/api/v1/jobs", params={"model": "ORG/M1", "state": "queued"}).json()
    assert [job["model"] for job in narrow["items"]] == ["org/m1"]


def test_a_wait_ends_with_the_next_change(api: httpx.Client, services: Services) -> None:
    job = post_job(api)

    def work() -> None:
        claimed(services.database)
        services.wakeups.publish(job["id"])

    worker = threading.Timer(0.3, work)
    worker.start()
    started = time.monotonic()
    shown = api.get(f"/api/v1/jobs/{job['id']}", params={"wait": 20}).json()
    worker.join()
    assert shown["state"] == "resolving"
    assert time.monotonic() - started < 10


def test_a_wait_ends_with_its_time(api: httpx.Client) -> None:
    job = post_job(api)
    shown = api.get(f"/api/v1/jobs/{job['id']}", params={"wait": 0.05})
    assert shown.json()["state"] == "queued"


def test_a_wait_on_an_ended_job_does_not_wait(api: httpx.Client) -> None:
    job = post_job(api)
    api.post(f"/api/v1/jobs/{job['id']}/cancel")
    started = time.monotonic()
    assert api.get(f"/api/v1/jobs/{job['id']}", params={"wait": 60}).json()["state"] == "cancelled"
    assert time.monotonic() - started < 10


def test_events_are_replayed_live_and_resumed_without_gap_or_repeat(
    api: httpx.Client, services: Services
) -> None:
    job_id = post_job(api)["id"]
    held = claimed(services.database)

    def work() -> None:
        for state in (JobState.PLACED, JobState.FETCHING, JobState.LOADING):
            with services.database.write() as tx:
                claims.move(tx, held, state)
            services.wakeups.publish(job_id)
        with services.database.write() as tx:
            claims.finish(tx, held, JobState.SUCCEEDED)
        services.wakeups.publish(job_id)

    worker = threading.Timer(0.2, work)
    worker.start()
    whole = read_events(api, job_id)
    worker.join()
    kinds = ["queued", "resolving", "placed", "fetching", "loading", "succeeded"]
    assert [kind for _, kind, _ in whole] == kinds
    for cut in range(1, len(whole)):
        last = whole[cut - 1][0]
        assert last is not None
        resumed = read_events(api, job_id, after=last)
        assert [event[:2] for event in resumed] == [event[:2] for event in whole[cut:]]
    again = read_events(api, job_id, after=whole[-1][0])
    assert [(kind, event_id) for event_id, kind, _ in again] == [("succeeded", None)]


def test_events_of_a_joined_job_are_its_own_and_end_with_the_leader(
    api: httpx.Client, services: Services
) -> None:
    post_job(api)
    joined = post_job(api)
    held = claimed(services.database)
    with services.database.write() as tx:
        claims.finish(tx, held, JobState.FAILED, cause="gated")
    seen = read_events(api, joined["id"])
    assert [kind for _, kind, _ in seen] == ["queued", "resolving", "failed"]
    assert seen[-1][2]["cause"] == "gated"


def test_a_cancel_ends_a_waiting_job_and_asks_a_held_one(
    api: httpx.Client, services: Services
) -> None:
    waiting = post_job(api)
    answer = api.post(f"/api/v1/jobs/{waiting['id']}/cancel").json()
    assert (answer["state"], answer["error"]["code"]) == ("cancelled", "cancelled")
    held = post_job(api)
    claimed(services.database)
    assert api.post(f"/api/v1/jobs/{held['id']}/cancel").json()["state"] == "resolving"
    again = api.post(f"/api/v1/jobs/{waiting['id']}/cancel")
    assert (again.status_code, again.json()["state"]) == (200, "cancelled")


def test_a_job_without_a_receipt_says_so(api: httpx.Client) -> None:
    job = post_job(api)
    assert is_problem(api.get(f"/api/v1/jobs/{job['id']}/receipt"), 404, "receipt-not-found")


LONG = "x" * 10_000
BAD_BODIES: list[tuple[Any, str]] = [
    ({}, "bad-request"),
    ([], "bad-request"),
    ("text", "bad-request"),
    (None, "bad-request"),
    (LOAD | {"kind": "unload"}, "bad-request"),
    (LOAD | {"surprise": 1}, "bad-request"),
    (LOAD | {"priority": "urgent"}, "bad-request"),
    (LOAD | {"timeout_seconds": -1}, "bad-request"),
    (LOAD | {"timeout_seconds": "soon"}, "bad-request"),
    (LOAD | {"max_attempts": 0}, "bad-request"),
    (LOAD | {"max_attempts": 1.5}, "bad-request"),
    (LOAD | {"expires_at": "tomorrow"}, "bad-request"),
    (LOAD | {"expires_at": "2030-01-01T00:00:00"}, "bad-request"),
    (LOAD | {"keep_alive": "-5m"}, "bad-request"),
    (LOAD | {"keep_alive": "9" * 400}, "bad-request"),
    (LOAD | {"nodes": "../n0"}, "bad-request"),
    (LOAD | {"nodes": "n\0"}, "bad-request"),
    (LOAD | {"nodes": ["a/b"]}, "bad-request"),
    (LOAD | {"nodes": "all"}, "not-supported"),
    (LOAD | {"tier": "disk"}, "contradiction"),
    (LOAD | {"kind": "task"}, "contradiction"),
    (LOAD | {"kind": "task", "task": "../x"}, "bad-request"),
    (LOAD | {"payload": {}}, "contradiction"),
    (LOAD | {"callback_url": "http://127.0.0.1/"}, "not-supported"),
]
BAD_MODELS: list[object] = [
    "", " ", "name", "../..", "a/b/c", "org/..", "../name", "/org/name", "org/name/",
    "org\\name", "org/na\0me", "org/na\nme", "örg/name", "org/name\u202e", "\ud800/x",
    "org/" + LONG, LONG, "org/name@../..", 7, None, {}, [],
]  # fmt: skip
BAD_REQUESTS: list[tuple[dict[str, Any], str]] = [
    ({"mode": "magic"}, "bad-request"),
    ({"attn": "eager"}, "not-supported"),
    ({"mode": ["exact"]}, "bad-request"),
    ({"precision": "int3"}, "bad-request"),
    ({"quantize": "any"}, "contradiction"),
    ({"max_memory_bytes": -1}, "bad-request"),
    ({"max_download_bytes": -1}, "bad-request"),
    ({"max_seq_length": 2**63}, "bad-request"),
    ({"trust_remote_code": True}, "bad-request"),
    ({"unknown": 1}, "bad-request"),
    *(({"model": model}, "bad-request") for model in BAD_MODELS),
    *(
        ({"revision": revision}, "bad-request")
        for revision in ("", "../..", "a//b", "/main", "main/", "a\0b", "ma in", "é", LONG, 7, "-x")
    ),
]  # fmt: skip


def test_no_bad_body_is_accepted_or_half_stored(api: httpx.Client, services: Services) -> None:
    bodies = [*BAD_BODIES]
    for fields, code in BAD_REQUESTS:
        bodies.append(({"kind": "load", "request": {"model": "org/name"} | fields}, code))
    for body, code in bodies:
        text = json.dumps(body)
        answer = api.post(
            "/api/v1/jobs", content=text, headers={"content-type": "application/json"}
        )
        assert is_problem(answer, 400, code), text[:200]
    assert count_rows(services) == 0


NO_JSON_OF_OURS = {
    "empty": b"",
    "open": b"{",
    "half": b'{"kind": "load", "kind"',
    "no utf-8": b"\xff\xfe",
    "deep": b"[" * 100_000,
    "nan": b'{"kind":"task","task":"t","request":{"model":"org/name"},"payload":{"x":NaN}}',
    "infinity": b'{"kind":"task","task":"t","request":{"model":"org/name"},"payload":{"x":1e999}}',
    "9 MB": b'{"kind":"load","request":{"model":"org/name"},"x":"' + b"y" * (9 * 2**20) + b'"}',
}


def test_a_body_that_is_no_json_of_ours_is_refused(api: httpx.Client, services: Services) -> None:
    headers = {"content-type": "application/json"}
    for name, content in NO_JSON_OF_OURS.items():
        answer = api.post("/api/v1/jobs", content=content, headers=headers)
        assert is_problem(answer, 400, "bad-request"), name
    assert count_rows(services) == 0


def test_bad_headers_are_refused(api: httpx.Client, services: Services) -> None:
    for name, value in (
        ("Idempotency-Key", b""),
        ("Idempotency-Key", b"k" * 201),
    ):
        answer = api.post("/api/v1/jobs", json=LOAD, headers={name.encode(): value})
        assert is_problem(answer, 400, "bad-request"), value[:20]
    for token in (b"two words", b"t" * 1025, "tökén".encode()):
        answer = api.post("/api/v1/jobs", json=LOAD, headers={b"X-Hub-Token": token})
        assert is_problem(answer, 401, "unauthorized"), token[:20]
    assert count_rows(services) == 0


def test_a_bad_wait_or_last_event_id_is_refused(api: httpx.Client) -> None:
    path = f"/api/v1/jobs/{post_job(api)['id']}"
    for wait in ("-1", "301", "soon", "nan", "inf", ""):
        assert is_problem(api.get(path, params={"wait": wait}), 400, "bad-request"), wait
    for last in ("-1", "x", "1.5", str(2**63), "9" * 400):
        answer = api.get(f"{path}/events", headers={"Last-Event-ID": last})
        assert is_problem(answer, 400, "bad-request"), last


def test_a_strange_job_id_is_not_found(api: httpx.Client) -> None:
    for job_id in ("job_none", "%00", "a%00b", "..%2F..", "%F0%9F%92%A9", "x" * 9_000):
        for answer in (
            api.get(f"/api/v1/jobs/{job_id}"),
            api.get(f"/api/v1/jobs/{job_id}/events"),
            api.get(f"/api/v1/jobs/{job_id}/receipt"),
            api.post(f"/api/v1/jobs/{job_id}/cancel"),
        ):
            assert answer.status_code == 404, job_id[:20]
            assert answer.headers["content-type"] == "application/problem+json"


def test_a_bad_query_is_refused(api: httpx.Client) -> None:
    for query in ("state=odd", "limit=0", "limit=501", "limit=x"):
        assert is_problem(api.get(f"/api/v1/jobs?{query}"), 400, "bad-request"), query
    assert is_problem(api.get("/api/v1/egress?by=x"), 400, "bad-request")


def test_a_query_for_what_cannot_be_finds_nothing(api: httpx.Client) -> None:
    post_job(api)
    for query in ("after=%00", "model=%00", "model=..%2F..", "after=0", "model=%25"):
        assert api.get(f"/api/v1/jobs?{query}").json() == {"items": [], "next": None}, query


def test_unknown_paths_and_methods_are_problems_too(api: httpx.Client) -> None:
    assert is_problem(api.get("/api/v1/nothing"), 404, "not-found")
    answer = api.put("/api/v1/jobs", json=LOAD)
    assert (answer.status_code, answer.json()["code"]) == (405, "bad-request")
    assert is_problem(api.delete("/api/v1/residents/..%2F.."), 404, "resident-not-found")
    assert is_problem(api.post("/api/v1/residents/org%00/pin"), 404, "resident-not-found")


@pytest.mark.parametrize(
    ("limit", "code"),
    [("max_queued", "rate-limited-here"), ("max_queued_per_tenant", "over-quota")],
)
def test_a_full_queue_is_429_with_the_time_to_come_back(
    services: Services, limit: str, code: str
) -> None:
    settings = services.settings.model_copy(update={limit: 1})
    with serving(replace(services, settings=settings)) as api:
        post_job(api)
        answer = api.post("/api/v1/jobs", json=LOAD | {"request": {"model": "org/other"}})
    assert is_problem(answer, 429, code)
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.json()["retryable"] is True


def test_a_database_that_is_away_is_a_clean_503(api: httpx.Client, store: Store) -> None:
    if store.database.dialect == "sqlite":
        pytest.skip("a file is always there")
    postgres, _, name = store.url.rpartition("/")
    admin = sa.create_engine(f"{postgres}/postgres", isolation_level="AUTOCOMMIT")
    post_job(api)
    with admin.connect() as connection:
        connection.execute(sa.text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
        connection.execute(
            sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"),
            {"name": name},
        )
        assert is_problem(api.get("/readyz"), 503, "store-unavailable")
        refused = api.post("/api/v1/jobs", json=LOAD | {"request": {"model": "org/other"}})
        assert is_problem(refused, 503, "store-unavailable")
        connection.execute(sa.text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"))
    admin.dispose()
    assert api.get("/readyz").status_code == 200
    assert len(api.get("/api/v1/jobs").json()["items"]) == 1


def test_a_job_is_accepted_without_the_broker(services: Services) -> None:
    url = f"redis://127.0.0.1:{free_port()}/0"
    away = replace(services, doorbell=CeleryDoorbell(url), wakeups=Wakeups(url))
    with serving(away) as api:
        assert is_problem(api.get("/readyz"), 503, "store-unavailable")
        job = post_job(api)
    assert claimed(services.database, seconds=LEASE_SECONDS).job_id == job["id"]
    away.wakeups.close()


def test_a_position_is_shown_while_a_job_waits(api: httpx.Client, services: Services) -> None:
    assert post_job(api)["progress"]["position"] == 1
    second = post_job(api, request={"model": "org/second"})
    assert second["progress"]["position"] == 2
    claimed(services.database)
    assert api.get(f"/api/v1/jobs/{second['id']}").json()["progress"]["position"] == 1


def test_a_job_that_waits_while_no_node_is_ready_says_so(
    api: httpx.Client, services: Services
) -> None:
    job = post_job(api)
    assert job["progress"]["waiting_for"] == "a node: none is ready"
    register(services.database, "n0")
    assert api.get(f"/api/v1/jobs/{job['id']}").json()["progress"]["waiting_for"] is None
