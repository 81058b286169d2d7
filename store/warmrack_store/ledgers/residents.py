"""The models in memory: one row per host process, written by its node's residency loop alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.engine import RowMapping

from warmrack_store.database import Transaction
from warmrack_store.errors import ResidentNotFound
from warmrack_store.schema import nodes, residents
from warmrack_store.states import ResidentState


@dataclass(frozen=True, slots=True, kw_only=True)
class Resident:
    """One row."""

    id: str
    state: ResidentState
    cache_key: str
    resolution_id: str
    repository: str
    commit: str
    precision: str
    node: str
    node_epoch: int
    device: str
    pid: int | None
    start_time: int | None
    socket: str | None
    charged_bytes: int
    pinned: bool
    keep_alive_seconds: float
    in_flight: int
    drain_requested: bool
    receipt_id: str | None
    cause: str | None
    created_at: float
    warm_at: float | None
    last_used_at: float
    updated_at: float

    @classmethod
    def from_row(cls, row: RowMapping) -> Self:
        values = {name: row[name] for name in cls.__slots__}
        values["state"] = ResidentState(values["state"])
        return cls(**values)


def insert_resident(tx: Transaction, values: dict[str, Any]) -> None:
    stamps = {"created_at": tx.now, "last_used_at": tx.now, "updated_at": tx.now}
    tx.execute(residents.insert().values(**values, **stamps))


def update_resident(tx: Transaction, resident_id: str, **changes: Any) -> bool:
    """Write what the loop knows; False where the row is gone or written off already."""
    live = sa.and_(residents.c.id == resident_id, residents.c.state != ResidentState.GONE)
    values = {**changes, "updated_at": tx.now}
    return bool(tx.change(residents.update().where(live).values(**values)))


def find_resident(tx: Transaction, resident_id: str) -> Resident | None:
    row = tx.find(sa.select(residents).where(residents.c.id == resident_id))
    return Resident.from_row(row) if row else None


def find_warm(tx: Transaction, cache_key: str) -> Resident | None:
    """The least busy warm resident of these weights."""
    row = tx.find(
        sa.select(residents)
        .where(residents.c.cache_key == cache_key, residents.c.state == ResidentState.WARM)
        .where(residents.c.drain_requested.is_(sa.false()))
        .order_by(residents.c.in_flight, residents.c.id)
        .limit(1)
    )
    return Resident.from_row(row) if row else None


def list_live(tx: Transaction, *, node: str | None = None) -> Sequence[Resident]:
    query = sa.select(residents).where(residents.c.state != ResidentState.GONE)
    if node is not None:
        query = query.where(residents.c.node == node)
    return [Resident.from_row(row) for row in tx.list(query.order_by(residents.c.id))]


def list_named(tx: Transaction, name: str) -> Sequence[Resident]:
    """The live residents that an id or a repository names; raises ResidentNotFound for none."""
    wanted = name.partition("@")[0].lower()
    found = [r for r in list_live(tx) if name == r.id or wanted == r.repository.lower()]
    if not found:
        raise ResidentNotFound(f"nothing warm is named {name[:120]!r}")
    return found


def request_drain(tx: Transaction, resident_id: str) -> None:
    """Ask the node that has it to let a resident go once its running work has ended."""
    tx.execute(
        residents.update()
        .where(residents.c.id == resident_id)
        .values(drain_requested=True, updated_at=tx.now)
    )


def set_pinned(tx: Transaction, resident_id: str, pinned: bool) -> None:
    tx.execute(
        residents.update()
        .where(residents.c.id == resident_id)
        .values(pinned=pinned, updated_at=tx.now)
    )


def write_off(tx: Transaction, node: str, cause: str, *, epoch: int) -> int:
    """All residents of a lost node are gone, as far as the pool is concerned.

    None is where an agent with a newer epoch has the node's name: it has adopted them.
    """
    tx.serialize(f"node:{node}")  # with that agent's registration
    newer = sa.exists().where(nodes.c.name == node, nodes.c.epoch > epoch)
    return tx.change(
        residents.update()
        .where(residents.c.node == node, residents.c.state != ResidentState.GONE, ~newer)
        .values(state=ResidentState.GONE, cause=cause, updated_at=tx.now)
    )
