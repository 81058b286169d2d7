"""The Hub as a source of bytes, over plain HTTP."""

import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Self
from urllib.parse import quote, urljoin

from warmrack_store.cache.layout import check_commit
from warmrack_store.errors import HubUnavailable, Integrity, WarmrackError
from warmrack_store.facts import FileFact
from warmrack_store.hub_errors import HubQuestion, error_of_status
from warmrack_store.hub_hosts import check_address, is_same_origin
from warmrack_store.refs import check_file_path, check_repository, check_token
from warmrack_workers.fetch.http_lines import HttpAnswer, HttpLines, Timeouts

_MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class HubSource:
    """Files by `/{repository}/resolve/{commit}/{path}`, redirects followed by hand.

    The token goes to the Hub's own origin and nowhere else; `token=None` is anonymous, whatever
    the environment holds. It asks, and a redirect may lead to, what `hub_hosts.may_ask` says. Where
    a file lies is remembered, so that a further range costs no second answer of the Hub, until that
    address is refused: signed ones expire.
    """

    name = "hub"
    is_peer = False

    def __init__(
        self,
        *,
        endpoint: str,
        repository: str,
        commit: str,
        token: str | None,
        allowed_hosts: Iterable[str] = (),
        timeouts: Timeouts | None = None,
    ) -> None:
        self._endpoint = endpoint.rstrip("/")
        self._repository = check_repository(repository)
        self._commit = check_commit(commit)
        self._token = check_token(token)
        self._allowed_hosts = frozenset(allowed_hosts)
        self._lines = HttpLines(timeouts or Timeouts())
        self._lock = threading.Lock()
        self._received_bytes = 0
        self._ranged = True
        self._places: dict[str, str] = {}

    @property
    def received_bytes(self) -> int:
        with self._lock:
            return self._received_bytes

    @property
    def ranged(self) -> bool:
        return self._ranged

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lines.close()

    @contextmanager
    def open(self, file: FileFact, start: int, end: int) -> Iterator[Iterator[memoryview]]:
        """The bytes of `file` from `start` up to `end`. A server that ignores the range is found
        out once, with HubUnavailable; from then on its body is read past what is not wanted."""
        what = f"{self._repository}/{file.path}"
        asks_range = self._ranged and (start, end) != (0, file.size)
        asked = {"Range": f"bytes={start}-{end - 1}"} if asks_range else {}
        with self._answer(file, asked) as answer:
            skip = self._find_skip(answer, file, start, end, what)
            if answer.status == 200 and asks_range:
                self._ranged = False
                raise HubUnavailable(f"{what}: the server ignores ranges")
            yield self._iterate(answer, skip, end - start if end < file.size else None)

    def interrupt(self) -> None:
        self._lines.interrupt()

    @contextmanager
    def _answer(self, file: FileFact, asked: Mapping[str, str]) -> Iterator[HttpAnswer]:
        """The 200 or 206 that the Hub, or whom it redirects to, gives."""
        known = self._places.get(file.digest)
        if known is not None:
            what, headers = (
                f"{self._repository}/{file.path}",
                self._headers(known, asked),
            )
            with self._lines.get(known, headers, what) as answer:
                if answer.status in (200, 206):
                    yield answer
                    return
            self._places.pop(file.digest, None)
        with self._resolve(file, asked) as answer:
            yield answer

    @contextmanager
    def _resolve(self, file: FileFact, asked: Mapping[str, str]) -> Iterator[HttpAnswer]:
        what = f"{self._repository}/{file.path}"
        path = f"/{self._repository}/resolve/{self._commit}/{quote(check_file_path(file.path))}"
        url = f"{self._endpoint}{path}"
        for hop in range(_MAX_REDIRECTS + 1):
            check_address(url, self._endpoint, self._allowed_hosts)
            with self._lines.get(url, self._headers(url, asked), what) as answer:
                self._check_commit(answer, url, what)
                target = answer.headers.get("location")
                if answer.status not in _REDIRECTS or target is None:
                    self._check_status(answer, url, file)
                    if hop:
                        self._places[file.digest] = url
                    yield answer
                    return
            url = self._follow(url, target, what)
        raise HubUnavailable(f"{what}: more than {_MAX_REDIRECTS} redirects")

    def _headers(self, url: str, asked: Mapping[str, str]) -> dict[str, str]:
        headers = {"Accept-Encoding": "identity", "User-Agent": "warmrack", **asked}
        if self._token is not None and is_same_origin(url, self._endpoint):
            headers["Authorization"] = f"Bearer {self._token}"
        return headers

    def _check_commit(self, answer: HttpAnswer, url: str, what: str) -> None:
        told = answer.headers.get("x-repo-commit")
        if is_same_origin(url, self._endpoint) and told not in (None, self._commit):
            raise Integrity(
                f"{what}: the Hub answers with commit {told[:80]!r}, not {self._commit}"
            )

    def _check_status(self, answer: HttpAnswer, url: str, file: FileFact) -> None:
        if answer.status not in (200, 206):
            raise self._explain(answer, url, file)

    def _explain(self, answer: HttpAnswer, url: str, file: FileFact) -> WarmrackError:
        return error_of_status(
            answer.status,
            answer.headers,
            HubQuestion(
                endpoint=self._endpoint,
                repository=self._repository,
                revision=self._commit,
                token=self._token,
                file=file.path,
            ),
            from_hub=is_same_origin(url, self._endpoint),
            now=datetime.now(UTC),
        )

    def _follow(self, url: str, target: str, what: str) -> str:
        """Where a redirect leads; HubUnavailable where it may not lead there."""
        try:
            found = urljoin(url, target)
        except ValueError as error:
            raise HubUnavailable(f"{what}: the Hub redirects to no address") from error
        check_address(found, self._endpoint, self._allowed_hosts)
        return found

    def _iterate(
        self, answer: HttpAnswer, skip: int, most_bytes: int | None
    ) -> Iterator[memoryview]:
        """The body behind `skip`, so many bytes of it at most."""
        for chunk in answer.chunks:
            with self._lock:
                self._received_bytes += len(chunk)
            wanted = chunk[skip:] if most_bytes is None else chunk[skip : skip + most_bytes]
            skip = max(0, skip - len(chunk))
            if wanted:
                yield wanted
            if most_bytes is not None and not (most_bytes := most_bytes - len(wanted)):
                return

    def _find_skip(
        self, answer: HttpAnswer, file: FileFact, start: int, end: int, what: str
    ) -> int:
        """How many bytes of the body lie before `start`; Integrity where it is another file's."""
        encoding = answer.headers.get("content-encoding", "identity")
        if encoding != "identity":
            raise Integrity(f"{what}: sent as {encoding[:20]!r}, which nobody asked for")
        if answer.status == 200:
            total, skip = answer.headers.get("content-length"), start
        else:
            span = _CONTENT_RANGE.fullmatch(answer.headers.get("content-range", ""))
            if span is None or (int(span[1]), int(span[2])) != (start, end - 1):
                raise Integrity(f"{what}: another range was sent than the one asked for")
            total, skip = span[3], 0
        if total not in (None, "*", str(file.size)):
            raise Integrity(f"{what}: {total} bytes are offered, the tree says {file.size}")
        return skip
