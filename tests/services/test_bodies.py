"""What no JSON parser but Python's takes is refused by every route, before anything is stored."""

from collections.abc import Iterator

import httpx
import pytest

from tests.services.test_api import count_rows, is_problem, serving
from warmrack_daemon.services import Services

_BODIES = {
    "/api/v1/tasks/generate": '{"model": "org/name", "payload": {"x": %s}}',
    "/api/v1/jobs": '{"kind": "load", "request": {"model": "org/name", "publishers": [%s]}}',
    "/api/v1/explain": '{"model": "org/name", "publishers": [%s]}',
    "/api/v1/estimate": '{"model": "org/name", "max_memory_bytes": %s}',
}


@pytest.fixture
def api(services: Services) -> Iterator[httpx.Client]:
    with serving(services) as client:
        yield client


def test_values_that_are_no_json_are_refused(api: httpx.Client, services: Services) -> None:
    headers = {"content-type": "application/json"}
    for path, body in _BODIES.items():
        for value in ("NaN", "Infinity", "-Infinity", "1e999", '"\\ud800"', '"\\udfff x"'):
            answer = api.post(path, content=body % value, headers=headers)
            assert is_problem(answer, 400, "bad-request"), (path, value)
    assert count_rows(services) == 0


def test_a_task_with_a_half_character_in_a_key_is_refused(api: httpx.Client) -> None:
    content = '{"model": "org/name", "payload": {"\\ud800": 1}}'
    headers = {"content-type": "application/json"}
    answer = api.post("/api/v1/tasks/generate", content=content, headers=headers)
    assert is_problem(answer, 400, "bad-request")


def test_a_page_of_another_hub_is_refused_on_every_route(
    api: httpx.Client, services: Services
) -> None:
    model = "https://evil.example/org/name"
    for path, body in (
        ("/api/v1/jobs", {"kind": "load", "request": {"model": model}}),
        ("/api/v1/tasks/generate", {"model": model, "payload": {}}),
        ("/api/v1/explain", {"model": model}),
        ("/api/v1/estimate", {"model": model}),
    ):
        answer = api.post(path, json=body)
        assert is_problem(answer, 400, "bad-request"), path
        assert "evil.example" in answer.json()["detail"]
    assert count_rows(services) == 0
