"""The Hub's refusals as our own errors: a status and headers in, an error out; pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import quote

from warmrack_store.errors import (
    BadRequest,
    Gated,
    HubUnavailable,
    Integrity,
    RateLimited,
    RepoNotFound,
    RevisionNotFound,
    Unauthorized,
    WarmrackError,
)
from warmrack_store.refs import check_token

_RATE_LIMIT_RESET = re.compile(r"(?:^|;)\s*t=(\d+)")
_MAX_WAIT_SECONDS = 3600.0
_DISABLED = "Access to this resource is disabled."
"""`X-Error-Message`, as huggingface_hub reads it in `utils/_http.py:hf_raise_for_status`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubQuestion:
    """What a call is about, and who asks. A token that cannot be sent is Unauthorized."""

    endpoint: str
    repository: str
    revision: str | None
    token: str | None
    file: str | None = None

    def __post_init__(self) -> None:
        check_token(self.token)

    @property
    def what(self) -> str:
        return self.repository if self.file is None else f"{self.repository}/{self.file}"

    @property
    def page(self) -> str:
        return f"{self.endpoint}/{self.repository}"

    def file_path(self, path: str) -> str:
        return f"/{self.repository}/resolve/{self.revision}/{quote(path)}"


def error_of_status(
    status: int,
    headers: Mapping[str, str],
    asked: HubQuestion,
    *,
    from_hub: bool,
    now: datetime,
) -> WarmrackError:
    """What a status that is no success stands for; header names in lower case.

    A content network's refusals are transient: its signed addresses expire, and the next try asks
    the Hub for a new one. No address goes into a message, because it may be a signed one.
    """
    told = headers.get("x-error-message", "")[:200]
    answer = f"HTTP {status}{f', {told}' if told else ''}"
    wait_seconds = find_wait_seconds(headers, now)
    if status == 429:
        return RateLimited(
            f"{asked.what}: the Hub limits requests ({answer})", retry_after_seconds=wait_seconds
        )
    if status == 416:
        return Integrity(f"{asked.what}: the file there is shorter than the tree says ({answer})")
    if not from_hub or status < 400 or status >= 500 or status == 408:
        return HubUnavailable(f"{asked.what}: {answer}", retry_after_seconds=wait_seconds)
    return _explain_code(headers.get("x-error-code", ""), told, answer, asked) or _explain_status(
        status, answer, asked
    )


def _explain_code(code: str, told: str, answer: str, asked: HubQuestion) -> WarmrackError | None:
    """What the Hub's own `X-Error-Code` says."""
    if code == "GatedRepo":
        who = "this Hub token has" if asked.token else "a caller without a Hub token has"
        return Gated(
            f"{asked.repository} is gated and {who} not been let in ({answer})",
            hint=f"Accept the conditions at {asked.page}, then pass your Hub token.",
        )
    if code == "RevisionNotFound":
        return RevisionNotFound(f"{asked.repository} has no revision {asked.revision!r}")
    if code == "EntryNotFound":
        return nonsense(f"{asked.what}, a file of its tree, does not exist", asked)
    if told == _DISABLED:
        hint = f"See {asked.page}."
        return RepoNotFound(f"{asked.repository} is disabled at the Hub ({answer})", hint=hint)
    if code == "RepoNotFound":
        return RepoNotFound(f"the Hub has no {asked.repository} that this caller may read")
    return None


def _explain_status(status: int, answer: str, asked: HubQuestion) -> WarmrackError:
    """What the status alone says; a valid token gets 404 for a repository it may not see."""
    if status == 403 or (status == 401 and asked.token):
        reason = "does not accept the Hub token" if status == 401 else "does not let this caller in"
        return Unauthorized(f"{asked.what}: the Hub {reason} ({answer})")
    if status in {401, 404, 410}:
        return RepoNotFound(
            f"{asked.what}: the Hub has no {asked.repository} that this caller may read ({answer})"
        )
    return BadRequest(f"{asked.what}: the Hub refuses to answer ({answer})")


def find_wait_seconds(headers: Mapping[str, str], now: datetime) -> float | None:
    """How long to wait, by `Retry-After` (seconds or a date) or the `RateLimit` of the IETF draft;
    an hour at most."""
    value = headers.get("retry-after", "").strip()
    reset = _RATE_LIMIT_RESET.search(headers.get("ratelimit", ""))
    if not value:
        seconds = float(reset[1]) if reset else None
    elif value.isascii() and value.isdigit():
        seconds = float(value)
    else:
        seconds = _seconds_until(value, now)
    return None if seconds is None else min(max(seconds, 0.0), _MAX_WAIT_SECONDS)


def _seconds_until(date: str, now: datetime) -> float | None:
    try:
        return (parsedate_to_datetime(date).astimezone(UTC) - now).total_seconds()
    except (ValueError, OverflowError):
        return None


def nonsense(what: str, asked: HubQuestion) -> HubUnavailable:
    return HubUnavailable(f"the Hub answered nonsense about {asked.repository}: {what}")
