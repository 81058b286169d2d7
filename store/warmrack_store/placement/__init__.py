"""Which node a model goes to: the pool as it stands in, one node and the reasons out."""

from collections.abc import Iterable, Mapping

from warmrack_store.durations import format_size
from warmrack_store.errors import NodeNotFound, Transient, WontFit
from warmrack_store.placement.expected_time import count_missing_bytes, expect
from warmrack_store.placement.views import (
    Alternative,
    DeviceView,
    Expected,
    Need,
    NodeView,
    Placement,
    Policy,
    Rates,
)
from warmrack_store.states import NodeState

__all__ = [
    "DEFAULT_POLICY",
    "POLICIES",
    "Alternative",
    "DeviceView",
    "Expected",
    "Need",
    "NodeView",
    "Placement",
    "Policy",
    "Rates",
    "plan_placement",
]

POLICIES: Mapping[str, Policy] = {
    "expected_time": expect,
}
DEFAULT_POLICY = "expected_time"

WONT_FIT = "wont-fit"
PINNED = "pinned"
DISK_FULL = "disk-full"
NOT_NAMED = "not-named"
SLOWER = "slower"


def plan_placement(
    need: Need, nodes: Iterable[NodeView], rates: Rates, policy: str = DEFAULT_POLICY
) -> Placement:
    """The node with the lowest cost by the policy; ties go to the shorter queue, then by name.

    Where no node's disk seems to have room the best of them is chosen all the same: the node itself
    knows better, and says what holds its disk. Raises NodeNotFound where a node is named that the
    pool does not have, WontFit where no node could hold the model, or only by taking back a pin, and
    Transient where those that could are not ready.
    """
    pool = sorted(nodes, key=lambda node: node.name)
    if unknown := sorted(set(need.nodes) - {node.name for node in pool}):
        raise NodeNotFound(f"the pool has no node {unknown[0]!r}")
    excluded = [reason for node in pool if (reason := find_exclusion(need, node)) is not None]
    closed = {alternative.node for alternative in excluded}
    if len(closed) == len(pool):
        closed = {one.node for one in excluded if one.code != DISK_FULL}
        excluded = [one for one in excluded if one.code != DISK_FULL]
    ranked = sorted(
        ((POLICIES[policy](need, node, rates), node) for node in pool if node.name not in closed),
        key=lambda pair: (pair[0].cost_seconds, pair[1].queued_jobs, pair[1].name),
    )
    if not ranked:
        raise _refuse(need, excluded)
    best, chosen = ranked[0]
    slower = [
        Alternative(node=node.name, code=SLOWER, reason=expected.reason)
        for expected, node in ranked[1:]
    ]
    return Placement(node=chosen.name, reason=best.reason, alternatives=(*slower, *excluded))


def find_exclusion(need: Need, node: NodeView) -> Alternative | None:
    """Why this node cannot be chosen at all; what never changes goes first."""
    if need.nodes and node.name not in need.nodes:
        return Alternative(node=node.name, code=NOT_NAMED, reason="the job names other nodes")
    if need.memory_bytes is not None:
        largest_bytes = max((device.budget_bytes for device in node.devices), default=-1)
        if largest_bytes < need.memory_bytes:
            given = f"its largest device may give {format_size(largest_bytes)}"
            reason = f"needs {format_size(need.memory_bytes)}, " + (
                given if node.devices else "it has no device"
            )
            return Alternative(node=node.name, code=WONT_FIT, reason=reason)
    if node.state is not NodeState.READY:
        state = node.state.value
        return Alternative(node=node.name, code=f"node-{state}", reason=f"the node is {state}")
    return _find_full(need, node)


def _find_full(need: Need, node: NodeView) -> Alternative | None:
    """Why there is no room now, neither free nor to be made."""
    present = node.warm_resident or node.loading_resident
    memory_bytes = None if present else need.memory_bytes
    if memory_bytes and all(device.open_bytes < memory_bytes for device in node.devices):
        names = ", ".join(name for device in node.devices for name in device.pinned)
        reason = f"needs {format_size(memory_bytes)}, and {names} pinned there leaves less"
        return Alternative(node=node.name, code=PINNED, reason=reason)
    missing_bytes = int(count_missing_bytes(need, node))
    if node.disk_room_bytes is not None and missing_bytes > node.disk_room_bytes:
        reason = (
            f"needs {format_size(missing_bytes)} of disk, "
            f"{format_size(node.disk_room_bytes)} are free or may be freed"
        )
        return Alternative(node=node.name, code=DISK_FULL, reason=reason)
    return None


def _refuse(need: Need, excluded: Iterable[Alternative]) -> WontFit | Transient:
    asked = [reason for reason in excluded if reason.code != NOT_NAMED]
    shown = "; ".join(f"{reason.node}: {reason.reason}" for reason in asked)
    if asked and all(reason.code == WONT_FIT for reason in asked):
        return WontFit(f"no device can hold the model: {shown}")
    if asked and all(reason.code in (WONT_FIT, PINNED) for reason in asked):
        return WontFit(
            f"no device can hold the model: {shown}",
            hint="Unpin or unload one of them: `warmrack unload ID`.",
        )
    return Transient(
        f"no node that can take the model is ready: {shown or 'the pool is empty'}",
        hint="`warmrack nodes` lists the nodes; start one, or wait for one.",
    )
