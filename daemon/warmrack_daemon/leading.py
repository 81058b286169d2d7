"""Work that one control plane of the cluster carries out, once a second, in a thread of its own."""

import secrets
import socket
import threading
from collections.abc import Callable

import structlog

from warmrack_store.database import Database
from warmrack_store.errors import StoreUnavailable
from warmrack_store.ledgers import leases

log = structlog.get_logger()
_SECONDS = 1.0


class Leading:
    """Runs `step` while it leads. Any number of them may run, also two that believe they lead: the
    lease saves work, it does not guard truth."""

    def __init__(
        self,
        database: Database,
        name: str,
        step: Callable[[], None],
        *,
        subject: str,
        ttl_seconds: float,
        beside: Callable[[], None] | None = None,
    ) -> None:
        """`name` is the thread's, `subject` the lease's, which lives for `ttl_seconds`. `beside` is
        done each second, also by who does not lead."""
        self._database = database
        self._name = name
        self._step = step
        self._subject = subject
        self._ttl_seconds = ttl_seconds
        self._beside = beside
        self._holder = f"{socket.gethostname()}:{secrets.token_hex(4)}"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stop.wait(_SECONDS):
            if self._beside is not None:
                self._beside()
            try:
                if self.lead():
                    self._step()
            except StoreUnavailable as error:
                log.warning(
                    "SQL does not answer.", action=f"{self._name}-wait", error=error.message
                )
            except Exception:
                log.exception("A step failed.", action=f"{self._name}-defect")

    def lead(self) -> bool:
        """Take or keep the lead; whether it is this one's now. Raises StoreUnavailable."""
        with self._database.write() as tx:
            lease = leases.acquire(
                tx,
                subject=self._subject,
                kind="leader",
                holder=self._holder,
                ttl_seconds=self._ttl_seconds,
            )
        return lease is not None
