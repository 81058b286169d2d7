"""The line of those who fetch one file, and one fetch's place in it, on real databases."""

from collections.abc import Sequence
from dataclasses import replace

from tests.services.stores import Store
from warmrack_store.database import Database
from warmrack_store.ledgers import arrivals, copies, nodes
from warmrack_store.ledgers.arrivals import Arrival
from warmrack_workers.fetch.chain_place import ChainPlace, Fetching, source_name

_DIGEST, _OTHER = "a" * 64, "b" * 64
_REPOSITORY, _COMMIT = "org/name", "c" * 40
_FETCHING = Fetching(
    repository=_REPOSITORY,
    commit=_COMMIT,
    digests=frozenset({_DIGEST, _OTHER}),
    holder="n1:job",
    node="n1",
    store="s1",
    ttl_seconds=6.0,
)


def _register(database: Database, *names: str) -> None:
    for name in names:
        with database.write() as tx:
            nodes.register(
                tx,
                name,
                url="http://127.0.0.1:1",
                mirror_url="http://127.0.0.1:2",
                machine="m",
                store=name.replace("n", "s"),
                devices=[],
                labels={},
                tasks={},
                versions={},
                pid=1,
            )


def _fetching(node: str) -> Fetching:
    store = node.replace("n", "s")
    return replace(_FETCHING, node=node, store=store, holder=f"{node}:job")


def _place(database: Database, node: str) -> ChainPlace:
    return ChainPlace(database, _fetching(node), hub="hub")


def _list(database: Database) -> Sequence[Arrival]:
    with database.read() as tx:
        return arrivals.list_arrivals(tx, _REPOSITORY)


def test_each_who_joins_stands_behind_all_others(store: Store) -> None:
    for node in ("n1", "n2"):
        with store.database.write() as tx:
            arrivals.join(
                tx,
                repository=_REPOSITORY,
                digests=[_DIGEST],
                holder=node,
                node=node,
                store=node,
                ttl_seconds=5,
            )
    assert [(one.node, one.epoch) for one in _list(store.database)] == [("n1", 1), ("n2", 2)]
    store.pass_time(6)
    assert not _list(store.database), "who does not renew is no longer there"
    with store.database.write() as tx:
        assert arrivals.renew(tx, repository=_REPOSITORY, holder="n2", ttl_seconds=5)
    assert [one.node for one in _list(store.database)] == ["n2"]


def test_one_fetch_reads_the_hub_and_the_next_reads_from_it(store: Store) -> None:
    database = store.database
    _register(database, "n1", "n2")
    first, second = _place(database, "n1"), _place(database, "n2")
    with first.taken():
        assert first.choose(_DIGEST, True) == first.choose(_OTHER, True) == "hub"
        with second.taken():
            assert second.choose(_DIGEST, True) == source_name("n1")
            noted = {one.node: one.upstream for one in _list(database)}
            assert noted == {"n1": None, "n2": "n1"}
    assert not _list(database)


def test_hub_is_left_to_who_holds_the_claim_though_no_peer_is_left(store: Store) -> None:
    database = store.database
    _register(database, "n1", "n2")
    first, second = _place(database, "n1"), _place(database, "n2")
    with second.taken():
        with first.taken():
            assert first.choose(_DIGEST, True) == source_name("n2")
            first.note_trouble("n2")
            assert first.choose(_DIGEST, True) is None
            first.look()
            assert first.choose(_DIGEST, True) is None, "the claim is the second's"
        assert second.choose(_DIGEST, True) == "hub"


def test_claim_of_a_fetch_that_died_goes_to_the_next_once_its_time_is_over(store: Store) -> None:
    database = store.database
    _register(database, "n1", "n2")
    dead = _place(database, "n1").taken()
    dead.__enter__()
    second = _place(database, "n2")
    with second.taken():
        second.note_trouble("n1")
        second.look()
        assert second.choose(_DIGEST, True) is None
        store.pass_time(7)
        second.note_trouble("n1")
        second.look()
        assert second.choose(_DIGEST, True) == "hub"


def test_liar_is_never_chosen_again_and_a_distrusted_file_comes_from_the_hub(
    store: Store,
) -> None:
    database = store.database
    _register(database, "n1", "n2")
    with database.write() as tx:
        copies.put_copy(
            tx,
            store="s2",
            repository=_REPOSITORY,
            commit=_COMMIT,
            selection="x",
            complete=True,
            files=[{"digest": _DIGEST}, {"digest": _OTHER}],
        )
    place = _place(database, "n1")
    with place.taken():
        assert place.choose(_DIGEST, True) == source_name("n2")
        assert place.choose(_OTHER, False) == source_name("n2"), "until it has looked again"
        place.note_trouble("n9")
        place.look()
        assert place.choose(_OTHER, False) == "hub"
        place.note_liar("n2")
        place.look()
        assert place.choose(_DIGEST, True) == "hub"
