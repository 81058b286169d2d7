"""A raw keep-alive HTTP client of streamed answers, over TCP or a unix socket."""

import json
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_TIMEOUT_SECONDS = 60.0
_HEADERS = {"Content-Type": "application/json", "Accept": "text/event-stream"}


class _UnixConnection(HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("host", timeout=_TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_TIMEOUT_SECONDS)
        self.sock.connect(str(self._path))


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstPiece:
    seconds: float
    """From the call to the first token's text; the rest of the answer is read afterwards."""
    text: str


@dataclass(frozen=True, slots=True)
class StreamClient:
    """One connection, used again for each call."""

    _connection: HTTPConnection

    def call(self, path: str, body: Mapping[str, Any]) -> FirstPiece:
        """Raises ConnectionError for an answer that is not 200 or has no token."""
        started = time.perf_counter()
        self._connection.request("POST", path, json.dumps(body).encode(), _HEADERS)
        answer = self._connection.getresponse()
        if answer.status != 200:
            raise ConnectionError(f"{path} answered {answer.status}: {answer.read()[:500]!r}")
        while line := answer.readline():
            if line.strip() == b"event: token":
                text = json.loads(answer.readline().partition(b":")[2])["text"]
                first = FirstPiece(seconds=time.perf_counter() - started, text=text)
                answer.read()
                return first
        raise ConnectionError(f"{path} sent no token")


@contextmanager
def stream_client(where: str | Path) -> Iterator[StreamClient]:
    """`where` is a service's URL or a unix socket's path."""
    if isinstance(where, Path):
        connection: HTTPConnection = _UnixConnection(where)
    else:
        parts = urlsplit(where)
        connection = HTTPConnection(parts.hostname or "", parts.port, timeout=_TIMEOUT_SECONDS)
    try:
        yield StreamClient(connection)
    finally:
        connection.close()
