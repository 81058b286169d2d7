"""Questions that a node, or a host on it, answers to the control plane alone."""

from collections.abc import Sequence
from typing import TypeVar

import httpx

from warmrack_daemon.services import Services
from warmrack_store.errors import HostLost, NodeNotFound, WarmrackError
from warmrack_store.ledgers import nodes
from warmrack_store.ledgers.nodes import Node
from warmrack_store.records import Record

LONGEST_SECONDS = 3600.0
"""How long a node may be silent while it reads: 1 TiB from a disk that gives 300 MB/s."""
_CONNECT_SECONDS = 5.0
_SEAT = "node"
"""The node's own place among the hosts of its ingress."""
Answer = TypeVar("Answer", bound=Record)


def list_stores(services: Services, name: str | None) -> Sequence[Node]:
    """The named node, else one for each store, in order of name. Raises NodeNotFound."""
    with services.database.read() as tx:
        there = [node for node in nodes.list_nodes(tx) if node.state.answers]
    there.sort(key=lambda node: node.name)
    if name is not None:
        there = [node for node in there if node.name == name]
    if not there:
        raise NodeNotFound(f"no live node is named {name[:80]!r}" if name else "no node is live")
    first: dict[str, Node] = {}
    for node in there:
        first.setdefault(node.store, node)
    return tuple(first.values())


def node_url(node: Node, path: str) -> str:
    """Where a node itself answers at `path`, through its ingress."""
    return f"{node.url}/hosts/{_SEAT}{path}"


def node_client(
    services: Services, *, socket: str | None = None, seconds: float = LONGEST_SECONDS
) -> httpx.AsyncClient:
    """A client that nodes let in; by the unix `socket` where one is given."""
    return httpx.AsyncClient(
        transport=httpx.AsyncHTTPTransport(uds=socket),
        timeout=httpx.Timeout(seconds, connect=_CONNECT_SECONDS),
        headers={"X-Warmrack-Node-Token": services.vault.node_token},
        trust_env=False,
    )


async def ask_node(
    services: Services,
    node: Node,
    path: str,
    question: Record,
    kind: type[Answer],
    *,
    seconds: float = LONGEST_SECONDS,
) -> Answer:
    """What a node answers at `path` (`/snapshots/verify`), for which no user is asked.

    Raises the node's own error, and HostLost where it does not answer within `seconds` of silence.
    """
    return await ask(services, node_url(node, path), question, kind, seconds=seconds)


async def ask(
    services: Services,
    url: str,
    question: Record,
    kind: type[Answer],
    *,
    socket: str | None = None,
    seconds: float = LONGEST_SECONDS,
) -> Answer:
    """The answer at `url`, taken from the unix `socket` where one is given; raises as `ask_node`."""
    async with node_client(services, socket=socket, seconds=seconds) as client:
        try:
            answer = await client.post(url, json=question.model_dump(mode="json"))
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise HostLost(f"{kind.__name__}: the node does not answer: {error!r}") from error
    if answer.status_code != 200:
        raise read_problem(answer)
    return kind.model_validate_json(answer.content)


def read_problem(answer: httpx.Response) -> WarmrackError:
    """The error that a node answered with; HostLost where it makes no sense."""
    if answer.headers.get("content-type") != "application/problem+json":
        return HostLost(f"the node answered {answer.status_code}")
    return WarmrackError.from_problem(answer.json())
