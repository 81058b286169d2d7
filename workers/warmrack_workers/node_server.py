"""What a node answers by itself, on a unix socket that its ingress relays to as to a host's."""

import json
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
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

Answer = Callable[[object], Record]
"""From the decoded body to the record that is sent back; may raise the tree's errors."""


class NodeServer:
    """Answers POSTs by path, each in a thread of its own. The socket admits its owner alone."""

    def __init__(self, socket_path: Path, answers: Mapping[str, Answer]) -> None:
        self.socket_path = socket_path
        self._server = _Server(socket_path, dict(answers))

    def start(self) -> None:
        threading.Thread(target=self._server.serve_forever, name="node-server", daemon=True).start()

    def stop(self) -> None:
        """Take no more questions; those that are being answered go on."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True

    def __init__(self, socket_path: Path, answers: dict[str, Answer]) -> None:
        self.answers = answers
        socket_path.unlink(missing_ok=True)  # of a former agent of this node
        super().__init__(str(socket_path), _Handler)
        socket_path.chmod(0o600)


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        try:
            status, body, kind = 200, self._answer(), "application/json"
        except WarmrackError as error:
            status, body, kind = error.status, json.dumps(error.to_problem()), PROBLEM_TYPE
        except Exception as error:
            log.exception("A node's answer failed.", action="node-defect", path=self.path)
            failure = Defect(f"{type(error).__name__} in {self.path}")
            status, body, kind = failure.status, json.dumps(failure.to_problem()), PROBLEM_TYPE
        self._send(status, body.encode(), kind)

    def _answer(self) -> str:
        answer = self.server.answers.get(self.path)
        if answer is None:
            raise NotFound(f"no POST {self.path[:80]} here")
        size = self.headers.get("content-length", "")
        if not size.isascii() or not size.isdigit() or int(size) > _MAX_BODY_BYTES:
            raise BadRequest(f"the body must have a length of at most {_MAX_BODY_BYTES} bytes")
        try:
            body = json.loads(self.rfile.read(int(size)))
        except ValueError as error:
            raise BadRequest(f"body: is not JSON: {error}") from error
        return answer(body).model_dump_json()

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: what happened is in the answer."""
