"""Conversations about the room on the pool's disks."""

from collections.abc import Mapping
from typing import Any

from warmrack.answers import read_json
from warmrack.pages import check_page
from warmrack.steps import API, Call, Conversation, send

_SECONDS = 600.0
"""A walk over a large cache and the deletions; the service answers at the end."""
_Items = tuple[Mapping[str, Any], ...]


def evict(
    *,
    bytes_wanted: int | None = None,
    to_low_watermark: bool = False,
    node: str | None = None,
    dry_run: bool = False,
) -> Conversation[_Items]:
    """Free so many bytes, or go down to the low watermark, of a node's store or of each.

    For each store what went (with a dry run: would go), why, and who needs what stays.
    """
    body = {"bytes_wanted": bytes_wanted, "to_low_watermark": to_low_watermark}
    return (yield from _ask("evict", {**body, "node": node, "dry_run": dry_run}))


def remove_snapshots(
    model: str, *, revision: str | None = None, node: str | None = None, dry_run: bool = False
) -> Conversation[_Items]:
    """Remove a model's snapshots, or the one of a commit; raises where all of them are needed."""
    body = {"model": model, "revision": revision, "node": node, "dry_run": dry_run}
    return (yield from _ask("rm", body))


def check_disks(*, node: str | None = None) -> Conversation[_Items]:
    """How full each store is, after its disk and its rows were compared and mended."""
    return (yield from _ask("df", {"node": node}))


def _ask(what: str, body: dict[str, Any]) -> Conversation[_Items]:
    call = Call(method="POST", path=f"{API}/cache/{what}", body=body, timeout_seconds=_SECONDS)
    return tuple(check_page(read_json((yield from send(call))))["items"])
