"""The mirror's connections against clients that are slow, large, many, or gone."""

import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from warmrack_store.errors import BadRequest
from warmrack_workers.mirror.calls import Answer, Call, OneSpan, Span
from warmrack_workers.mirror.server import MirrorServer

_SIZE_BYTES = 3_000_000


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MirrorServer]:
    """Answers every path with one file; `/short` promises a byte more than there is."""
    place = tmp_path / "file"
    place.write_bytes(bytes(range(256)) * (_SIZE_BYTES // 256 + 1))

    def answer(call: Call) -> Answer:
        stream = place.open("rb", buffering=0)
        size_bytes = place.stat().st_size
        span = Span(file=stream, start=0, size_bytes=size_bytes)
        promised = size_bytes + (call.target == "/short")
        return Answer(status=200, spans=OneSpan(span=span), size_bytes=promised)

    made = MirrorServer("127.0.0.1:0", answer)
    made.start()
    yield made
    made.stop()


def _connect(server: MirrorServer) -> socket.socket:
    url = httpx.URL(server.url)
    return socket.create_connection((url.host, url.port or 0), timeout=5)


def test_one_connection_carries_many_requests(server: MirrorServer) -> None:
    with httpx.Client(base_url=server.url) as client:
        sizes = {len(client.get("/a").content) for _ in range(3)}
        assert client.head("/a").headers["content-length"] == str(sizes.pop())
        assert not sizes


def test_answer_with_too_few_bytes_ends_the_connection(server: MirrorServer) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"{server.url}/short")


def test_head_larger_than_any_honest_one_is_cut(server: MirrorServer) -> None:
    with _connect(server) as client:
        client.sendall(b"GET /a HTTP/1.1\r\nx: " + b"y" * 40_000)
        try:
            assert client.recv(1) == b""
        except ConnectionResetError:
            return


def test_body_is_not_read_but_refused(server: MirrorServer) -> None:
    with _connect(server) as client:
        client.sendall(b"GET /a HTTP/1.1\r\ncontent-length: 9\r\n\r\nGET /b HT")
        told = b"".join(iter(lambda: client.recv(4096), b""))
    assert told.startswith(b"HTTP/1.1 400 ")
    assert told.count(b"HTTP/1.1") == 1


def test_connections_over_the_limit_are_told_to_come_again(server: MirrorServer) -> None:
    held = [_connect(server) for _ in range(128)]
    try:
        with _connect(server) as one_more:
            assert one_more.recv(4096).startswith(b"HTTP/1.1 503 ")
    finally:
        for client in held:
            client.close()


def test_address_that_is_taken_is_refused_with_the_setting_to_change(server: MirrorServer) -> None:
    with pytest.raises(BadRequest) as caught:
        MirrorServer(
            str(httpx.URL(server.url).netloc, "ascii"),
            lambda _call: Answer(status=200, size_bytes=0),
        )
    assert "WARMRACK_MIRROR" in caught.value.hint
