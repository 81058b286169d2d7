"""Where the bytes of each job came from: the Hub, other nodes, this node's disk, another's fetch."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from warmrack_store.database import Transaction
from warmrack_store.schema import egress_ledger

_COLUMNS = ("hub_bytes", "peer_bytes", "local_bytes", "deduplicated_bytes")


def record_egress(
    tx: Transaction,
    *,
    job_id: str,
    tenant: str,
    node: str,
    repository: str,
    commit: str,
    hub_bytes: int = 0,
    local_bytes: int = 0,
    peer_bytes: int = 0,
    deduplicated_bytes: int = 0,
) -> None:
    """One fetch of one job: body bytes of files from the Hub and from peers, those of no use
    included; bytes that were already here; and bytes that the fetch of another job brought."""
    tx.execute(
        egress_ledger.insert().values(
            job_id=job_id,
            tenant=tenant,
            node=node,
            repository=repository,
            commit=commit,
            hub_bytes=hub_bytes,
            local_bytes=local_bytes,
            peer_bytes=peer_bytes,
            deduplicated_bytes=deduplicated_bytes,
            at=tx.now,
        )
    )


def has_egress(tx: Transaction, *, job_id: str, node: str, repository: str, commit: str) -> bool:
    """Whether the job has brought, or found, these files on this node in an earlier attempt."""
    same = sa.select(egress_ledger.c.id).where(
        egress_ledger.c.job_id == job_id,
        egress_ledger.c.node == node,
        egress_ledger.c.repository == repository,
        egress_ledger.c.commit == commit,
    )
    return tx.find(same.limit(1)) is not None


_GROUPS = {
    "job": egress_ledger.c.job_id,
    "tenant": egress_ledger.c.tenant,
    "repository": egress_ledger.c.repository,
}


def list_egress(
    tx: Transaction, by: str, *, after: str | None = None, limit: int | None = None
) -> Sequence[dict[str, Any]]:
    """Sums by job, tenant or repository, in that one's order; `after` is where a page ended."""
    group = _GROUPS[by]
    sums = [sa.func.sum(egress_ledger.c[name]).label(name) for name in _COLUMNS]
    query = sa.select(group.label(by), *sums).group_by(group).order_by(group).limit(limit)
    if after is not None:
        query = query.where(group > after)
    rows = [dict(row) for row in tx.list(query)]
    return [{name: v if name == by else int(v) for name, v in row.items()} for row in rows]
