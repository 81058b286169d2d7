"""The agent's heartbeat: the node's row, the leases of its jobs, and the cancels meant for them."""

import threading
import time
from collections.abc import Callable

import structlog

from warmrack_store import heap
from warmrack_store.database import Database
from warmrack_store.errors import StoreUnavailable
from warmrack_store.ledgers import claims, leases, nodes
from warmrack_workers.activity import Activities

log = structlog.get_logger()
_TICK_SECONDS = 0.25
"""A cancel is heard within this, so that a fetch ends within a second."""


class Heart:
    """One thread. It asks SQL only while there is something to ask about."""

    def __init__(
        self,
        *,
        database: Database,
        node: str,
        epoch: int,
        holder: str,
        lease_seconds: float,
        activities: Activities,
        on_taken: Callable[[], None],
    ) -> None:
        """`on_taken` is called once a newer agent has this node's name."""
        self._database = database
        self._node = node
        self._epoch = epoch
        self._holder = holder
        self._lease_seconds = lease_seconds
        self._activities = activities
        self._on_taken = on_taken
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heart", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=2)

    def _run(self) -> None:
        beaten_at = renewed_at = given_back_at = 0.0
        while not self._stop.wait(_TICK_SECONDS):
            now = time.monotonic()
            try:
                if now - beaten_at >= nodes.HEARTBEAT_SECONDS:
                    self.beat()
                    beaten_at = now
                if now - renewed_at >= self._lease_seconds / 3:
                    self.renew()
                    renewed_at = now
                self._hear()
                if now - given_back_at >= heap.GIVE_BACK_SECONDS:
                    heap.give_back()
                    given_back_at = now
            except StoreUnavailable as error:
                log.warning("The heart waits.", action="heart-wait", error=error.message)
            except Exception:
                log.exception("A heartbeat failed.", action="heart-defect")

    def beat(self) -> None:
        """The node lives; or it is another agent's by now."""
        with self._database.write() as tx:
            mine = nodes.heartbeat(tx, self._node, self._epoch)
        if not mine:
            log.error("Another agent has this node's name.", action="node-taken")
            self._on_taken()

    def renew(self) -> None:
        """Extend the leases of the work under way, and of nothing else."""
        active = self._activities.list()
        if not active:
            return
        with self._database.write() as tx:
            claims.renew(tx, [activity.claim for activity in active], self._lease_seconds)
            for activity in active:
                held = activity.lease
                if held is not None and not leases.renew(tx, held, self._lease_seconds):
                    activity.lose()

    def _hear(self) -> None:
        """Stop the work on jobs that are cancelled, or that somebody else holds by now."""
        active = self._activities.list()
        if not active:
            return
        with self._database.read() as tx:
            held = {(job.id, job.epoch): job for job in claims.list_claimed(tx, self._holder)}
        for activity in active:
            job = held.get((activity.claim.job_id, activity.claim.epoch))
            if job is None:
                activity.lose()
            elif job.cancel_cause is not None:
                activity.cancel(job.cancel_cause)
