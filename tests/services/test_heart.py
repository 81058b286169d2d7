"""The agent's heartbeat, turned by hand on real rows."""

from collections.abc import Callable

from tests.services.stores import Store
from tests.services.submitted import LEASE_SECONDS, claimed, look, submit
from tests.services.test_nodes import register
from warmrack_store.database import Database
from warmrack_store.ledgers import deadlines
from warmrack_workers.activity import Activities, Activity
from warmrack_workers.heart import Heart


def make_heart(
    database: Database,
    activities: Activities,
    *,
    epoch: int = 1,
    on_taken: Callable[[], None] = lambda: None,
) -> Heart:
    return Heart(
        database=database,
        node="n0",
        epoch=epoch,
        holder="h0",
        lease_seconds=LEASE_SECONDS,
        activities=activities,
        on_taken=on_taken,
    )


def test_a_claim_that_nobody_works_on_runs_out_on_a_busy_node(store: Store) -> None:
    for model in ("org/ended", "org/busy"):
        submit(store.database, model)
    ended, busy = [Activity(claim=claimed(store.database, holder="h0")) for _ in range(2)]
    activities = Activities()
    for activity in (ended, busy):
        activities.add(activity)
    activities.remove(ended)  # its end could not be stored: the row keeps its holder
    heart = make_heart(store.database, activities)
    store.pass_time(LEASE_SECONDS - 5)
    heart.renew()
    store.pass_time(10)
    with store.database.read() as tx:
        lost = [job.id for job in deadlines.list_expired_leases(tx)]
    assert lost == [ended.claim.job_id]
    assert look(store.database, busy.claim.job_id).holder == "h0"


def test_an_agent_hears_that_another_one_has_its_nodes_name(database: Database) -> None:
    told: list[str] = []
    epoch = register(database)
    heart = make_heart(database, Activities(), epoch=epoch, on_taken=lambda: told.append("taken"))
    heart.beat()
    assert told == []
    register(database)
    heart.beat()
    assert told == ["taken"]
