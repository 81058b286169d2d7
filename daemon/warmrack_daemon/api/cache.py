"""The room on the pool's disks over HTTP: evict, remove, and a look that mends."""

from collections.abc import Iterable
from typing import Any, TypeVar

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool
from pydantic import Field, model_validator

from warmrack_daemon.api.callers import ServicesOf
from warmrack_daemon.api.names import HIDDEN, Names, NamesOf
from warmrack_daemon.node_calls import ask_node, list_stores
from warmrack_store.cache_evictions import DiskReport, Eviction, EvictionQuestion, Gone, Kept
from warmrack_store.errors import BadRequest, NotFound
from warmrack_store.records import Record
from warmrack_store.refs import parse_model

router = APIRouter(tags=["cache"])
Told = TypeVar("Told", Gone, Kept)


class EvictBody(Record):
    """So many bytes, or down to the low watermark: of one node's store, or of each."""

    bytes_wanted: int | None = Field(None, ge=1)
    to_low_watermark: bool = False
    node: str | None = None
    dry_run: bool = False

    @model_validator(mode="after")
    def _one_goal(self) -> "EvictBody":
        if (self.bytes_wanted is None) != self.to_low_watermark:
            raise ValueError("bytes_wanted: give it or to_low_watermark, not both")
        return self


class RemoveBody(Record):
    """A snapshot, or with no revision every one of the model."""

    model: str
    revision: str | None = None
    """A commit or its beginning."""
    node: str | None = None
    dry_run: bool = False


class NodeBody(Record):
    node: str | None = None


@router.post("/cache/evict")
async def evict(body: EvictBody, services: ServicesOf, names: NamesOf) -> dict[str, Any]:
    """Free room: what is used least goes, never what somebody needs. A dry run only tells."""
    question = EvictionQuestion(
        bytes_wanted=body.bytes_wanted,
        to_low_watermark=body.to_low_watermark,
        dry_run=body.dry_run,
    )
    asked = await run_in_threadpool(list_stores, services, body.node)
    found = [await ask_node(services, node, "/disk/evict", question, Eviction) for node in asked]
    return await run_in_threadpool(_page, found, names)


@router.post("/cache/rm")
async def remove(body: RemoveBody, services: ServicesOf, names: NamesOf) -> dict[str, Any]:
    """Remove snapshots that warmrack fetched or adopted; refused while somebody needs one."""
    ref = parse_model(body.model)
    if not await run_in_threadpool(names.sees, [ref.repository]):
        raise NotFound(f"there is no snapshot {body.model[:150]!r}")
    question = EvictionQuestion(
        repository=ref.repository, commit=body.revision or ref.revision, dry_run=body.dry_run
    )
    found: list[Eviction] = []
    missing: NotFound | None = None
    for node in await run_in_threadpool(list_stores, services, body.node):
        try:
            found.append(await ask_node(services, node, "/disk/evict", question, Eviction))
        except NotFound as error:
            missing = error
    if not found and missing is not None:
        raise missing
    kept = [one for eviction in found for one in eviction.kept]
    if kept and not any(eviction.gone for eviction in found):
        raise BadRequest(
            f"{kept[0].repository}@{kept[0].commit[:12]} is in use: {kept[0].reason}",
            hint="Unload it or wait for its jobs; `warmrack ps` and `warmrack jobs` show them.",
        )
    return await run_in_threadpool(_page, found, names)


@router.post("/cache/df")
async def tidy(body: NodeBody, services: ServicesOf) -> dict[str, Any]:
    """Each store's disk held against SQL; what is ours and wrong is mended first."""
    asked = await run_in_threadpool(list_stores, services, body.node)
    found = [await ask_node(services, node, "/disk/tidy", Record(), DiskReport) for node in asked]
    return {"items": [report.model_dump(mode="json") for report in found], "next": None}


def _page(found: Iterable[Eviction], names: Names) -> dict[str, Any]:
    """The answers, without the names that the caller may not know."""
    evictions = list(found)
    told = [one.repository for eviction in evictions for one in eviction.gone]
    told += [one.repository for eviction in evictions for one in eviction.kept]
    shown = names.list_seen(told)
    items = []
    for eviction in evictions:
        hidden = eviction.model_copy(
            update={"gone": _hide(eviction.gone, shown), "kept": _hide(eviction.kept, shown)}
        )
        items.append({**hidden.model_dump(mode="json"), "reached": eviction.reached})
    return {"items": items, "next": None}


def _hide(ones: Iterable[Told], shown: frozenset[str]) -> tuple[Told, ...]:
    return tuple(
        one
        if one.repository.lower() in shown
        else one.model_copy(update={"repository": HIDDEN, "commit": "", "reason": ""})
        for one in ones
    )
