"""HTTP connections to the hosts of one source: kept, reused, and cut from any thread.

Own sockets rather than a client library's: a body is read into one buffer as it arrives (a third of
the CPU time of httpx on loopback), and a thread that is blocked in a read can be woken.
"""

import os
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from time import monotonic
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

from warmrack_store.errors import HubUnavailable

_CHUNK_BYTES = 256 * 1024
"""Small enough to be hashed while it is in the core's own cache."""
_MAX_DRAINED_BYTES = 64 * 1024
"""A body up to here is read to its end, so that its connection can be used again."""
_LEAST_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    connect_seconds: float = 10.0
    read_seconds: float = 30.0
    """How long an answer or a body may stall."""
    drip_seconds: float = 60.0
    """A body that brings less than 64 KiB in so long is as good as stalled, however steadily."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpAnswer:
    """The head of an answer; `chunks` are views into one buffer, each valid until the next."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    chunks: Iterator[memoryview]


class HttpLines:
    """Safe to share between threads; each request has a connection of its own while it lasts."""

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._lock = threading.Lock()
        self._idle: dict[tuple[str, str], list[HTTPConnection]] = {}
        self._live: set[HTTPConnection] = set()
        self._interrupted = False
        self._tls: ssl.SSLContext | None = None

    @contextmanager
    def get(self, url: str, headers: Mapping[str, str], what: str) -> Iterator[HttpAnswer]:
        """One GET; redirects are not followed. HubUnavailable where the connection breaks."""
        place = urlsplit(url)
        connection, response = self._ask(place, headers, what)
        reader = _Reader(response, what, self._timeouts.drip_seconds)
        try:
            answered = {name.lower(): value for name, value in response.headers.items()}
            yield HttpAnswer(status=response.status, headers=answered, chunks=reader.read())
            reusable = reader.drain()
        except BaseException:
            response.close()
            self._drop(connection)
            raise
        if reusable:
            self._keep(place, connection)
        else:
            self._drop(connection)

    def interrupt(self) -> None:
        """Break off every request under way, and every later one."""
        with self._lock:
            self._interrupted = True
            live = list(self._live)
        for connection in live:
            _shut(connection)

    def close(self) -> None:
        with self._lock:
            idle = [one for kept in self._idle.values() for one in kept]
            self._idle.clear()
        for connection in idle:
            self._drop(connection)

    def _ask(
        self, place: SplitResult, headers: Mapping[str, str], what: str
    ) -> tuple[HTTPConnection, HTTPResponse]:
        """Send on a kept connection, and once more on a new one where the server had closed that."""
        kept = self._find_idle(place)
        if kept is not None:
            with suppress(OSError, HTTPException):
                return kept, _send(kept, place, headers)
            self._drop(kept)
        made = None
        try:
            made = self._connect(place)
            return made, _send(made, place, headers)
        except (OSError, HTTPException) as error:
            if made is not None:
                self._drop(made)
            raise HubUnavailable(f"{what}: {type(error).__name__}: {error}") from error

    def _find_idle(self, place: SplitResult) -> HTTPConnection | None:
        with self._lock:
            kept = self._idle.get((place.scheme, place.netloc), [])
            return kept.pop() if kept else None

    def _connect(self, place: SplitResult) -> HTTPConnection:
        """A new connection, through the environment's proxy where it names one."""
        proxy = find_proxy(place)
        host, port = place.hostname or "", place.port
        seconds = self._timeouts.connect_seconds
        at = proxy if proxy is not None else place
        if place.scheme == "https":
            made: HTTPConnection = HTTPSConnection(
                at.hostname or "", at.port, timeout=seconds, context=self._get_tls()
            )
            if proxy is not None:
                made.set_tunnel(host, port)
        else:
            made = HTTPConnection(at.hostname or "", at.port, timeout=seconds)
        with self._lock:
            self._live.add(made)
        try:
            made.connect()
        except BaseException:
            self._drop(made)
            raise
        made.sock.settimeout(self._timeouts.read_seconds)
        if self._interrupted:
            _shut(made)
        return made

    def _get_tls(self) -> ssl.SSLContext:
        with self._lock:
            if self._tls is None:
                self._tls = make_tls()
            return self._tls

    def _keep(self, place: SplitResult, connection: HTTPConnection) -> None:
        with self._lock:
            self._idle.setdefault((place.scheme, place.netloc), []).append(connection)

    def _drop(self, connection: HTTPConnection) -> None:
        with self._lock:
            self._live.discard(connection)
        connection.close()


class _Reader:
    """The body of one answer."""

    def __init__(self, response: HTTPResponse, what: str, drip_seconds: float) -> None:
        self._response = response
        self._what = what
        self._drip_seconds = drip_seconds
        self._left = response.length if not response.chunked else None
        self._is_whole = self._left == 0

    def read(self) -> Iterator[memoryview]:
        buffer = memoryview(bytearray(_CHUNK_BYTES if self._left is None else self._buffer_bytes()))
        since, came = monotonic(), 0
        while not self._is_whole and (view := self._read_some(buffer)):
            came += len(view)
            if came >= _LEAST_BYTES:
                since, came = monotonic(), 0
            elif monotonic() - since > self._drip_seconds:
                raise HubUnavailable(f"{self._what}: {came} bytes in {self._drip_seconds:g} s")
            yield view

    def _buffer_bytes(self) -> int:
        return max(1, min(_CHUNK_BYTES, self._left or 0))

    def _read_some(self, buffer: memoryview) -> memoryview:
        """What is there next; empty at the end. Raises HubUnavailable for a body cut short."""
        try:
            if self._left is None:
                view = memoryview(self._response.read1(len(buffer)))
                self._is_whole = not view
                return view
            count = self._response.fp.readinto1(buffer[: min(len(buffer), self._left)])
        except (OSError, HTTPException, ValueError) as error:
            raise HubUnavailable(f"{self._what}: {type(error).__name__}: {error}") from error
        if not count:
            raise HubUnavailable(f"{self._what}: the body ended {self._left} bytes too early")
        self._left -= count
        self._is_whole = self._left == 0
        return buffer[:count]

    def drain(self) -> bool:
        """Whether the connection can be used again; reads what is little."""
        if not self._is_whole and self._left is not None and self._left <= _MAX_DRAINED_BYTES:
            for _ in self.read():
                continue
        self._response.close()
        return self._is_whole and not self._response.will_close


def find_proxy(place: SplitResult) -> SplitResult | None:
    """The proxy that HTTP_PROXY, HTTPS_PROXY and NO_PROXY name for an address."""
    named = getproxies().get(place.scheme)
    if not named or not place.hostname or proxy_bypass(place.hostname):
        return None
    return urlsplit(named if "://" in named else f"http://{named}")


def make_tls() -> ssl.SSLContext:
    """Certificates are verified: against SSL_CERT_FILE or SSL_CERT_DIR where set, else certifi's."""
    import certifi

    named = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if any(named):
        return ssl.create_default_context(cafile=named[0], capath=named[1])
    return ssl.create_default_context(cafile=certifi.where())


def _send(
    connection: HTTPConnection, place: SplitResult, headers: Mapping[str, str]
) -> HTTPResponse:
    target = f"{place.path or '/'}{f'?{place.query}' if place.query else ''}"
    if place.scheme == "http" and find_proxy(place) is not None:
        target = f"{place.scheme}://{place.netloc}{target}"
    connection.request("GET", target, headers=dict(headers))
    return connection.getresponse()


def _shut(connection: HTTPConnection) -> None:
    """End both directions at the kernel, which wakes a thread that is blocked in a read."""
    # Past a TLS socket's own method, which would swap its state under the reading thread. A
    # connection that is not made yet, or is closed already, has nothing to shut.
    if (sock := connection.sock) is not None:
        with suppress(OSError):
            socket.socket.shutdown(sock, socket.SHUT_RDWR)
