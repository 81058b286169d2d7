"""The running Hub: two HTTP/1.1 origins on loopback."""

import os
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub.access import Readers
from tests.hub.answers import Answer, Request, refusal_answer
from tests.hub.cdn import CdnAnswers, Signer
from tests.hub.exchange import Cut, Exchange
from tests.hub.faults import Origin
from tests.hub.journal import Entry, Journal
from tests.hub.models_api import HubAnswers, HubSettings
from tests.hub.operations import Operations
from tests.hub.refusals import Refusal
from tests.hub.repositories import Repositories
from tests.hub.rules import Pacer, Rules

CONTROL_PREFIX = "/_hub/"
_LINGER_AND_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What the threads of one origin work with."""

    origin: Origin
    answer: Callable[[Request], Answer]
    control: Callable[[Request], Answer] | None
    rules: Rules
    journal: Journal
    stopping: threading.Event


class OriginHandler(BaseHTTPRequestHandler):
    """One keep-alive connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "OriginServer"

    def setup(self) -> None:
        super().setup()
        self.pacers: dict[int, Pacer] = {}

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def log_message(self, format: str, *args: Any) -> None:
        """The journal is the log."""

    def _serve(self) -> None:
        site = self.server.site
        request = self._read_request(site.origin)
        try:
            if site.control is not None and request.path.startswith(CONTROL_PREFIX):
                self._send(site.control(request), None)
            else:
                self._exchange(site, request)
        except Cut as cut:
            self._end(by_reset=cut.by_reset)
        except ConnectionError:
            self.close_connection = True

    def _exchange(self, site: Site, request: Request) -> None:
        path = unquote(request.path)
        entry = Entry(
            origin=site.origin,
            method=request.method,
            path=path,
            has_token="authorization" in request.headers,
            range=request.headers.get("range"),
        )
        met = site.rules.take(site.origin, request.method, path)
        site.journal.arrive(entry)
        exchange = Exchange(
            met=met,
            connection=self.connection,
            pacers=self.pacers,
            stopping=site.stopping,
            account=lambda sent_bytes: site.journal.account(entry, sent_bytes),
        )
        exchange.hold_back()
        answer = exchange.change_answer(_answer(site, exchange.change_request(request)))
        entry.repository, entry.file = answer.repository, answer.file
        entry.traffic, entry.status = answer.traffic, answer.status
        self._send(answer, exchange)

    def _read_request(self, origin: Origin) -> Request:
        target = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        return Request(
            origin=origin,
            method=self.command,
            path=target.path,
            query=parse_qs(target.query),
            headers={name.lower(): value for name, value in self.headers.items()},
            body=self.rfile.read(length),
        )

    def _send(self, answer: Answer, exchange: Exchange | None) -> None:
        removed = exchange.list_removed_headers() if exchange else frozenset()
        self._send_head(answer, removed)
        if self.command == "HEAD":
            return
        if exchange is not None:
            exchange.send_body(answer.content)
        elif isinstance(answer.content, bytes):
            self.wfile.write(answer.content)

    def _send_head(self, answer: Answer, removed: frozenset[str]) -> None:
        """A body whose length is not told, or told wrong, ends with the connection."""
        length = str(answer.length_bytes)
        headers = dict(answer.headers)
        told = next((headers[name] for name in headers if name.lower() == "content-length"), None)
        if told is None:
            headers["Content-Length"] = length
        if "content-length" in removed or told not in (None, length):
            headers["Connection"] = "close"
        self.send_response(answer.status)
        for name, value in headers.items():
            if name.lower() not in removed:
                self.send_header(name, value)
        self.end_headers()

    def _end(self, *, by_reset: bool) -> None:
        self.close_connection = True
        if by_reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_AND_RESET)
            # The descriptor itself, at once: the base class would say FIN first.
            os.close(self.connection.detach())


class OriginServer(ThreadingHTTPServer):
    """Threads that end with the server: `stop` wakes every one of them."""

    daemon_threads = False
    request_queue_size = 512

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), OriginHandler)
        self.site: Site
        self._open: set[socket.socket] = set()
        self._loop = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def start(self, site: Site) -> None:
        self.site = site
        self._loop.start()

    def stop(self) -> None:
        self.shutdown()
        self._loop.join()
        for connection in list(self._open):
            # One that a reset or its client has closed already is as good as shut.
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)


class HubServer:
    """Both origins and what they share; `objects` is a folder for the copies of small files."""

    def __init__(self, objects: Path, *, port: int = 0) -> None:
        self._hub, self._cdn = OriginServer(port), OriginServer(0)
        self.repositories, self.readers = Repositories(objects), Readers()
        self.rules, self.journal = Rules(), Journal()
        self.settings, self.signer = HubSettings(), Signer()
        self._stopping = threading.Event()

    @property
    def url(self) -> str:
        return self._hub.url

    @property
    def cdn_url(self) -> str:
        return self._cdn.url

    def start(self) -> None:
        hub = HubAnswers(
            repositories=self.repositories,
            readers=self.readers,
            signer=self.signer,
            settings=self.settings,
            url=self.url,
            cdn_url=self.cdn_url,
        )
        operations = Operations(
            repositories=self.repositories,
            readers=self.readers,
            rules=self.rules,
            journal=self.journal,
            settings=self.settings,
        )
        cdn = CdnAnswers(repositories=self.repositories, signer=self.signer)
        self._hub.start(self._site(Origin.HUB, hub.answer, operations.answer))
        self._cdn.start(self._site(Origin.CDN, cdn.answer, None))

    def stop(self) -> None:
        self._stopping.set()
        self.rules.clear()
        self.journal.end_waits()
        self._hub.stop()
        self._cdn.stop()

    def _site(
        self,
        origin: Origin,
        answer: Callable[[Request], Answer],
        control: Callable[[Request], Answer] | None,
    ) -> Site:
        return Site(
            origin=origin,
            answer=answer,
            control=control,
            rules=self.rules,
            journal=self.journal,
            stopping=self._stopping,
        )


def _answer(site: Site, request: Request) -> Answer:
    try:
        return site.answer(request)
    except Refusal as refusal:
        return refusal_answer(refusal)
