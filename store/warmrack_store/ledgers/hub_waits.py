"""Until when a Hub, by its endpoint, must be left alone by the whole cluster."""

import sqlalchemy as sa

from warmrack_store.database import Transaction
from warmrack_store.schema import hub_waits


def put_wait(tx: Transaction, endpoint: str, seconds: float) -> None:
    """Note that the Hub asked for a pause; a longer one that is known stays."""
    tx.serialize(f"hub-wait:{endpoint}")
    mine = hub_waits.c.endpoint == endpoint
    until = tx.now + seconds
    row = tx.find(sa.select(hub_waits.c.until).where(mine))
    if row is None:
        tx.execute(hub_waits.insert().values(endpoint=endpoint, until=until))
    elif row["until"] < until:
        tx.execute(hub_waits.update().where(mine).values(until=until))


def get_wait_seconds(tx: Transaction, endpoint: str) -> float:
    """How long from now the pause still lasts; 0 where there is none."""
    row = tx.find(sa.select(hub_waits.c.until).where(hub_waits.c.endpoint == endpoint))
    return 0.0 if row is None else max(0.0, float(row["until"]) - tx.now)
