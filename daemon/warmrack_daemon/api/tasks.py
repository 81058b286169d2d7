"""Direct tasks on warm models, streamed or whole."""

import json
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Header, Request, Response
from pydantic import Field
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from warmrack_daemon.api.callers import HubToken, ServicesOf
from warmrack_daemon.api.guarded import Loss, pieces_while_allowed, while_allowed
from warmrack_daemon.api.leaving import while_waited_for
from warmrack_daemon.api.named_answers import NamedStream, name_result
from warmrack_daemon.gateway import Gateway
from warmrack_daemon.host_link import HostAnswer
from warmrack_store.errors import (
    Contradiction,
    HostLost,
    ModelCold,
    Refusal,
    TaskNotFound,
    WarmrackError,
)
from warmrack_store.ledgers import nodes
from warmrack_store.ledgers.residents import Resident
from warmrack_store.records import Record, parse_record
from warmrack_store.requests import LoadRequest

router = APIRouter(tags=["tasks"])
_EVENT_STREAM = "text/event-stream"
log = structlog.get_logger()


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
    work = _answer(gateway, call, task, token, patience, stream=_EVENT_STREAM in accept)
    return await while_waited_for(request, work)


async def _answer(
    gateway: Gateway,
    call: TaskCall,
    task: str,
    token: str | None,
    patience_seconds: float,
    *,
    stream: bool,
) -> Response:
    load_request = call.load_request()
    for attempt in (1, 2):
        route = await gateway.find_target(load_request, task, token, patience_seconds)
        try:
            answer = await gateway.open(route, task, call.payload, stream=stream)
        except HostLost:
            if attempt == 2:
                raise
            continue
        if answer.status != ModelCold.status or attempt == 2:
            break
        answer.close()  # it drains: another one may be warm, or loads
    if answer.headers.get("content-type", "").startswith(_EVENT_STREAM):
        loss = partial(gateway.wait_for_loss, route, token) if route.closed else None
        return RelayedStream(answer, route.resident, loss)
    whole = _read_whole(answer, route.resident)
    if not route.closed:
        return await whole
    return await while_allowed(whole, partial(gateway.wait_for_loss, route, token))


async def _read_whole(answer: HostAnswer, resident: Resident) -> Response:
    try:
        content = await answer.read()
    except OSError as error:
        raise HostLost(f"the host of {resident.repository} ended in the middle") from error
    finally:
        answer.close()
    kind = answer.headers.get("content-type", "application/json")
    if answer.status < 300:
        content = name_result(content, resident.receipt_id)
    return Response(content, answer.status, _headers(resident), media_type=kind)


def _headers(resident: Resident) -> dict[str, str]:
    return {
        "X-Warmrack-Receipt": resident.receipt_id or "",
        "X-Warmrack-Resident": resident.id,
        "Cache-Control": "no-store",
    }


class RelayedStream(StreamingResponse):
    """The host's events as they come; its answer is closed however this one ends.

    Not by the body's own generator, which never runs where the client leaves before the first
    byte.
    """

    def __init__(self, answer: HostAnswer, resident: Resident, loss: Loss | None = None) -> None:
        super().__init__(
            _relay(answer, resident, loss),
            answer.status,
            _headers(resident),
            media_type=_EVENT_STREAM,
        )
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._answer.close()


async def _relay(answer: HostAnswer, resident: Resident, loss: Loss | None) -> AsyncIterator[bytes]:
    """Whole events; an end without a terminal one becomes an error event."""
    named = NamedStream(resident.receipt_id)
    try:
        pieces = answer.pieces()
        async for piece in pieces if loss is None else pieces_while_allowed(pieces, loss):
            if events := named.feed(piece):
                yield events
    except OSError as error:
        log.warning(
            "A host's answer broke off.",
            action="answer-broken",
            resident=resident.id,
            error=repr(error),
        )
    except Refusal as refusal:
        yield error_event(refusal)
        return
    if not named.ended:
        lost = HostLost(f"the host of {resident.repository} ended in the middle of the answer")
        yield error_event(lost)


def error_event(error: WarmrackError) -> bytes:
    return f"event: error\ndata: {json.dumps(error.to_record())}\n\n".encode()
