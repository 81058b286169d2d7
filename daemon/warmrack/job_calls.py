"""Conversations about jobs: submit, look, wait, cancel."""

import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from warmrack.answers import read_json, read_record
from warmrack.outages import PAUSE_SECONDS, Outage
from warmrack.pages import list_items
from warmrack.paths import quote_name
from warmrack.results import Job
from warmrack.steps import API, Call, Conversation, Pause, send
from warmrack_store.errors import StoreUnavailable, Timeout, Unreachable
from warmrack_store.submissions import Submission, parse_submission

OnChange = Callable[[Job], None]
_SLICE_SECONDS = 10.0
"""How long one request waits for a change; short enough for proxies that cut idle ones."""
_WATCH_SECONDS = 0.5
"""The same while somebody watches the progress."""
_MIN_POLL_SECONDS = 0.1
_PAGE_ITEMS = 100
_JOB_FIELDS = frozenset(Submission.model_fields) - {"kind", "request"}


def submit(
    submission: Submission | Mapping[str, Any], *, idempotency_key: str | None = None
) -> Conversation[Job]:
    """Submit a job; returns it as accepted, not as done.

    A key is made up where none is given, so that a request whose answer was lost is sent again
    without becoming two jobs. Raises BadRequest, Contradiction or NotSupported before anything
    is sent.
    """
    if isinstance(submission, Submission):
        submission = submission.model_dump(mode="json")
    body = parse_submission(dict(submission)).model_dump(mode="json")
    key = idempotency_key or uuid.uuid4().hex
    call = Call(method="POST", path=f"{API}/jobs", body=body, headers={"Idempotency-Key": key})
    try:
        answer = yield from send(call)
    except Unreachable as error:
        if isinstance(error.__cause__, httpx.ConnectError):
            raise
        yield Pause(seconds=PAUSE_SECONDS)
        answer = yield from send(call)
    return read_record(Job, read_json(answer))


def load(model: str, *, idempotency_key: str | None = None, **fields: Any) -> Conversation[Job]:
    """Submit a load of `model`.

    `fields` are those of LoadRequest (`revision`, `mode`, ...) and of Submission (`keep_alive`,
    `priority`, `nodes`, ...).
    """
    body = _body("load", model, fields)
    return (yield from submit(body, idempotency_key=idempotency_key))


def prefetch(model: str, *, idempotency_key: str | None = None, **fields: Any) -> Conversation[Job]:
    """Submit a prefetch of `model`, which ends when its files are on a disk of the pool."""
    body = _body("prefetch", model, fields)
    return (yield from submit(body, idempotency_key=idempotency_key))


def submit_task(
    model: str,
    task: str,
    payload: Mapping[str, Any],
    *,
    idempotency_key: str | None = None,
    **fields: Any,
) -> Conversation[Job]:
    """Submit a task as a job of its own, whose result is stored with it."""
    body = _body("task", model, fields) | {"task": task, "payload": dict(payload)}
    return (yield from submit(body, idempotency_key=idempotency_key))


def _body(kind: str, model: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    of_job = {name: value for name, value in fields.items() if name in _JOB_FIELDS}
    of_request = {name: value for name, value in fields.items() if name not in _JOB_FIELDS}
    return {**of_job, "kind": kind, "request": {**of_request, "model": model}}


def get_job(job_id: str, *, wait_seconds: float = 0.0) -> Conversation[Job]:
    """The job; with `wait_seconds`, as it is after its next change or at that time's end."""
    params = {"wait": f"{wait_seconds:.3g}"} if wait_seconds else {}
    call = Call(
        method="GET", path=job_path(job_id), params=params, timeout_seconds=wait_seconds + 30
    )
    return read_record(Job, read_json((yield from send(call))))


def list_jobs(
    *, state: str | None = None, model: str | None = None, limit: int = 100
) -> Conversation[tuple[Job, ...]]:
    """At most `limit` jobs, in the service's order."""
    params = {"limit": str(min(limit, _PAGE_ITEMS))}
    params |= {key: value for key, value in (("state", state), ("model", model)) if value}
    return (yield from list_items(Job, f"{API}/jobs", params, limit=limit))


def wait(
    job_id: str, *, timeout_seconds: float | None = None, on_change: OnChange | None = None
) -> Conversation[Job]:
    """The job once it has succeeded; raises its error where it failed or was cancelled.

    `on_change` sees the job each time it was asked for. Raises Timeout when `timeout_seconds`
    pass first; the job then goes on. A service that goes away for a while is asked again.
    """
    until = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    outage = Outage()
    while True:
        asked_at = time.monotonic()
        slice_seconds = _slice(asked_at, until, watched=on_change is not None)
        try:
            current = yield from get_job(job_id, wait_seconds=slice_seconds)
        except (Unreachable, StoreUnavailable) as error:
            outage.bear(error, until=until)
            yield Pause(seconds=PAUSE_SECONDS)
            continue
        outage.answered()
        if on_change is not None:
            on_change(current)
        if current.state.terminal:
            current.raise_for_state()
            return current
        if until is not None and time.monotonic() >= until:
            raise Timeout(f"job {job_id} is still {current.state} after {timeout_seconds:g} s")
        if time.monotonic() - asked_at < _MIN_POLL_SECONDS:
            yield Pause(seconds=_MIN_POLL_SECONDS)


def _slice(now: float, until: float | None, *, watched: bool) -> float:
    longest = _WATCH_SECONDS if watched else _SLICE_SECONDS
    return longest if until is None else min(longest, max(0.0, until - now))


def cancel(job_id: str) -> Conversation[Job]:
    """Ask for the job's end; it is cancelled as soon as its holder has let go."""
    answer = yield from send(Call(method="POST", path=f"{job_path(job_id)}/cancel"))
    return read_record(Job, read_json(answer))


def job_path(job_id: str) -> str:
    return f"{API}/jobs/{quote_name(job_id, 'job id')}"
