"""The leaves of every verified weight file, by the file's digest."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from warmrack_store.database import Transaction
from warmrack_store.schema import tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """One tensor of a file: safetensors' dtype, shape, and the digest over both and its bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    leaf: str


def put_leaves(tx: Transaction, file_digest: str, leaves: Iterable[Leaf]) -> None:
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


def list_leaves(tx: Transaction, file_digest: str) -> Sequence[Leaf]:
    rows = tx.list(
        sa.select(tensors).where(tensors.c.file_digest == file_digest).order_by(tensors.c.name)
    )
    return [
        Leaf(name=row["name"], dtype=row["dtype"], shape=tuple(row["shape"]), leaf=row["leaf"])
        for row in rows
    ]
