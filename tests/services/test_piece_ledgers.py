"""The digests of pieces, and the pause that a Hub asked for, on each database."""

from tests.services.stores import Store
from warmrack_store.ledgers import hub_waits, pieces

HUB = "https://hub.example"


def test_pieces_come_back_by_index_and_from_where_they_are_asked_for(store: Store) -> None:
    with store.database.write() as tx:
        pieces.put_pieces(tx, "a" * 64, {1: "one", 0: "zero"})
        pieces.put_pieces(tx, "a" * 64, {2: "two"})
        pieces.put_pieces(tx, "b" * 64, {0: "other"})
        pieces.put_pieces(tx, "b" * 64, {})
    with store.database.read() as tx:
        assert pieces.list_pieces(tx, "a" * 64) == {0: "zero", 1: "one", 2: "two"}
        assert pieces.list_pieces(tx, "a" * 64, first=2) == {2: "two"}


def test_a_piece_that_is_read_anew_replaces_the_old_one_and_all_can_be_forgotten(
    store: Store,
) -> None:
    with store.database.write() as tx:
        pieces.put_pieces(tx, "a" * 64, {0: "zero", 1: "one"})
        pieces.put_pieces(tx, "a" * 64, {0: "anew"})
        assert pieces.list_pieces(tx, "a" * 64) == {0: "anew", 1: "one"}
        pieces.forget_pieces(tx, "a" * 64)
        assert pieces.list_pieces(tx, "a" * 64) == {}


def test_the_longest_pause_counts_and_ends_by_itself(store: Store) -> None:
    with store.database.write() as tx:
        assert hub_waits.get_wait_seconds(tx, HUB) == 0.0
        hub_waits.put_wait(tx, HUB, 30.0)
        hub_waits.put_wait(tx, HUB, 5.0)
        assert 25.0 < hub_waits.get_wait_seconds(tx, HUB) <= 30.0
        assert hub_waits.get_wait_seconds(tx, "https://other.example") == 0.0
    store.pass_time(31.0)
    with store.database.read() as tx:
        assert hub_waits.get_wait_seconds(tx, HUB) == 0.0
