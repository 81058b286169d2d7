"""Recent resolutions of direct calls, so that a warm model is reached without asking the Hub."""

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
    """A bounded memory, keyed by the request and the mark of the caller's token.

    A caller finds only what was resolved with the same token, so a right that one caller has
    never serves another.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
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
        if len(self._entries) >= _MAX_ENTRIES:
            self._entries.pop(next(iter(self._entries)))
        until = time.monotonic() + _lifetime(request, resolution)
        entry = _Entry(resolution=resolution, until=until)
        self._entries[self._key(request, token)] = entry
        return resolution

    def _key(self, request: LoadRequest, token: str | None) -> tuple[str, str]:
        return request.digest(), self._services.vault.mark(token)


def _lifetime(request: LoadRequest, resolution: Resolution) -> float:
    if not is_commit(request.ref().revision):
        return _BRANCH_SECONDS
    public = not (resolution.private or resolution.gated)
    return _PUBLIC_COMMIT_SECONDS if public else _COMMIT_SECONDS
