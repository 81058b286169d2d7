"""What lies in the pool's caches: which nodes are asked for it, and what the Hub is asked first."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from fastapi.concurrency import run_in_threadpool

from warmrack_daemon.node_calls import (
    ask_node,
    list_stores,
    node_client,
    node_url,
    read_problem,
)
from warmrack_daemon.services import Services
from warmrack_store.cache_questions import (
    Adoptable,
    AdoptableAnswer,
    AdoptableQuestion,
    Adoption,
    AdoptQuestion,
    ContentsCheck,
    ContentsQuestion,
    ExportQuestion,
    Imported,
    ImportQuestion,
    QuarantineAnswer,
    QuarantineQuestion,
)
from warmrack_store.errors import (
    HostLost,
    HubUnavailable,
    NotFound,
    RateLimited,
    Refusal,
    WarmrackError,
)
from warmrack_store.ledgers import copies, decisions, names
from warmrack_store.ledgers.nodes import Node
from warmrack_store.records import Record
from warmrack_store.refs import ModelRef, check_revision, is_commit, parse_model
from warmrack_store.requests import Network
from warmrack_store.resolving import Asker

_AWAY = (HubUnavailable, RateLimited)
_UNNAMED = "(not public)"


class Refused(Record):
    """A snapshot that was not adopted, with the reason; unnamed where the caller may not know it."""

    repository: str
    commit: str
    code: str
    message: str


class AdoptAnswer(Record):
    items: tuple[Adoption, ...]
    refused: tuple[Refused, ...] = ()
    skipped: tuple[str, ...] = ()
    """Folders that are no model's, or a link."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """The snapshot that a caller means, as far as it is known here."""

    repository: str
    commit: str | None
    public: bool | None = None


async def verify(services: Services, named: Named | None, node: str | None, *, quick: bool) -> Any:
    """The check of each store."""
    question = ContentsQuestion(
        repository=named.repository if named else None,
        commit=named.commit if named else None,
        quick=quick,
    )
    found: list[ContentsCheck] = []
    absent: NotFound | None = None
    for one in await run_in_threadpool(list_stores, services, node):
        try:
            found.append(await ask_node(services, one, "/cache/verify", question, ContentsCheck))
        except NotFound as error:
            absent = error
    if absent is not None and not found:
        raise absent
    return found


async def ask_quarantine(
    services: Services, question: QuarantineQuestion, node: str | None
) -> list[QuarantineAnswer]:
    """What each store's quarantine holds, or what was done to the one that has the id."""
    found: list[QuarantineAnswer] = []
    absent: NotFound | None = None
    for one in await run_in_threadpool(list_stores, services, node):
        try:
            answer = await ask_node(services, one, "/cache/quarantine", question, QuarantineAnswer)
        except NotFound as error:
            absent = error
        else:
            found.append(answer)
    if absent is not None and not found:
        raise absent
    return found


async def adopt(
    services: Services,
    *,
    folder: str | None,
    model: str | None,
    node: str | None,
    token: str | None,
) -> AdoptAnswer:
    """Take in what a folder (or each store's own) holds, one snapshot after the other.

    The Hub is asked with the caller's token for each; what it does not let them read is not
    taken. Where it is away, what can be said without it is said.
    """
    asked = AdoptableQuestion(folder=folder, repository=model)
    chosen = await run_in_threadpool(list_stores, services, node)
    items: list[Adoption] = []
    refused: list[Refused] = []
    skipped: list[str] = []
    for one in chosen if folder is None else chosen[:1]:
        there = await ask_node(services, one, "/cache/adoptable", asked, AdoptableAnswer)
        skipped += there.skipped
        for snapshot in there.items:
            try:
                items.append(await _adopt_one(services, one, folder, snapshot, token))
            except WarmrackError as error:
                refused.append(_refuse(snapshot, error))
    return AdoptAnswer(items=tuple(items), refused=tuple(refused), skipped=tuple(skipped))


async def _adopt_one(
    services: Services, node: Node, folder: str | None, snapshot: Adoptable, token: str | None
) -> Adoption:
    public = await run_in_threadpool(ask_hub, services, snapshot, token)
    question = AdoptQuestion(
        folder=folder, repository=snapshot.repository, commit=snapshot.commit, public=public
    )
    return await ask_node(services, node, "/cache/adopt", question, Adoption)


def _refuse(snapshot: Adoptable, error: WarmrackError) -> Refused:
    hidden = isinstance(error, Refusal) and error.code in ("gated", "repo-not-found")
    return Refused(
        repository=_UNNAMED if hidden else snapshot.repository,
        commit="" if hidden else snapshot.commit,
        code=error.code,
        message="the Hub does not let you read it" if hidden else error.message,
    )


def ask_hub(services: Services, snapshot: Adoptable, token: str | None) -> bool | None:
    """Keep the Hub's facts of the commit in SQL; whether it is public, None where the Hub is away.

    Raises its refusals: the repository is gone, or the token does not open it.
    """
    asker = Asker(
        database=services.database,
        hub=services.hub,
        rights=services.rights,
        network=Network.ONLINE,
        token=token,
    )
    asked = ModelRef(repository=snapshot.repository, revision=snapshot.commit)
    try:
        found = asker.find_asked(asked)
        for name in {None, *snapshot.refs}:
            _remember(services, ModelRef(repository=asked.repository, revision=name), token)
    except _AWAY:
        return None
    return found.facts.public


def _remember(services: Services, asked: ModelRef, token: str | None) -> None:
    """What a name means now, so that a load may go offline later; a name that is gone is none."""
    try:
        ref = services.hub.find_ref(asked, token)
    except NotFound:
        return
    with services.database.write() as tx:
        names.put_ref(tx, asked, ref)


def find_named(services: Services, model: str, revision: str | None) -> Named:
    """The snapshot that is meant by a name, as it was last asked of the Hub."""
    parsed = parse_model(model)
    wanted = revision or parsed.revision
    ref = ModelRef(
        repository=parsed.repository, revision=check_revision(wanted) if wanted else None
    )
    with services.database.read() as tx:
        known = names.find_ref(tx, ref)
    if known is not None:
        fact = known.ref
        public = not (fact.private or fact.gated)
        return Named(repository=fact.repository, commit=fact.commit, public=public)
    commit = wanted if wanted and is_commit(wanted) else None
    return Named(repository=parsed.repository, commit=commit)


def plan_export(
    services: Services, named: Named, node: str | None, token: str | None
) -> tuple[Node, ExportQuestion]:
    """Which node sends it; the caller's right to it is checked first."""
    if named.commit is None:
        ref = services.hub.find_ref(ModelRef(repository=named.repository), token)
        named = Named(
            repository=ref.repository, commit=ref.commit, public=not (ref.private or ref.gated)
        )
    assert named.commit is not None
    if named.public is not True:
        services.rights.check(named.repository, token)
    with services.database.read() as tx:
        held = copies.list_copies_of(tx, named.repository, named.commit)
    stores = {copy.store for copy in held if copy.complete}
    for one in list_stores(services, node):
        if one.store in stores:
            public = named.public is True
            return one, ExportQuestion(
                repository=named.repository, commit=named.commit, public=public
            )
    raise NotFound(
        f"no node holds {named.repository}@{named.commit} whole",
        hint="Prefetch it first; `warmrack cache ls` lists what is there.",
    )


@asynccontextmanager
async def open_export(
    services: Services, node: Node, question: ExportQuestion
) -> AsyncIterator[httpx.Response]:
    """The node's archive, as it comes. Raises what the node says, or HostLost."""
    url = node_url(node, "/cache/export")
    async with node_client(services) as client:
        try:
            request = client.build_request("POST", url, json=question.model_dump(mode="json"))
            response = await client.send(request, stream=True)
        except httpx.TransportError as error:
            raise HostLost(f"{node.name} does not answer: {error!r}") from error
        try:
            if response.status_code != 200:
                await response.aread()
                raise read_problem(response)
            yield response
        finally:
            await response.aclose()


async def send_import(
    services: Services,
    node: Node,
    question: ImportQuestion,
    size_bytes: int,
    chunks: AsyncIterator[bytes],
) -> Imported:
    """Pass an archive on to a node while it comes. Raises what the node says, or HostLost."""
    headers = {
        "content-length": str(size_bytes),
        "x-question": question.model_dump_json(),
    }
    url = node_url(node, "/cache/import")
    async with node_client(services) as client:
        try:
            answer = await client.post(url, content=chunks, headers=headers)
        except httpx.TransportError as error:
            raise HostLost(f"{node.name} broke the upload off: {error!r}") from error
    if answer.status_code != 200:
        raise read_problem(answer)
    found = Imported.model_validate_json(answer.content)
    if found.public and question.public is None:
        await run_in_threadpool(_take_as_public, services, found.repository)
    return found


def _take_as_public(services: Services, repository: str) -> None:
    """Believe an archive that its repository is public: only where nothing else is known of it,
    and, since the answer is as old as one that holds no longer, only while the Hub is away."""
    with services.database.write() as tx:
        if decisions.list_decisions(tx, [repository]):
            return
        decisions.put_decision(
            tx,
            repository=repository,
            mark=services.vault.mark(None),
            refusal=None,
            ciphertext=None,
            age_seconds=services.settings.right_public_seconds,
        )
