"""The commands task, run and embed."""

import io
import sys

import pytest

from tests.unit.command_line import Warmrack
from tests.unit.scripted_service import (
    JOBS,
    Events,
    Reply,
    Service,
    event,
    job,
    problem,
)
from warmrack_store import errors

GENERATE = "/api/v1/tasks/generate"


def test_run_prints_tokens_and_nothing_else_on_stdout(service: Service, warmrack: Warmrack) -> None:
    chunks = (
        event("token", {"text": "Hel"}),
        event("token", {"text": "lo\n"}),
        event("done", {"text": "Hello\n", "finish_reason": "stop", "usage": {}}),
    )
    service.on("POST", GENERATE, Events(chunks=chunks))
    outcome = warmrack("run", "org/name", "Say", "--max-tokens", "5", "--temperature", "0")
    assert (outcome.code, outcome.out, outcome.err) == (0, "Hello\n\n", "")
    payload = service.asked("POST", GENERATE)[0].body["payload"]
    assert payload == {"prompt": "Say", "max_tokens": 5, "temperature": 0.0}


def test_run_on_a_cold_model_watches_its_load_and_then_prints(
    service: Service, warmrack: Warmrack
) -> None:
    done = event("done", {"text": "", "finish_reason": "stop"})
    service.on(
        "POST",
        GENERATE,
        problem(errors.ModelCold("cold"), job="j1"),
        Events(chunks=(event("token", {"text": "warm"}), done)),
    )
    service.on("GET", f"{JOBS}/j1", Reply(body=job("loading")), Reply(body=job("succeeded")))
    outcome = warmrack("run", "org/name", "Say", "-v")
    assert (outcome.code, outcome.out) == (0, "warm\n")
    assert "job j1 loading" in outcome.err


def test_run_keeps_what_it_printed_when_the_host_is_lost(
    service: Service, warmrack: Warmrack
) -> None:
    service.on("POST", GENERATE, Events(chunks=(event("token", {"text": "Hel"}),), broken=True))
    outcome = warmrack("run", "org/name", "Say")
    assert (outcome.code, outcome.out) == (4, "Hel\n")
    assert "error[host-lost]" in outcome.err


def test_run_with_json_prints_the_whole_result(service: Service, warmrack: Warmrack) -> None:
    service.on("POST", GENERATE, Reply(body={"text": "Hello", "usage": {"prompt_tokens": 1}}))
    assert warmrack("run", "org/name", "Say", "--json").json["text"] == "Hello"


def test_task_reads_its_payload_from_stdin(
    service: Service, warmrack: Warmrack, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.on("POST", "/api/v1/tasks/tokenize", Reply(body={"tokens": [1], "count": 1}))
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"text": "é"}'))
    assert warmrack("task", "org/name", "tokenize", "-").json == {"tokens": [1], "count": 1}
    assert service.seen[0].body["payload"] == {"text": "é"}


def test_embed_sends_its_texts(service: Service, warmrack: Warmrack) -> None:
    service.on("POST", "/api/v1/tasks/embed", Reply(body={"vectors": [[0.5], [1.0]]}))
    assert warmrack("embed", "org/name", "a", "b").json["vectors"] == [[0.5], [1.0]]
    assert service.seen[0].body["payload"] == {"texts": ["a", "b"]}
