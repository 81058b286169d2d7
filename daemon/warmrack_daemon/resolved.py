"""Recent resolutions of direct calls, so that a warm model is reached without asking the Hub."""

import threading
import time
from dataclasses import dataclass

from warmrack_daemon.services import Services, own_version
from warmrack_store.refs import is_commit
from warmrack_store.requests import LoadRequest
from warmrack_store.resolution import Resolution
from warmrack_store.resolving import resolve_request

_PUBLIC_COMMIT_SECONDS = 3600.0
_COMMIT_SECONDS = 600.0
_BRANCH_SECONDS = 30.0
"""How long an answer holds: a right to a non-public repository for ten minutes, one to a public
repository for an hour, and a branch, which may move at any time, for half a minute."""
_MAX_ENTRIES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    resolution: Resolution
    until: float


class Resolved:
    """A bounded memory, keyed by the request and the mark of the caller's token; for any thread.

    A caller finds only what was resolved with the same token, so a right that one caller has
    never serves another.
    """

    def __init__(self, services: Services, *, most_entries: int = _MAX_ENTRIES) -> None:
        self._services = services
        self._most_entries = most_entries
        self._lock = threading.Lock()
        self._entries: dict[tuple[str, str], _Entry] = {}

    def find(self, request: LoadRequest, token: str | None) -> Resolution | None:
        """The remembered resolution, where it still holds."""
        entry = self._entries.get(self._key(request, token))
        return entry.resolution if entry and entry.until > time.monotonic() else None

    def get(self, request: LoadRequest, token: str | None) -> Resolution:
        """The resolution, asked of the Hub where it is not remembered. Blocks."""
        resolution = resolve_request(
            self._services.database,
            self._services.hub,
            request,
            token,
            versions={"warmrack": own_version()},
        )
        self.remember(request, token, resolution)
        return resolution

    def remember(self, request: LoadRequest, token: str | None, resolution: Resolution) -> None:
        """Keep it for as long as it holds; the oldest entry goes where there are too many."""
        key, until = self._key(request, token), time.monotonic() + _lifetime(request, resolution)
        with self._lock:
            self._entries.pop(key, None)
            if len(self._entries) >= self._most_entries:
                del self._entries[next(iter(self._entries))]
            self._entries[key] = _Entry(resolution=resolution, until=until)

    def _key(self, request: LoadRequest, token: str | None) -> tuple[str, str]:
        return request.digest(), self._services.vault.mark(token)


def _lifetime(request: LoadRequest, resolution: Resolution) -> float:
    """By what may move or be forbidden soonest: an adapter and its base count as the model does."""
    refs = (request.ref().revision, *(part.ref_asked for part in resolution.parts))
    if not all(is_commit(ref) for ref in refs):
        return _BRANCH_SECONDS
    return _PUBLIC_COMMIT_SECONDS if resolution.public else _COMMIT_SECONDS
