"""The Hub's refusals as our own errors, wrapped once."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from warmrack_store.errors import (
    BadRequest,
    Gated,
    HubUnavailable,
    RateLimited,
    RepoNotFound,
    RevisionNotFound,
    Unauthorized,
    WarmrackError,
)

if TYPE_CHECKING:
    from httpx2 import URL
    from huggingface_hub.errors import HfHubHTTPError


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a call is about, and who asks."""

    endpoint: str
    repository: str
    revision: str | None
    token: str | None

    def __post_init__(self) -> None:
        """Refuse a token that cannot be sent; a library's error would print it."""
        token = self.token
        if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
            raise Unauthorized("the Hub token holds characters that no token has")

    def file_path(self, path: str) -> str:
        return f"/{self.repository}/resolve/{self.revision}/{quote(path)}"


def explain_refusal(error: "HfHubHTTPError", asked: Asked) -> WarmrackError:
    """Our error for the Hub's: wrong names and tokens are refusals, the rest may pass."""
    from huggingface_hub import errors as hub_errors

    status, name = error.response.status_code, asked.repository
    page = f"{asked.endpoint}/{name}"
    url = error.response.request.url
    if not _is_same_origin(url, asked.endpoint):
        # A content network: its signed addresses expire, and the next try is given new ones.
        return HubUnavailable(f"{url.host} answered {status} for a file of {name}")
    if isinstance(error, hub_errors.EntryNotFoundError):
        return nonsense("a file of its tree does not exist", asked)
    if isinstance(error, hub_errors.GatedRepoError):
        who = "this Hub token has" if asked.token else "a caller without a Hub token has"
        return Gated(
            f"{name} is gated and {who} not been let in",
            hint=f"Accept the conditions at {page}, then pass your Hub token.",
        )
    if isinstance(error, hub_errors.RevisionNotFoundError):
        return RevisionNotFound(f"{name} has no revision {asked.revision!r}")
    if isinstance(error, hub_errors.DisabledRepoError):
        return RepoNotFound(f"{name} is disabled at the Hub", hint=f"See {page}.")
    return _explain_status(status, error.response.headers, asked)


def _is_same_origin(url: "URL", endpoint: str) -> bool:
    import httpx2

    home = httpx2.URL(endpoint)
    return (url.scheme, url.host, url.port) == (home.scheme, home.host, home.port)


def _explain_status(status: int, headers: Mapping[str, str], asked: Asked) -> WarmrackError:
    """What the status alone says; a valid token gets 404 for a repository it may not see."""
    if status == 403 or (status == 401 and asked.token):
        reason = "does not accept the Hub token" if status == 401 else "does not let this caller in"
        return Unauthorized(f"the Hub {reason} (asked for {asked.repository})")
    if status in {401, 404, 410}:
        return RepoNotFound(f"the Hub has no {asked.repository} that this caller may read")
    told = headers.get("x-error-message", "")[:200]
    wait_seconds = _parse_wait(headers)
    if status == 429:
        shown = "" if wait_seconds is None else f"; it asks to wait {wait_seconds:g} s"
        return RateLimited(
            f"{asked.endpoint} limits requests (429){shown}", retry_after_seconds=wait_seconds
        )
    if status >= 500 or status == 408:
        return HubUnavailable(
            f"{asked.endpoint} answered {status} {told}".rstrip(), retry_after_seconds=wait_seconds
        )
    return BadRequest(f"the Hub refuses to describe {asked.repository}: {status} {told}".rstrip())


def _parse_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds by Retry-After, else by RateLimit (IETF draft 9); an hour at most."""
    from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]  # lazy export

    asked = headers.get("retry-after", "").strip()
    if asked.isascii() and asked.isdigit():
        return float(min(int(asked[:10]), 3600))
    limit = parse_ratelimit_headers(headers)
    return None if limit is None else float(min(limit.reset_in_seconds, 3600))


def nonsense(what: str, asked: Asked) -> HubUnavailable:
    return HubUnavailable(f"the Hub answered nonsense about {asked.repository}: {what}")
