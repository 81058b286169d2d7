"""The blocking client."""

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from types import TracebackType
from typing import Concatenate, ParamSpec, Self, TypeVar, assert_never

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

    def __init__(self, http: httpx.Client, connection: Connection) -> None:
        self._http = http
        self._connection = connection
        self._opened: httpx.Response | None = None
        self._chunks: Iterator[bytes] = iter(())

    def perform(self, step: Step) -> Outcome:
        try:
            match step:
                case Call():
                    return self._send(step)
                case Open():
                    return self._open(step.call)
                case ReadChunk():
                    return next(self._chunks, None)
                case Pause():
                    time.sleep(step.seconds)
                    return None
                case _:
                    assert_never(step)
        except httpx.RequestError as error:
            return self._connection.unreachable(error)

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def _send(self, call: Call) -> Answer:
        response = self._http.send(self._http.build_request(**self._connection.request(call)))
        return answer_of(response, body=response.content)

    def _open(self, call: Call) -> Answer:
        self.close()
        request = self._http.build_request(**self._connection.request(call))
        self._opened = self._http.send(request, stream=True)
        if not self._opened.is_success:
            return answer_of(self._opened, body=self._opened.read())
        self._chunks = self._opened.iter_bytes()
        return answer_of(self._opened, body=b"")


def _method(
    conversation: Callable[P, Conversation[T]],
) -> "Callable[Concatenate[Client, P], T]":
    def method(client: "Client", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return client._run(conversation(*args, **kwargs))

    return describe(method, conversation)


def _iterator(
    stream: Callable[P, Stream[T]],
) -> "Callable[Concatenate[Client, P], Generator[T, None, None]]":
    def method(client: "Client", /, *args: P.args, **kwargs: P.kwargs) -> Generator[T, None, None]:
        return client._iterate(stream(*args, **kwargs))

    return describe(method, stream)


class Client:
    """A blocking client of the service; safe to use from several threads.

    What is not given comes from the settings (WARMRACK_URL, WARMRACK_API_KEY,
    WARMRACK_HUB_TOKEN). Every method raises the tree's errors: Unreachable where nobody answers,
    else what the service says.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        hub_token: str | None = None,
        timeout_seconds: float = 60.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._connection = make_connection(url, api_key, hub_token, timeout_seconds)
        self._http = httpx.Client(**self._connection.options, transport=transport)

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

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self, conversation: Conversation[T]) -> T:
        with closing(_Transport(self._http, self._connection)) as transport:
            step = resume(conversation, None)
            while not isinstance(step, End):
                step = resume(conversation, transport.perform(step))
            return step.result

    def _iterate(self, stream: Stream[T]) -> Generator[T, None, None]:
        with closing(_Transport(self._http, self._connection)) as transport:
            step = resume(stream, None)
            while not isinstance(step, End):
                if isinstance(step, Emit):
                    yield step.item
                    step = resume(stream, None)
                else:
                    step = resume(stream, transport.perform(step))
