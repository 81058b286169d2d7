"""A small HTTP service that answers as its script says, over real sockets."""

import json
import socket
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio.to_thread
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from warmrack_store.errors import NotFound, WarmrackError

JOBS = "/api/v1/jobs"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One answer. `hold`: sent only once the event is set."""

    status: int = 200
    body: object = None
    media_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    hold: threading.Event | None = None


@dataclass(frozen=True, kw_only=True)
class Events:
    """An event stream; `broken`: the connection breaks behind its last chunk."""

    chunks: tuple[bytes, ...]
    broken: bool = False


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One request that came in."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any


class Service:
    """What is asked is recorded, what is answered is queued; the last answer repeats."""

    def __init__(self) -> None:
        self.url = ""
        self.seen: list[Seen] = []
        self._replies: dict[tuple[str, str], list[Reply | Events]] = defaultdict(list)

    def forget(self) -> None:
        """As new, for the next test."""
        self.seen.clear()
        self._replies.clear()

    def on(self, method: str, path: str, *replies: Reply | Events) -> None:
        self._replies[method, path] = list(replies)

    def asked(self, method: str, path: str) -> list[Seen]:
        return [one for one in self.seen if (one.method, one.path) == (method, path)]

    async def answer(self, request: Request) -> Response:
        body = await request.body()
        self.seen.append(
            Seen(
                method=request.method,
                path=request.scope["path"],
                query=dict(request.query_params),
                headers=dict(request.headers),
                body=json.loads(body) if body else None,
            )
        )
        queue = self._replies[request.method, request.scope["path"]]
        if not queue:
            return respond(problem(NotFound(f"{request.url.path} is not scripted")))
        reply = queue.pop(0) if len(queue) > 1 else queue[0]
        if isinstance(reply, Events):
            return StreamingResponse(_chunks(reply), media_type="text/event-stream")
        if reply.hold is not None:
            await anyio.to_thread.run_sync(reply.hold.wait, 20)
        return respond(reply)


async def _chunks(reply: Events) -> AsyncIterator[bytes]:
    for chunk in reply.chunks:
        yield chunk
    if reply.broken:
        raise ConnectionAbortedError("the script breaks the connection here")


def respond(reply: Reply) -> Response:
    text = reply.body if isinstance(reply.body, str) else json.dumps(reply.body)
    return Response(text, reply.status, dict(reply.headers), media_type=reply.media_type)


def problem(error: WarmrackError, **extra: object) -> Reply:
    """The answer for an error, as RFC 9457 has it."""
    body = {
        "type": f"urn:warmrack:error:{error.code}",
        "title": error.code,
        "status": error.status,
        "code": error.code,
        "detail": error.message,
        "hint": error.hint,
        "retryable": error.retryable,
        **extra,
    }
    headers = {"Retry-After": "7"} if error.retryable else {}
    return Reply(
        status=error.status, body=body, media_type="application/problem+json", headers=headers
    )


def event(kind: str, data: object, *, id: int | None = None) -> bytes:
    """One server-sent event."""
    head = "" if id is None else f"id: {id}\n"
    return f"{head}event: {kind}\ndata: {json.dumps(data)}\n\n".encode()


def job(state: str, **fields: object) -> dict[str, object]:
    """A job as the service shows it."""
    return {
        "id": "j1",
        "kind": "load",
        "state": state,
        "cause": None,
        "model": "org/name",
        "attempt": 1,
        "node": "node-0",
        "progress": {"bytes_done": 0, "bytes_total": 0, "position": 0, "waiting_for": None},
        "resolution": {
            "repository": "org/name",
            "commit": COMMIT,
            "substitution": "none",
            "precision": "bf16",
        },
        "resident": None,
        "result": None,
        "error": None,
        "created_at": "2026-01-02T03:04:05.678Z",
        **fields,
    }


def page(*items: object, following: str | None = None) -> Reply:
    return Reply(body={"items": list(items), "next": following})


def accept(service: Service, *states: dict[str, object]) -> None:
    """The service accepts a job that passes through these states."""
    service.on("POST", JOBS, Reply(status=202, body=job("queued")))
    service.on("GET", f"{JOBS}/j1", *(Reply(body=state) for state in states))


@contextmanager
def serving() -> Iterator[Service]:
    """A service that listens on loopback for as long as the block lasts."""
    service = Service()
    methods = ["GET", "POST", "DELETE"]
    app = Starlette(routes=[Route("/{path:path}", service.answer, methods=methods)])
    config = uvicorn.Config(app, log_level="critical", lifespan="off", ws="none", date_header=False)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        service.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield service
        finally:
            server.should_exit = True
            thread.join()
