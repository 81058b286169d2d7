"""Measured speeds of each node: what an estimate is made of."""

import sqlalchemy as sa

from warmrack_store.database import Transaction
from warmrack_store.schema import rates

_WEIGHT = 0.3
"""Of the newest measurement in the moving average: a few loads settle it, one outlier does not."""


def record_rate(tx: Transaction, node: str, what: str, value: float) -> None:
    """Fold one measurement (bytes or seconds, by `what`) into the node's moving average."""
    tx.serialize(f"rate:{node}:{what}")
    key = sa.and_(rates.c.node == node, rates.c.what == what)
    row = tx.find(sa.select(rates.c.value).where(key))
    if row is None:
        tx.execute(rates.insert().values(node=node, what=what, value=value, updated_at=tx.now))
        return
    mean = (1 - _WEIGHT) * row["value"] + _WEIGHT * value
    tx.execute(rates.update().where(key).values(value=mean, updated_at=tx.now))


def list_rates(tx: Transaction) -> dict[tuple[str, str], float]:
    return {(row["node"], row["what"]): row["value"] for row in tx.list(sa.select(rates))}
