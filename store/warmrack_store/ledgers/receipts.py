"""The proofs of what was loaded or fetched."""

import sqlalchemy as sa

from warmrack_store.database import Transaction
from warmrack_store.ledgers.ids import new_id
from warmrack_store.receipts import Receipt
from warmrack_store.records import parse_record
from warmrack_store.schema import receipts


def insert_receipt(tx: Transaction, resolution_id: str, receipt: Receipt) -> str:
    receipt_id = new_id("rec")
    tx.execute(
        receipts.insert().values(
            id=receipt_id,
            resolution_id=resolution_id,
            level=receipt.level,
            tensor_root=receipt.tensor_root,
            record=receipt.model_dump(mode="json"),
            created_at=tx.now,
        )
    )
    return receipt_id


def find_receipt(tx: Transaction, receipt_id: str | None) -> Receipt | None:
    if receipt_id is None:
        return None
    row = tx.find(sa.select(receipts.c.record).where(receipts.c.id == receipt_id))
    return parse_record(Receipt, row["record"]) if row else None
