"""One request in trouble, as a command and over HTTP, and what its error has to say."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.acceptance import troubles
from tests.acceptance.stack import Stack
from tests.acceptance.troubles import Trouble
from warmrack_store import errors

PLAIN = "org/plain"
WAIT_SECONDS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One job or task in trouble. `options` are the command line's, `fields` the job's over HTTP."""

    error: type[errors.WarmrackError]
    kind: str = "load"
    model: str = PLAIN
    options: tuple[str, ...] = ()
    fields: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    trouble: Trouble = troubles.none
    task: str | None = None
    payload: dict[str, Any] = field(default_factory=dict)
    stored: bool = False
    """Over HTTP the task is a job of its own; else it is asked of the warm model directly."""
    expires_seconds: float | None = None
    slow: bool = False

    def command(self) -> tuple[str, ...]:
        if self.task is not None:
            return ("task", self.model, self.task, json.dumps(self.payload))
        expiry = ("--expires-at", _after(self.expires_seconds)) if self.expires_seconds else ()
        return (self.kind, self.model, *self.options, *expiry)

    def path(self) -> str:
        return "jobs" if self.task is None or self.stored else f"tasks/{self.task}"

    def body(self) -> dict[str, Any]:
        if self.task is not None and not self.stored:
            return {"model": self.model, "payload": self.payload}
        task = {"task": self.task, "payload": self.payload} if self.task else {}
        expiry = {"expires_at": _after(self.expires_seconds)} if self.expires_seconds else {}
        kind = "task" if self.task else self.kind
        return {"kind": kind, "request": {"model": self.model}, **task, **expiry, **self.fields}


def _after(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def listed(cases: tuple[Case, ...]) -> list[Any]:
    """The cases as parameters; each kind of trouble is one code, so the code is the name."""
    return [
        pytest.param(case, id=case.error.code, marks=[pytest.mark.slow] if case.slow else [])
        for case in cases
    ]


def check_command(pool: Stack, case: Case) -> None:
    with case.trouble(pool, case.model):
        exit_code, answer = pool.run_json(*case.command())
    check_record(answer["error"], case.error)
    assert exit_code == case.error.exit_code


def check_http(pool: Stack, case: Case) -> None:
    with case.trouble(pool, case.model):
        url = f"{pool.url}/api/v1/{case.path()}"
        answer = httpx.post(url, json=case.body(), headers=case.headers, timeout=WAIT_SECONDS)
        if answer.status_code == 202:
            job = wait_for_end(pool, answer.json()["id"])
            assert job["cause"] == case.error.code
            check_record(job["error"], case.error)
            return
    check_problem(answer, case.error)


def wait_for_end(pool: Stack, job_id: str) -> dict[str, Any]:
    """The job once it has ended, whatever it waits for."""
    url = f"{pool.url}/api/v1/jobs/{job_id}"
    while True:
        answer = httpx.get(url, params={"wait": 10}, timeout=WAIT_SECONDS)
        job: dict[str, Any] = answer.json()
        if job["finished_at"] is not None:
            return job


def check_record(record: dict[str, Any], error: type[errors.WarmrackError]) -> None:
    assert record["code"] == error.code, record
    assert record["message"]
    assert record["hint"]
    assert record["retryable"] is error.retryable


def check_problem(answer: httpx.Response, error: type[errors.WarmrackError]) -> None:
    problem = answer.json()
    check_record({**problem, "message": problem["detail"]}, error)
    assert answer.status_code == problem["status"] == error.status
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert ("retry-after" in answer.headers) is error.retryable
