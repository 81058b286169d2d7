"""The agent's heartbeat, turned by hand on real rows."""

from tests.services.stores import Store
from tests.services.submitted import LEASE_SECONDS, claimed, look, submit
from warmrack_store.database import Database
from warmrack_store.ledgers import deadlines
from warmrack_workers.activity import Activities, Activity
from warmrack_workers.heart import Heart


def make_heart(database: Database, activities: Activities, *, epoch: int = 1) -> Heart:
    return Heart(
        database=database,
        node="n0",
        epoch=epoch,
        holder="h0",
        lease_seconds=LEASE_SECONDS,
        activities=activities,
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
