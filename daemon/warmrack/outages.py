"""How long the service has been away from a client that waits."""

import time

from warmrack_store.errors import WarmrackError

PAUSE_SECONDS = 0.5
"""Between two tries."""
_PATIENCE_SECONDS = 60.0
"""A restart of the control plane takes seconds; a client that waits for hours outlives it."""


class Outage:
    """Silence since the last answer; whoever waits has been given a job's id just before."""

    def __init__(self) -> None:
        self.answered()

    def answered(self) -> None:
        self._answered_at = time.monotonic()

    def bear(self, error: WarmrackError, *, until: float | None = None) -> None:
        """Raise `error` where it has lasted too long, or its next try would come after `until`."""
        now = time.monotonic()
        if now - self._answered_at > _PATIENCE_SECONDS:
            raise error
        if until is not None and now + PAUSE_SECONDS > until:
            raise error
