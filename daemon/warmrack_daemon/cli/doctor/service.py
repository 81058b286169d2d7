"""Checks of the running service: reachable, in time, its nodes alive, no host left over."""

from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from warmrack import Client, Node, Resident
from warmrack.connection import make_connection
from warmrack_daemon.cli.doctor.findings import Check, Finding, ok, warning, wrong
from warmrack_store.errors import BadRequest, Unreachable, WarmrackError
from warmrack_store.settings import Settings
from warmrack_store.states import NodeState

_TIMEOUT_SECONDS = 5.0
_SKEW_SECONDS = 2.0
"""A third of the default lease; the Date header itself is exact to a second."""


def check_service(settings: Settings) -> Iterator[Finding]:
    """Whether it answers, and whether its nodes and models are as they should be."""
    with Client(settings.url, timeout_seconds=_TIMEOUT_SECONDS) as client:
        try:
            health = client.healthz()
            yield ok("service", f"{settings.url} answers, version {health.get('version', '?')}")
            nodes, residents = client.nodes(), client.residents()
        except Unreachable as error:
            yield wrong("service", error.message, error.hint)
            return
        except WarmrackError as error:
            yield wrong("service", f"{settings.url}: {error.message}", error.hint)
            return
    yield from _examine_nodes(nodes)
    yield from _examine_residents(residents, nodes)


def _examine_nodes(nodes: tuple[Node, ...]) -> Iterator[Finding]:
    ready = [node.name for node in nodes if node.state is NodeState.READY]
    if not ready:
        yield wrong("nodes", "none is ready", "Start one: `warmrack worker`.")
    else:
        yield ok("nodes", f"ready: {', '.join(ready)}")
    for node in nodes:
        if node.state in {NodeState.UNREACHABLE, NodeState.LOST}:
            remedy = f"Look at the agent on {node.name}, or start it again."
            yield warning("nodes", f"{node.name} is {node.state}", remedy)


def _examine_residents(
    residents: tuple[Resident, ...], nodes: tuple[Node, ...]
) -> Iterator[Finding]:
    """A model on a node that is not there is a host that nobody looks after."""
    alive = {node.name for node in nodes if node.state in {NodeState.READY, NodeState.DRAINING}}
    left = [one for one in residents if one.node not in alive]
    for one in left:
        message = f"{one.model} ({one.id}, pid {one.pid}) is left over on {one.node}"
        yield warning("hosts", message, "Start that node's agent: it adopts or ends the host.")
    if not left:
        yield ok("hosts", f"{len(residents)} in memory, none left over")


def check_intake(settings: Settings) -> Iterator[Finding]:
    """Whether Celery messages become jobs."""
    try:
        options = make_connection(settings.url, None, None, _TIMEOUT_SECONDS).options
        with httpx.Client(**options) as http:
            intake = http.get("/readyz").json().get("intake")
    except (httpx.HTTPError, BadRequest, AttributeError, ValueError):
        return  # the service itself is what is wrong, which its own check says
    if intake == "stopped":
        remedy = "Look at the control plane's log; it starts again by itself."
        yield wrong("intake", "no Celery message is taken", remedy)
    elif intake is not None:
        yield ok("intake", "takes Celery messages")


def check_clock(settings: Settings) -> Iterator[Finding]:
    """This machine's clock against the service's."""
    try:
        options = make_connection(settings.url, None, None, _TIMEOUT_SECONDS).options
        with httpx.Client(**options) as http:
            told = http.get("/healthz").headers["date"]
        theirs = parsedate_to_datetime(told).replace(tzinfo=UTC)
    except (httpx.HTTPError, BadRequest, KeyError, ValueError):
        yield warning("clock", "cannot be compared", "Start the service, then ask again.")
        return
    skew = abs((datetime.now(UTC) - theirs).total_seconds())
    if skew > _SKEW_SECONDS:
        message = f"{skew:.0f} s away from the service's"
        yield wrong("clock", message, "Synchronise the clocks of both machines (NTP).")
    else:
        yield ok("clock", "agrees with the service's")


CHECKS: tuple[Check, ...] = (check_service, check_intake, check_clock)
