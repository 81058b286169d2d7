"""Xet storage as a source: files that the Hub keeps there come as chunks, all others as before."""

import os
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

import httpx
import structlog

from warmrack_store.errors import HubUnavailable
from warmrack_store.facts import FileFact
from warmrack_store.hub_hosts import check_address, is_same_origin
from warmrack_workers.fetch.sources import Source

log = structlog.get_logger()
_HASH = re.compile(r"[0-9a-f]{64}")
_STALL_SECONDS = 30.0
"""As long as a body of ranged HTTP may stall."""
_LOCAL_STORE = "local"
"""The client's own scheme for a store in a folder: a Hub on this machine may name one."""
_ENVIRONMENT = {
    # Chunks of a private repository would lie in a folder that outlives the right to them.
    "HF_XET_CHUNK_CACHE_SIZE_BYTES": "0",
    "HF_XET_TELEMETRY_ENABLED": "false",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class XetAddress:
    """Where one file lies: its Merkle hash, and where a token to read it is given."""

    hash: str
    token_route: str


@dataclass(frozen=True, slots=True, kw_only=True)
class XetHub:
    """The Hub that hands out addresses and tokens, and on whose behalf it is asked."""

    endpoint: str
    repository: str
    commit: str
    token: str | None
    allowed_hosts: Iterable[str] = ()

    @property
    def headers(self) -> dict[str, str]:
        bearer = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        return {"User-Agent": "warmrack", **bearer}

    def file_url(self, path: str) -> str:
        return f"{self.endpoint.rstrip('/')}/{self.repository}/resolve/{self.commit}/{quote(path)}"


class XetSource:
    """Takes what is on Xet from there and the rest from `plain`, by ranged HTTP.

    Whatever goes wrong on Xet (no answer, a stall, a token that is refused) leaves that file to
    `plain` for the rest of the fetch, from the byte where it stands: nothing is asked twice.
    """

    def __init__(
        self, hub: XetHub, plain: Source, *, stall_seconds: float = _STALL_SECONDS
    ) -> None:
        self._hub = hub
        self._plain = plain
        self._stall_seconds = stall_seconds
        self._client = httpx.Client(timeout=stall_seconds, follow_redirects=False)
        self._connecting = threading.Lock()
        self._lock = threading.Lock()
        self._addresses: dict[str, XetAddress | None] = {}
        self._group: Any = None
        self._received_bytes = 0
        self._interrupted = False

    @property
    def name(self) -> str:
        return self._plain.name

    is_peer = False

    @property
    def ranged(self) -> bool:
        return self._plain.ranged

    @property
    def received_bytes(self) -> int:
        with self._lock:
            return self._received_bytes + self._plain.received_bytes

    @contextmanager
    def open(self, file: FileFact, start: int, end: int) -> Iterator[Iterator[bytes | memoryview]]:
        address = self._find_address(file)
        if address is None:
            with self._plain.open(file, start, end) as chunks:
                yield chunks
            return
        with self._fallback(file):
            stream = self._start(address, file, start, end)
        try:
            yield self._iterate(stream, file, end - start)
        finally:
            stream.cancel()

    def interrupt(self) -> None:
        with self._lock:
            self._interrupted = True
            group = self._group
        if group is not None:
            group.abort()
        self._plain.interrupt()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    def _find_address(self, file: FileFact) -> XetAddress | None:
        """None where the file is not on Xet, or was not to be had there. Asked once a file."""
        if file.sha256 is None or find_spec("hf_xet") is None:
            return None
        with self._lock:
            if file.path in self._addresses:
                return self._addresses[file.path]
        address = self._ask_address(file)
        with self._lock:
            return self._addresses.setdefault(file.path, address)

    def _ask_address(self, file: FileFact) -> XetAddress | None:
        url = self._hub.file_url(file.path)
        check_address(url, self._hub.endpoint, frozenset(self._hub.allowed_hosts))
        try:
            answer = self._client.head(url, headers=self._hub.headers)
        except httpx.HTTPError:
            return None
        found = answer.headers.get("x-xet-hash", "")
        route = answer.links.get("xet-auth", {}).get("url", "")
        # The caller's token goes there, so it must be the Hub itself.
        if not is_xet_hash(found) or not is_same_origin(route, self._hub.endpoint):
            return None
        return XetAddress(hash=found, token_route=route)

    @contextmanager
    def _fallback(self, file: FileFact) -> Iterator[None]:
        """Give the file up to `plain` where Xet fails; the fetcher goes on from where it stands."""
        try:
            yield
        # The client raises OSError for what it can name and RuntimeError for all else.
        except (httpx.HTTPError, OSError, RuntimeError, HubUnavailable) as error:
            with self._lock:
                self._addresses[file.path] = None
                interrupted = self._interrupted
            if not interrupted:
                log.warning("Xet gave up.", action="xet-fallback", file=file.path)
            raise HubUnavailable(f"{file.path}: Xet storage: {error}") from error

    def _start(self, address: XetAddress, file: FileFact, start: int, end: int) -> Any:
        import hf_xet

        info = hf_xet.XetFileInfo(address.hash, file.size)
        return self._get_group(address).download_stream(info, start=start, end=end)

    def _get_group(self, address: XetAddress) -> Any:
        """The connection of this repository and commit, made with a token of the caller's right."""
        with self._connecting:
            if self._group is None:
                group = self._connect(address)
                with self._lock:
                    self._group = group
                    interrupted = self._interrupted
                if interrupted:
                    group.abort()
            return self._group

    def _connect(self, address: XetAddress) -> Any:
        os.environ.update(_ENVIRONMENT)
        import hf_xet

        answer = self._client.get(address.token_route, headers=self._hub.headers)
        answer.raise_for_status()
        try:
            endpoint = answer.headers["x-xet-cas-url"]
            token = answer.headers["x-xet-access-token"]
            expires_at = int(answer.headers["x-xet-token-expiration"])
        except (KeyError, ValueError) as error:
            raise ConnectionError("the Hub gives no token") from error
        self._check_storage(endpoint)
        return hf_xet.XetSession().new_download_stream_group(
            endpoint=endpoint,
            token=token,
            token_expiry_unix_secs=expires_at,
            token_refresh_url=address.token_route,
            token_refresh_headers=self._hub.headers,
        )

    def _check_storage(self, endpoint: str) -> None:
        home = self._hub.endpoint
        if urlsplit(endpoint).scheme == _LOCAL_STORE and urlsplit(home).hostname == "127.0.0.1":
            return
        check_address(endpoint, home, frozenset(self._hub.allowed_hosts))

    def _iterate(self, stream: Any, file: FileFact, wanted_bytes: int) -> Iterator[bytes]:
        """The client ends a stream early without a word where it has not the bytes."""
        with self._fallback(file):
            while wanted_bytes > 0:
                chunk = self._next(stream)
                wanted_bytes -= len(chunk)
                with self._lock:
                    self._received_bytes += len(chunk)
                yield chunk

    def _next(self, stream: Any) -> bytes:
        """The client's reads have no deadline: one that brings nothing ends Xet for this fetch.

        A stream's own `cancel` cannot be called while another thread reads it.
        """
        timer = threading.Timer(self._stall_seconds, self._group.abort)
        timer.start()
        try:
            chunk: bytes = next(stream, b"")
        finally:
            timer.cancel()
        if not chunk:
            raise ConnectionError("the bytes stopped coming")
        return chunk


def is_xet_hash(text: str) -> bool:
    """Whether it is a Merkle hash as the Hub writes one: 64 hex digits."""
    return _HASH.fullmatch(text) is not None
