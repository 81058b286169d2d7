"""A resolution from what SQL holds, with a Hub that nobody listens at."""

from collections.abc import Iterator

import pytest

from tests.unit.lineages import QWEN2_1B, model
from tests.unit.repositories import ref_of
from warmrack_store.database import Database, migrate
from warmrack_store.errors import HubUnavailable, OfflineMiss, WontFit
from warmrack_store.facts import RepositoryFacts
from warmrack_store.hub import HubFacts
from warmrack_store.ledgers import names, nodes, resolutions, skeletons
from warmrack_store.refs import ModelRef
from warmrack_store.requests import LoadRequest
from warmrack_store.resolution import Resolution
from warmrack_store.resolving import resolve_request
from warmrack_store.skeleton import LinearShape, Skeleton
from warmrack_store.states import NodeState

NAME = "org/brand-new"
STRANGE = QWEN2_1B | {"model_type": "brand_new", "num_hidden_layers": 1, "vocab_size": 1024}
FACTS = model(NAME, STRANGE)


@pytest.fixture
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    url = f"sqlite:///{tmp_path_factory.mktemp('resolving') / 'warmrack.db'}"
    migrate(url)
    opened = Database(url)
    yield opened
    opened.close()


@pytest.fixture
def hub() -> Iterator[HubFacts]:
    closed = HubFacts("http://127.0.0.1:9", timeout_seconds=0.2)
    yield closed
    closed.close()


def put(database: Database, facts: RepositoryFacts = FACTS) -> None:
    with database.write() as tx:
        resolutions.put_facts(tx, facts)
        names.put_ref(tx, ModelRef(repository=facts.repository), ref_of(facts))


def resolved(database: Database, hub: HubFacts, **fields: object) -> Resolution:
    request = LoadRequest.model_validate({"model": NAME, **fields})
    return resolve_request(database, hub, request, None, versions={})


def test_a_counted_skeleton_takes_the_place_of_the_rule_by_names(
    database: Database, hub: HubFacts
) -> None:
    put(database)
    asked = {"network": "offline", "mode": "optimized", "precision": "nf4"}
    guessed = resolved(database, hub, **asked)
    assert guessed.memory.notes
    assert set(guessed.memory.notes) <= set(guessed.warnings)
    plain = LinearShape(in_features=1536, out_features=1536, count=1, quantizable=True)
    skeleton = Skeleton(
        architecture="Qwen2ForCausalLM", library="x 1", linears=(plain,), other_elements=1000
    )
    with database.write() as tx:
        skeletons.put_skeleton(tx, STRANGE, skeleton)
    counted = resolved(database, hub, **asked)
    assert counted.memory.notes == ()
    assert counted.memory.weights_bytes == 1536 * 1536 // 2 + 1000 * 2


def test_the_facts_are_stored_without_the_skeleton(database: Database) -> None:
    skeleton = Skeleton(architecture="A", library="x 1", linears=(), other_elements=1)
    put(database, FACTS.model_copy(update={"skeleton": skeleton}))
    with database.read() as tx:
        found = resolutions.find_facts(tx, NAME, FACTS.commit)
    assert found == FACTS


def test_cached_first_asks_for_the_right_to_what_is_not_public(
    database: Database, hub: HubFacts
) -> None:
    gated = FACTS.model_copy(update={"gated": True})
    put(database, gated)
    with pytest.raises(HubUnavailable):
        resolved(database, hub, network="cached_first")
    with pytest.raises(OfflineMiss, match="not public"):
        resolved(database, hub, network="offline")


def test_an_unknown_revision_is_a_miss_when_offline(database: Database, hub: HubFacts) -> None:
    put(database)
    with pytest.raises(OfflineMiss, match="v2") as caught:
        resolved(database, hub, network="offline", revision="v2")
    assert "cache import" in caught.value.hint


@pytest.mark.parametrize("gone", [NodeState.LOST, NodeState.STOPPED])
def test_auto_does_not_count_on_the_devices_of_a_node_that_is_gone(
    database: Database, hub: HubFacts, gone: NodeState
) -> None:
    put(database)
    register(database, "small", budget_bytes=16 * 2**20)
    epoch = register(database, "large", budget_bytes=2**40)
    asked = {"network": "offline", "mode": "auto"}
    assert resolved(database, hub, **asked).precision == "bf16"
    with database.write() as tx:
        nodes.set_state(tx, "large", gone, epoch=epoch)
    with pytest.raises(WontFit, match="fits the pool"):
        resolved(database, hub, **asked)


def register(database: Database, name: str, *, budget_bytes: int) -> int:
    with database.write() as tx:
        return nodes.register(
            tx,
            name,
            url=None,
            mirror_url=None,
            machine=name,
            store=f"store-{name}",
            devices=[{"name": "cpu:0", "budget_bytes": budget_bytes}],
            labels={},
            tasks={},
            versions={},
            pid=1,
        )


def test_a_private_repository_with_the_same_weights_is_never_named(
    database: Database, hub: HubFacts
) -> None:
    put(database)
    put(database, FACTS.model_copy(update={"repository": "org/open-copy"}))
    put(database, FACTS.model_copy(update={"repository": "org/secret-copy", "private": True}))
    found = resolved(database, hub, network="offline", mode="equivalent", publishers=["*"])
    assert "org/open-copy" in str(found)
    assert "secret" not in str(found)


def test_an_equal_repository_that_has_been_closed_since_is_not_named(
    database: Database, hub: HubFacts
) -> None:
    put(database)
    copy = FACTS.model_copy(update={"repository": "org/closed-copy"})
    put(database, copy)
    with database.write() as tx:
        names.put_ref(
            tx,
            ModelRef(repository="org/closed-copy"),
            ref_of(copy.model_copy(update={"private": True})),
        )
    assert "closed" not in str(
        resolved(database, hub, network="offline", mode="equivalent", publishers=["*"])
    )
