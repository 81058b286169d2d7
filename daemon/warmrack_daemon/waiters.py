"""Those who wait for a job to change, woken by the broker or by a poll."""

import asyncio
import threading
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from warmrack_store.brokers.wakeups import Wakeups

_POLL_SECONDS = 1.0
"""What a lost wake-up costs at most."""
_STOP_SECONDS = 2.0


class Waiters:
    """One listener on the broker, any number of waiters in the event loop."""

    def __init__(self, wakeups: Wakeups) -> None:
        self._wakeups = wakeups
        self._stop = threading.Event()
        self._events: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listener: threading.Thread | None = None

    def start(self) -> None:
        """Listen from now on; call it inside the event loop."""
        self._loop = asyncio.get_running_loop()
        self._listener = threading.Thread(
            target=self._wakeups.listen, args=(self._heard, self._stop), name="wakeups", daemon=True
        )
        self._listener.start()

    def stop(self) -> None:
        """Returns once nobody reads from the broker any more, so that it may be closed."""
        self._stop.set()
        if self._listener is not None:
            self._listener.join(_STOP_SECONDS)

    def _heard(self, job_id: str) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake, job_id)

    def _wake(self, job_id: str) -> None:
        for event in self._events.get(job_id, ()):
            event.set()

    @asynccontextmanager
    async def watch(self, *job_ids: str) -> AsyncIterator["Watch"]:
        """Changes of these jobs from here on; enter it before the first look at them."""
        event = asyncio.Event()
        for job_id in job_ids:
            self._events[job_id].add(event)
        try:
            yield Watch(event)
        finally:
            for job_id in job_ids:
                self._events[job_id].discard(event)
                if not self._events[job_id]:
                    del self._events[job_id]


class Watch:
    """Waits for the next change, seen or polled."""

    def __init__(self, event: asyncio.Event) -> None:
        self._event = event

    async def changed(self, timeout_seconds: float) -> None:
        """Return at the next wake-up, at the next poll, or when the time is up."""
        wait_seconds = max(0.0, min(timeout_seconds, _POLL_SECONDS))
        try:
            async with asyncio.timeout(wait_seconds):
                await self._event.wait()
        except TimeoutError:
            return
        self._event.clear()
