"""Residents as tests put them into the rows."""

from typing import Any

from warmrack_store.database import Database
from warmrack_store.ledgers import residents


def put_resident(database: Database, node: str, **fields: Any) -> str:
    """A warm resident of a node; gives its id."""
    resident_id = f"res_{node}"
    with database.write() as tx:
        residents.insert_resident(
            tx,
            {
                "id": resident_id,
                "state": "warm",
                "cache_key": "k",
                "resolution_id": "res_1",
                "repository": "org/name",
                "commit": "0" * 40,
                "precision": "fp32",
                "node": node,
                "node_epoch": 1,
                "device": "cpu:0",
                "charged_bytes": 1,
                "pinned": False,
                "keep_alive_seconds": 600.0,
            }
            | fields,
        )
    return resident_id
