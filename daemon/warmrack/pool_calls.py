"""Conversations about the pool: nodes, residents, copies, what a request would become."""

import time
from collections.abc import Iterable, Mapping
from typing import Any

from warmrack.answers import read_json, read_record
from warmrack.pages import check_page, list_items
from warmrack.paths import quote_name
from warmrack.results import Egress, Estimate, Explanation, Node, Resident, Snapshot
from warmrack.steps import API, Call, Conversation, Pause, send
from warmrack_store.errors import Timeout
from warmrack_store.records import parse_record
from warmrack_store.requests import LoadRequest, check_supported

_POLL_SECONDS = 0.1


def explain(model: str, **request: Any) -> Conversation[Explanation]:
    """What the request resolves to; downloads nothing. `request` are LoadRequest's fields."""
    body = _body(model, request)
    answer = yield from send(Call(method="POST", path=f"{API}/explain", body=body))
    return read_record(Explanation, read_json(answer))


def estimate(model: str, *, batch: int = 1, **request: Any) -> Conversation[Estimate]:
    """The memory that `batch` sequences at once need, and each device held against it."""
    body, params = _body(model, request), {"batch": str(batch)}
    answer = yield from send(Call(method="POST", path=f"{API}/estimate", body=body, params=params))
    return read_record(Estimate, read_json(answer))


def _body(model: str, request: Mapping[str, Any]) -> dict[str, Any]:
    parsed = parse_record(LoadRequest, {**request, "model": model})
    check_supported(parsed)
    return parsed.model_dump(mode="json")


def list_egress(by: str = "job") -> Conversation[tuple[Egress, ...]]:
    """Where the bytes of files came from, summed by `job`, `tenant` or `repository`."""
    return (yield from list_items(Egress, f"{API}/egress", {"by": by}))


def list_residents() -> Conversation[tuple[Resident, ...]]:
    """The live residents of the pool."""
    return (yield from list_items(Resident, f"{API}/residents", {}))


def unload(name: str, *, wait_seconds: float = 60.0) -> Conversation[tuple[Resident, ...]]:
    """Let the resident with this id, or all of this model, finish their work and go.

    Returns them once they are gone; raises Timeout where that takes longer than `wait_seconds`
    (0: returns at once).
    """
    path = f"{API}/residents/{quote_name(name, 'model or id', several=True)}"
    page = check_page(read_json((yield from send(Call(method="DELETE", path=path)))))
    leaving = tuple(read_record(Resident, item) for item in page["items"])
    until = time.monotonic() + wait_seconds
    while wait_seconds > 0 and (left := _still_here(leaving, (yield from list_residents()))):
        if time.monotonic() >= until:
            raise Timeout(f"{', '.join(left)} still has work to finish after {wait_seconds:g} s")
        yield Pause(seconds=_POLL_SECONDS)
    return leaving


def _still_here(leaving: Iterable[Resident], present: Iterable[Resident]) -> list[str]:
    ids = {one.id for one in present}
    return [one.id for one in leaving if one.id in ids]


def pin(resident_id: str) -> Conversation[None]:
    """Keep the resident until it is unloaded; a pin that the pool cannot afford is refused."""
    path = f"{API}/residents/{quote_name(resident_id, 'resident id')}/pin"
    read_json((yield from send(Call(method="POST", path=path))))


def list_nodes() -> Conversation[tuple[Node, ...]]:
    """The nodes that the pool has heard of, with their devices."""
    return (yield from list_items(Node, f"{API}/nodes", {}))


def list_snapshots() -> Conversation[tuple[Snapshot, ...]]:
    """The copies that the pool's stores hold."""
    return (yield from list_items(Snapshot, f"{API}/snapshots", {}))


def get_health() -> Conversation[Mapping[str, Any]]:
    """The service's own word on its health; raises Unreachable where nobody answers."""
    health = read_json((yield from send(Call(method="GET", path="/healthz"))))
    return health if isinstance(health, dict) else {}
