"""A client that leaves ends the work that it waited for."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from warmrack_daemon.api.leaving import while_waited_for

_SECONDS = 20.0


class Work:
    """What a request waits for, and what became of it."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.cancelled = threading.Event()

    async def endless(self) -> Response:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        raise AssertionError("nobody sets it")


@contextmanager
def serving(work: Work) -> Iterator[int]:
    async def wait(request: Request) -> Response:
        await request.body()
        return await while_waited_for(request, work.endless())

    async def echo(request: Request) -> Response:
        body = await request.json()

        async def give() -> Response:
            return JSONResponse(body)

        return await while_waited_for(request, give())

    async def fail(request: Request) -> Response:
        await request.body()

        async def give() -> Response:
            raise LookupError("ours")

        try:
            return await while_waited_for(request, give())
        except LookupError as error:
            return JSONResponse(str(error), 418)

    routes = [Route(f"/{one.__name__}", one, methods=["POST"]) for one in (wait, echo, fail)]
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(Starlette(routes=routes), log_level="critical", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield int(listening.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join(_SECONDS)


def test_work_is_cancelled_when_its_client_leaves_and_not_before() -> None:
    work = Work()
    with serving(work) as port:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"http://127.0.0.1:{port}/wait", json={}, timeout=httpx.Timeout(20, read=1))
        assert work.begun.is_set()
        assert work.cancelled.wait(_SECONDS)


def test_work_that_ends_gives_its_answer_or_its_error_on_one_connection() -> None:
    with serving(Work()) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        for number in range(3):
            assert client.post("/echo", json=[number]).json() == [number]
            assert client.post("/fail", json={}).status_code == 418
