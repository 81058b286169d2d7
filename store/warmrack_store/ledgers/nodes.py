"""The nodes, what each can do, and when it was last heard."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.engine import RowMapping

from warmrack_store.database import Transaction
from warmrack_store.errors import TaskNotFound
from warmrack_store.ledgers import residents
from warmrack_store.schema import nodes
from warmrack_store.states import NodeState

HEARTBEAT_SECONDS = 2.0
"""Between two beats of a node; three of them unheard make it unreachable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One row; `epoch` grows with each start of the agent, `store` names its cache folder."""

    name: str
    epoch: int
    state: NodeState
    url: str | None
    mirror_url: str | None
    machine: str
    store: str
    devices: list[dict[str, Any]]
    labels: dict[str, str]
    tasks: dict[str, Any]
    versions: dict[str, str]
    pid: int
    started_at: float
    heartbeat_at: float

    @classmethod
    def from_row(cls, row: RowMapping) -> Self:
        values = {name: row[name] for name in cls.__slots__}
        values["state"] = NodeState(values["state"])
        return cls(**values)


def register(tx: Transaction, name: str, **values: Any) -> int:
    """A node's agent has started; gives its new epoch."""
    tx.serialize(f"node:{name}")
    row = tx.find(sa.select(nodes.c.epoch).where(nodes.c.name == name))
    epoch = int(row["epoch"]) + 1 if row else 1
    values |= {
        "epoch": epoch,
        "state": NodeState.READY,
        "drains": False,
        "started_at": tx.now,
        "heartbeat_at": tx.now,
    }
    if row:
        tx.execute(nodes.update().where(nodes.c.name == name).values(**values))
    else:
        tx.execute(nodes.insert().values(name=name, **values))
    return epoch


def heartbeat(tx: Transaction, name: str, epoch: int, **values: Any) -> bool:
    """The node lives; False where a newer agent has taken its name.

    One that was silent comes back as what it was: a draining one drains on.
    """
    silent = nodes.c.state.in_((NodeState.UNREACHABLE, NodeState.LOST))
    back = sa.case(
        (sa.and_(silent, nodes.c.drains), NodeState.DRAINING),
        (silent, NodeState.READY),
        else_=nodes.c.state,
    )
    mine = sa.and_(nodes.c.name == name, nodes.c.epoch == epoch)
    values |= {"heartbeat_at": tx.now, "state": back}
    return bool(tx.change(nodes.update().where(mine).values(**values)))


def set_state(tx: Transaction, name: str, state: NodeState, *, epoch: int | None = None) -> bool:
    mine = nodes.c.name == name
    if epoch is not None:
        mine = sa.and_(mine, nodes.c.epoch == epoch)
    values: dict[str, Any] = {"state": state}
    if state in (NodeState.READY, NodeState.DRAINING):
        values["drains"] = state is NodeState.DRAINING
    return bool(tx.change(nodes.update().where(mine).values(**values)))


def say_goodbye(tx: Transaction, name: str, epoch: int) -> bool:
    """The node's agent ends, and its residents with it; False where a newer one has its name."""
    if not set_state(tx, name, NodeState.STOPPED, epoch=epoch):
        return False
    residents.write_off(tx, name, "agent-stopped", epoch=epoch)
    return True


def find_node(tx: Transaction, name: str) -> Node | None:
    row = tx.find(sa.select(nodes).where(nodes.c.name == name))
    return Node.from_row(row) if row else None


def list_nodes(tx: Transaction) -> Sequence[Node]:
    return [Node.from_row(row) for row in tx.list(sa.select(nodes).order_by(nodes.c.name))]


def list_listening(tx: Transaction) -> frozenset[str]:
    """The names of the nodes that take bells."""
    there = nodes.c.state.in_((NodeState.READY, NodeState.DRAINING))
    return frozenset(row["name"] for row in tx.list(sa.select(nodes.c.name).where(there)))


def list_silent(tx: Transaction, *, state: NodeState, seconds: float) -> Sequence[Node]:
    """Nodes in a state that have not been heard for some time."""
    silent = sa.and_(nodes.c.state == state, nodes.c.heartbeat_at < tx.now - seconds)
    return [Node.from_row(row) for row in tx.list(sa.select(nodes).where(silent))]


def check_task(tx: Transaction, task: str) -> None:
    """Raise TaskNotFound for a task that no node of the pool has; any passes while there is none."""
    offered = {name for node in list_nodes(tx) for name in node.tasks}
    if offered and task not in offered:
        raise TaskNotFound(
            f"there is no task {task[:80]!r}", hint=f"The pool has: {', '.join(sorted(offered))}."
        )


def count_devices(tx: Transaction, kind: str, machine: str) -> int:
    """The devices of a kind on one machine, over all its nodes that are there."""
    here = (node for node in list_nodes(tx) if node.machine == machine)
    there = (node for node in here if node.state in (NodeState.READY, NodeState.DRAINING))
    return sum(device["kind"] == kind for node in there for device in node.devices)
