"""Jobs over HTTP: submit, look, wait, follow, cancel."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from fastapi.concurrency import run_in_threadpool
from sse_starlette import EventSourceResponse, ServerSentEvent

from warmrack_daemon.api.callers import HubToken, ServicesOf
from warmrack_daemon.api.names import HIDDEN, Names, NamesOf, hide_event, show_jobs
from warmrack_daemon.api.views import job_view, timestamp
from warmrack_daemon.services import Services
from warmrack_daemon.submitting import submit
from warmrack_daemon.waiters import Waiters
from warmrack_store.errors import Cancelled
from warmrack_store.ledgers import cancels, events, jobs, nodes, resolutions
from warmrack_store.states import JobState
from warmrack_store.submissions import Submission

router = APIRouter(prefix="/jobs", tags=["jobs"])
_MAX_WAIT_SECONDS = 300.0
IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=200)]


def find_view(services: Services, names: Names, job_id: str) -> dict[str, Any]:
    """The job as this client may see it; raises JobNotFound."""
    with services.database.read() as tx:
        job = jobs.get_job(tx, job_id)
        resolution = resolutions.find_resolution(tx, job.resolution_id)
        position = jobs.queue_position(tx, job)
        stuck = position > 0 and not nodes.list_listening(tx)
    view = job_view(job, resolution, position=position, stuck=stuck)
    return show_jobs(names, [(job, resolution, view)])[0]


@router.post("", status_code=202)
def submit_job(
    submission: Submission,
    services: ServicesOf,
    token: HubToken,
    names: NamesOf,
    idempotency_key: IdempotencyKey = None,
) -> dict[str, Any]:
    """Accept a job: it is stored when this answers."""
    job = submit(services, submission, token=token, idempotency_key=idempotency_key)
    return find_view(services, names, job.id)


@router.get("")
def list_jobs(
    services: ServicesOf,
    names: NamesOf,
    state: JobState | None = None,
    model: str | None = None,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> dict[str, Any]:
    """The newest first; `after` is the `next` of the last page.

    A caller who may not know of a model finds nothing by its name.
    """
    with services.database.read() as tx:
        found = jobs.list_jobs(tx, state=state, model=model, before=after, limit=limit)
        resolved = [resolutions.find_resolution(tx, job.resolution_id) for job in found]
    views = [job_view(job, one) for job, one in zip(found, resolved, strict=True)]
    items = show_jobs(names, list(zip(found, resolved, views, strict=True)))
    if model is not None:
        items = [item for item in items if item["model"] != HIDDEN]
    return {"items": items, "next": found[-1].id if len(found) == limit else None}


@router.get("/{job_id}")
async def show_job(
    job_id: str,
    request: Request,
    services: ServicesOf,
    names: NamesOf,
    wait: Annotated[float, Query(ge=0, le=_MAX_WAIT_SECONDS)] = 0.0,
) -> dict[str, Any]:
    """The job; with `wait`, as it is after its next change, or when that many seconds are over."""
    waiters: Waiters = request.app.state.waiters
    async with waiters.watch(job_id) as watch:
        view = first = await run_in_threadpool(find_view, services, names, job_id)
        deadline = asyncio.get_running_loop().time() + wait
        while not JobState(view["state"]).terminal and view["updated_at"] == first["updated_at"]:
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0 or await request.is_disconnected():
                break
            await watch.changed(left)
            view = await run_in_threadpool(find_view, services, names, job_id)
    return view


@router.post("/{job_id}/cancel")
def cancel_job(job_id: str, services: ServicesOf, names: NamesOf) -> dict[str, Any]:
    """Ask for the job's end; a held one ends when its holder has let go."""
    with services.database.write() as tx:
        cancels.request_cancel(tx, job_id, Cancelled(f"job {job_id} was cancelled"))
    services.wakeups.publish(job_id)
    return find_view(services, names, job_id)


@router.get("/{job_id}/events")
async def follow_job(
    job_id: str,
    request: Request,
    services: ServicesOf,
    names: NamesOf,
    last_event_id: Annotated[int, Header(ge=0, le=2**63 - 1)] = 0,
) -> EventSourceResponse:
    """The job's events from the one after Last-Event-ID on, live, until the job has ended."""
    await run_in_threadpool(find_view, services, names, job_id)
    waiters: Waiters = request.app.state.waiters
    return EventSourceResponse(_follow(services, names, waiters, job_id, last_event_id), ping=10)


async def _follow(
    services: Services, names: Names, waiters: Waiters, job_id: str, after: int
) -> AsyncIterator[ServerSentEvent]:
    shown: dict[str, Any] | None = None
    async with waiters.watch(job_id) as watch:
        while True:
            new, view = await run_in_threadpool(_look, services, names, job_id, after)
            for event in new:
                after = event.id
                data = {"at": timestamp(event.at), "state": event.type, **event.data}
                yield ServerSentEvent(json.dumps(data), event=event.type, id=str(event.id))
                if event.type in {s.value for s in JobState if s.terminal}:
                    return
            if JobState(view["state"]).terminal:
                # Resumed behind the last event: say again how it ended, so that the end is one.
                yield ServerSentEvent(json.dumps({"state": view["state"]}), event=view["state"])
                return
            if view["progress"] != shown:
                shown = view["progress"]
                yield ServerSentEvent(json.dumps(shown), event="progress")
            await watch.changed(1.0)


def _look(
    services: Services, names: Names, job_id: str, after: int
) -> tuple[list[events.Event], dict[str, Any]]:
    with services.database.read() as tx:
        new = list(events.list_events(tx, job_id, after=after))
        job = jobs.get_job(tx, job_id)
        resolution = resolutions.find_resolution(tx, job.resolution_id)
        position = jobs.queue_position(tx, job)
        stuck = position > 0 and not nodes.list_listening(tx)
    view = show_jobs(
        names, [(job, resolution, job_view(job, None, position=position, stuck=stuck))]
    )[0]
    if view["model"] == HIDDEN:
        new = [replace(event, data=hide_event(event.data)) for event in new]
    return new, view
