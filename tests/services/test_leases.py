"""Leases on subjects: one holder at a time, and a higher epoch for each new one."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import sqlalchemy as sa

from tests.services.stores import Store
from warmrack_store.database import Database
from warmrack_store.ledgers import leases
from warmrack_store.ledgers.leases import Lease
from warmrack_store.schema import leases as table

TTL_SECONDS = 6.0


def acquire(database: Database, holder: str, subject: str = "snapshot:x") -> Lease | None:
    with database.write() as tx:
        return leases.acquire(
            tx, subject=subject, kind="snapshot", holder=holder, ttl_seconds=TTL_SECONDS
        )


def acquired(database: Database, holder: str) -> Lease:
    lease = acquire(database, holder)
    assert lease is not None
    return lease


def holder_of(database: Database, subject: str = "snapshot:x") -> str | None:
    with database.read() as tx:
        row = tx.find(sa.select(table).where(table.c.subject == subject, table.c.until >= tx.now))
    return row["holder"] if row else None


def test_a_held_subject_is_refused_to_others_and_renewed_by_its_holder(store: Store) -> None:
    first = acquired(store.database, "a")
    assert acquire(store.database, "b") is None
    store.pass_time(TTL_SECONDS - 1)
    assert acquired(store.database, "a").epoch == first.epoch
    store.pass_time(TTL_SECONDS - 1)
    assert holder_of(store.database) == "a"


def test_a_lapsed_lease_goes_to_the_next_under_a_new_epoch(store: Store) -> None:
    first = acquired(store.database, "a")
    store.pass_time(TTL_SECONDS + 1)
    assert holder_of(store.database) is None
    second = acquired(store.database, "b")
    assert second.epoch > first.epoch
    with store.database.write() as tx:
        assert not leases.renew(tx, first, TTL_SECONDS)
        assert leases.renew(tx, second, TTL_SECONDS)
        leases.release(tx, first)
    assert holder_of(store.database) == "b", "the late holder lets nothing go"


def test_the_same_holder_after_a_lapse_gets_a_new_epoch_too(store: Store) -> None:
    first = acquired(store.database, "a")
    store.pass_time(TTL_SECONDS + 1)
    assert acquired(store.database, "a").epoch > first.epoch


def test_a_released_lease_is_free_at_once_and_its_epoch_is_spent(database: Database) -> None:
    first = acquired(database, "a")
    with database.write() as tx:
        leases.release(tx, first)
        assert not leases.renew(tx, first, TTL_SECONDS)
    assert acquired(database, "b").epoch > first.epoch


def test_of_many_threads_one_gets_the_lease(database: Database) -> None:
    together = Barrier(8)

    def run(number: int) -> bool:
        together.wait()
        return acquire(database, f"h{number}") is not None

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(run, range(8))) == 1
