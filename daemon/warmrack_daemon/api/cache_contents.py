"""The contents of caches over HTTP: verify, quarantine, adopt, export, import."""

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from warmrack_daemon import content_calls
from warmrack_daemon.api.bodies import IMPORT_PATH
from warmrack_daemon.api.callers import HubToken, ServicesOf
from warmrack_daemon.api.names import HIDDEN, Names, NamesOf
from warmrack_daemon.node_calls import list_stores
from warmrack_store.cache.archive import MEDIA_TYPE
from warmrack_store.cache_questions import (
    Adoptable,
    Imported,
    ImportQuestion,
    Proof,
    QuarantineAct,
    QuarantineAnswer,
    QuarantineQuestion,
)
from warmrack_store.errors import BadRequest, NotFound
from warmrack_store.records import Record
from warmrack_store.refs import check_repository

router = APIRouter(tags=["cache"])
_COUNTED = frozenset(
    {"kind", "size_bytes", "read_bytes", "linked_bytes", "copied_bytes", "files", "complete"}
    | {"recorded", "moved_at", "reason", "node", "proof", "code", "message"}
)
"""Fields that tell of no repository in particular."""
NodeName = Annotated[str | None, Query()]


class VerifyBody(Record):
    model: str | None = None
    revision: str | None = None
    node: str | None = None
    quick: bool = False


class QuarantineBody(Record):
    act: QuarantineAct = QuarantineAct.LIST
    id: str | None = None
    node: str | None = None


class AdoptBody(Record):
    folder: str | None = None
    model: str | None = None
    node: str | None = None


@router.post("/cache/verify")
async def verify(body: VerifyBody, services: ServicesOf, names: NamesOf) -> dict[str, Any]:
    """Look for corrupt, missing and orphan files; corrupt ones go to quarantine."""
    named = None
    if body.model is not None:
        named = await run_in_threadpool(
            content_calls.find_named, services, body.model, body.revision
        )
        if not await run_in_threadpool(names.sees, [named.repository]):
            raise NotFound(f"no node holds anything of {named.repository} that you may read")
        if body.revision is None and "@" not in body.model:
            named = content_calls.Named(repository=named.repository, commit=None)
    found = await content_calls.verify(services, named, body.node, quick=body.quick)
    items = [check.model_dump(mode="json") for check in found]
    told = [finding for item in items for finding in item["findings"]]
    await run_in_threadpool(hide, names, told)
    return {"passed": all(check.passed for check in found), "items": items}


@router.post("/cache/quarantine")
async def quarantine(body: QuarantineBody, services: ServicesOf, names: NamesOf) -> dict[str, Any]:
    """List what was moved aside, put a file back whose bytes are right, or remove it for good."""
    listed = QuarantineQuestion(act=QuarantineAct.LIST)
    found = await content_calls.ask_quarantine(services, listed, body.node)
    if body.act is QuarantineAct.LIST:
        items = [answer.model_dump(mode="json") for answer in found]
        await run_in_threadpool(hide, names, [kept for item in items for kept in item["items"]])
        return {"items": items}
    kept = {one.id: one.repository for answer in found for one in answer.items}
    seen = await run_in_threadpool(names.list_seen, set(kept.values()))
    chosen = [id for id, name in kept.items() if body.id in (None, id) and name.lower() in seen]
    if body.id is not None and not chosen:
        raise NotFound(
            f"no {body.id[:80]!r} in quarantine",
            hint="`warmrack cache quarantine ls` lists what is there.",
        )
    if body.id is None and body.act is QuarantineAct.RESTORE:
        raise BadRequest("which file is to be restored?", hint="Name its id.")
    done: list[QuarantineAnswer] = []
    for id in chosen:
        question = QuarantineQuestion(act=body.act, id=id)
        done += await content_calls.ask_quarantine(services, question, body.node)
    return {"items": [answer.model_dump(mode="json") for answer in done]}


def hide(names: Names, rows: Sequence[dict[str, Any]]) -> None:
    """Leave out of the rows what would tell of repositories that the caller may not know."""
    seen = names.list_seen({row["repository"] for row in rows} - {HIDDEN})
    for row in rows:
        if row["repository"].lower() not in seen:
            for name in row.keys() - _COUNTED:
                row[name] = [] if isinstance(row[name], list) else ""
            row["repository"] = HIDDEN


@router.post("/cache/adopt")
async def adopt(
    body: AdoptBody, services: ServicesOf, token: HubToken, names: NamesOf
) -> dict[str, Any]:
    """Take in the snapshots of a folder on a node's machine; without one, of the caches."""
    found = await content_calls.adopt(
        services, folder=body.folder, model=body.model, node=body.node, token=token
    )
    answer = found.model_dump(mode="json")
    if body.folder is None:
        # Where the Hub is away nobody was asked about the right; a folder's names the caller has.
        unasked = [one for one in answer["items"] if one["proof"] != Proof.HUB]
        await run_in_threadpool(hide, names, [*unasked, *answer["refused"]])
    return answer


@router.get("/cache/export")
async def export(
    model: str,
    services: ServicesOf,
    token: HubToken,
    revision: str | None = None,
    node: NodeName = None,
) -> StreamingResponse:
    """One snapshot as a tar file."""
    named = await run_in_threadpool(content_calls.find_named, services, model, revision)
    plan = await run_in_threadpool(content_calls.plan_export, services, named, node, token)
    opened = content_calls.open_export(services, *plan)
    response = await opened.__aenter__()

    async def chunks() -> AsyncIterator[bytes]:
        try:
            async for chunk in response.aiter_raw():
                yield chunk
        finally:
            await opened.__aexit__(None, None, None)

    headers = {"content-length": response.headers["content-length"]}
    return StreamingResponse(chunks(), media_type=MEDIA_TYPE, headers=headers)


@router.post(IMPORT_PATH)
async def take_in(
    request: Request,
    repository: str,
    commit: str,
    services: ServicesOf,
    token: HubToken,
    node: NodeName = None,
) -> Imported:
    """Take in an exported snapshot; `repository` and `commit` are those of its manifest."""
    size = request.headers.get("content-length", "")
    if not size.isascii() or not size.isdigit():
        raise BadRequest("an import must say its length", hint="Send a content-length.")
    snapshot = Adoptable(repository=check_repository(repository), commit=commit)
    question = ImportQuestion(repository=repository, commit=commit)
    chosen = (await run_in_threadpool(list_stores, services, node))[0]
    public = await run_in_threadpool(content_calls.ask_hub, services, snapshot, token)
    question = question.model_copy(update={"public": public})
    return await content_calls.send_import(services, chosen, question, int(size), request.stream())
