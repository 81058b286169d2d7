"""The hop to a host over real sockets: bodies as they come, reuse, and every way it breaks off."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from warmrack_daemon.host_link import Address, HostLinks

REQUEST = b"POST /tasks/generate HTTP/1.1\r\nhost: host\r\ncontent-length: 2\r\n\r\n{}"
SIZED = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\ncontent-length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
SECONDS = 20.0

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter, int], Awaitable[None]]
"""What a host does with its n-th connection (from 0)."""


class Host:
    """A server on a unix socket that does what a test says; it notes what happened to it."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.connections = 0
        self.left = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self._answer(reader, writer, self.connections - 1)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the other end went away
        finally:
            writer.close()
            self.left.set()


@asynccontextmanager
async def hosting(answer: Answer) -> AsyncIterator[tuple[HostLinks, Address, Host]]:
    host, links = Host(answer), HostLinks()
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "host.sock")
        server = await asyncio.start_unix_server(host.serve, path)
        async with server, asyncio.timeout(SECONDS):
            yield links, Address(socket=path, url="http://host"), host
            links.close()


async def read_request(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(len(REQUEST))


async def say_hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _n: int) -> None:
    while await read_request(reader):
        writer.write(SIZED)


async def ask(links: HostLinks, address: Address) -> tuple[int, bytes]:
    answer = await links.ask(address, REQUEST)
    try:
        return answer.status, await answer.read()
    finally:
        answer.close()


def test_a_connection_is_used_again() -> None:
    async def run() -> None:
        async with hosting(say_hello) as (links, address, host):
            for _ in range(3):
                assert await ask(links, address) == (200, b"hello")
            assert (host.connections, links.count_idle()) == (1, 1)

    asyncio.run(run())


def test_headers_are_found_by_their_lower_case_name() -> None:
    async def run() -> None:
        async with hosting(say_hello) as (links, address, _host):
            answer = await links.ask(address, REQUEST)
            assert answer.headers == {"content-type": "text/plain", "content-length": "5"}
            answer.close()

    asyncio.run(run())


def test_chunks_are_handed_on_before_the_answer_ends() -> None:
    async def run() -> None:
        taken = asyncio.Event()

        async def answer(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _n: int
        ) -> None:
            await read_request(reader)
            writer.write(CHUNKED + b"5\r\nfirst\r\n")
            await taken.wait()
            writer.write(b"4\r\nlast\r\n0\r\n\r\n")

        async with hosting(answer) as (links, address, _host):
            opened = await links.ask(address, REQUEST)
            pieces = opened.pieces()
            assert await anext(pieces) == b"first"
            taken.set()
            assert [piece async for piece in pieces] == [b"last"]
            opened.close()

    asyncio.run(run())


@pytest.mark.parametrize("chunked", [False, True])
def test_a_big_body_arrives_whole_though_its_reader_is_slow(chunked: bool) -> None:
    body = bytes(range(256)) * 40_000

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _n: int) -> None:
        await read_request(reader)
        head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body)
        framed = CHUNKED + b"%x\r\n" % len(body) if chunked else head
        writer.write(framed + body + (b"\r\n0\r\n\r\n" if chunked else b""))
        await writer.drain()

    async def run() -> None:
        async with hosting(answer) as (links, address, _host):
            opened = await links.ask(address, REQUEST)
            got = bytearray()
            async for piece in opened.pieces():
                assert len(piece) < 2_000_000, "the host was not made to wait"
                got += piece
                await asyncio.sleep(0)
            assert bytes(got) == body
            opened.close()

    asyncio.run(run())


def test_a_big_request_arrives_whole() -> None:
    body = b"x" * 8_000_000
    request = b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % len(body) + body

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _n: int) -> None:
        assert await reader.readexactly(len(request)) == request
        writer.write(SIZED)

    async def run() -> None:
        async with hosting(answer) as (links, address, _host):
            opened = await links.ask(address, request)
            assert await opened.read() == b"hello"
            opened.close()

    asyncio.run(run())


def test_a_host_that_is_gone_is_an_error() -> None:
    async def run() -> None:
        async with hosting(say_hello) as (links, address, _host):
            Path(str(address.socket)).unlink()
            with pytest.raises(FileNotFoundError):
                await links.ask(address, REQUEST)

    asyncio.run(run())


@pytest.mark.parametrize("told", [b"", SIZED[:30], SIZED[:-1], CHUNKED + b"5\r\nfirst\r\n"])
def test_an_answer_that_breaks_off_is_an_error_and_is_not_asked_for_again(told: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _n: int) -> None:
        await read_request(reader)
        writer.write(told)

    async def run() -> None:
        async with hosting(answer) as (links, address, host):
            with pytest.raises(ConnectionError):
                await ask(links, address)
            assert (host.connections, links.count_idle()) == (1, 0)

    asyncio.run(run())


def test_what_is_no_http_is_an_error() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _n: int) -> None:
        await read_request(reader)
        writer.write(b"SSH-2.0-x\r\n")

    async def run() -> None:
        async with hosting(answer) as (links, address, _host):
            with pytest.raises(ConnectionAbortedError):
                await ask(links, address)

    asyncio.run(run())


def test_a_connection_that_is_closed_as_it_is_used_again_is_replaced() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, n: int) -> None:
        await read_request(reader)
        writer.write(SIZED)
        await read_request(reader)
        if n > 0:
            writer.write(SIZED)

    async def run() -> None:
        async with hosting(answer) as (links, address, host):
            assert await ask(links, address) == (200, b"hello")
            assert await ask(links, address) == (200, b"hello")
            assert host.connections == 2

    asyncio.run(run())


def test_a_used_connection_that_breaks_off_in_an_answer_is_an_error() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _n: int) -> None:
        await read_request(reader)
        writer.write(SIZED)
        await read_request(reader)
        writer.write(SIZED[:20])

    async def run() -> None:
        async with hosting(answer) as (links, address, host):
            assert await ask(links, address) == (200, b"hello")
            with pytest.raises(ConnectionError):
                await ask(links, address)
            assert host.connections == 1

    asyncio.run(run())


def test_nothing_is_kept_of_a_host_that_has_ended() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _n: int) -> None:
        await read_request(reader)
        writer.write(SIZED)
        await reader.read()

    async def run() -> None:
        async with hosting(answer) as (links, address, _host):
            opened = await links.ask(address, REQUEST)
            assert await opened.read() == b"hello"
            opened.close()
            assert links.count_idle() == 1
            links.close()
            assert links.count_idle() == 0

    asyncio.run(run())


def test_an_idle_connection_takes_itself_out_when_its_host_closes_it() -> None:
    async def run() -> None:
        close = asyncio.Event()

        async def answer(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _n: int
        ) -> None:
            await read_request(reader)
            writer.write(SIZED)
            await close.wait()

        async with hosting(answer) as (links, address, host):
            await ask(links, address)
            assert links.count_idle() == 1
            close.set()
            await host.left.wait()
            while links.count_idle():
                await asyncio.sleep(0)

    asyncio.run(run())


def test_closing_an_answer_that_goes_on_ends_it_at_the_host() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _n: int) -> None:
        await read_request(reader)
        writer.write(CHUNKED + b"5\r\nfirst\r\n")
        assert await reader.read() == b""

    async def run() -> None:
        async with hosting(answer) as (links, address, host):
            opened = await links.ask(address, REQUEST)
            assert await anext(opened.pieces()) == b"first"
            opened.close()
            await host.left.wait()
            assert links.count_idle() == 0

    asyncio.run(run())


def test_a_caller_that_is_cancelled_ends_its_question_at_the_host() -> None:
    async def run() -> None:
        asked = asyncio.Event()

        async def answer(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _n: int
        ) -> None:
            await read_request(reader)
            asked.set()
            await reader.read()

        async with hosting(answer) as (links, address, host):
            asking = asyncio.create_task(ask(links, address))
            await asked.wait()
            asking.cancel()
            await host.left.wait()
            with pytest.raises(asyncio.CancelledError):
                await asking

    asyncio.run(run())


def test_a_host_that_says_it_closes_is_not_kept() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _n: int) -> None:
        await read_request(reader)
        writer.write(SIZED.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))

    async def run() -> None:
        async with hosting(answer) as (links, address, _host):
            assert await ask(links, address) == (200, b"hello")
            assert links.count_idle() == 0

    asyncio.run(run())


def test_a_host_of_another_machine_is_reached_by_its_url() -> None:
    async def run() -> None:
        host = Host(say_hello)
        server = await asyncio.start_server(host.serve, "127.0.0.1", 0)
        async with server, asyncio.timeout(SECONDS):
            port = server.sockets[0].getsockname()[1]
            links = HostLinks()
            address = Address(socket=None, url=f"http://127.0.0.1:{port}/hosts/res_1")
            assert await ask(links, address) == (200, b"hello")
            links.close()

    asyncio.run(run())
