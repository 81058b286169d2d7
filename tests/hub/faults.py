"""The faults a test can order, each a record that travels as JSON.

`after_bytes` counts the body bytes of one answer; None is "before the first byte of the answer".
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Origin(StrEnum):
    HUB = "hub"
    CDN = "cdn"


class RateScope(StrEnum):
    CONNECTION = "connection"
    ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """The answer starts this much later."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """This status instead of the answer; `code` and `message` go out as the Hub's error headers."""

    status: int
    code: str | None = None
    message: str = "ordered by the test"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset:
    """The connection ends with a TCP RST."""

    after_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """The connection ends in the usual way, but too early."""

    after_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stall:
    """Nothing more is sent until the rule is cleared (or the time is over); then it goes on.

    With `after_bytes=None` it is a gate that holds requests back until the test opens it.
    """

    after_bytes: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CorruptByte:
    """The byte at this offset of the file is flipped; a range that leaves it out is clean."""

    offset_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherContent:
    """Other bytes of the same size: those of `file`, or every bit inverted."""

    file: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Drip:
    """The body goes out in small pieces with a pause before each."""

    chunk_bytes: int
    pause_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Bodies go out this fast, on each connection or on all that the rule meets together."""

    bytes_per_second: float
    scope: RateScope = RateScope.ALL


@dataclass(frozen=True, slots=True, kw_only=True)
class IgnoreRange:
    """A ranged request gets 200 and the whole file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Headers:
    """Headers of the answer that are wrong (`replaced`, also a hostile ETag) or missing."""

    replaced: Mapping[str, str] = field(default_factory=dict)
    removed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrite:
    """A regular expression replaced in a JSON answer: a hostile sha, path, digest or size."""

    pattern: str
    replacement: str


Fault = (
    Latency
    | Status
    | Reset
    | Close
    | Stall
    | CorruptByte
    | OtherContent
    | Drip
    | Rate
    | IgnoreRange
    | Headers
    | Rewrite
)
FAULTS: Mapping[str, type[Fault]] = {
    "latency": Latency,
    "status": Status,
    "reset": Reset,
    "close": Close,
    "stall": Stall,
    "corrupt-byte": CorruptByte,
    "other-content": OtherContent,
    "drip": Drip,
    "rate": Rate,
    "ignore-range": IgnoreRange,
    "headers": Headers,
    "rewrite": Rewrite,
}
_KINDS = {fault: kind for kind, fault in FAULTS.items()}


def too_many_requests(*, retry_after_seconds: int, limit: int = 1000) -> Status:
    """The Hub's 429: the header of the old form and those of the IETF draft it sends today."""
    return Status(
        status=429,
        message="Too many requests",
        headers={
            "Retry-After": str(retry_after_seconds),
            "RateLimit": f'"api";r=0;t={retry_after_seconds}',
            "RateLimit-Policy": f'"fixed window";"api";q={limit};w=300',
        },
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRule:
    """Which requests a fault meets: after `skip` matches, `times` of them (None: every one).

    `path` is searched for in the decoded path of the request; None in a field matches all.
    """

    fault: Fault
    path: str = ""
    method: str | None = None
    origin: Origin | None = None
    skip: int = 0
    times: int | None = None


def rule_to_json(rule: FaultRule) -> dict[str, Any]:
    return {**dataclasses.asdict(rule), "kind": _KINDS[type(rule.fault)]}


def rule_from_json(record: Mapping[str, Any]) -> FaultRule:
    """Raises KeyError or TypeError where the record is not one of ours."""
    fields = dict(record)
    described = dict(fields.pop("fault"))
    if "removed" in described:
        described["removed"] = tuple(described["removed"])
    if "scope" in described:
        described["scope"] = RateScope(described["scope"])
    origin = fields.pop("origin", None)
    fault = FAULTS[fields.pop("kind")](**described)
    return FaultRule(fault=fault, origin=Origin(origin) if origin else None, **fields)
