"""The proofs of what was loaded or fetched."""

from dataclasses import dataclass

import sqlalchemy as sa

from warmrack_store.database import Transaction
from warmrack_store.errors import ReceiptNotFound
from warmrack_store.ledgers.ids import new_id
from warmrack_store.receipts import Receipt
from warmrack_store.records import parse_record
from warmrack_store.schema import receipts


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredReceipt:
    """One row."""

    id: str
    resolution_id: str
    receipt: Receipt
    created_at: float


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


def find_stored(tx: Transaction, receipt_id: str) -> StoredReceipt | None:
    if "\0" in receipt_id:
        return None  # PostgreSQL refuses to compare such a text
    row = tx.find(sa.select(receipts).where(receipts.c.id == receipt_id))
    if row is None:
        return None
    return StoredReceipt(
        id=row["id"],
        resolution_id=row["resolution_id"],
        receipt=parse_record(Receipt, row["record"]),
        created_at=row["created_at"],
    )


def get_stored(tx: Transaction, receipt_id: str) -> StoredReceipt:
    """As `find_stored`; raises ReceiptNotFound."""
    stored = find_stored(tx, receipt_id)
    if stored is None:
        raise ReceiptNotFound(f"there is no receipt {receipt_id[:80]!r}")
    return stored


def find_receipt(tx: Transaction, receipt_id: str | None) -> Receipt | None:
    stored = find_stored(tx, receipt_id) if receipt_id is not None else None
    return stored.receipt if stored is not None else None
