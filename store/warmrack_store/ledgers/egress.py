"""Where the bytes of each job came from."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from warmrack_store.database import Transaction
from warmrack_store.schema import egress_ledger


def record_egress(
    tx: Transaction,
    *,
    job_id: str,
    tenant: str,
    node: str,
    repository: str,
    commit: str,
    hub_bytes: int,
    local_bytes: int,
    peer_bytes: int = 0,
) -> None:
    """One fetch of one job: bytes from the Hub, from peers, and already here."""
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
            at=tx.now,
        )
    )


_GROUPS = {
    "job": egress_ledger.c.job_id,
    "tenant": egress_ledger.c.tenant,
    "repository": egress_ledger.c.repository,
}


def list_egress(tx: Transaction, by: str) -> Sequence[dict[str, Any]]:
    """Sums by job, tenant or repository."""
    group = _GROUPS[by]
    sums = [
        sa.func.sum(egress_ledger.c[name]).label(name)
        for name in ("hub_bytes", "peer_bytes", "local_bytes")
    ]
    query = sa.select(group.label(by), *sums).group_by(group).order_by(group)
    rows = [dict(row) for row in tx.list(query)]
    return [{name: v if name == by else int(v) for name, v in row.items()} for row in rows]
