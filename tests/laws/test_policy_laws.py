"""Laws that every eviction and every placement policy keeps."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from warmrack_store import eviction, placement
from warmrack_store.errors import NodeNotFound, Transient, WontFit
from warmrack_store.eviction import ResidentView, plan_victims
from warmrack_store.placement import DeviceView, Need, NodeView, Rates, plan_placement
from warmrack_store.states import NodeState

on_a_busy_machine = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
NOW = 100.0

residents = st.lists(
    st.builds(
        ResidentView,
        id=st.uuids().map(str),
        key=st.sampled_from(["a", "b"]),
        device=st.just("cpu:0"),
        size_bytes=st.integers(0, 50),
        last_used_at=st.floats(0, NOW),
        load_seconds=st.floats(0, 60),
        in_flight=st.sampled_from([0, 0, 0, 1]),
        leased_until=st.none() | st.floats(0, 2 * NOW),
        pinned=st.sampled_from([False, False, False, True]),
    ),
    max_size=8,
    unique_by=lambda resident: resident.id,
)
needs = st.builds(
    Need,
    size_bytes=st.integers(0, 10**10),
    memory_bytes=st.none() | st.integers(0, 100),
    nodes=st.sampled_from([(), (), ("n0",), ("n0", "n1")]),
)


@st.composite
def pools(draw: st.DrawFn) -> list[NodeView]:
    device = st.builds(
        DeviceView,
        name=st.sampled_from(["cpu:0", "cpu:1"]),
        budget_bytes=st.integers(0, 120),
        used_bytes=st.integers(0, 120),
    )
    return [
        NodeView(
            name=f"n{number}",
            devices=tuple(draw(st.lists(device, max_size=2))),
            state=draw(st.sampled_from([NodeState.READY, NodeState.READY, NodeState.DRAINING])),
            warm_resident=draw(st.booleans()),
            loading_resident=draw(st.booleans()),
            has_snapshot=draw(st.booleans()),
            cached_fraction=draw(st.floats(0, 1)),
            queued_jobs=draw(st.integers(0, 9)),
        )
        for number in range(draw(st.integers(0, 4)))
    ]


@pytest.mark.parametrize("policy", eviction.POLICIES)
@on_a_busy_machine
@given(residents=residents, needed_bytes=st.integers(0, 120))
def test_a_plan_frees_enough_and_touches_nobody_with_a_right(
    policy: str, residents: list[ResidentView], needed_bytes: int
) -> None:
    plan = plan_victims(policy, needed_bytes, residents, NOW)
    free_to_go = [r for r in residents if r.is_evictable(NOW)]
    if plan is None:
        assert sum(resident.size_bytes for resident in free_to_go) < needed_bytes
        return
    assert sum(victim.size_bytes for victim in plan) >= needed_bytes
    for victim in plan:
        assert victim in free_to_go
        assert not victim.pinned
        assert victim.in_flight == 0
        assert victim.leased_until is None or victim.leased_until <= NOW


@pytest.mark.parametrize("policy", eviction.POLICIES)
@on_a_busy_machine
@given(residents=residents, needed_bytes=st.integers(1, 120))
def test_no_victim_of_a_plan_could_have_stayed(
    policy: str, residents: list[ResidentView], needed_bytes: int
) -> None:
    plan = plan_victims(policy, needed_bytes, residents, NOW) or ()
    freed_bytes = sum(victim.size_bytes for victim in plan)
    assert all(freed_bytes - victim.size_bytes < needed_bytes for victim in plan)


@pytest.mark.parametrize("policy", eviction.POLICIES)
@on_a_busy_machine
@given(residents=residents, needed_bytes=st.integers(0, 120), data=st.data())
def test_the_order_of_the_residents_does_not_change_the_plan(
    policy: str, residents: list[ResidentView], needed_bytes: int, data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(residents))
    first = plan_victims(policy, needed_bytes, residents, NOW)
    assert plan_victims(policy, needed_bytes, shuffled, NOW) == first


@pytest.mark.parametrize("policy", placement.POLICIES)
@on_a_busy_machine
@given(need=needs, pool=pools())
def test_the_node_chosen_is_ready_named_and_large_enough(
    policy: str, need: Need, pool: list[NodeView]
) -> None:
    names = {node.name for node in pool}
    able = [node for node in pool if is_able(need, node)]
    try:
        placed = plan_placement(need, pool, Rates(), policy)
    except NodeNotFound:
        assert set(need.nodes) - names
    except (WontFit, Transient):
        assert not able
    else:
        assert placed.node in {node.name for node in able}
        assert {placed.node, *(other.node for other in placed.alternatives)} == names
        assert len(placed.alternatives) == len(pool) - 1


def is_able(need: Need, node: NodeView) -> bool:
    named = not need.nodes or node.name in need.nodes
    fits = need.memory_bytes is None or any(
        device.budget_bytes >= need.memory_bytes for device in node.devices
    )
    return named and fits and node.state is NodeState.READY


@pytest.mark.parametrize("policy", placement.POLICIES)
@on_a_busy_machine
@given(pool=pools(), data=st.data())
def test_the_order_of_the_nodes_does_not_change_the_placement(
    policy: str, pool: list[NodeView], data: st.DataObject
) -> None:
    need = Need(size_bytes=10**9, memory_bytes=None)
    ready = [node for node in pool if node.state is NodeState.READY]
    if ready:
        shuffled = data.draw(st.permutations(ready))
        first = plan_placement(need, ready, Rates(), policy)
        assert plan_placement(need, shuffled, Rates(), policy) == first
