"""The direct way to a warm model: find its host, wait for a cold one, relay the answer."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from fastapi.concurrency import run_in_threadpool

from warmrack_daemon.resolved import Resolved
from warmrack_daemon.services import Services
from warmrack_daemon.submitting import submit
from warmrack_daemon.waiters import Waiters
from warmrack_store.errors import HostLost, ModelCold, WarmrackError
from warmrack_store.ledgers import nodes, residents
from warmrack_store.ledgers.jobs import Job, get_job
from warmrack_store.ledgers.residents import Resident
from warmrack_store.machine import machine_id
from warmrack_store.requests import LoadRequest, check_supported
from warmrack_store.resolution import Resolution
from warmrack_store.states import JobKind, JobState, Priority
from warmrack_store.submissions import Submission

_IDLE_CONNECTIONS = 64
_CONNECT_SECONDS = 5.0
_RETRY_SECONDS = 5.0
_ROUTE_SECONDS = 2.0
"""How long a route is believed without a look at SQL. A host that drains says so itself, and one
that is gone refuses the connection: both make the gateway look again at once."""
_READ_SECONDS = 600.0
"""The longest silence of a host between two tokens, a long prompt's prefill included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """The way to one resident: `socket` on this machine, else over its node's ingress."""

    resident: Resident
    socket: str | None
    url: str
    until: float


class Gateway:
    """Relays tasks to hosts: by their socket on this machine, else by their node's ingress."""

    def __init__(self, services: Services, waiters: Waiters) -> None:
        self._services = services
        self._waiters = waiters
        self._resolved = Resolved(services)
        self._machine = machine_id()
        self._clients: dict[str, httpx.AsyncClient] = {}
        self._routes: dict[str, Route] = {}

    async def close(self) -> None:
        for client in self._clients.values():
            await client.aclose()

    async def find_target(
        self, request: LoadRequest, task: str, token: str | None, patience_seconds: float
    ) -> Route:
        """The way to a warm resident that may serve the caller; loads a cold model.

        Raises TaskNotFound before it loads anything for a task that the pool does not have.
        """
        check_supported(request)
        resolution = self._resolved.find(request, token)
        if resolution is None:
            resolution = await run_in_threadpool(self._resolved.get, request, token)
        route = await self._find_route(resolution.cache_key)
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

    async def _find_route(self, cache_key: str) -> Route | None:
        """The way to a warm resident; remembered briefly, since every token waits for it."""
        known = self._routes.get(cache_key)
        if known is not None and known.until > time.monotonic():
            return known
        found = await run_in_threadpool(self._look_up, cache_key)
        if found is None:
            self._routes.pop(cache_key, None)
        else:
            self._routes[cache_key] = found
        return found

    def _look_up(self, cache_key: str) -> Route | None:
        with self._services.database.read() as tx:
            resident = residents.find_warm(tx, cache_key)
            node = nodes.find_node(tx, resident.node) if resident is not None else None
        if resident is None or node is None:
            return None
        here = node.machine == self._machine
        return Route(
            resident=resident,
            socket=resident.socket if here else None,
            url="http://host" if here else f"{node.url}/hosts/{resident.id}",
            until=time.monotonic() + _ROUTE_SECONDS,
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
                    route = await self._find_route(resolution.cache_key)
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

    @asynccontextmanager
    async def open(
        self, route: Route, task: str, payload: Mapping[str, Any], *, stream: bool
    ) -> AsyncIterator[httpx.Response]:
        """The host's answer, read piece by piece.

        Raises HostLost where the host is not there; the route to it is forgotten then, and also
        where the host no longer takes work.
        """
        client = self._pooled(route)
        accept = "text/event-stream" if stream else "application/json"
        request = client.build_request(
            "POST", f"{route.url}/tasks/{task}", json=payload, headers={"accept": accept}
        )
        try:
            response = await client.send(request, stream=True)
        except httpx.TransportError as error:
            self._routes.pop(route.resident.cache_key, None)
            model = route.resident.repository
            raise HostLost(f"the host of {model} does not answer") from error
        if response.status_code >= 500:
            self._routes.pop(route.resident.cache_key, None)
        try:
            yield response
        finally:
            await response.aclose()

    def _pooled(self, route: Route) -> httpx.AsyncClient:
        key = route.socket or route.resident.node
        client = self._clients.get(key)
        if client is None:
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=_IDLE_CONNECTIONS)
            headers = {"X-Warmrack-Node-Token": self._services.vault.node_token}
            client = httpx.AsyncClient(
                transport=httpx.AsyncHTTPTransport(uds=route.socket, limits=limits),
                timeout=httpx.Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS),
                headers=headers if route.socket is None else {},
                trust_env=False,
            )
            self._clients[key] = client
        return client
