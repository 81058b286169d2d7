"""The mirror's connections: a thread each, bounded in number, in time and in what they may send."""

import errno
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from http import HTTPStatus
from socketserver import BaseRequestHandler, TCPServer, ThreadingMixIn
from typing import Any

import structlog

from warmrack_store.errors import BadRequest
from warmrack_workers.ingress import split_address
from warmrack_workers.mirror.calls import Answer, Call, Malformed, Span, parse_call
from warmrack_workers.mirror.refusals import Refused

log = structlog.get_logger()
_MAX_CONNECTIONS = 128
_MAX_HEAD_BYTES = 32 * 1024
_HEAD_SECONDS = 10.0
"""A head, once begun, must be whole within this, however slowly its bytes drip."""
_IDLE_SECONDS = 30.0
"""Between two requests; also how long a reader may take no byte at all."""
_SENDFILE_BYTES = 1 << 20
_END = b"\r\n\r\n"


class MirrorServer:
    """Listens from its making on; `answer` is asked in the thread of each connection."""

    def __init__(self, listen: str, answer: Callable[[Call], Answer]) -> None:
        """Raises BadRequest where the address cannot be listened on."""
        self._host, port = split_address(listen)
        try:
            self._server = _Server(self._host, port, answer)
        except OSError as error:
            raise BadRequest(
                f"the node cannot listen on {self._host}:{port}: {error.strerror}",
                hint="Set WARMRACK_MIRROR to a free host:port of this machine.",
            ) from error

    @property
    def url(self) -> str:
        """By which other machines reach it, where the address is one of theirs too."""
        name = socket.gethostname() if self._host in {"0.0.0.0", "::"} else self._host
        shown = f"[{name}]" if ":" in name else name
        return f"http://{shown}:{self._server.server_address[1]}"

    def start(self) -> None:
        threading.Thread(target=self._server.serve_forever, name="mirror", daemon=True).start()

    def stop(self) -> None:
        """Take no more connections; those that are open go on."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingMixIn, TCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, host: str, port: int, answer: Callable[[Call], Answer]) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.answer = answer
        self._room = threading.BoundedSemaphore(_MAX_CONNECTIONS)
        super().__init__((host, port), _Connection)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._room.acquire(blocking=False):
            with suppress(OSError):
                request.settimeout(1.0)
                request.sendall(b"HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n")
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.exception("A connection of the mirror failed.", action="mirror-defect")


class _Connection(BaseRequestHandler):
    server: _Server

    def handle(self) -> None:
        connection: socket.socket = self.request
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        rest = b""
        try:
            while True:
                head, rest = _read_head(connection, rest)
                if head is None or not self._serve(connection, head):
                    return
        except OSError as error:
            log.info("A reader of the mirror went away.", action="mirror-gone", error=repr(error))

    def _serve(self, connection: socket.socket, head: bytes) -> bool:
        """Answer one request; whether another may follow on this connection."""
        try:
            call = parse_call(head)
        except Malformed as error:
            refusal = Refused(400, None, str(error), {"Connection": "close"})
            connection.sendall(_make_head(refusal.status, refusal.list_headers(), 0))
            return False
        answer = self.server.answer(call)
        with closing(answer.spans):
            connection.settimeout(_IDLE_SECONDS)
            connection.sendall(_make_head(answer.status, answer.headers, answer.size_bytes))
            if call.method == "HEAD":
                return call.keeps_alive
            connection.sendall(answer.body)
            return _send_spans(connection, answer) and call.keeps_alive


def _read_head(connection: socket.socket, rest: bytes) -> tuple[bytes | None, bytes]:
    """A request's head and what came behind it; None where the client sends no other, in time or
    at all, or sends too much."""
    deadline = time.monotonic() + (_HEAD_SECONDS if rest else _IDLE_SECONDS)
    data = bytearray(rest)
    while (end := data.find(_END)) < 0:
        left = deadline - time.monotonic()
        if left <= 0 or len(data) > _MAX_HEAD_BYTES:
            return None, b""
        connection.settimeout(left)
        try:
            chunk = connection.recv(8192)
        except TimeoutError:
            return None, b""
        if not chunk:
            return None, b""
        if not data:
            deadline = time.monotonic() + _HEAD_SECONDS
        data += chunk
    return bytes(data[:end]), bytes(data[end + len(_END) :])


def _make_head(status: int, headers: Any, size_bytes: int) -> bytes:
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += [f"Content-Length: {size_bytes}", "", ""]
    return "\r\n".join(lines).encode("latin-1")


def _send_spans(connection: socket.socket, answer: Answer) -> bool:
    """Whether all of them came and went."""
    left = answer.size_bytes - len(answer.body)
    for span in answer.spans:
        if not _send_file(connection, span):
            return False
        left -= span.size_bytes
    return left == 0


def _send_file(connection: socket.socket, span: Span) -> bool:
    """False where the file turned out to be shorter."""
    out, source = connection.fileno(), span.file.fileno()
    writable = select.poll()
    writable.register(out, select.POLLOUT)
    place, end = span.start, span.start + span.size_bytes
    while place < end:
        try:
            sent = os.sendfile(out, source, place, min(_SENDFILE_BYTES, end - place))
        except BlockingIOError:
            if not writable.poll(_IDLE_SECONDS * 1000):
                raise TimeoutError(errno.ETIMEDOUT, "the reader takes no byte") from None
            continue
        if sent == 0:
            return False
        place += sent
    return True
