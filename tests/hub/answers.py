"""What a request asks, and the answer that goes out for it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.hub.faults import Origin
from tests.hub.journal import Traffic
from tests.hub.refusals import Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """`path` is still percent-encoded: a revision may hold an encoded slash."""

    origin: Origin
    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes = b""

    def find_parameter(self, name: str) -> str | None:
        values = self.query.get(name)
        return values[-1] if values else None

    def has_flag(self, name: str) -> bool:
        return (self.find_parameter(name) or "").lower() in ("true", "1")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSlice:
    """Bytes of a file on disk."""

    location: Path
    offset_bytes: int
    length_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | FileSlice = b""
    repository: str | None = None
    file: str | None = None

    @property
    def length_bytes(self) -> int:
        content = self.content
        return len(content) if isinstance(content, bytes) else content.length_bytes

    @property
    def traffic(self) -> Traffic:
        return Traffic.METADATA if isinstance(self.content, bytes) else Traffic.FILE

    def about(self, repository: str, file: str | None = None) -> "Answer":
        return replace(self, repository=repository, file=file)


def json_answer(value: Any, headers: Mapping[str, str] | None = None, status: int = 200) -> Answer:
    return Answer(
        status=status,
        headers={"Content-Type": "application/json; charset=utf-8", **(headers or {})},
        content=json.dumps(value, separators=(",", ":")).encode(),
    )


def refusal_answer(refusal: Refusal) -> Answer:
    headers = {"X-Error-Message": refusal.message, **refusal.headers}
    if refusal.code is not None:
        headers["X-Error-Code"] = refusal.code
    return json_answer({"error": refusal.message}, headers, refusal.status)


def file_answer(
    location: Path, size_bytes: int, headers: Mapping[str, str], wanted_range: str | None
) -> Answer:
    """The file, or the one range of it that was asked for; 416 where it lies outside."""
    told = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream", **headers}
    span = parse_range(wanted_range, size_bytes)
    if span is None:
        whole = FileSlice(location=location, offset_bytes=0, length_bytes=size_bytes)
        return Answer(headers=told, content=whole)
    first, last = span
    if first > last:
        message = "The requested range is not satisfiable"
        raise Refusal(416, None, message, {"Content-Range": f"bytes */{size_bytes}"})
    part = FileSlice(location=location, offset_bytes=first, length_bytes=last - first + 1)
    told["Content-Range"] = f"bytes {first}-{last}/{size_bytes}"
    return Answer(status=206, headers=told, content=part)


def parse_range(wanted: str | None, size_bytes: int) -> tuple[int, int] | None:
    """First and last byte; None where the whole file goes out (no range, several, or nonsense);
    first > last where the range cannot be met."""
    if wanted is None or not wanted.startswith("bytes=") or "," in wanted:
        return None
    start, dash, end = wanted.removeprefix("bytes=").strip().partition("-")
    if not dash or not (start or end) or not (start + end).isdigit():
        return None
    if not start:
        return (max(size_bytes - int(end), 0), size_bytes - 1) if int(end) else (1, 0)
    if int(start) >= size_bytes or (end and int(end) < int(start)):
        return (1, 0)
    return int(start), min(int(end), size_bytes - 1) if end else size_bytes - 1
