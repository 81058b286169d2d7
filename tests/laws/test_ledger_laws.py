"""Whatever happens to jobs in whatever order, the ledger keeps its promises."""

from collections import Counter, defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.services.stores import Store, make_sqlite_template, sqlite_store
from tests.services.submitted import new_job
from warmrack_store.database import Transaction
from warmrack_store.errors import Cancelled, Expired, HubUnavailable, Timeout
from warmrack_store.ledgers import cancels, claims, deadlines, jobs
from warmrack_store.ledgers.claims import Claim
from warmrack_store.ledgers.moves import LostClaim
from warmrack_store.schema import job_events, secrets
from warmrack_store.schema import jobs as rows
from warmrack_store.states import HELD, TERMINAL, JobState

NODES = ("n0", "n1")
MIRRORED = ("state", "cause", "node", "resolution_id", "bytes_done", "bytes_total")
_LEASE_SECONDS = 6.0
_DEATHS = 3
_NEXT = {
    JobState.RESOLVING: JobState.PLACED,
    JobState.PLACED: JobState.FETCHING,
    JobState.FETCHING: JobState.LOADING,
    JobState.LOADING: JobState.RUNNING,
}


class Ledger:
    """Clients, workers that work, stop, die or come back late, a reconciler, and time."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.database = store.database
        self.job_ids: list[str] = []
        self.claims: list[Claim] = []
        self.ended: dict[str, str] = {}

    def submit(self, number: int) -> None:
        new = new_job(
            "org/b" if number % 4 == 0 else "org/a",
            priority=("interactive", "background")[number % 2],
            nodes="n1" if number % 5 == 0 else None,
            token=b"t" if number % 3 == 0 else None,
        )
        with self.database.write() as tx:
            self.job_ids.append(jobs.submit_job(tx, new).id)

    def claim(self, number: int) -> None:
        node = NODES[number % 2]
        with self.database.write() as tx:
            found = claims.claim_next(tx, node=node, holder=node, lease_seconds=_LEASE_SECONDS)
        if found is not None:
            epochs = [held.epoch for held in self.claims if held.job_id == found[0].job_id]
            assert max(epochs, default=0) < found[0].epoch, "a fence only ever rises"
            self.claims.append(found[0])

    def work(self, number: int) -> None:
        """A worker goes on with one of its claims, mostly a late one; a lost one changes nothing."""
        if not self.claims:
            return
        kinds = (_advance, _advance, _hand_over, _give_back, _retry, _finish, _report)
        held = self.claims[-1 - (number // 8) % min(3, len(self.claims))]
        before = self.look()
        row = before[held.job_id]
        holds = (row["holder"], row["epoch"]) == (held.holder, held.epoch)
        try:
            with self.database.write() as tx:
                kinds[number % len(kinds)](tx, held)
        except LostClaim:
            assert not holds
            assert self.look() == before
        else:
            assert holds, "a claim that was lost did something"

    def look(self) -> dict[str, Any]:
        with self.database.read() as tx:
            return {row["id"]: row for row in tx.list(sa.select(rows))}

    def cancel(self, number: int) -> None:
        if not self.job_ids:
            return
        kind = (Cancelled, Timeout, Expired)[number % 3]
        with self.database.write() as tx:
            cancels.request_cancel(tx, self.job_ids[number % len(self.job_ids)], kind("enough"))

    def lose_node(self, number: int) -> None:
        with self.database.write() as tx:
            deadlines.release_from_node(tx, NODES[number % 2])

    def wait(self, number: int) -> None:
        self.store.pass_time((1.0, _LEASE_SECONDS + 1, 60.0)[number % 3])

    def reconcile(self, _number: int) -> None:
        with self.database.read() as tx:
            lost = deadlines.list_expired_leases(tx)
        for job in lost:
            with self.database.write() as tx:
                deadlines.requeue_lost(tx, job, max_load_deaths=_DEATHS)

    def promises_hold(self) -> None:
        found = self.look()
        with self.database.read() as tx:
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
        for name in MIRRORED:
            assert row[name] == leader[name], name


def _advance(tx: Transaction, held: Claim) -> None:
    state = _NEXT.get(claims.get_held(tx, held).state)
    if state is not None:
        placed: dict[str, Any] = {"target_node": held.holder, "resolution_id": "res_1"}
        claims.move(tx, held, state, **(placed if state is JobState.PLACED else {}))


def _hand_over(tx: Transaction, held: Claim) -> None:
    if claims.get_held(tx, held).state in (JobState.RESOLVING, JobState.PLACED):
        other = NODES[1 - NODES.index(held.holder)]
        claims.hand_over(tx, held, other, resolution_id="res_1")


def _give_back(tx: Transaction, held: Claim) -> None:
    claims.give_back(tx, held, "worker-stopped")


def _retry(tx: Transaction, held: Claim) -> None:
    claims.retry_later(tx, held, HubUnavailable("502"), 2.0)


def _finish(tx: Transaction, held: Claim) -> None:
    claims.finish(tx, held, JobState.SUCCEEDED)


def _report(tx: Transaction, held: Claim) -> None:
    done = claims.get_held(tx, held).bytes_done + 1
    claims.report_progress(tx, held, bytes_done=done, bytes_total=100)


WEIGHTS = {
    "wait": 1,
    "submit": 5,
    "claim": 4,
    "work": 6,
    "cancel": 3,
    "reconcile": 1,
    "lose_node": 1,
}
steps = st.lists(
    st.tuples(
        st.sampled_from([name for name, weight in WEIGHTS.items() for _ in range(weight)]),
        st.integers(0, 63),
    ),
    min_size=20,
    max_size=40,
)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sqlite_template(tmp_path_factory.mktemp("template"))


@settings(
    max_examples=70,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=set(Phase) - {Phase.shrink},  # it would take minutes; a list of 40 steps can be read
)
@given(steps=steps)
def test_any_interleaving_keeps_the_promises(template: Path, steps: list[tuple[str, int]]) -> None:
    with (
        TemporaryDirectory(prefix="wr-law-") as folder,
        sqlite_store(Path(folder), template) as store,
    ):
        ledger = Ledger(store)
        for name, number in steps:
            getattr(ledger, name)(number)
            ledger.promises_hold()
