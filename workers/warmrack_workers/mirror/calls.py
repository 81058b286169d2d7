"""One request to the mirror and one answer to it, as they stand on the wire."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol

from warmrack_store.refs import check_token

_LINE = re.compile(r"(GET|HEAD) (/[!-~]*) HTTP/1\.[01]")
_MAX_FIELDS = 100


class Malformed(Exception):
    """No request that is answered; its connection ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """`headers` by their names in lower case; of one that comes twice, the first."""

    method: str
    target: str
    headers: Mapping[str, str]

    def find_token(self) -> str | None:
        """The caller's own Hub token. Raises Unauthorized for one that no header can carry."""
        kind, _, token = self.headers.get("authorization", "").partition(" ")
        return check_token(token.strip()) if kind.lower() == "bearer" else None

    @property
    def keeps_alive(self) -> bool:
        return self.headers.get("connection", "").lower() != "close"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Bytes of an open file, which the kernel copies to the socket by itself."""

    file: BinaryIO
    start: int
    size_bytes: int


class Spans(Protocol):
    """What is sent from files; some of it perhaps much later than the rest."""

    def __iter__(self) -> Iterator[Span]: ...

    def close(self) -> None:
        """Called once in any case, also where nothing is sent."""


class NoSpans:
    def __iter__(self) -> Iterator[Span]:
        return iter(())

    def close(self) -> None:
        """Nothing is open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OneSpan:
    span: Span

    def __iter__(self) -> Iterator[Span]:
        yield self.span

    def close(self) -> None:
        self.span.file.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """`spans` come after `body`; `size_bytes` counts both. Too few bytes end the connection."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    spans: Spans = field(default_factory=NoSpans)
    size_bytes: int


def parse_call(head: bytes) -> Call:
    """The request in a head, which ends before its empty line. Raises Malformed, also for a body:
    nothing that the mirror answers has one."""
    line, *fields = head.decode("latin-1").split("\r\n")
    found = _LINE.fullmatch(line)
    if found is None or len(fields) > _MAX_FIELDS:
        raise Malformed("only GET and HEAD of HTTP/1 are answered")
    headers: dict[str, str] = {}
    for one in fields:
        name, colon, value = one.partition(":")
        if not colon or not name or name != name.strip():
            raise Malformed("a header without a name")
        headers.setdefault(name.lower(), value.strip())
    if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
        raise Malformed("a body, where none is read")
    return Call(method=found[1], target=found[2], headers=headers)
