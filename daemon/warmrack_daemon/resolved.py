"""Recent resolutions of direct calls, so that a warm model is reached without asking the Hub."""

import threading
import time
from dataclasses import dataclass

from warmrack_daemon.services import Services, own_version
from warmrack_store.refs import is_commit
from warmrack_store.requests import LoadRequest
from warmrack_store.resolution import Resolution
from warmrack_store.resolving import resolve_request
from warmrack_store.settings import Settings

_BRANCH_SECONDS = 30.0
"""How long a branch, which may move at any time, is believed to stand where it stood."""
_MAX_ENTRIES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    resolution: Resolution
    until: float


class Resolved:
    """A bounded memory, keyed by the request and the mark of the caller's token; for any thread.

    A caller finds only what was resolved with the same token. What a name means is remembered
    here, not the right to it: `Rights` is asked for that each time.
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
            rights=self._services.rights,
        )
        self.remember(request, token, resolution)
        return resolution

    def remember(self, request: LoadRequest, token: str | None, resolution: Resolution) -> None:
        """Keep it for as long as it holds; the oldest entry goes where there are too many."""
        lifetime = _lifetime(request, resolution, self._services.settings)
        key, until = self._key(request, token), time.monotonic() + lifetime
        with self._lock:
            self._entries.pop(key, None)
            if len(self._entries) >= self._most_entries:
                del self._entries[next(iter(self._entries))]
            self._entries[key] = _Entry(resolution=resolution, until=until)

    def _key(self, request: LoadRequest, token: str | None) -> tuple[str, str]:
        return request.digest(), self._services.vault.mark(token)


def _lifetime(request: LoadRequest, resolution: Resolution, settings: Settings) -> float:
    """By what may move or be closed soonest: an adapter and its base count as the model does."""
    holds = settings.right_public_seconds if resolution.public else settings.right_allow_seconds
    refs = (request.ref().revision, *(part.ref_asked for part in resolution.parts))
    return holds if all(is_commit(ref) for ref in refs) else min(holds, _BRANCH_SECONDS)
