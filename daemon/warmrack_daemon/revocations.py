"""Residents that nobody may use any more: found by asking the Hub again, and let go.

One control plane leads. A yes to a token that reads a model in memory is asked for again when its
time is over, with the token that was kept, encrypted, for that. Only the Hub's own no ends
anything: an outage does not.
"""

from collections.abc import Iterable, Mapping

import structlog

from warmrack_daemon.leading import Leading
from warmrack_daemon.services import Services
from warmrack_store.errors import Cancelled, Refusal, Transient
from warmrack_store.ledgers import cancels, decisions, jobs, residents, resolutions
from warmrack_store.ledgers.decisions import Decision
from warmrack_store.ledgers.residents import Resident

log = structlog.get_logger()
_LEADER_TTL_SECONDS = 60.0
"""Longer than the Hub may take to answer."""


class Revocations:
    """Looks once a second, in a thread of its own; any number of them, one of which leads."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._closed: dict[str, frozenset[str]] = {}
        self._leading = Leading(
            services.database,
            "revocations",
            self.sweep,
            subject="revocations",
            ttl_seconds=_LEADER_TTL_SECONDS,
        )

    def start(self) -> None:
        self._leading.start()

    def stop(self) -> None:
        self._leading.stop()

    def sweep(self) -> None:
        """One look: ask again what is due, let go what nobody may use, forget what is old."""
        held = self._list_closed()
        names = {name.lower(): name for repositories in held.values() for name in repositories}
        if names:
            for decision in self._list_known(names):
                if decision.ciphertext and self._services.rights.left_seconds(decision) <= 0:
                    self._ask_again(decision, names[decision.repository])
            self._let_go(held)
        settings = self._services.settings
        kept_seconds = settings.right_allow_seconds + settings.right_grace_seconds
        lasting = settings.right_public_seconds + settings.right_public_grace_seconds
        with self._services.database.write() as tx:
            decisions.forget_tokens(tx, seconds=kept_seconds, kept=names)
            decisions.forget_old(tx, seconds=lasting, kept=names)

    def _list_closed(self) -> Mapping[Resident, frozenset[str]]:
        """The live residents that hold what is not public, with its repositories."""
        with self._services.database.read() as tx:
            live = residents.list_live(tx)
            for one in live:
                if one.resolution_id not in self._closed:
                    found = resolutions.find_resolution(tx, one.resolution_id)
                    parts = found.parts if found is not None else ()
                    closed = (part.repository for part in parts if part.private or part.gated)
                    self._closed[one.resolution_id] = frozenset(closed)
        wanted = {one.resolution_id for one in live}
        self._closed = {key: names for key, names in self._closed.items() if key in wanted}
        return {one: names for one in live if (names := self._closed[one.resolution_id])}

    def _list_known(self, names: Iterable[str]) -> list[Decision]:
        with self._services.database.read() as tx:
            return list(decisions.list_decisions(tx, names))

    def _ask_again(self, decision: Decision, repository: str) -> None:
        token = self._services.vault.decrypt(decision.ciphertext or b"")
        try:
            self._services.rights.ask(repository, token)
        except Transient as error:
            log.info("A right could not be asked for.", action="right-unsure", error=error.code)
        except Refusal as refusal:
            log.info("A right was revoked.", action="right-revoked", code=refusal.code)
            self._end_jobs(decision)

    def _end_jobs(self, decision: Decision) -> None:
        """The running tasks of who has lost the right; other jobs ask before each of their steps."""
        lost = Cancelled("the Hub no longer lets this caller read the model")
        with self._services.database.write() as tx:
            for job in jobs.list_running(tx, rights=decision.mark):
                found = resolutions.find_resolution(tx, job.resolution_id)
                parts = found.parts if found is not None else ()
                if decision.repository in {part.repository.lower() for part in parts}:
                    cancels.request_cancel(tx, job.id, lost)

    def _let_go(self, held: Mapping[Resident, frozenset[str]]) -> None:
        known = self._list_known(name for names in held.values() for name in names)
        asked = {one.repository for one in known}
        open_to_some = {one.repository for one in known if one.allows}
        for resident, names in held.items():
            closed = {name.lower() for name in names} & asked - open_to_some
            if closed and not resident.drain_requested:
                log.info("Nobody may use a resident.", action="unload", resident=resident.id)
                with self._services.database.write() as tx:
                    residents.request_drain(tx, resident.id)
                self._services.wakeups.publish(f"node:{resident.node}")
