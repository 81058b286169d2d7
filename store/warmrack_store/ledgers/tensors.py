"""The leaves of every verified weight file, by the file's digest."""

from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from warmrack_store.database import Transaction
from warmrack_store.schema import tensors
from warmrack_store.tensors import TensorLeaf


def put_leaves(tx: Transaction, file_digest: str, leaves: Iterable[TensorLeaf]) -> None:
    tx.serialize(f"tensors:{file_digest}")
    tx.execute(tensors.delete().where(tensors.c.file_digest == file_digest))
    rows = [
        {
            "file_digest": file_digest,
            "name": leaf.name,
            "dtype": leaf.dtype,
            "shape": list(leaf.shape),
            "leaf": leaf.leaf,
        }
        for leaf in leaves
    ]
    if rows:
        tx.execute(tensors.insert(), rows)


def list_leaves(tx: Transaction, file_digest: str) -> Sequence[TensorLeaf]:
    rows = tx.list(
        sa.select(tensors).where(tensors.c.file_digest == file_digest).order_by(tensors.c.name)
    )
    return [
        TensorLeaf(
            name=row["name"], dtype=row["dtype"], shape=tuple(row["shape"]), leaf=row["leaf"]
        )
        for row in rows
    ]
