"""The pool over HTTP: residents, nodes, snapshots, egress."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query

from warmrack_daemon.api.callers import ServicesOf
from warmrack_daemon.api.names import Names, NamesOf, show_copies, show_egress_rows, show_residents
from warmrack_daemon.api.views import copy_view, node_view, resident_view
from warmrack_daemon.services import Services
from warmrack_store.errors import ResidentNotFound
from warmrack_store.ledgers import copies, egress, nodes, residents
from warmrack_store.ledgers.residents import Resident

router = APIRouter(tags=["pool"])


@router.get("/residents")
def list_residents(services: ServicesOf, names: NamesOf) -> dict[str, Any]:
    """The models in memory, live ones only."""
    with services.database.read() as tx:
        found = [(one, resident_view(one, tx.now)) for one in residents.list_live(tx)]
    return {"items": show_residents(names, found), "next": None}


@router.post("/residents/{name:path}/pin")
def pin(name: str, services: ServicesOf, names: NamesOf) -> dict[str, Any]:
    """Keep residents until they are unpinned or unloaded; they never become victims."""
    return _set_pinned(services, names, name, True)


@router.delete("/residents/{name:path}/pin")
def unpin(name: str, services: ServicesOf, names: NamesOf) -> dict[str, Any]:
    """Let residents idle out and be evicted again."""
    return _set_pinned(services, names, name, False)


def _set_pinned(services: Services, names: Names, name: str, pinned: bool) -> dict[str, Any]:
    named = _list_named(services, names, name)
    with services.database.write() as tx:
        for resident in named:
            residents.set_pinned(tx, resident.id, pinned)
        now = {one.id: one for one in residents.list_live(tx)}
        found = [
            (now[one.id], resident_view(now[one.id], tx.now)) for one in named if one.id in now
        ]
    _nudge(services, named)
    return {"items": show_residents(names, found), "next": None}


def _list_named(services: Services, names: Names, name: str) -> Sequence[Resident]:
    """Those that an id names, or a model that the caller may know of; raises ResidentNotFound."""
    with services.database.read() as tx:
        found = residents.list_named(tx, name)
    if any(one.id == name for one in found):
        return found
    seen = names.list_seen(one.repository for one in found)
    if not (visible := [one for one in found if one.repository.lower() in seen]):
        raise ResidentNotFound(f"nothing warm is named {name[:120]!r}")
    return visible


@router.delete("/residents/{name:path}", status_code=202)
def unload(name: str, services: ServicesOf, names: NamesOf) -> dict[str, Any]:
    """Let a resident (by id, or all of a model's) go once its running work has ended."""
    named = _list_named(services, names, name)
    with services.database.write() as tx:
        for resident in named:
            residents.request_drain(tx, resident.id)
        found = [(one, resident_view(one, tx.now)) for one in named]
    _nudge(services, named)
    return {"items": show_residents(names, found), "next": None}


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
def list_snapshots(services: ServicesOf, names: NamesOf) -> dict[str, Any]:
    """What lies in the caches."""
    with services.database.read() as tx:
        holders = defaultdict(list)
        for node in nodes.list_nodes(tx):
            holders[node.store].append(node.name)
        items = [copy_view(copy, holders) for copy in copies.list_copies(tx)]
    return {"items": show_copies(names, items), "next": None}


@router.get("/egress")
def show_egress(
    services: ServicesOf,
    names: NamesOf,
    by: Annotated[Literal["job", "tenant", "repository"], Query()] = "job",
    after: Annotated[str | None, Query(pattern=r"^[^\x00]*$")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 500,
) -> dict[str, Any]:
    """Where bytes of files came from, summed by job, tenant or repository."""
    with services.database.read() as tx:
        items = egress.list_egress(tx, by, after=after, limit=limit)
    shown = show_egress_rows(names, items) if by == "repository" else items
    more = len(items) == limit and items[-1] in shown
    return {"items": shown, "next": items[-1][by] if more else None}
