"""What the mirror says where it gives nothing, in a Hub's own words; pure."""

from collections.abc import Mapping
from types import MappingProxyType

from warmrack_store.errors import (
    BadRequest,
    Gated,
    NotFound,
    RepoNotFound,
    RevisionNotFound,
    Unauthorized,
    WarmrackError,
)

_MAX_MESSAGE = 300
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Refused(Exception):
    """An answer that is an error: `code` goes out as X-Error-Code, `message` as X-Error-Message."""

    def __init__(
        self,
        status: int,
        code: str | None,
        message: str,
        headers: Mapping[str, str] = _NO_HEADERS,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers

    def list_headers(self) -> dict[str, str]:
        """Header values are one line of Latin letters, whatever the message holds."""
        plain = "".join(c if c.isascii() and c.isprintable() else "?" for c in self.message)
        shown = {"X-Error-Message": plain[:_MAX_MESSAGE]}
        if self.code is not None:
            shown["X-Error-Code"] = self.code
        return {**self.headers, **shown}


def no_repository(name: str, *, anonymous: bool) -> Refused:
    """The same for one that is missing and one that this caller may not see."""
    return Refused(401 if anonymous else 404, "RepoNotFound", f"no {name} is held here")


def no_revision(name: str, revision: str) -> Refused:
    return Refused(404, "RevisionNotFound", f"{name} is not held here at {revision}")


def no_entry(path: str, commit: str) -> Refused:
    headers = {"X-Repo-Commit": commit}
    return Refused(404, "EntryNotFound", f"{path} is not held here at {commit}", headers)


def refusal_of(error: WarmrackError, *, anonymous: bool) -> Refused:
    """One of our errors, as huggingface_hub can read it."""
    match error:
        case Gated():
            return Refused(401 if anonymous else 403, "GatedRepo", error.message)
        case RevisionNotFound():
            return Refused(404, "RevisionNotFound", error.message)
        case RepoNotFound() | NotFound():
            return Refused(401 if anonymous else 404, "RepoNotFound", error.message)
        case Unauthorized() | BadRequest():
            return Refused(error.status, None, error.message)
    wait = error.retry_after_seconds
    headers = {"Retry-After": str(max(1, round(wait)))} if wait is not None else {}
    return Refused(503 if error.retryable else error.status, None, error.message, headers)
