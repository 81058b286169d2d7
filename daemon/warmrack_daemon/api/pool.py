"""The pool over HTTP: residents, nodes, snapshots, egress."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query

from warmrack_daemon.api.callers import ServicesOf
from warmrack_daemon.api.views import copy_view, node_view, resident_view
from warmrack_daemon.services import Services
from warmrack_store.ledgers import copies, egress, nodes, residents
from warmrack_store.ledgers.residents import Resident

router = APIRouter(tags=["pool"])


@router.get("/residents")
def list_residents(services: ServicesOf) -> dict[str, Any]:
    """The models in memory, live ones only."""
    with services.database.read() as tx:
        items = [resident_view(resident, tx.now) for resident in residents.list_live(tx)]
    return {"items": items, "next": None}


@router.post("/residents/{name:path}/pin")
def pin(name: str, services: ServicesOf) -> dict[str, Any]:
    """Keep residents until they are unpinned or unloaded; they never become victims."""
    return _set_pinned(services, name, True)


@router.delete("/residents/{name:path}/pin")
def unpin(name: str, services: ServicesOf) -> dict[str, Any]:
    """Let residents idle out and be evicted again."""
    return _set_pinned(services, name, False)


def _set_pinned(services: Services, name: str, pinned: bool) -> dict[str, Any]:
    with services.database.write() as tx:
        for resident in residents.list_named(tx, name):
            residents.set_pinned(tx, resident.id, pinned)
        found = residents.list_named(tx, name)
        items = [resident_view(resident, tx.now) for resident in found]
    _nudge(services, found)
    return {"items": items, "next": None}


@router.delete("/residents/{name:path}", status_code=202)
def unload(name: str, services: ServicesOf) -> dict[str, Any]:
    """Let a resident (by id, or all of a model's) go once its running work has ended."""
    with services.database.write() as tx:
        found = residents.list_named(tx, name)
        for resident in found:
            residents.request_drain(tx, resident.id)
        items = [resident_view(resident, tx.now) for resident in found]
    _nudge(services, found)
    return {"items": items, "next": None}


def _nudge(services: Services, found: Sequence[Resident]) -> None:
    """Their nodes read the rows now rather than within a second."""
    for node in {resident.node for resident in found}:
        services.wakeups.publish(f"node:{node}")


@router.get("/nodes")
def list_nodes(services: ServicesOf) -> dict[str, Any]:
    """Every node that was ever heard of, with its devices and what is on them."""
    with services.database.read() as tx:
        live = defaultdict(list)
        for resident in residents.list_live(tx):
            live[resident.node].append(resident)
        items = [node_view(node, live[node.name], tx.now) for node in nodes.list_nodes(tx)]
    return {"items": items, "next": None}


@router.get("/snapshots")
def list_snapshots(services: ServicesOf) -> dict[str, Any]:
    """What lies in the caches."""
    with services.database.read() as tx:
        names = defaultdict(list)
        for node in nodes.list_nodes(tx):
            names[node.store].append(node.name)
        items = [copy_view(copy, names) for copy in copies.list_copies(tx)]
    return {"items": items, "next": None}


@router.get("/egress")
def show_egress(
    services: ServicesOf, by: Annotated[Literal["job", "tenant", "repository"], Query()] = "job"
) -> dict[str, Any]:
    """Where bytes came from, summed by job, tenant or repository."""
    with services.database.read() as tx:
        items = egress.list_egress(tx, by)
    return {"items": items, "next": None}
