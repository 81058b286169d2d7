"""The Hub as a source of bytes, over plain HTTP."""

import re
import socket
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from warmrack_store.cache.layout import check_commit
from warmrack_store.errors import HubUnavailable, Integrity
from warmrack_store.facts import FileFact
from warmrack_store.hub_errors import HubQuestion, error_of_status
from warmrack_store.hub_hosts import check_address, is_same_origin
from warmrack_store.refs import check_file_path, check_repository, check_token

TIMEOUTS = httpx.Timeout(connect=10.0, read=30.0, write=10.0, pool=10.0)
"""`read` is how long a body may stall."""
_MAX_REDIRECTS = 5
_MAX_DRAINED_BYTES = 64 * 1024
"""A redirect's body up to here is read, so that its connection can be used again."""
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class HubSource:
    """Files by `/{repository}/resolve/{commit}/{path}`, redirects followed by hand.

    The token goes to the Hub's own origin and nowhere else; `token=None` is anonymous, whatever
    the environment holds. It asks, and a redirect may lead to, what `hub_hosts.may_ask` says.
    """

    def __init__(
        self,
        *,
        endpoint: str,
        repository: str,
        commit: str,
        token: str | None,
        allowed_hosts: Iterable[str] = (),
        timeouts: httpx.Timeout = TIMEOUTS,
    ) -> None:
        self._endpoint = httpx.URL(endpoint.rstrip("/"))
        self._repository = check_repository(repository)
        self._commit = check_commit(commit)
        self._token = check_token(token)
        self._allowed_hosts = frozenset(allowed_hosts)
        self._client = httpx.Client(timeout=timeouts, follow_redirects=False)
        self._lock = threading.Lock()
        self._received_bytes = 0
        self._streams: weakref.WeakSet[Any] = weakref.WeakSet()
        self._interrupted = False

    @property
    def name(self) -> str:
        return "hub"

    @property
    def received_bytes(self) -> int:
        with self._lock:
            return self._received_bytes

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._client.close()

    @contextmanager
    def open(self, file: FileFact, start: int, end: int) -> Iterator[Iterator[memoryview]]:
        """The bytes of `file` from `start` up to `end`, also from a server that ignores ranges."""
        what = f"{self._repository}/{file.path}"
        with _connection_errors(what), self._answer(file, start, end) as response:
            skip = _find_skip(response, file, start, what)
            yield self._iterate(response, skip)

    def interrupt(self) -> None:
        with self._lock:
            self._interrupted = True
            streams = list(self._streams)
        for stream in streams:
            _shut(stream)

    @contextmanager
    def _answer(self, file: FileFact, start: int, end: int) -> Iterator[httpx.Response]:
        """The 200 or 206 that the Hub, or whom it redirects to, gives."""
        what = f"{self._repository}/{file.path}"
        path = f"/{self._repository}/resolve/{self._commit}/{quote(check_file_path(file.path))}"
        url = httpx.URL(f"{self._endpoint}{path}")
        check_address(str(url), str(self._endpoint), self._allowed_hosts)
        for _hop in range(_MAX_REDIRECTS + 1):
            response = self._client.send(self._request(url, file, start, end), stream=True)
            try:
                self._check_commit(response, what)
                if not response.has_redirect_location:
                    self._check_status(response, file)
                    yield response
                    return
                url = self._follow(response, what)
            finally:
                response.close()
        raise HubUnavailable(f"{what}: more than {_MAX_REDIRECTS} redirects")

    def _request(self, url: httpx.URL, file: FileFact, start: int, end: int) -> httpx.Request:
        headers = {"Accept-Encoding": "identity", "User-Agent": "warmrack"}
        if end < file.size:
            headers["Range"] = f"bytes={start}-{end - 1}"
        elif start:
            headers["Range"] = f"bytes={start}-"
        if self._token is not None and self._is_hub(url):
            headers["Authorization"] = f"Bearer {self._token}"
        return self._client.build_request(
            "GET", url, headers=headers, extensions={"trace": self._trace}
        )

    def _is_hub(self, url: httpx.URL) -> bool:
        """Whether `url` has the Hub's own origin: scheme, host and port."""
        return is_same_origin(str(url), str(self._endpoint))

    def _check_commit(self, response: httpx.Response, what: str) -> None:
        told = response.headers.get("x-repo-commit")
        if self._is_hub(response.request.url) and told not in (None, self._commit):
            raise Integrity(
                f"{what}: the Hub answers with commit {told[:80]!r}, not {self._commit}"
            )

    def _check_status(self, response: httpx.Response, file: FileFact) -> None:
        if response.status_code not in (200, 206):
            raise error_of_status(
                response.status_code,
                response.headers,
                HubQuestion(
                    endpoint=str(self._endpoint),
                    repository=self._repository,
                    revision=self._commit,
                    token=self._token,
                    file=file.path,
                ),
                from_hub=self._is_hub(response.request.url),
                now=datetime.now(UTC),
            )

    def _follow(self, response: httpx.Response, what: str) -> httpx.URL:
        """Where a redirect leads; HubUnavailable where it may not lead there."""
        try:
            url = response.request.url.join(response.headers["location"])
        except httpx.InvalidURL as error:
            raise HubUnavailable(f"{what}: the Hub redirects to no address") from error
        check_address(str(url), str(self._endpoint), self._allowed_hosts)
        length = response.headers.get("content-length", "")
        if length.isdecimal() and int(length) <= _MAX_DRAINED_BYTES:
            response.read()
        return url

    def _iterate(self, response: httpx.Response, skip: int) -> Iterator[memoryview]:
        for chunk in response.iter_raw():
            with self._lock:
                self._received_bytes += len(chunk)
            if skip < len(chunk):
                yield memoryview(chunk)[skip:]
            skip = max(0, skip - len(chunk))

    def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Learn of each connection as it is made, so that `interrupt` reaches it."""
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            with self._lock:
                self._streams.add(info["return_value"])
                interrupted = self._interrupted
            if interrupted:
                _shut(info["return_value"])


def _shut(stream: Any) -> None:
    """End both directions at the kernel, which wakes a thread that is blocked in a read."""
    # Past a TLS socket's own method, which would swap its state under the reading thread. A
    # connection that is closed already, or was handed over to TLS, says so with an OSError.
    with suppress(OSError):
        socket.socket.shutdown(stream.get_extra_info("socket"), socket.SHUT_RDWR)


def _find_skip(response: httpx.Response, file: FileFact, start: int, what: str) -> int:
    """How many bytes of the body lie before `start`; Integrity where it is another file's body."""
    encoding = response.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise Integrity(f"{what}: sent as {encoding[:20]!r}, which nobody asked for")
    if response.status_code == 200:
        total, skip = response.headers.get("content-length"), start
    else:
        span = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
        if span is None or int(span[1]) != start:
            raise Integrity(f"{what}: another range was sent than the one asked for")
        total, skip = span[2], 0
    if total not in (None, "*", str(file.size)):
        raise Integrity(f"{what}: {total} bytes are offered, the tree says {file.size}")
    return skip


@contextmanager
def _connection_errors(what: str) -> Iterator[None]:
    try:
        yield
    except httpx.RequestError as error:
        raise HubUnavailable(f"{what}: {type(error).__name__}: {error}") from error
