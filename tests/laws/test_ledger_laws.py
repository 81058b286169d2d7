"""Whatever happens to jobs in whatever order, the ledger keeps its promises."""

from collections import Counter, defaultdict
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from tests.services.stores import make_sqlite_template, sqlite_store
from tests.services.submitted import new_job
from warmrack_store.errors import Cancelled, Expired, HubUnavailable, Timeout
from warmrack_store.ledgers import cancels, claims, deadlines, jobs
from warmrack_store.ledgers.claims import Claim
from warmrack_store.ledgers.moves import LostClaim
from warmrack_store.schema import job_events, secrets
from warmrack_store.schema import jobs as rows
from warmrack_store.states import HELD, TERMINAL, JobState

NODES = ("n0", "n1")
_LEASE_SECONDS = 6.0
_DEATHS = 3
_NEXT = {
    JobState.RESOLVING: JobState.PLACED,
    JobState.PLACED: JobState.FETCHING,
    JobState.FETCHING: JobState.LOADING,
    JobState.LOADING: JobState.RUNNING,
}


class Ledger(RuleBasedStateMachine):
    """Clients, workers that work, stop, die or come back late, a reconciler, and time."""

    submitted = Bundle("submitted")
    claimed = Bundle("claimed")

    def __init__(self) -> None:
        super().__init__()
        self._folder = TemporaryDirectory(prefix="wr-law-")
        folder = Path(self._folder.name)
        self._opened = sqlite_store(folder, make_sqlite_template(folder))
        self.store = self._opened.__enter__()
        self.database = self.store.database
        self.ended: dict[str, str] = {}

    def teardown(self) -> None:
        self._opened.__exit__(None, None, None)
        self._folder.cleanup()

    @rule(
        target=submitted,
        model=st.sampled_from(["org/a", "org/b"]),
        priority=st.sampled_from(["interactive", "background"]),
        node=st.sampled_from([None, None, "n1"]),
        token=st.booleans(),
    )
    def submit(self, model: str, priority: str, node: str | None, token: bool) -> str:
        new = new_job(model, priority=priority, nodes=node, token=b"t" if token else None)
        with self.database.write() as tx:
            return jobs.submit_job(tx, new).id

    @rule(target=claimed, node=st.sampled_from(NODES))
    def claim(self, node: str) -> Claim | None:
        with self.database.write() as tx:
            found = claims.claim_next(tx, node=node, holder=node, lease_seconds=_LEASE_SECONDS)
        return found[0] if found else None

    def _held(self, claim: Claim | None, change: Any) -> None:
        """A worker does something with a claim that it may have lost; then nothing happens."""
        if claim is not None:
            with suppress(LostClaim), self.database.write() as tx:
                change(tx, claim)

    @rule(claim=claimed)
    def advance(self, claim: Claim | None) -> None:
        def change(tx: Any, held: Claim) -> None:
            state = _NEXT.get(claims.get_held(tx, held).state)
            if state is not None:
                placed = {"target_node": held.holder, "resolution_id": "res_1"}
                claims.move(tx, held, state, **(placed if state is JobState.PLACED else {}))

        self._held(claim, change)

    @rule(claim=claimed, node=st.sampled_from(NODES))
    def hand_over(self, claim: Claim | None, node: str) -> None:
        def change(tx: Any, held: Claim) -> None:
            if claims.get_held(tx, held).state in (JobState.RESOLVING, JobState.PLACED):
                claims.hand_over(tx, held, node, resolution_id="res_1")

        self._held(claim, change)

    @rule(claim=claimed)
    def give_back(self, claim: Claim | None) -> None:
        self._held(claim, lambda tx, held: claims.give_back(tx, held, "worker-stopped"))

    @rule(claim=claimed, delay_seconds=st.sampled_from([0.0, 30.0]))
    def retry(self, claim: Claim | None, delay_seconds: float) -> None:
        error = HubUnavailable("502")
        self._held(claim, lambda tx, held: claims.retry_later(tx, held, error, delay_seconds))

    @rule(claim=claimed, state=st.sampled_from([JobState.SUCCEEDED, JobState.FAILED]))
    def finish(self, claim: Claim | None, state: JobState) -> None:
        self._held(claim, lambda tx, held: claims.finish(tx, held, state))

    @rule(job_id=submitted, kind=st.sampled_from([Cancelled, Timeout, Expired]))
    def cancel(self, job_id: str, kind: type[Cancelled | Timeout | Expired]) -> None:
        with self.database.write() as tx:
            cancels.request_cancel(tx, job_id, kind("enough"))

    @rule(node=st.sampled_from(NODES))
    def lose_node(self, node: str) -> None:
        with self.database.write() as tx:
            deadlines.release_from_node(tx, node)

    @rule(seconds=st.sampled_from([1.0, _LEASE_SECONDS + 1, 60.0]))
    def wait(self, seconds: float) -> None:
        self.store.pass_time(seconds)

    @rule()
    def reconcile(self) -> None:
        with self.database.read() as tx:
            lost = deadlines.list_expired_leases(tx)
        for job in lost:
            with self.database.write() as tx:
                deadlines.requeue_lost(tx, job, max_load_deaths=_DEATHS)

    @invariant()
    def promises_hold(self) -> None:
        with self.database.read() as tx:
            found = {row["id"]: row for row in tx.list(sa.select(rows))}
            told: dict[str, list[str]] = defaultdict(list)
            for event in tx.list(sa.select(job_events).order_by(job_events.c.id)):
                told[event["job_id"]].append(event["type"])
            kept = {row["id"] for row in tx.list(sa.select(secrets.c.id))}
        for job_id, row in found.items():
            self._check_events(row, told[job_id])
            self._check_holder(row)
            self._check_joined(row, found)
            live = row["state"] not in TERMINAL
            assert (row["secret_id"] in kept) == (live and row["secret_id"] is not None)
        leaders = [
            row["fingerprint"]
            for row in found.values()
            if row["joined_to"] is None
            and row["state"] not in TERMINAL
            and row["cancel_cause"] is None
        ]
        assert max(Counter(leaders).values(), default=1) == 1, "one live leader of each request"

    def _check_events(self, row: Any, told: list[str]) -> None:
        """The events replay to the state, and the end is told once and for good."""
        assert told[-1] == row["state"]
        ends = [kind for kind in told if kind in TERMINAL]
        assert ends == ([row["state"]] if row["state"] in TERMINAL else [])
        assert self.ended.get(row["id"], row["state"]) == row["state"]
        if ends:
            self.ended[row["id"]] = row["state"]
            assert row["finished_at"] is not None

    def _check_holder(self, row: Any) -> None:
        held = row["holder"] is not None
        assert held == (row["lease_until"] is not None)
        if row["state"] in TERMINAL or row["joined_to"] is not None:
            assert not held
        elif row["state"] in HELD:
            assert held
        if row["cancel_cause"] is not None and row["state"] not in TERMINAL:
            assert held, "somebody is there to end it"

    def _check_joined(self, row: Any, found: dict[str, Any]) -> None:
        if row["joined_to"] is None:
            return
        leader = found[row["joined_to"]]
        assert leader["joined_to"] is None
        assert (row["state"], row["cause"]) == (leader["state"], leader["cause"])


TestLedger = Ledger.TestCase
TestLedger.settings = settings(
    max_examples=40,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
