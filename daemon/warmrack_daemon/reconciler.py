"""The reconciler: once a second, one leader puts right what crashed or was forgotten.

Each step is a plain query in one transaction; none deletes bytes. A step is safe to run twice
and by two leaders at once, since every change is a compare-and-set: the lease saves work, it
does not guard truth.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog
from prometheus_client import Counter

from warmrack_daemon.api.views import job_view
from warmrack_daemon.leading import Leading
from warmrack_daemon.services import Services
from warmrack_store import heap
from warmrack_store.errors import Timeout
from warmrack_store.ledgers import (
    cancels,
    deadlines,
    jobs,
    moves,
    nodes,
    outbox,
    residents,
    resolutions,
    spreads,
)
from warmrack_store.states import NodeState

log = structlog.get_logger()
_RING_GRACE_SECONDS = 3.0
"""A queue whose work nobody has taken for this long is rung again, at most this often."""
_LEADER_TTL_SECONDS = 5.0
_steps = Counter("warmrack_reconciled_total", "What the reconciler put right.", ["what"])


class Reconciler:
    """Runs in a thread of its own; any number of them, one of which leads."""

    def __init__(self, services: Services, answer: Callable[[str, dict[str, Any]], None]) -> None:
        """`answer(task_id, result)` sends the result that a Celery caller waits for."""
        self._services = services
        self._answer = answer
        self._given_back_at = 0.0
        self._leading = Leading(
            services.database,
            "reconciler",
            self.reconcile,
            subject="leader",
            ttl_seconds=_LEADER_TTL_SECONDS,
            beside=self._give_back,
        )

    def start(self) -> None:
        self._leading.start()

    def stop(self) -> None:
        self._leading.stop()

    def _give_back(self) -> None:
        if time.monotonic() - self._given_back_at >= heap.GIVE_BACK_SECONDS:
            heap.give_back()
            self._given_back_at = time.monotonic()

    def reconcile(self) -> None:
        """All steps once."""
        for step in (
            self._requeue_lost,
            self._end_overdue,
            self._settle_spreads,
            self._judge_nodes,
            self._ring,
        ):
            step()
        self._answer_owed()

    def _requeue_lost(self) -> None:
        with self._services.database.read() as tx:
            lost = deadlines.list_expired_leases(tx)
        for job in lost:
            with suppress(moves.LostClaim), self._services.database.write() as tx:
                deadlines.requeue_lost(tx, job, max_load_deaths=deadlines.MAX_LOAD_DEATHS)
            self._note("lease-lost", job=job.id, holder=job.holder)
            self._services.wakeups.publish(job.id)

    def _end_overdue(self) -> None:
        with self._services.database.read() as tx:
            expired = deadlines.list_expired(tx)
            timed_out = deadlines.list_timed_out(tx)
        for job in expired:
            with suppress(moves.LostClaim), self._services.database.write() as tx:
                cancels.expire(tx, job.id)
        for job in timed_out:
            waited = ", which it spent waiting" if job.started_at is None else ""
            error = Timeout(f"it was not done within its {job.timeout_seconds:g} s{waited}")
            with suppress(moves.LostClaim), self._services.database.write() as tx:
                cancels.request_cancel(tx, job.id, error)
        for job in (*expired, *timed_out):
            self._note("overdue", job=job.id)
            self._services.wakeups.publish(job.id)

    def _settle_spreads(self) -> None:
        with self._services.database.read() as tx:
            parents = spreads.list_open(tx)
        for parent in parents:
            changed = False
            with suppress(moves.LostClaim), self._services.database.write() as tx:
                changed = spreads.settle(tx, parent)
            if changed:
                self._services.wakeups.publish(parent)

    def _judge_nodes(self) -> None:
        silent = 3 * nodes.HEARTBEAT_SECONDS
        lost = silent + self._services.settings.lease_seconds
        with self._services.database.write() as tx:
            for state in (NodeState.READY, NodeState.DRAINING):
                for node in nodes.list_silent(tx, state=state, seconds=silent):
                    nodes.set_state(tx, node.name, NodeState.UNREACHABLE, epoch=node.epoch)
                    self._note("unreachable", node=node.name)
            for node in nodes.list_silent(tx, state=NodeState.UNREACHABLE, seconds=lost):
                nodes.set_state(tx, node.name, NodeState.LOST, epoch=node.epoch)
                self._note("node-lost", node=node.name)
            for node in nodes.list_nodes(tx):
                if node.state in (NodeState.LOST, NodeState.STOPPED):
                    residents.write_off(tx, node.name, "node-lost", epoch=node.epoch)
                    deadlines.release_from_node(tx, node.name)

    def _ring(self) -> None:
        with self._services.database.write() as tx:
            waiting = deadlines.take_unrung(tx, grace_seconds=_RING_GRACE_SECONDS)
            listening = nodes.list_listening(tx)
        for node in waiting:
            if not listening or node not in (None, *listening):
                continue  # bells that nobody takes would pile up; who comes looks for work first
            self._note("rung", node=node)
            self._services.doorbell.ring(node)

    def _answer_owed(self) -> None:
        with self._services.database.read() as tx:
            due = outbox.list_due(tx, "celery")
        for owed in due:
            with self._services.database.read() as tx:
                job = jobs.get_job(tx, owed.job_id)
                resolution = resolutions.find_resolution(tx, job.resolution_id)
            self._answer(owed.address, job_view(job, resolution))
            with self._services.database.write() as tx:
                outbox.settle(tx, owed.id)

    def _note(self, what: str, **fields: object) -> None:
        _steps.labels(what).inc()
        log.info("The reconciler acted.", action="reconciled", what=what, **fields)
