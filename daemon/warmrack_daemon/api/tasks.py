"""Direct tasks on warm models, streamed or whole."""

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
from fastapi import APIRouter, Header, Request, Response
from pydantic import Field
from starlette.responses import StreamingResponse

from warmrack_daemon.api.callers import HubToken, ServicesOf
from warmrack_daemon.api.named_answers import NamedStream, name_result
from warmrack_daemon.gateway import Gateway
from warmrack_store.errors import Contradiction, HostLost, ModelCold, TaskNotFound, WarmrackError
from warmrack_store.ledgers import nodes
from warmrack_store.ledgers.residents import Resident
from warmrack_store.records import Record, parse_record
from warmrack_store.requests import LoadRequest

router = APIRouter(tags=["tasks"])
_EVENT_STREAM = "text/event-stream"
_TERMINAL_EVENTS = (b"event: done", b"event: error")


class TaskCall(Record):
    """A direct call: which model (and how it may be resolved), and the task's own input."""

    model: str
    request: dict[str, Any] = Field(default_factory=dict)
    payload: dict[str, Any] = Field(default_factory=dict)
    patience_seconds: float | None = Field(None, ge=0, le=3600)

    def load_request(self) -> LoadRequest:
        """Raises BadRequest or Contradiction for fields that do not go together."""
        if self.request.get("model", self.model) != self.model:
            raise Contradiction("model and request.model differ", hint="Name the model once.")
        return parse_record(LoadRequest, {**self.request, "model": self.model})


@router.get("/tasks")
def list_tasks(services: ServicesOf) -> dict[str, Any]:
    """The tasks that the nodes serve, with the JSON schema of their input and output."""
    with services.database.read() as tx:
        published = {
            name: schema for node in nodes.list_nodes(tx) for name, schema in node.tasks.items()
        }
    return {"items": [{"name": n, **published[n]} for n in sorted(published)], "next": None}


@router.post("/tasks/{task}")
async def call_task(
    task: str,
    call: TaskCall,
    request: Request,
    services: ServicesOf,
    token: HubToken,
    accept: Annotated[str, Header()] = "application/json",
) -> Response:
    """Run a task on a warm model; `Accept: text/event-stream` streams it."""
    gateway: Gateway = request.app.state.gateway
    patience = call.patience_seconds
    if patience is None:
        patience = services.settings.patience_seconds
    if not task.replace("_", "").isalnum():
        raise TaskNotFound(f"there is no task {task[:80]!r}")
    load_request, stream = call.load_request(), _EVENT_STREAM in accept
    for attempt in (1, 2):
        route = await gateway.find_target(load_request, task, token, patience)
        relay = gateway.open(route, task, call.payload, stream=stream)
        try:
            answer = await relay.__aenter__()
        except HostLost:
            if attempt == 2:
                raise
            continue
        if answer.status_code != ModelCold.status or attempt == 2:
            break
        await relay.__aexit__(None, None, None)  # it drains: another one may be warm, or loads
    return await _answer(relay, answer, route.resident)


async def _answer(relay: Any, answer: httpx.Response, resident: Resident) -> Response:
    headers = _headers(resident)
    if answer.headers.get("content-type", "").startswith(_EVENT_STREAM):
        body = _stream(relay, answer, resident)
        return StreamingResponse(body, answer.status_code, headers, media_type=_EVENT_STREAM)
    try:
        content = await answer.aread()
    except httpx.TransportError as error:
        raise HostLost(f"the host of {resident.repository} ended in the middle") from error
    finally:
        await relay.__aexit__(None, None, None)
    kind = answer.headers.get("content-type", "application/json")
    if answer.is_success:
        content = name_result(content, resident.receipt_id)
    return Response(content, answer.status_code, headers, media_type=kind)


def _headers(resident: Resident) -> dict[str, str]:
    return {
        "X-Warmrack-Receipt": resident.receipt_id or "",
        "X-Warmrack-Resident": resident.id,
        "Cache-Control": "no-store",
    }


async def _stream(relay: Any, answer: httpx.Response, resident: Resident) -> AsyncIterator[bytes]:
    """The host's events as they come; an end without a terminal event becomes an error event."""
    tail, named = b"", NamedStream(resident.receipt_id)
    try:
        async for chunk in answer.aiter_raw():
            tail = (tail + chunk)[-4096:] if b"event:" not in chunk else chunk
            if passed := named.feed(chunk):
                yield passed
        if held := named.rest():
            yield held
    except httpx.TransportError:
        tail = b""
    finally:
        await relay.__aexit__(None, None, None)
    if not any(mark in tail for mark in _TERMINAL_EVENTS):
        lost = HostLost(f"the host of {resident.repository} ended in the middle of the answer")
        yield error_event(lost)


def error_event(error: WarmrackError) -> bytes:
    return f"event: error\ndata: {json.dumps(error.to_record())}\n\n".encode()
