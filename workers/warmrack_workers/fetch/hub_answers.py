"""What the Hub's refusals and a failing connection mean, as our errors; headers in, error out."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from warmrack_store.errors import (
    Gated,
    HubUnavailable,
    Integrity,
    NotFound,
    RateLimited,
    RepoNotFound,
    RevisionNotFound,
    Unauthorized,
    WarmrackError,
)

_RATE_LIMIT_RESET = re.compile(r"(?:^|;)\s*t=(\d+)")
_MAX_WAIT_SECONDS = 3600.0
_CODES: dict[str, type[WarmrackError]] = {
    "GatedRepo": Gated,
    "RepoNotFound": RepoNotFound,
    "RevisionNotFound": RevisionNotFound,
    "EntryNotFound": NotFound,
}
"""`X-Error-Code`, as huggingface_hub reads it in `utils/_http.py:hf_raise_for_status`."""


def error_of_answer(
    status: int, headers: Mapping[str, str], *, what: str, from_hub: bool, now: datetime
) -> WarmrackError:
    """The error that a status other than 200 and 206 stands for; header names in lower case.

    A content network's refusals are transient: its signed addresses expire, and the next try asks
    the Hub for a new one. No address goes into a message, because it may be a signed one.
    """
    told = headers.get("x-error-message", "")[:200]
    message = f"{what}: HTTP {status}{f', {told}' if told else ''}"
    wait = find_wait_seconds(headers, now)
    if status == 429:
        return RateLimited(message, retry_after_seconds=wait)
    if status == 416:
        return Integrity(f"{message}: the file there is shorter than the tree says")
    if not from_hub or status >= 500 or status == 408:
        return HubUnavailable(message, retry_after_seconds=wait)
    if kind := _CODES.get(headers.get("x-error-code", "")):
        return kind(message)
    if status in (401, 403):
        return Unauthorized(message)
    return NotFound(message) if status in (404, 410) else HubUnavailable(message)


def find_wait_seconds(headers: Mapping[str, str], now: datetime) -> float | None:
    """How long to wait, by `Retry-After` (seconds or a date) or the `RateLimit` of the IETF draft;
    an hour at most."""
    value = headers.get("retry-after", "").strip()
    reset = _RATE_LIMIT_RESET.search(headers.get("ratelimit", ""))
    if not value:
        seconds = float(reset[1]) if reset else None
    elif value.isdecimal():
        seconds = float(value)
    else:
        seconds = _seconds_until(value, now)
    return None if seconds is None else min(max(seconds, 0.0), _MAX_WAIT_SECONDS)


def _seconds_until(date: str, now: datetime) -> float | None:
    try:
        return (parsedate_to_datetime(date).astimezone(UTC) - now).total_seconds()
    except (ValueError, OverflowError):
        return None
