"""The Python client against a scripted service."""

import asyncio
import inspect
import socket
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any

import pytest

import warmrack
from tests.unit.scripted_service import (
    JOBS,
    Events,
    Reply,
    Service,
    event,
    job,
    page,
    problem,
)
from warmrack import errors
from warmrack_store.states import JobState

GENERATE = "/api/v1/tasks/generate"
DONE = event("done", {"text": "ab", "finish_reason": "stop"})


@pytest.fixture
def client(service: Service) -> Iterator[warmrack.Client]:
    with warmrack.Client(service.url) as opened:
        yield opened


def test_a_load_carries_request_job_fields_token_key_and_a_fresh_idempotency_key(
    service: Service,
) -> None:
    service.on("POST", JOBS, Reply(status=202, body=job("queued")))
    with warmrack.Client(service.url, api_key="k", hub_token="hf_x") as client:
        accepted = client.load("org/name", revision="v1", keep_alive="10m", priority="background")
        client.load("org/name")
    assert (accepted.id, accepted.state) == ("j1", JobState.QUEUED)
    first, second = service.asked("POST", JOBS)
    assert first.body["kind"] == "load"
    assert first.body["request"]["revision"] == "v1"
    assert (first.body["keep_alive"], first.body["priority"]) == ("10m", "background")
    assert first.headers["authorization"] == "Bearer k"
    assert first.headers["x-hub-token"] == "hf_x"
    assert first.headers["idempotency-key"] != second.headers["idempotency-key"]


def test_a_submit_whose_answer_was_lost_is_sent_again_under_the_same_key(
    service: Service, client: warmrack.Client
) -> None:
    lost = Events(chunks=(b"{",), broken=True)
    service.on("POST", JOBS, lost, Reply(status=202, body=job("queued")))
    assert client.load("org/name").id == "j1"
    first, second = service.asked("POST", JOBS)
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"model": "no-slash"}, errors.BadRequest),
        ({"model": "org/name", "no_such_field": 1}, errors.BadRequest),
        ({"model": "org/name@a", "revision": "b"}, errors.Contradiction),
        ({"model": "org/name", "quantize": "any"}, errors.Contradiction),
        ({"model": "org/name", "attn": "sdpa"}, errors.NotSupported),
        ({"model": "org/name", "nodes": "all"}, errors.NotSupported),
    ],
)
def test_what_the_client_knows_to_be_wrong_is_never_sent(
    service: Service,
    client: warmrack.Client,
    fields: dict[str, str],
    kind: type[warmrack.WarmrackError],
) -> None:
    with pytest.raises(kind):
        client.load(**fields)
    assert service.seen == []


@pytest.mark.parametrize("id", [5, None, "\ud800", "", ".", ".."])
def test_an_id_that_is_none_is_never_sent(
    service: Service, client: warmrack.Client, id: Any
) -> None:
    for call in (client.job, client.wait, client.cancel, client.receipt, client.unload, client.pin):
        with pytest.raises(errors.BadRequest):
            call(id)
    with pytest.raises(errors.BadRequest):
        client.unload("../..")
    with pytest.raises(errors.BadRequest):
        client.run_task("org/name", id, {})
    assert service.seen == []


def test_what_no_request_can_carry_is_never_sent(service: Service, client: warmrack.Client) -> None:
    with pytest.raises(errors.BadRequest, match="sent"):
        client.run_task("org/name", "generate", {"temperature": float("nan")})
    with pytest.raises(errors.BadRequest, match="Idempotency-Key"):
        client.load("org/name", idempotency_key="ü")
    assert service.seen == []


def test_wait_asks_until_the_job_has_succeeded_and_shows_each_state(
    service: Service, client: warmrack.Client
) -> None:
    states = [job("queued"), job("fetching", node="node-1"), job("succeeded", resident="r1")]
    service.on("GET", f"{JOBS}/j1", *(Reply(body=one) for one in states))
    shown: list[JobState] = []
    done = client.wait("j1", on_change=lambda one: shown.append(one.state))
    assert done.resident == "r1"
    assert shown == [JobState.QUEUED, JobState.FETCHING, JobState.SUCCEEDED]


def test_wait_raises_the_error_of_a_failed_job(service: Service, client: warmrack.Client) -> None:
    failed = job("failed", error=errors.WontFit("needs 9 GiB").to_record())
    service.on("GET", f"{JOBS}/j1", Reply(body=failed))
    with pytest.raises(errors.WontFit, match="needs 9 GiB"):
        client.wait("j1")


def test_wait_raises_cancelled_for_a_cancelled_job_without_an_error(
    service: Service, client: warmrack.Client
) -> None:
    service.on("GET", f"{JOBS}/j1", Reply(body=job("cancelled", cause="by hand")))
    with pytest.raises(errors.Cancelled, match="by hand"):
        client.wait("j1")


def test_wait_gives_up_at_its_own_timeout_and_leaves_the_job_alone(
    service: Service, client: warmrack.Client
) -> None:
    service.on("GET", f"{JOBS}/j1", Reply(body=job("fetching")))
    with pytest.raises(errors.Timeout, match="still fetching"):
        client.wait("j1", timeout_seconds=0.2)
    assert not service.asked("POST", f"{JOBS}/j1/cancel")


def test_wait_on_a_service_that_stays_away_ends_at_its_own_timeout() -> None:
    with warmrack.Client("http://127.0.0.1:9") as client, pytest.raises(errors.Unreachable):
        client.wait("j1", timeout_seconds=0.1)


def test_wait_outlives_a_service_that_goes_away_for_a_moment(
    service: Service, client: warmrack.Client
) -> None:
    gone = Events(chunks=(b"{",), broken=True)
    away = problem(errors.StoreUnavailable("restarting"))
    replies = (gone, Reply(body=job("queued")), away, Reply(body=job("succeeded")))
    service.on("GET", f"{JOBS}/j1", *replies)
    assert client.wait("j1").state is JobState.SUCCEEDED


def test_a_problem_is_raised_as_its_class_with_hint_and_retry_after(
    service: Service, client: warmrack.Client
) -> None:
    service.on("GET", f"{JOBS}/j1", problem(errors.RateLimitedHere("11 queued", hint="later")))
    with pytest.raises(errors.RateLimitedHere, match="11 queued") as caught:
        client.job("j1")
    assert (caught.value.hint, caught.value.retry_after_seconds) == ("later", 7.0)


def test_a_refusal_that_only_a_newer_service_knows_stays_a_refusal_and_keeps_its_code(
    service: Service, client: warmrack.Client
) -> None:
    body = {"code": "wrong-moon", "detail": "not today", "hint": "", "retryable": False}
    service.on("GET", f"{JOBS}/j1", Reply(status=422, body=body))
    with pytest.raises(errors.Refusal, match="wrong-moon: not today"):
        client.job("j1")


def test_an_answer_of_something_else_than_warmrack_is_unreachable(
    service: Service, client: warmrack.Client
) -> None:
    service.on("GET", "/healthz", Reply(status=502, body="<html>", media_type="text/html"))
    with pytest.raises(errors.Unreachable, match="502"):
        client.healthz()


def test_a_record_that_cannot_be_read_is_a_defect_that_names_the_field(
    service: Service, client: warmrack.Client
) -> None:
    service.on("GET", f"{JOBS}/j1", Reply(body=job("dancing")))
    with pytest.raises(errors.Defect, match="Job cannot be read: state"):
        client.job("j1")


def test_nobody_there_is_unreachable_and_fields_of_a_newer_service_are_kept(
    service: Service, client: warmrack.Client
) -> None:
    service.on("GET", f"{JOBS}/j1", Reply(body=job("queued", colour="red")))
    assert (client.job("j1").model_extra or {})["colour"] == "red"
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with warmrack.Client(f"http://127.0.0.1:{port}") as lonely, pytest.raises(errors.Unreachable):
        lonely.load("org/name")


def test_lists_follow_their_pages_up_to_the_limit(
    service: Service, client: warmrack.Client
) -> None:
    pages = (page(job("queued"), job("queued"), following="c2"), page(job("failed")))
    service.on("GET", JOBS, *pages)
    assert len(client.jobs(state="queued", limit=10)) == 3
    first, second = service.asked("GET", JOBS)
    assert first.query["state"] == "queued"
    assert second.query["after"] == "c2"
    service.on("GET", JOBS, page(job("queued"), job("queued"), following="c2"))
    assert len(client.jobs(limit=1)) == 1


def test_events_resume_behind_the_last_one_read_when_the_connection_breaks(
    service: Service, client: warmrack.Client
) -> None:
    first = (event("queued", {}, id=1), event("resolving", {"state": "succeeded"}, id=2))
    rest = (b": ping\n\n", event("loading", {}, id=3), event("succeeded", {}, id=4))
    service.on(
        "GET",
        f"{JOBS}/j1/events",
        Events(chunks=(*first, b"event: half"), broken=True),
        Events(chunks=rest),
    )
    seen = [(one.id, one.type) for one in client.events("j1")]
    assert seen == [("1", "queued"), ("2", "resolving"), ("3", "loading"), ("4", "succeeded")]
    asked = service.asked("GET", f"{JOBS}/j1/events")
    assert [one.headers.get("last-event-id") for one in asked] == [None, "2"]


def test_events_end_when_nothing_new_comes_and_the_job_has_ended(
    service: Service, client: warmrack.Client
) -> None:
    service.on("GET", f"{JOBS}/j1/events", Events(chunks=()))
    service.on("GET", f"{JOBS}/j1", Reply(body=job("failed")))
    assert list(client.events("j1", after="9")) == []


def test_events_of_no_job_are_job_not_found(service: Service, client: warmrack.Client) -> None:
    service.on("GET", f"{JOBS}/j1/events", problem(errors.JobNotFound("no job j1")))
    with pytest.raises(errors.JobNotFound):
        list(client.events("j1"))


def test_unload_returns_once_the_resident_is_gone(
    service: Service, client: warmrack.Client
) -> None:
    resident = {"id": "r1", "model": "org/name", "state": "draining"}
    service.on("DELETE", "/api/v1/residents/org/name", page(resident))
    service.on("GET", "/api/v1/residents", page(resident), page())
    assert [one.id for one in client.unload("org/name")] == ["r1"]
    assert len(service.asked("GET", "/api/v1/residents")) == 2
    service.on("GET", "/api/v1/residents", page(resident))
    with pytest.raises(errors.Timeout, match="r1"):
        client.unload("org/name", wait_seconds=0.1)


def test_an_unusual_id_stays_one_segment_of_the_path(
    service: Service, client: warmrack.Client
) -> None:
    with pytest.raises(errors.NotFound):
        client.job("../residents?x")
    assert service.seen[0].path == f"{JOBS}/../residents?x"
    assert service.seen[0].query == {}


@pytest.mark.parametrize("url", ["ftp://host", "http://", "nonsense", "http://[::"])
def test_an_address_that_is_none_is_a_bad_request(url: str) -> None:
    with pytest.raises(errors.BadRequest):
        warmrack.Client(url)


def test_the_asynchronous_client_does_the_same(service: Service) -> None:
    service.on("POST", JOBS, Reply(status=202, body=job("queued")))
    service.on("GET", f"{JOBS}/j1", Reply(body=job("queued")), Reply(body=job("succeeded")))
    service.on("POST", GENERATE, Events(chunks=(event("token", {"text": "a"}), DONE)))
    stored = (event("queued", {}, id=1), event("succeeded", {}, id=2))
    service.on("GET", f"{JOBS}/j1/events", Events(chunks=stored))

    async def converse() -> tuple[str, list[str], list[str]]:
        async with warmrack.AsyncClient(service.url) as client:
            accepted = await client.load("org/name")
            done = await client.wait(accepted.id)
            pieces = client.stream_task("org/name", "generate", {})
            kinds = [type(piece).__name__ async for piece in pieces]
            return done.state, kinds, [one.type async for one in client.events("j1")]

    assert asyncio.run(converse()) == ("succeeded", ["Token", "Done"], ["queued", "succeeded"])


def test_an_asynchronous_stream_left_early_closes_its_connection(service: Service) -> None:
    service.on("POST", GENERATE, Events(chunks=(event("token", {"text": "a"}),) * 2))

    async def leave() -> object:
        async with warmrack.AsyncClient(service.url) as client:
            stream = client.stream_task("org/name", "generate", {})
            async with aclosing(stream) as pieces:
                return await anext(pieces)

    assert asyncio.run(leave()) == warmrack.Token(text="a")


def test_both_clients_have_the_same_methods_with_signatures_and_docstrings() -> None:
    def methods(kind: type) -> dict[str, inspect.Signature]:
        found = inspect.getmembers(kind, inspect.isfunction)
        return {name: inspect.signature(one) for name, one in found if name[0] != "_"}

    blocking, asynchronous = methods(warmrack.Client), methods(warmrack.AsyncClient)
    del blocking["close"], asynchronous["aclose"]
    assert blocking == asynchronous
    assert "model" in blocking["load"].parameters
    assert all(getattr(warmrack.Client, name).__doc__ for name in blocking)


def test_every_public_name_is_there() -> None:
    assert [name for name in warmrack.__all__ if not hasattr(warmrack, name)] == []


@pytest.mark.parametrize(
    "url", ["http://[", "http://[::1", "http://a b", "ftp://x", "x", "http://"]
)
def test_what_is_no_address_is_told_by_the_variable_that_holds_it(url: str) -> None:
    with pytest.raises(errors.BadRequest, match="url") as refused:
        warmrack.Client(url)
    assert "WARMRACK_URL" in refused.value.hint


@pytest.mark.parametrize("url", ["http://[::1]:8420", "https://pool.example/base", "http://a_b:1"])
def test_an_address_is_an_address(url: str) -> None:
    warmrack.Client(url).close()
