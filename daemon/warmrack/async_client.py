"""The asynchronous client."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, assert_never

import httpx

from warmrack import (
    cache_calls,
    event_calls,
    job_calls,
    lock_calls,
    pool_calls,
    receipt_calls,
    secret_calls,
    task_calls,
)
from warmrack.connection import Connection, answer_of, make_connection
from warmrack.methods import describe
from warmrack.steps import (
    Answer,
    Call,
    Conversation,
    Emit,
    End,
    Open,
    Outcome,
    Pause,
    ReadChunk,
    Step,
    Stream,
    resume,
)

P = ParamSpec("P")
T = TypeVar("T")


class _Transport:
    """Carries out one conversation's steps."""

    def __init__(self, http: httpx.AsyncClient, connection: Connection) -> None:
        self._http = http
        self._connection = connection
        self._opened: httpx.Response | None = None
        self._chunks: AsyncIterator[bytes] | None = None

    async def perform(self, step: Step) -> Outcome:
        try:
            match step:
                case Call():
                    return await self._send(step)
                case Open():
                    return await self._open(step.call)
                case ReadChunk():
                    return None if self._chunks is None else await anext(self._chunks, None)
                case Pause():
                    await asyncio.sleep(step.seconds)
                    return None
                case _:
                    assert_never(step)
        except httpx.RequestError as error:
            return self._connection.unreachable(error)

    async def aclose(self) -> None:
        if self._opened is not None:
            await self._opened.aclose()
            self._opened = None

    async def _send(self, call: Call) -> Answer:
        request = self._http.build_request(**self._connection.request(call))
        response = await self._http.send(request)
        return answer_of(response, body=response.content)

    async def _open(self, call: Call) -> Answer:
        await self.aclose()
        request = self._http.build_request(**self._connection.request(call))
        self._opened = await self._http.send(request, stream=True)
        if not self._opened.is_success:
            return answer_of(self._opened, body=await self._opened.aread())
        self._chunks = self._opened.aiter_bytes()
        return answer_of(self._opened, body=b"")


def _method(
    conversation: Callable[P, Conversation[T]],
) -> "Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]":
    async def method(client: "AsyncClient", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await client._run(conversation(*args, **kwargs))

    return describe(method, conversation)


def _iterator(
    stream: Callable[P, Stream[T]],
) -> "Callable[Concatenate[AsyncClient, P], AsyncGenerator[T, None]]":
    def method(
        client: "AsyncClient", /, *args: P.args, **kwargs: P.kwargs
    ) -> AsyncGenerator[T, None]:
        return client._iterate(stream(*args, **kwargs))

    return describe(method, stream)


class AsyncClient:
    """The asynchronous twin of `Client`: the same methods, each to be awaited.

    `events` and `stream_task` are asynchronous iterators; one that is left early is closed with
    `contextlib.aclosing`.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        hub_token: str | None = None,
        timeout_seconds: float = 60.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._connection = make_connection(url, api_key, hub_token, timeout_seconds)
        self._http = httpx.AsyncClient(**self._connection.options, transport=transport)

    submit = _method(job_calls.submit)
    load = _method(job_calls.load)
    prefetch = _method(job_calls.prefetch)
    task = _method(job_calls.submit_task)
    job = _method(job_calls.get_job)
    jobs = _method(job_calls.list_jobs)
    wait = _method(job_calls.wait)
    cancel = _method(job_calls.cancel)
    receipt = _method(receipt_calls.get_receipt)
    export_receipt = _method(receipt_calls.export_receipt)
    verify_receipt = _method(receipt_calls.verify_receipt)
    pool_key = _method(receipt_calls.get_pool_key)
    keep_lock = _method(lock_calls.keep_lock)
    lock = _method(lock_calls.get_lock)
    events = _iterator(event_calls.list_events)
    run_task = _method(task_calls.run_task)
    stream_task = _iterator(task_calls.stream_task)
    explain = _method(pool_calls.explain)
    estimate = _method(pool_calls.estimate)
    residents = _method(pool_calls.list_residents)
    unload = _method(pool_calls.unload)
    pin = _method(pool_calls.pin)
    nodes = _method(pool_calls.list_nodes)
    snapshots = _method(pool_calls.list_snapshots)
    egress = _method(pool_calls.list_egress)
    evict = _method(cache_calls.evict)
    remove_snapshots = _method(cache_calls.remove_snapshots)
    check_disks = _method(cache_calls.check_disks)
    secrets = _method(secret_calls.list_secrets)
    put_secret = _method(secret_calls.put_secret)
    delete_secret = _method(secret_calls.delete_secret)
    rotate_secrets = _method(secret_calls.rotate_secrets)
    healthz = _method(pool_calls.get_health)

    async def aclose(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _run(self, conversation: Conversation[T]) -> T:
        async with aclosing(_Transport(self._http, self._connection)) as transport:
            step = resume(conversation, None)
            while not isinstance(step, End):
                step = resume(conversation, await transport.perform(step))
            return step.result

    async def _iterate(self, stream: Stream[T]) -> AsyncGenerator[T, None]:
        async with aclosing(_Transport(self._http, self._connection)) as transport:
            step = resume(stream, None)
            while not isinstance(step, End):
                if isinstance(step, Emit):
                    yield step.item
                    step = resume(stream, None)
                else:
                    step = resume(stream, await transport.perform(step))
