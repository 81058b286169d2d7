"""The direct way to a warm model: find its host, wait for a cold one, relay the answer."""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from fastapi.concurrency import run_in_threadpool

from warmrack_daemon.host_link import Address, HostAnswer, HostLinks
from warmrack_daemon.resolved import Resolved
from warmrack_daemon.services import Services
from warmrack_daemon.stored_tokens import pick_token
from warmrack_daemon.submitting import submit
from warmrack_daemon.waiters import Waiters
from warmrack_store.errors import HostLost, ModelCold, Refusal, Transient, WarmrackError
from warmrack_store.ledgers import nodes, residents
from warmrack_store.ledgers.jobs import Job, get_job
from warmrack_store.ledgers.residents import Resident
from warmrack_store.machine import machine_id
from warmrack_store.named_hubs import check_hub
from warmrack_store.requests import LoadRequest, check_supported
from warmrack_store.resolution import Resolution
from warmrack_store.states import JobKind, JobState, Priority
from warmrack_store.submissions import Submission

_RETRY_SECONDS = 5.0
_SHORTEST_SECONDS = 0.1
_ROUTE_SECONDS = 2.0
"""How long a route is believed without a look at SQL. A host that drains says so itself, and one
that is gone refuses the connection: both make the gateway look again at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """The way to one resident: its socket on this machine, else its node's ingress."""

    resident: Resident
    address: Address
    until: float
    closed: tuple[str, ...]
    """The repositories in it that are not public."""


class Gateway:
    """Relays tasks to hosts: by their socket on this machine, else by their node's ingress."""

    def __init__(self, services: Services, waiters: Waiters) -> None:
        self._services = services
        self._waiters = waiters
        self._resolved = Resolved(services)
        self._machine = machine_id()
        self._links = HostLinks()
        self._routes: dict[str, Route] = {}

    def close(self) -> None:
        self._links.close()

    async def find_target(
        self, request: LoadRequest, task: str, token: str | None, patience_seconds: float
    ) -> Route:
        """The way to a warm resident that may serve the caller; loads a cold model.

        Raises TaskNotFound before it loads anything for a task that the pool does not have.
        """
        check_supported(request)
        check_hub(request, self._services.settings.hub_endpoint)
        if request.hub_secret is not None:
            token = await run_in_threadpool(pick_token, self._services, request, token)
            request = request.model_copy(update={"hub_secret": None})
        resolution = self._resolved.find(request, token)
        if resolution is None:
            resolution = await run_in_threadpool(self._resolved.get, request, token)
        elif not resolution.public:
            await run_in_threadpool(self._services.rights.check_parts, resolution, token)
        route = await self._find_route(resolution)
        if route is not None:
            return route
        if not self._services.settings.on_demand:
            raise ModelCold(
                f"{request.model} is not warm, and on_demand is off",
                hint=f"Load it first: warmrack load {request.model}",
            )
        await run_in_threadpool(self._check_task, task)
        return await self._load(request, token, resolution, patience_seconds)

    def _check_task(self, task: str) -> None:
        with self._services.database.read() as tx:
            nodes.check_task(tx, task)

    async def wait_for_loss(self, route: Route, token: str | None) -> WarmrackError:
        """The Hub's refusal, once it no longer lets the caller read what is not public here."""
        rights = self._services.rights
        while True:
            try:
                checks = [run_in_threadpool(rights.check, name, token) for name in route.closed]
                left = min(await asyncio.gather(*checks), default=_RETRY_SECONDS)
            except Refusal as refusal:
                return refusal
            except Transient:
                left = _RETRY_SECONDS
            await asyncio.sleep(max(left, _SHORTEST_SECONDS))

    async def _find_route(self, resolution: Resolution) -> Route | None:
        """The way to a warm resident; remembered briefly, since every token waits for it."""
        cache_key = resolution.cache_key
        known = self._routes.get(cache_key)
        if known is not None and known.until > time.monotonic():
            return known
        found = await run_in_threadpool(self._look_up, resolution)
        now = time.monotonic()
        self._routes = {key: route for key, route in self._routes.items() if route.until > now}
        if found is not None:
            self._routes[cache_key] = found
        return found

    def _look_up(self, resolution: Resolution) -> Route | None:
        with self._services.database.read() as tx:
            resident = residents.find_warm(tx, resolution.cache_key)
            node = nodes.find_node(tx, resident.node) if resident is not None else None
        if resident is None or node is None:
            return None
        here = node.machine == self._machine
        return Route(
            resident=resident,
            address=Address(
                socket=resident.socket if here else None,
                url="http://host" if here else f"{node.url}/hosts/{resident.id}",
            ),
            until=time.monotonic() + _ROUTE_SECONDS,
            closed=tuple(
                part.repository for part in resolution.parts if part.private or part.gated
            ),
        )

    async def _load(
        self,
        request: LoadRequest,
        token: str | None,
        resolution: Resolution,
        patience_seconds: float,
    ) -> Route:
        submission = Submission(kind=JobKind.LOAD, request=request, priority=Priority.INTERACTIVE)
        job = await run_in_threadpool(submit, self._services, submission, token=token)
        deadline = asyncio.get_running_loop().time() + patience_seconds
        async with self._waiters.watch(job.id) as watch:
            while True:
                job = await run_in_threadpool(self._get_job, job.id)
                if job.state is JobState.SUCCEEDED:
                    route = await self._find_route(resolution)
                    if route is not None:
                        return route
                if job.state in (JobState.FAILED, JobState.CANCELLED):
                    raise WarmrackError.from_record(job.error or {})
                left = deadline - asyncio.get_running_loop().time()
                if left <= 0 or job.state.terminal:
                    cold = f"{request.model} is not warm yet: its load is {job.state.value}"
                    raise ModelCold(cold, job=job.id, retry_after_seconds=_RETRY_SECONDS)
                await watch.changed(left)

    def _get_job(self, job_id: str) -> Job:
        with self._services.database.read() as tx:
            return get_job(tx, job_id)

    async def open(
        self, route: Route, task: str, payload: Mapping[str, Any], *, stream: bool
    ) -> HostAnswer:
        """The host's answer, to be closed by the caller.

        Raises HostLost where the host is not there; the route to it is forgotten then, and also
        where the host no longer takes work.
        """
        request = self._request(route, task, payload, stream=stream)
        try:
            answer = await self._links.ask(route.address, request)
        except OSError as error:
            self._routes.pop(route.resident.cache_key, None)
            model = route.resident.repository
            raise HostLost(f"the host of {model} does not answer") from error
        if answer.status >= 500:
            self._routes.pop(route.resident.cache_key, None)
        return answer

    def _request(
        self, route: Route, task: str, payload: Mapping[str, Any], *, stream: bool
    ) -> bytes:
        body = json.dumps(payload, separators=(",", ":")).encode()
        place = urlsplit(route.address.url)
        head = [
            f"POST {place.path}/tasks/{quote(task)} HTTP/1.1",
            f"host: {place.netloc}",
            f"accept: {'text/event-stream' if stream else 'application/json'}",
            "content-type: application/json",
            f"content-length: {len(body)}",
        ]
        if route.address.socket is None:
            head.append(f"x-warmrack-node-token: {self._services.vault.node_token}")
        return "\r\n".join((*head, "", "")).encode() + body
