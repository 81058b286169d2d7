"""The direct way to a warm model: find its host, wait for a cold one, relay the answer."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
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
_READ_SECONDS = 600.0
"""The longest silence of a host between two tokens, a long prompt's prefill included."""


class Gateway:
    """Relays tasks to hosts: by their socket on this machine, else by their node's ingress."""

    def __init__(self, services: Services, waiters: Waiters) -> None:
        self._services = services
        self._waiters = waiters
        self._resolved = Resolved(services)
        self._machine = machine_id()
        self._clients: dict[str, httpx.AsyncClient] = {}

    async def close(self) -> None:
        for client in self._clients.values():
            await client.aclose()

    async def find_target(
        self, request: LoadRequest, token: str | None, patience_seconds: float
    ) -> Resident:
        """A warm resident that may serve the caller; loads the model where it is cold."""
        check_supported(request)
        resolution = self._resolved.find(request, token)
        if resolution is None:
            resolution = await run_in_threadpool(self._resolved.get, request, token)
        resident = await run_in_threadpool(self._find_warm, resolution.cache_key)
        if resident is not None:
            return resident
        if not self._services.settings.on_demand:
            raise ModelCold(
                f"{request.model} is not warm, and on_demand is off",
                hint=f"Load it first: warmrack load {request.model}",
            )
        return await self._load(request, token, resolution, patience_seconds)

    def _find_warm(self, cache_key: str) -> Resident | None:
        with self._services.database.read() as tx:
            return residents.find_warm(tx, cache_key)

    async def _load(
        self,
        request: LoadRequest,
        token: str | None,
        resolution: Resolution,
        patience_seconds: float,
    ) -> Resident:
        submission = Submission(kind=JobKind.LOAD, request=request, priority=Priority.INTERACTIVE)
        job = await run_in_threadpool(submit, self._services, submission, token=token)
        deadline = asyncio.get_running_loop().time() + patience_seconds
        async with self._waiters.watch(job.id) as watch:
            while True:
                job = await run_in_threadpool(self._get_job, job.id)
                if job.state is JobState.SUCCEEDED:
                    resident = await run_in_threadpool(self._find_warm, resolution.cache_key)
                    if resident is not None:
                        return resident
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
        self, resident: Resident, task: str, payload: Mapping[str, Any], *, stream: bool
    ) -> AsyncIterator[httpx.Response]:
        """The host's answer, read piece by piece; HostLost where the host is not there."""
        client, url = await self._client(resident)
        accept = "text/event-stream" if stream else "application/json"
        request = client.build_request(
            "POST", f"{url}/tasks/{task}", json=payload, headers={"accept": accept}
        )
        try:
            response = await client.send(request, stream=True)
        except httpx.TransportError as error:
            raise HostLost(f"the host of {resident.repository} does not answer") from error
        try:
            yield response
        finally:
            await response.aclose()

    async def _client(self, resident: Resident) -> tuple[httpx.AsyncClient, str]:
        node = await run_in_threadpool(self._get_node, resident.node)
        if node.machine == self._machine and resident.socket is not None:
            return self._pooled(resident.socket, resident.socket), "http://host"
        if node.url is None:
            raise HostLost(f"node {node.name} publishes no address to reach its hosts by")
        client = self._pooled(node.name, None)
        return client, f"{node.url}/hosts/{resident.id}"

    def _get_node(self, name: str) -> nodes.Node:
        with self._services.database.read() as tx:
            node = nodes.find_node(tx, name)
        if node is None:
            raise HostLost(f"node {name} is not known any more")
        return node

    def _pooled(self, key: str, socket: str | None) -> httpx.AsyncClient:
        client = self._clients.get(key)
        if client is None:
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=_IDLE_CONNECTIONS)
            headers = {"X-Warmrack-Node-Token": self._services.vault.node_token}
            client = httpx.AsyncClient(
                transport=httpx.AsyncHTTPTransport(uds=socket, limits=limits),
                timeout=httpx.Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS),
                headers=headers if socket is None else {},
                trust_env=False,
            )
            self._clients[key] = client
        return client
