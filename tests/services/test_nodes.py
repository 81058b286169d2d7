"""The nodes' rows: who is there, under which epoch, and since when silent."""

from typing import Any

import pytest

from tests.services.residing import put_resident
from tests.services.stores import Store
from warmrack_store.database import Database
from warmrack_store.ledgers import nodes, residents
from warmrack_store.states import NodeState


def register(database: Database, name: str = "n0", **fields: Any) -> int:
    usual: dict[str, Any] = {
        "machine": "m0",
        "store": "s0",
        "devices": [{"name": "cpu:0", "kind": "cpu", "budget_bytes": 10}],
        "labels": {"rack": "1"},
        "tasks": {},
        "versions": {},
        "pid": 1,
    }
    with database.write() as tx:
        return nodes.register(tx, name, **(usual | fields))


def get(database: Database, name: str = "n0") -> nodes.Node:
    with database.read() as tx:
        node = nodes.find_node(tx, name)
    assert node is not None
    return node


def test_each_start_of_an_agent_is_a_new_epoch_with_what_it_says_now(database: Database) -> None:
    assert register(database) == 1
    assert register(database, pid=2, labels={}) == 2
    assert (get(database).epoch, get(database).pid, get(database).labels) == (2, 2, {})
    assert get(database).state is NodeState.READY


def test_an_agent_that_was_replaced_is_told_so_by_its_next_beat(database: Database) -> None:
    old, new = register(database), register(database)
    with database.write() as tx:
        assert not nodes.heartbeat(tx, "n0", old)
        assert nodes.heartbeat(tx, "n0", new)
        assert not nodes.set_state(tx, "n0", NodeState.STOPPED, epoch=old)
    assert get(database).state is NodeState.READY


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (NodeState.UNREACHABLE, NodeState.READY),
        (NodeState.LOST, NodeState.READY),
        (NodeState.DRAINING, NodeState.DRAINING),
        (NodeState.READY, NodeState.READY),
    ],
)
def test_a_beat_brings_a_silent_node_back_and_leaves_a_draining_one(
    database: Database, before: NodeState, after: NodeState
) -> None:
    epoch = register(database)
    with database.write() as tx:
        nodes.set_state(tx, "n0", before)
        nodes.heartbeat(tx, "n0", epoch)
    assert get(database).state is after


@pytest.mark.parametrize("silent", [NodeState.UNREACHABLE, NodeState.LOST])
def test_a_draining_node_that_was_silent_comes_back_draining(
    database: Database, silent: NodeState
) -> None:
    epoch = register(database)
    with database.write() as tx:
        nodes.set_state(tx, "n0", NodeState.DRAINING)
        nodes.set_state(tx, "n0", silent)
        nodes.heartbeat(tx, "n0", epoch)
    assert get(database).state is NodeState.DRAINING
    register(database)
    assert get(database).state is NodeState.READY


def test_silence_is_counted_from_the_last_beat(store: Store) -> None:
    epoch = register(store.database)
    store.pass_time(5)
    with store.database.write() as tx:
        assert [n.name for n in nodes.list_silent(tx, state=NodeState.READY, seconds=4)] == ["n0"]
        assert nodes.list_silent(tx, state=NodeState.LOST, seconds=4) == []
        nodes.heartbeat(tx, "n0", epoch)
        assert nodes.list_silent(tx, state=NodeState.READY, seconds=4) == []


def test_devices_of_a_machine_are_counted_over_its_nodes_that_are_there(
    database: Database,
) -> None:
    register(database, "n0")
    register(database, "n1")
    register(database, "gone")
    register(database, "elsewhere", machine="m1")
    with database.write() as tx:
        nodes.set_state(tx, "gone", NodeState.STOPPED)
        assert nodes.count_devices(tx, "cpu", "m0") == 2
        assert nodes.count_devices(tx, "cuda", "m0") == 0
        assert [node.name for node in nodes.list_nodes(tx)] == ["elsewhere", "gone", "n0", "n1"]


def test_the_goodbye_of_a_replaced_agent_changes_nothing(database: Database) -> None:
    old = register(database)
    put_resident(database, "n0")
    new = register(database)
    with database.write() as tx:
        assert not nodes.say_goodbye(tx, "n0", old)
        assert residents.write_off(tx, "n0", "node-lost", epoch=old) == 0
        assert len(residents.list_live(tx, node="n0")) == 1
    assert get(database).state is NodeState.READY
    with database.write() as tx:
        assert nodes.say_goodbye(tx, "n0", new)
        assert residents.list_live(tx, node="n0") == []
    assert get(database).state is NodeState.STOPPED
