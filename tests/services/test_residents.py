"""The residents' rows: found, asked to drain, pinned and written off."""

from typing import Any

import pytest

from warmrack_store.database import Database
from warmrack_store.errors import ResidentNotFound
from warmrack_store.ledgers import residents
from warmrack_store.states import ResidentState


def put(database: Database, resident_id: str, **fields: Any) -> None:
    usual: dict[str, Any] = {
        "id": resident_id,
        "state": ResidentState.WARM,
        "cache_key": "key",
        "resolution_id": "res_1",
        "repository": "Org/Name",
        "commit": "0" * 40,
        "precision": "fp32",
        "node": "n0",
        "node_epoch": 1,
        "device": "cpu:0",
        "charged_bytes": 2**40,
        "pinned": False,
        "keep_alive_seconds": 600.0,
    }
    with database.write() as tx:
        residents.insert_resident(tx, usual | fields)


def test_the_least_busy_warm_one_is_found(database: Database) -> None:
    put(database, "busy", in_flight=3)
    put(database, "free", in_flight=1)
    put(database, "loading", state=ResidentState.LOADING)
    put(database, "other", cache_key="another")
    put(database, "leaving")
    with database.write() as tx:
        residents.request_drain(tx, "leaving")
        found = residents.find_warm(tx, "key")
        assert found is not None
        assert found.id == "free"
        assert residents.find_warm(tx, "unknown") is None


def test_a_name_is_an_id_or_a_repository_in_any_case_and_at_any_revision(
    database: Database,
) -> None:
    put(database, "r1")
    put(database, "r2")
    put(database, "r3", repository="org/other")
    with database.read() as tx:
        for name in ("org/name", "ORG/NAME", "org/name@main"):
            assert [one.id for one in residents.list_named(tx, name)] == ["r1", "r2"]
        assert [one.id for one in residents.list_named(tx, "r3")] == ["r3"]
        for name in ("", "org", "org/n%", "../..", "x" * 10_000, "a\0b"):
            with pytest.raises(ResidentNotFound):
                residents.list_named(tx, name)


def test_what_is_gone_is_not_listed_and_never_comes_back(database: Database) -> None:
    put(database, "r1")
    put(database, "r2", node="n1")
    with database.write() as tx:
        assert residents.write_off(tx, "n0", "node-lost", epoch=1) == 1
        assert residents.write_off(tx, "n0", "again", epoch=1) == 0
        assert not residents.update_resident(tx, "r1", state=ResidentState.WARM)
        assert [one.id for one in residents.list_live(tx)] == ["r2"]
        assert residents.list_live(tx, node="n0") == []
        gone = residents.find_resident(tx, "r1")
    assert gone is not None
    assert (gone.state, gone.cause) == (ResidentState.GONE, "node-lost")


def test_marks_for_the_loop_are_kept_in_the_row(database: Database) -> None:
    put(database, "r1")
    with database.write() as tx:
        residents.set_pinned(tx, "r1", True)
        residents.request_drain(tx, "r1")
    with database.read() as tx:
        found = residents.find_resident(tx, "r1")
    assert found is not None
    assert (found.pinned, found.drain_requested, found.charged_bytes) == (True, True, 2**40)
