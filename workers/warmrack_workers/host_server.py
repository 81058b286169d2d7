"""The HTTP face of a host, on its unix socket."""

import asyncio
import json
import socket
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from warmrack_store.errors import (
    PROBLEM_TYPE,
    BadRequest,
    Defect,
    HostLost,
    NotFound,
    WarmrackError,
)
from warmrack_store.records import Record, parse_record
from warmrack_workers.downstream import Token, get_task, list_tasks
from warmrack_workers.host import Host
from warmrack_workers.host_spec import HostSpec
from warmrack_workers.host_status import DrainAnswer, DrainRequest
from warmrack_workers.serial_batcher import wrap_failure

KEEP_ALIVE_SECONDS = 120
"""Longer than any client of ours keeps an idle connection (httpx: 5 s), so that it is never the
server that closes one in the moment it is used again."""
LONGEST_WAIT_SECONDS = 60.0
_FLUSH_SECONDS = 1.0


async def serve(spec: HostSpec, spec_path: Path) -> Host:
    """Listen, load, serve; returns when the host has drained or its failure has been read.

    Raises Defect where the spec is gone: whoever ended this host took it away before asking the
    socket who listens, so either they find this host there or this host finds no spec.
    """
    listener = _listen(spec.socket_path)
    if not spec_path.exists():
        listener.close()
        spec.socket_path.unlink(missing_ok=True)
        raise Defect(f"{spec_path} is gone: nobody wants this host any more")
    host = Host(spec)
    config = uvicorn.Config(
        _Api(host).app,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    # uvicorn's protocol without its Server: that one takes over the signals, and looks only
    # every 0.1 s whether it should end.
    server = await loop.create_unix_server(
        lambda: HttpToolsProtocol(config=config, server_state=state, app_state={}), sock=listener
    )
    loading = asyncio.create_task(host.bring_up())
    await host.finished.wait()
    server.close()
    if state.tasks:
        await asyncio.wait(state.tasks, timeout=_FLUSH_SECONDS)
    await loading
    spec.socket_path.unlink(missing_ok=True)
    return host


def _listen(path: Path) -> socket.socket:
    """Raises Defect where another host has the path already: of two, only the first may serve."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise Defect(f"cannot listen on {path}: {error}") from error
    path.chmod(0o600)
    listener.listen(128)
    listener.setblocking(False)
    return listener


class _Api:
    def __init__(self, host: Host) -> None:
        self._host = host
        self.app = Starlette(
            routes=[
                Route("/status", self.status, methods=["GET"]),
                Route("/tasks", self.tasks, methods=["GET"]),
                Route("/tasks/{task}", self.task, methods=["POST"]),
                Route("/drain", self.drain, methods=["POST"]),
                Route("/audit", self.audit, methods=["POST"]),
            ],
            exception_handlers={
                WarmrackError: _answer_error,
                HTTPException: _answer_unknown,
                Exception: _answer_error,
            },
        )

    async def status(self, request: Request) -> Response:
        after = request.query_params.get("after")
        if after is not None:
            await self._host.wait_change(after, _wait_seconds(request))
        answer = _json(self._host.status())
        self._host.note_read()
        return answer

    async def tasks(self, request: Request) -> Response:
        """Every task's schemas; before the model is warm, those of all tasks there are."""
        warm = self._host.warm
        return JSONResponse(
            [
                {
                    "name": task.name,
                    "summary": task.summary,
                    "streams": task.streams,
                    "input": task.input_type.model_json_schema(),
                    "output": task.output_type.model_json_schema(),
                }
                for task in list_tasks()
                if warm is None or task.serves(warm)
            ]
        )

    async def task(self, request: Request) -> Response:
        body = await _read_json(request)
        warm = self._host.admit()
        try:
            task = get_task(request.path_params["task"], warm)
            events = task.start(warm, parse_record(task.input_type, body))
        except BaseException:
            self._host.release()
            raise
        if "text/event-stream" in request.headers.get("accept", ""):
            return _Stream(self._host, events)
        try:
            return _json(await _collect(request, events))
        finally:
            self._host.release()

    async def drain(self, request: Request) -> Response:
        asked = parse_record(DrainRequest, await _read_json(request) or {})
        return _json(DrainAnswer(draining=self._host.drain(asked.idle_seconds)))

    async def audit(self, request: Request) -> Response:
        """The model in memory, audited again."""
        return _json(await self._host.recheck())


class _Stream(StreamingResponse):
    """Server-sent events of one task; its place is given back however the answer ends."""

    def __init__(self, host: Host, events: AsyncGenerator[Record, None]) -> None:
        super().__init__(
            _encode_events(events),
            media_type="text/event-stream",
            headers={"cache-control": "no-store"},
        )
        self._host = host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._host.release()


async def _encode_events(events: AsyncGenerator[Record, None]) -> AsyncGenerator[bytes, None]:
    """`token` events, then exactly one `done` or `error`."""
    try:
        async with aclosing(events):
            async for event in events:
                yield _event("token" if isinstance(event, Token) else "done", event)
    except Exception as error:
        record = json.dumps(wrap_failure(error).to_record())
        yield f"event: error\ndata: {record}\n\n".encode()


def _event(name: str, record: Record) -> bytes:
    return f"event: {name}\ndata: {record.model_dump_json()}\n\n".encode()


async def _collect(request: Request, events: AsyncGenerator[Record, None]) -> Record:
    """The last event; a client that goes away ends the work. Raises HostLost, which then nobody
    reads."""
    work = asyncio.create_task(_last(events))
    gone = asyncio.create_task(_wait_disconnect(request))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise HostLost("the client went away")
        return work.result()
    finally:
        for waiting in (work, gone):
            waiting.cancel()
        await asyncio.wait({work, gone})


async def _last(events: AsyncGenerator[Record, None]) -> Record:
    async with aclosing(events):
        async for event in events:
            if not isinstance(event, Token):
                return event
    raise Defect("the task ended without a result")


async def _wait_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _read_json(request: Request) -> object:
    body = await request.body()
    try:
        return json.loads(body) if body else {}
    except ValueError as error:
        raise BadRequest(f"body: is not JSON: {error}") from error


def _wait_seconds(request: Request) -> float:
    text = request.query_params.get("wait", "0")
    try:
        return min(max(float(text), 0.0), LONGEST_WAIT_SECONDS)
    except ValueError:
        raise BadRequest(f"wait: is not a number of seconds (got {text!r})") from None


def _json(record: Record) -> Response:
    return Response(record.model_dump_json(), media_type="application/json")


async def _answer_unknown(request: Request, error: Exception) -> Response:
    return await _answer_error(request, NotFound(f"no {request.method} {request.url.path} here"))


async def _answer_error(request: Request, error: Exception) -> Response:
    """The problem document, and when to ask again."""
    failure = wrap_failure(error)
    return JSONResponse(
        failure.to_problem(),
        status_code=failure.status,
        headers={"retry-after": "1"} if failure.retryable else None,
        media_type=PROBLEM_TYPE,
    )
