"""Which node a model goes to, and what is said of the others."""

from typing import Any

import pytest

from warmrack_store.errors import NodeNotFound, Transient, WontFit
from warmrack_store.placement import DeviceView, Need, NodeView, Rates, plan_placement
from warmrack_store.states import NodeState

GIB = 2**30
NEED = Need(size_bytes=2 * GIB, memory_bytes=3 * GIB)
RATES = Rates()


def node(name: str, *, budget_gib: int = 4, used_gib: int = 0, **fields: Any) -> NodeView:
    device = DeviceView(name="cpu:0", budget_bytes=budget_gib * GIB, used_bytes=used_gib * GIB)
    return NodeView(name=name, devices=(device,), **fields)


def chosen(*nodes: NodeView, need: Need = NEED) -> str:
    return plan_placement(need, nodes, RATES).node


def test_warm_comes_before_loading_before_disk_before_hub() -> None:
    ways = [
        node("d", warm_resident=True),
        node("c", loading_resident=True, has_snapshot=True),
        node("b", has_snapshot=True),
        node("a"),
    ]
    order = []
    while ways:
        order.append(chosen(*ways))
        ways = [view for view in ways if view.name != order[-1]]
    assert order == ["d", "c", "b", "a"]


def test_a_warm_model_is_chosen_however_long_the_queue() -> None:
    assert (
        chosen(node("a", has_snapshot=True), node("b", warm_resident=True, queued_jobs=99)) == "b"
    )


def test_of_two_warm_nodes_the_less_busy_one_is_chosen() -> None:
    nodes = (node("a", warm_resident=True, queued_jobs=2), node("b", warm_resident=True))
    assert chosen(*nodes) == "b"


def test_what_is_partly_here_need_not_come_from_the_hub_again() -> None:
    assert chosen(node("a", cached_fraction=0.2), node("b", cached_fraction=0.9)) == "b"


def test_equal_nodes_are_chosen_by_queue_then_by_name() -> None:
    assert chosen(node("b"), node("a")) == "a"
    assert chosen(node("b"), node("a", queued_jobs=1)) == "b"


def test_a_node_with_room_comes_before_one_that_must_evict() -> None:
    assert chosen(node("a", has_snapshot=True, used_gib=3), node("b", has_snapshot=True)) == "b"


def test_a_long_queue_costs_more_than_a_short_download() -> None:
    small = Need(size_bytes=10**8, memory_bytes=GIB)
    assert chosen(node("a", has_snapshot=True, queued_jobs=5), node("b"), need=small) == "b"


def test_every_node_not_chosen_is_named_with_its_reason() -> None:
    placed = plan_placement(
        NEED,
        [
            node("fast", has_snapshot=True),
            node("slow"),
            node("small", budget_gib=2),
            node("leaving", state=NodeState.DRAINING),
        ],
        RATES,
    )
    codes = {alternative.node: alternative.code for alternative in placed.alternatives}
    assert placed.node == "fast"
    assert codes == {"slow": "slower", "small": "wont-fit", "leaving": "node-draining"}


def test_only_the_named_nodes_are_considered() -> None:
    need = Need(size_bytes=GIB, memory_bytes=GIB, nodes=("b",))
    placed = plan_placement(need, [node("a", warm_resident=True), node("b")], RATES)
    assert placed.node == "b"
    assert [(other.node, other.code) for other in placed.alternatives] == [("a", "not-named")]


def test_a_named_node_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(NodeNotFound, match="'b'"):
        chosen(node("a"), need=Need(size_bytes=1, memory_bytes=1, nodes=("b",)))


def test_a_model_larger_than_every_device_is_refused_with_the_numbers() -> None:
    with pytest.raises(WontFit, match=r"a: needs 3\.0 GiB, .* 2\.0 GiB"):
        chosen(node("a", budget_gib=2), node("b", budget_gib=1, state=NodeState.DRAINING))


def test_a_node_without_devices_holds_nothing() -> None:
    with pytest.raises(WontFit, match="no device"):
        chosen(NodeView(name="a", devices=()), need=Need(size_bytes=0, memory_bytes=0))


def test_a_node_that_could_hold_it_but_is_away_is_waited_for() -> None:
    with pytest.raises(Transient, match="b: the node is unreachable"):
        chosen(node("a", budget_gib=2), node("b", state=NodeState.UNREACHABLE))
    with pytest.raises(Transient, match="empty"):
        chosen()


def test_a_prefetch_needs_no_device() -> None:
    need = Need(size_bytes=GIB, memory_bytes=None)
    assert chosen(NodeView(name="a", devices=()), need=need) == "a"


def test_a_prefetch_goes_where_the_files_are_even_if_a_model_is_warm_elsewhere() -> None:
    need = Need(size_bytes=GIB, memory_bytes=None)
    held = node("b", has_snapshot=True)
    assert chosen(node("a", cached_fraction=0.5), held, need=need) == "b"


def pinned_node(name: str, **fields: Any) -> NodeView:
    device = DeviceView(
        name="cpu:0",
        budget_bytes=4 * GIB,
        used_bytes=2 * GIB,
        pinned_bytes=2 * GIB,
        pinned=("m_pin",),
    )
    return NodeView(name=name, devices=(device,), **fields)


def test_bytes_of_pinned_residents_cannot_be_freed() -> None:
    assert chosen(pinned_node("a", has_snapshot=True), node("b", used_gib=4)) == "b"
    with pytest.raises(WontFit, match="m_pin pinned there leaves less"):
        chosen(pinned_node("a"))
    assert chosen(pinned_node("a", warm_resident=True)) == "a"


def test_a_node_whose_disk_cannot_take_the_files_is_passed_over() -> None:
    assert chosen(node("a", disk_room_bytes=GIB), node("b", queued_jobs=9)) == "b"
    assert chosen(node("a", disk_room_bytes=GIB, has_snapshot=True), node("b")) == "a"
    assert chosen(node("a", disk_room_bytes=GIB, cached_fraction=0.5), node("b")) == "a"


def test_where_every_disk_is_full_the_node_itself_says_what_holds_it() -> None:
    assert chosen(node("a", disk_room_bytes=0, queued_jobs=1), node("b", disk_room_bytes=0)) == "b"
