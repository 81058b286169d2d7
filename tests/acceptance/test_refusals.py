"""What cannot be served is refused clearly, by the command line and over HTTP, and leaves nothing."""

from typing import Any

import httpx
import pytest

import warmrack
from tests.acceptance.conftest import BERT, GATED, LLAMA, PICKLE, PRIVATE, TOKEN
from tests.acceptance.stack import Stack, running_stack
from tests.hub.control import Hub

REFUSED_AFTER_ACCEPTANCE = [
    ("acme/nowhere", {}, "repo-not-found", 3),
    (LLAMA, {"revision": "v9"}, "revision-not-found", 3),
    (PICKLE, {}, "unsafe-format", 3),
    (LLAMA, {"precision": "nf4"}, "contradiction", 2),
    (GATED, {}, "gated", 3),
    (PRIVATE, {}, "repo-not-found", 3),
]
REFUSED_AT_ONCE = [
    ({"model": LLAMA, "mode": "psychic"}, "bad-request", 400),
    ({"model": LLAMA, "attn": "sdpa"}, "not-supported", 400),
    ({"model": LLAMA, "max_download_bytes": -1}, "bad-request", 400),
    ({"model": LLAMA, "max_memory_bytes": "much"}, "bad-request", 400),
    ({"model": "../../etc/passwd"}, "bad-request", 400),
    ({"model": "org/../name"}, "bad-request", 400),
    ({"model": "org/name/more"}, "bad-request", 400),
    ({"model": LLAMA, "revision": "../../main"}, "bad-request", 400),
    ({"model": LLAMA, "revision": "a\x00b"}, "bad-request", 400),
    ({"model": LLAMA, "colour": "red"}, "bad-request", 400),
    ({"model": ""}, "bad-request", 400),
    ({}, "bad-request", 400),
    ({"model": f"{LLAMA}@main", "revision": "v1"}, "contradiction", 400),
]


@pytest.mark.parametrize(("model", "request_fields", "code", "exit_code"), REFUSED_AFTER_ACCEPTANCE)
def test_load_that_the_hub_refuses_ends_with_its_code(
    pool: Stack, model: str, request_fields: dict[str, str], code: str, exit_code: int
) -> None:
    options = [part for name, value in request_fields.items() for part in (f"--{name}", value)]
    returned, answer = pool.run_json("load", model, *options)
    assert returned == exit_code
    assert answer["error"]["code"] == code
    assert answer["error"]["hint"]


@pytest.mark.parametrize(("request_body", "code", "status"), REFUSED_AT_ONCE)
def test_request_that_makes_no_sense_is_never_stored(
    pool: Stack, request_body: dict[str, Any], code: str, status: int
) -> None:
    before = _count_jobs(pool)
    answer = httpx.post(
        f"{pool.url}/api/v1/jobs", json={"kind": "load", "request": request_body}, timeout=30
    )
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert _count_jobs(pool) == before


def test_malformed_json_is_a_problem_document(pool: Stack) -> None:
    headers = {"content-type": "application/json"}
    answer = httpx.post(
        f"{pool.url}/api/v1/jobs", content=b'{"kind": ', headers=headers, timeout=30
    )
    assert (answer.status_code, answer.json()["code"]) == (400, "bad-request")


@pytest.mark.parametrize("limit", ["max_memory_bytes", "max_download_bytes"])
def test_model_over_the_callers_own_limit_is_refused(pool: Stack, limit: str) -> None:
    with pool.client() as client:
        limits: dict[str, Any] = {limit: 1024}
        job = client.load(BERT, **limits)
        with pytest.raises(warmrack.errors.WontFit, match=limit):
            client.wait(job.id, timeout_seconds=60)


def test_model_that_fits_no_device_is_refused_with_numbers_before_any_byte(hub: Hub) -> None:
    with running_stack(hub, devices="cpu:0=16MiB") as stack:
        hub.reset_counts()
        returned, answer = stack.run_json("load", BERT)
    assert (returned, answer["error"]["code"]) == (3, "wont-fit")
    assert "16.0 MiB" in answer["error"]["message"]
    sent = hub.list_requests(repository=BERT, origin="cdn")
    assert all(request.range for request in sent)  # headers only


def test_a_load_onto_several_nodes_is_not_supported(pool: Stack) -> None:
    body = {"kind": "load", "request": {"model": LLAMA}, "nodes": "2"}
    answer = httpx.post(f"{pool.url}/api/v1/jobs", json=body, timeout=30)
    assert (answer.status_code, answer.json()["code"]) == (400, "not-supported")


def test_unknown_task_is_refused_before_anything_is_stored_or_loaded(pool: Stack) -> None:
    before = _count_jobs(pool)
    body = {"kind": "task", "request": {"model": BERT}, "task": "divine", "payload": {}}
    stored = httpx.post(f"{pool.url}/api/v1/jobs", json=body, timeout=30)
    direct = httpx.post(f"{pool.url}/api/v1/tasks/divine", json={"model": BERT}, timeout=30)
    for answer in (stored, direct):
        assert (answer.status_code, answer.json()["code"]) == (404, "task-not-found")
    assert _count_jobs(pool) == before


def test_unknown_task_and_too_long_a_prompt_are_refused(pool: Stack) -> None:
    returned, answer = pool.run_json("task", LLAMA, "divine", "{}")
    assert (returned, answer["error"]["code"]) == (3, "task-not-found")
    long = '{"prompt": "' + "word " * 5000 + '"}'
    returned, answer = pool.run_json("task", LLAMA, "generate", long)
    assert (returned, answer["error"]["code"]) == (3, "context-overflow")


def test_token_opens_a_gated_repository_and_is_nowhere_afterwards(pool: Stack) -> None:
    returned, job = pool.run_json("load", GATED, WARMRACK_HUB_TOKEN=TOKEN)
    assert returned == 0, job
    assert TOKEN not in pool.logs()
    for path in pool.state_dir.rglob("*"):
        if path.is_file() and "hub" not in path.parts:
            assert TOKEN.encode() not in path.read_bytes(), path
    for process in pool.list_processes():
        assert TOKEN not in " ".join(process.cmdline())


def test_warm_gated_model_is_not_served_to_who_may_not_read_it(pool: Stack) -> None:
    pool.run_json("load", GATED, WARMRACK_HUB_TOKEN=TOKEN)
    returned, answer = pool.run_json("task", GATED, "generate", '{"prompt": "x"}')
    assert (returned, answer["error"]["code"]) == (3, "gated")
    returned, _ = pool.run_json(
        "task", GATED, "generate", '{"prompt": "x", "max_tokens": 2}', WARMRACK_HUB_TOKEN=TOKEN
    )
    assert returned == 0


def test_service_that_is_not_there_is_exit_code_7(pool: Stack) -> None:
    returned, answer = pool.run_json("jobs", WARMRACK_URL="http://127.0.0.1:9")
    assert (returned, answer["error"]["code"]) == (7, "unreachable")


def _count_jobs(pool: Stack) -> int:
    answer = httpx.get(f"{pool.url}/api/v1/jobs", params={"limit": 500}, timeout=30)
    return len(answer.json()["items"])
