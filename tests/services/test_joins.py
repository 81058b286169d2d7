"""What those who wait for one model want of it together."""

from tests.services.submitted import claimed, submit
from warmrack_store.database import Database
from warmrack_store.errors import Cancelled
from warmrack_store.ledgers import cancels
from warmrack_store.ledgers.joins import Wish, get_wish
from warmrack_store.stays import Stay


def wish(database: Database, job_id: str) -> Wish:
    with database.read() as tx:
        return get_wish(tx, job_id, default_keep_alive="10m")


def cancel(database: Database, job_id: str) -> None:
    with database.write() as tx:
        cancels.request_cancel(tx, job_id, Cancelled("not wanted"))


def test_a_job_alone_wants_what_it_says_or_what_the_node_does(database: Database) -> None:
    said = submit(database, keep_alive="0")
    silent = submit(database, "org/other")
    assert wish(database, said.id).stay == Stay(keep_alive_seconds=0.0)
    assert wish(database, silent.id) == Wish(rank=1, stay=Stay(keep_alive_seconds=600.0))


def test_the_longest_stay_and_the_highest_priority_of_all_count(database: Database) -> None:
    leader = submit(database, keep_alive="0", priority="background")
    submit(database, keep_alive="20m", priority="interactive")
    assert wish(database, leader.id) == Wish(rank=0, stay=Stay(keep_alive_seconds=1200.0))
    submit(database, keep_alive="pinned")
    assert wish(database, leader.id).stay == Stay(keep_alive_seconds=1200.0, pinned=True)


def test_a_cancelled_join_no_longer_counts(database: Database) -> None:
    leader = submit(database, keep_alive="0")
    cancel(database, submit(database, keep_alive="pinned").id)
    assert wish(database, leader.id).stay == Stay(keep_alive_seconds=0.0)


def test_who_takes_a_cancelled_leaders_place_keeps_what_the_others_want(database: Database) -> None:
    leader = submit(database, keep_alive="0")
    heir = submit(database, keep_alive="0")
    submit(database, keep_alive="pinned")
    claimed(database)
    cancel(database, leader.id)
    assert wish(database, heir.id).stay.pinned
