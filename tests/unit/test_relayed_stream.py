"""What a client reads of a host's stream, and what becomes of the host's side."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

from tests.unit.test_host_link import CHUNKED, REQUEST, Answer, hosting, read_request
from warmrack_daemon.api.tasks import RelayedStream
from warmrack_store.ledgers.residents import Resident
from warmrack_store.states import ResidentState

TOKEN = b'event: token\ndata: {"text":"event: done"}\n\n'
SCOPE = {"type": "http", "asgi": {"spec_version": "2.3"}}


def make_resident() -> Resident:
    return Resident(
        id="res_1",
        state=ResidentState.WARM,
        cache_key="key",
        resolution_id="rsl_1",
        repository="org/name",
        commit="0" * 40,
        precision="bfloat16",
        node="n0",
        node_epoch=1,
        device="cpu:0",
        pid=None,
        start_time=None,
        socket=None,
        charged_bytes=0,
        pinned=False,
        keep_alive_seconds=1.0,
        in_flight=0,
        drain_requested=False,
        receipt_id="rec_1",
        cause=None,
        created_at=0.0,
        warm_at=None,
        last_used_at=0.0,
        updated_at=0.0,
    )


async def read_all(answer: Answer) -> bytes:
    """The body that a client which stays to the end reads."""
    got = bytearray()

    async def receive() -> MutableMapping[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: MutableMapping[str, Any]) -> None:
        got.extend(message.get("body", b""))

    async with hosting(answer) as (links, address, _host):
        opened = await links.ask(address, REQUEST)
        await RelayedStream(opened, make_resident())(SCOPE, receive, send)
    return bytes(got)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def saying(*chunks: bytes, whole: bool) -> Answer:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _n: int) -> None:
        await read_request(reader)
        for data in (CHUNKED, *(chunk(one) for one in chunks), b"0\r\n\r\n" if whole else b""):
            writer.write(data)
            await writer.drain()

    return answer


def test_long_last_event_is_not_followed_by_an_error() -> None:
    done = b'event: done\ndata: {"text":"' + b"x" * 9_000 + b'"}\n\n'
    body = asyncio.run(read_all(saying(TOKEN, done[:5_000], done[5_000:], whole=True)))
    assert body.startswith(TOKEN)
    assert (body.count(b"event: done\ndata"), body.count(b"event: error")) == (1, 0)


def test_break_after_the_last_event_is_no_error() -> None:
    body = asyncio.run(read_all(saying(TOKEN, b"event: done\ndata: {}\n\n", whole=False)))
    assert b"event: error" not in body


def test_dead_host_is_told_though_a_token_speaks_of_done() -> None:
    for whole in (True, False):
        half = b'event: token\ndata: {"te'
        body = asyncio.run(read_all(saying(TOKEN, half, whole=whole)))
        assert body.startswith(TOKEN + b"event: error\ndata: {")
        assert b"host-lost" in body


def test_client_that_leaves_before_the_first_byte_ends_the_hosts_side() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _n: int) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        assert await reader.read() == b""

    async def run() -> None:
        async with hosting(answer) as (links, address, host):
            opened = await links.ask(address, REQUEST)
            reached = asyncio.Event()

            async def receive() -> MutableMapping[str, Any]:
                await asyncio.Event().wait()
                raise AssertionError

            async def send(message: MutableMapping[str, Any]) -> None:
                reached.set()
                await asyncio.Event().wait()

            stream = RelayedStream(opened, make_resident())
            serving = asyncio.create_task(stream(SCOPE, receive, send))
            await reached.wait()
            serving.cancel()
            await host.left.wait()

    asyncio.run(run())
