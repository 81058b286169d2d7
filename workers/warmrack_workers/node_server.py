"""What a node answers by itself, on a unix socket that its ingress relays to as to a host's."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from io import BufferedIOBase
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any

import structlog

from warmrack_store.errors import PROBLEM_TYPE, BadRequest, Defect, NotFound, WarmrackError
from warmrack_store.records import Record

log = structlog.get_logger()
SEAT = "node"
"""Its name among the hosts of the ingress; no resident's id is without a prefix."""
_MAX_BODY_BYTES = 64 * 1024
_DRAIN_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """An answer that is sent piece by piece; one that fails in the middle is cut off."""

    size_bytes: int
    chunks: Iterator[bytes]


Answer = Callable[[object], Record | Download]
"""From the decoded body to what is sent back; may raise the tree's errors."""
Upload = Callable[[object, "_Body"], Record]
"""The same for a body that is read piece by piece; the question comes as the header `x-question`."""


class NodeServer:
    """Answers POSTs by path, each in a thread of its own. The socket admits its owner alone."""

    def __init__(
        self,
        socket_path: Path,
        answers: Mapping[str, Answer],
        uploads: Mapping[str, Upload] | None = None,
    ) -> None:
        self.socket_path = socket_path
        self._server = _Server(socket_path, dict(answers), dict(uploads or {}))

    def start(self) -> None:
        threading.Thread(target=self._server.serve_forever, name="node-server", daemon=True).start()

    def stop(self) -> None:
        """Take no more questions; those that are being answered go on."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True

    def __init__(
        self, socket_path: Path, answers: dict[str, Answer], uploads: dict[str, Upload]
    ) -> None:
        self.answers = answers
        self.uploads = uploads
        socket_path.unlink(missing_ok=True)  # of a former agent of this node
        super().__init__(str(socket_path), _Handler)
        socket_path.chmod(0o600)


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        try:
            found = self._answer()
            if isinstance(found, Download):
                self._send_pieces(found)
                return
            status, body, kind = 200, found.model_dump_json(), "application/json"
        except WarmrackError as error:
            status, body, kind = error.status, json.dumps(error.to_problem()), PROBLEM_TYPE
        except Exception as error:
            log.exception("A node's answer failed.", action="node-defect", path=self.path)
            failure = Defect(f"{type(error).__name__} in {self.path}")
            status, body, kind = failure.status, json.dumps(failure.to_problem()), PROBLEM_TYPE
        self._send(status, body.encode(), kind)

    def _answer(self) -> Record | Download:
        if (upload := self.server.uploads.get(self.path)) is not None:
            body = self._body()
            try:
                return upload(_decode(self.headers.get("x-question", "")), body)
            finally:
                body.drain()
        answer = self.server.answers.get(self.path)
        if answer is None:
            raise NotFound(f"no POST {self.path[:80]} here")
        size = self.headers.get("content-length", "")
        if not size.isascii() or not size.isdigit() or int(size) > _MAX_BODY_BYTES:
            raise BadRequest(f"the body must have a length of at most {_MAX_BODY_BYTES} bytes")
        return answer(_decode(self.rfile.read(int(size))))

    def _body(self) -> "_Body":
        """The rest of the request, which ends where its length says."""
        size = self.headers.get("content-length", "")
        if not size.isascii() or not size.isdigit():
            raise BadRequest("an upload must say its length")
        return _Body(self.rfile, int(size))

    def _send_pieces(self, download: Download) -> None:
        """Raises nothing: an answer that has begun can only end, early or whole."""
        self._send_head(200, "application/octet-stream", download.size_bytes)
        try:
            for chunk in download.chunks:
                self.wfile.write(chunk)
        except (WarmrackError, OSError) as error:
            log.warning("A download broke off.", action="download-broken", error=str(error))

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self._send_head(status, kind, len(body))
        self.wfile.write(body)

    def _send_head(self, status: int, kind: str, size_bytes: int) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(size_bytes))
        self.send_header("connection", "close")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: what happened is in the answer."""


class _Body:
    """The body of one request as a file that is read once."""

    def __init__(self, stream: BufferedIOBase, size_bytes: int) -> None:
        self._stream = stream
        self._left_bytes = size_bytes

    def read(self, size_bytes: int, /) -> bytes:
        data = self._stream.read(min(size_bytes, self._left_bytes))
        self._left_bytes = self._left_bytes - len(data) if data else 0
        return data

    def drain(self) -> None:
        """Read what is left: who still sends would not hear the answer."""
        while self.read(_DRAIN_BYTES):
            pass


def _decode(text: str | bytes) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        raise BadRequest(f"body: is not JSON: {error}") from error
