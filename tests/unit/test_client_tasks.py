"""Tasks on warm and cold models, whole and streamed, through the Python client."""

from collections.abc import Iterator

import pytest

import warmrack
from tests.unit.scripted_service import (
    JOBS,
    Events,
    Reply,
    Service,
    event,
    job,
    problem,
)
from warmrack import errors

GENERATE = "/api/v1/tasks/generate"
DONE = event("done", {"text": "ab", "finish_reason": "stop"})


@pytest.fixture
def client(service: Service) -> Iterator[warmrack.Client]:
    with warmrack.Client(service.url) as opened:
        yield opened


def test_a_streamed_task_gives_tokens_and_its_whole_result(
    service: Service, client: warmrack.Client
) -> None:
    tokens = (event("token", {"text": "a"}), event("token", {"text": "b\u2028"}))
    service.on("POST", GENERATE, Events(chunks=(*tokens, event("novelty", {}), DONE)))
    pieces = list(client.stream_task("org/name", "generate", {"prompt": "x"}))
    assert [one.text for one in pieces[:-1] if isinstance(one, warmrack.Token)] == ["a", "b\u2028"]
    assert isinstance(pieces[-1], warmrack.Done)
    assert pieces[-1].result["finish_reason"] == "stop"
    assert service.seen[0].headers["accept"] == "text/event-stream"


@pytest.mark.parametrize("broken", [False, True], ids=["clean end", "broken connection"])
def test_a_stream_that_ends_without_its_terminal_event_is_host_lost(
    service: Service, client: warmrack.Client, broken: bool
) -> None:
    token = event("token", {"text": "a"})
    service.on("POST", GENERATE, Events(chunks=(token,), broken=broken))
    pieces = client.stream_task("org/name", "generate", {})
    assert isinstance(next(pieces), warmrack.Token)
    with pytest.raises(errors.HostLost):
        next(pieces)


def test_a_stream_that_ends_with_an_error_raises_it(
    service: Service, client: warmrack.Client
) -> None:
    failure = event("error", errors.OutOfMemory("4 GiB short").to_record())
    service.on("POST", GENERATE, Events(chunks=(failure,)))
    with pytest.raises(errors.OutOfMemory, match="4 GiB short"):
        list(client.stream_task("org/name", "generate", {}))


@pytest.mark.parametrize("named", ["j1", job("loading")], ids=["by id", "whole"])
def test_a_task_on_a_cold_model_waits_for_the_load_it_is_told_of_and_asks_again(
    service: Service, client: warmrack.Client, named: object
) -> None:
    cold = problem(errors.ModelCold("not warm"), job=named)
    service.on("POST", GENERATE, cold, Reply(body={"text": "hello"}))
    service.on("GET", f"{JOBS}/j1", Reply(body=job("loading")), Reply(body=job("succeeded")))
    shown: list[str] = []
    result = client.run_task(
        "org/name", "generate", {"prompt": "x"}, on_change=lambda one: shown.append(one.state)
    )
    assert result == {"text": "hello"}
    assert shown == ["loading", "succeeded"]
    assert service.seen[0].body["payload"] == {"prompt": "x"}


def test_a_stream_on_a_cold_model_waits_for_its_load_too(
    service: Service, client: warmrack.Client
) -> None:
    service.on(
        "POST", GENERATE, problem(errors.ModelCold("cold"), job="j1"), Events(chunks=(DONE,))
    )
    service.on("GET", f"{JOBS}/j1", Reply(body=job("succeeded")))
    assert len(list(client.stream_task("org/name", "generate", {}))) == 1


def test_a_cold_model_is_model_cold_for_who_does_not_wait_or_is_told_of_no_job(
    service: Service, client: warmrack.Client
) -> None:
    service.on("POST", GENERATE, problem(errors.ModelCold("cold"), job="j1"))
    with pytest.raises(errors.ModelCold):
        client.run_task("org/name", "generate", {}, wait_if_cold=False)
    service.on("POST", GENERATE, problem(errors.ModelCold("on_demand is off")))
    with pytest.raises(errors.ModelCold, match="on_demand"):
        client.run_task("org/name", "generate", {})


def test_the_error_of_a_cold_models_load_is_the_tasks_error(
    service: Service, client: warmrack.Client
) -> None:
    service.on("POST", GENERATE, problem(errors.ModelCold("cold"), job="j1"))
    failed = job("failed", error=errors.Gated("ask first").to_record())
    service.on("GET", f"{JOBS}/j1", Reply(body=failed))
    with pytest.raises(errors.Gated):
        client.run_task("org/name", "generate", {})
