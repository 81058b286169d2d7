"""The copies' rows: what lies where, and how far it is."""

from typing import Any

from tests.services.stores import Store
from warmrack_store.database import Database
from warmrack_store.ledgers import copies

COMMIT = "0" * 40


def put(database: Database, *, store: str = "s0", selection: str = "all", **fields: Any) -> None:
    with database.write() as tx:
        copies.put_copy(
            tx, store=store, repository="org/name", commit=COMMIT, selection=selection, **fields
        )


def get(database: Database, store: str = "s0", selection: str = "all") -> copies.Copy:
    with database.read() as tx:
        found = copies.find_copy(
            tx, store=store, repository="org/name", commit=COMMIT, selection=selection
        )
    assert found is not None
    return found


def test_what_is_not_given_keeps_what_it_holds(database: Database) -> None:
    put(database, bytes_total=100)
    put(database, bytes_done=40)
    put(database, complete=True, files=[{"path": "config.json"}])
    copy = get(database)
    assert (copy.bytes_done, copy.bytes_total, copy.complete) == (40, 100, True)
    assert copy.files == [{"path": "config.json"}]


def test_selections_and_stores_are_copies_of_their_own(database: Database) -> None:
    put(database, complete=True)
    put(database, selection="some")
    put(database, store="s1")
    assert not get(database, selection="some").complete
    with database.read() as tx:
        assert len(copies.list_copies_of(tx, "org/name", COMMIT)) == 3
        assert [(c.store, c.selection) for c in copies.list_copies(tx)] == [
            ("s0", "all"),
            ("s0", "some"),
            ("s1", "all"),
        ]
        assert copies.list_copies_of(tx, "org/name", "1" * 40) == []


def test_a_damaged_snapshot_is_incomplete_in_all_its_selections_of_that_store(
    database: Database,
) -> None:
    for where in ({}, {"selection": "some"}, {"store": "s1"}):
        put(database, complete=True, files=[{"path": "x"}], **where)
    with database.write() as tx:
        copies.forget_completeness(tx, store="s0", repository="org/name", commit=COMMIT)
    assert [get(database).complete, get(database, selection="some").complete] == [False, False]
    assert get(database).files == []
    assert get(database, store="s1").complete


def test_a_use_is_noted_by_the_databases_clock(store: Store) -> None:
    put(store.database)
    before = get(store.database)
    store.pass_time(100)
    with store.database.write() as tx:
        copies.touch(tx, before)
        now = tx.now
    after = get(store.database)
    assert abs(after.last_used_at - now) < 1
    assert after.last_used_at - after.updated_at > 90


def test_a_snapshots_claim_has_one_name_by_store_and_commit() -> None:
    names = {
        copies.subject("s0", "org/name", COMMIT),
        copies.subject("s1", "org/name", COMMIT),
        copies.subject("s0", "org/name", "1" * 40),
    }
    assert len(names) == 3
