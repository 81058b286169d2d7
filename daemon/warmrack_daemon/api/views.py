"""How rows look from outside."""

from datetime import UTC, datetime
from typing import Any

from warmrack_store.ledgers.copies import Copy
from warmrack_store.ledgers.jobs import Job
from warmrack_store.ledgers.nodes import Node
from warmrack_store.ledgers.residents import Resident
from warmrack_store.resolution import Resolution


def timestamp(at: float | None) -> str | None:
    """RFC 3339 in UTC, to the millisecond."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def job_view(
    job: Job, resolution: Resolution | None, *, position: int = 0, stuck: bool = False
) -> dict[str, Any]:
    """`stuck`: it waits and there is no node to take it."""
    remaining = job.bytes_total - job.bytes_done
    return {
        "id": job.id,
        "kind": job.kind.value,
        "state": job.state.value,
        "cause": job.cause,
        "model": job.model,
        "attempt": job.attempt,
        "node": job.node,
        "joined_to": job.joined_to,
        "progress": {
            "bytes_done": job.bytes_done,
            "bytes_total": job.bytes_total,
            "rate": job.rate,
            "eta_seconds": remaining / job.rate if job.rate and remaining > 0 else None,
            "waiting_for": "a node: none is ready" if stuck else job.waiting_for,
            "position": position,
        },
        "resolution": resolution.summary() if resolution else None,
        "resident": job.resident_id,
        "receipt": job.receipt_id,
        "result": job.result,
        "error": job.error,
        "request": job.submission["request"],
        "lock": job.submission.get("lock_digest"),
        "priority": job.submission["priority"],
        "tenant": job.tenant,
        "created_at": timestamp(job.created_at),
        "updated_at": timestamp(job.updated_at),
        "started_at": timestamp(job.started_at),
        "finished_at": timestamp(job.finished_at),
    }


def resident_view(resident: Resident, now: float) -> dict[str, Any]:
    return {
        "id": resident.id,
        "model": resident.repository,
        "commit": resident.commit,
        "precision": resident.precision,
        "state": resident.state.value,
        "node": resident.node,
        "device": resident.device,
        "pid": resident.pid,
        "bytes": resident.charged_bytes,
        "leases": resident.in_flight,
        "pinned": resident.pinned,
        "keep_alive_seconds": resident.keep_alive_seconds,
        "idle_seconds": 0.0 if resident.in_flight else max(0.0, now - resident.last_used_at),
        "receipt": resident.receipt_id,
        "cause": resident.cause,
        "created_at": timestamp(resident.created_at),
        "warm_at": timestamp(resident.warm_at),
    }


def node_view(node: Node, residents: list[Resident], now: float) -> dict[str, Any]:
    used: dict[str, int] = {}
    for resident in residents:
        used[resident.device] = used.get(resident.device, 0) + resident.charged_bytes
    return {
        "name": node.name,
        "state": node.state.value,
        "url": node.url,
        "mirror_url": node.mirror_url,
        "devices": [
            {**device, "used_bytes": used.get(device["name"], 0)} for device in node.devices
        ],
        "labels": node.labels,
        "tasks": sorted(node.tasks),
        "versions": node.versions,
        "pid": node.pid,
        "epoch": node.epoch,
        "heartbeat_seconds": max(0.0, now - node.heartbeat_at),
        "started_at": timestamp(node.started_at),
    }


def copy_view(copy: Copy, nodes_of_store: dict[str, list[str]]) -> dict[str, Any]:
    return {
        "repository": copy.repository,
        "commit": copy.commit,
        "store": copy.store,
        "nodes": nodes_of_store.get(copy.store, []),
        "complete": copy.complete,
        "bytes_done": copy.bytes_done,
        "bytes_total": copy.bytes_total,
        "files": len(copy.files),
        "last_used_at": timestamp(copy.last_used_at),
    }
