"""The pool as a placement policy sees it for one resolution."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from math import isclose
from typing import Any

import sqlalchemy as sa

from warmrack_store.database import Transaction
from warmrack_store.ledgers import copies, nodes, rates, residents, stores
from warmrack_store.ledgers.nodes import Node
from warmrack_store.ledgers.residents import Resident
from warmrack_store.placement import DeviceView, NodeView, Rates
from warmrack_store.placement.views import Speed
from warmrack_store.resolution import Resolution
from warmrack_store.schema import jobs, resolutions
from warmrack_store.states import TERMINAL, ResidentState

HUB_RATE, DISK_RATE, HOST_SECONDS = Speed.HUB.value, Speed.DISK.value, Speed.HOST.value


def list_views(tx: Transaction, resolution: Resolution) -> Sequence[NodeView]:
    """Every node with its devices and how near the resolution is to being warm on it."""
    used: dict[tuple[str, str], list[Resident]] = defaultdict(list)
    states: dict[str, set[ResidentState]] = defaultdict(set)
    for resident in residents.list_live(tx):
        used[resident.node, resident.device].append(resident)
        if resident.cache_key == resolution.cache_key and not resident.drain_requested:
            states[resident.node].add(resident.state)
    coming = _nodes_it_is_coming_to(tx, resolution.cache_key)
    queued = _jobs_by_node(tx)
    cached = _cached_fractions(tx, resolution)
    rooms = {state.id: state.room_bytes for state in stores.list_stores(tx)}
    return [
        NodeView(
            name=node.name,
            devices=_devices(node, used),
            state=node.state,
            warm_resident=ResidentState.WARM in states[node.name],
            loading_resident=node.name in coming or bool(states[node.name]),
            has_snapshot=cached.get(node.store, 0.0) >= 1.0,
            cached_fraction=min(cached.get(node.store, 0.0), 1.0),
            disk_room_bytes=rooms.get(node.store),
            queued_jobs=queued[node.name],
            labels=node.labels,
        )
        for node in nodes.list_nodes(tx)
    ]


def _devices(
    node: Node, used: Mapping[tuple[str, str], Sequence[Resident]]
) -> tuple[DeviceView, ...]:
    return tuple(
        _device(device, used.get((node.name, device["name"]), ())) for device in node.devices
    )


def _device(device: Mapping[str, Any], held: Sequence[Resident]) -> DeviceView:
    pinned = [resident for resident in held if resident.pinned and not resident.drain_requested]
    return DeviceView(
        name=device["name"],
        budget_bytes=device["budget_bytes"],
        used_bytes=sum(resident.charged_bytes for resident in held),
        pinned_bytes=sum(resident.charged_bytes for resident in pinned),
        pinned=tuple(resident.id for resident in pinned),
    )


def _nodes_it_is_coming_to(tx: Transaction, cache_key: str) -> set[str]:
    """Nodes that a job for the same weights was placed on and has not ended."""
    same = sa.select(resolutions.c.id).where(resolutions.c.cache_key == cache_key)
    placed = sa.select(jobs.c.target_node).where(
        jobs.c.resolution_id.in_(same),
        jobs.c.target_node.is_not(None),
        jobs.c.state.not_in(TERMINAL),
    )
    return {row["target_node"] for row in tx.list(placed)}


def _jobs_by_node(tx: Transaction) -> Counter[str]:
    counted = (
        sa.select(jobs.c.target_node, sa.func.count().label("waiting"))
        .where(
            jobs.c.target_node.is_not(None),
            jobs.c.joined_to.is_(None),
            jobs.c.state.not_in(TERMINAL),
        )
        .group_by(jobs.c.target_node)
    )
    return Counter({row["target_node"]: row["waiting"] for row in tx.list(counted)})


def _cached_fractions(tx: Transaction, resolution: Resolution) -> dict[str, float]:
    """By store: 1.0 where all is complete, below that where it has begun."""
    held: dict[str, float] = defaultdict(float)
    for part in resolution.parts:
        share = sum(file.size for file in part.files) / (resolution.size_bytes or 1)
        for copy in copies.list_copies_of(tx, part.repository, part.commit):
            if copy.selection == part.selection:
                begun = copy.bytes_done / copy.bytes_total if copy.bytes_total else 0.0
                held[copy.store] += share * (1.0 if copy.complete else min(begun, 0.99))
    return {store: 1.0 if isclose(held[store], 1.0) else min(held[store], 0.99) for store in held}


def get_rates(tx: Transaction) -> Rates:
    """The pool's measured speeds, each the mean over its nodes; defaults where none is known."""
    by_what: dict[str, list[float]] = defaultdict(list)
    for (_, what), value in rates.list_rates(tx).items():
        by_what[what].append(value)
    mean = {what: sum(values) / len(values) for what, values in by_what.items()}
    known = Rates()
    return Rates(
        disk_bytes_per_second=mean.get(DISK_RATE, known.disk_bytes_per_second),
        hub_bytes_per_second=mean.get(HUB_RATE, known.hub_bytes_per_second),
        host_seconds=mean.get(HOST_SECONDS, known.host_seconds),
        measured=frozenset(speed for speed in Speed if speed.value in mean),
    )
