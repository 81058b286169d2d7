"""Which snapshot lies in which store, how much of it, and what its files were when verified."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from warmrack_store.cache.verified import VerifiedFile
from warmrack_store.database import Transaction
from warmrack_store.resolution import Resolution
from warmrack_store.schema import copies


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """One selection of a revision's files in one store.

    `selection` is a digest over the paths and digests chosen; `files` are VerifiedFile records as
    JSON, present once `complete`, and while it is `leaving` the disk.
    """

    store: str
    repository: str
    commit: str
    selection: str
    complete: bool
    bytes_done: int
    bytes_total: int
    files: list[dict[str, Any]]
    updated_at: float
    last_used_at: float
    uses: int = 1
    leaving: bool = False
    """Its eviction has begun, and nobody has fetched it again since."""

    @property
    def verified(self) -> tuple[VerifiedFile, ...]:
        return tuple(VerifiedFile(**file) for file in self.files)


def subject(store: str, repository: str, commit: str) -> str:
    """What the snapshot's claim is named."""
    return f"snapshot:{store}:{repository}@{commit}"


def _key(store: str, repository: str, commit: str, selection: str) -> sa.ColumnElement[bool]:
    return sa.and_(
        copies.c.store == store,
        copies.c.repository == repository,
        copies.c.commit == commit,
        copies.c.selection == selection,
    )


def find_copy(
    tx: Transaction, *, store: str, repository: str, commit: str, selection: str
) -> Copy | None:
    row = tx.find(sa.select(copies).where(_key(store, repository, commit, selection)))
    return Copy(**row) if row else None


def find_copy_of(tx: Transaction, store: str, resolution: Resolution) -> Copy | None:
    """The copy of the very files that the resolution names, of one of its parts."""
    return find_copy(
        tx,
        store=store,
        repository=resolution.repository,
        commit=resolution.commit,
        selection=resolution.selection,
    )


def put_copy(
    tx: Transaction,
    *,
    store: str,
    repository: str,
    commit: str,
    selection: str,
    **values: Any,
) -> None:
    """Write what is known of a copy; columns not given keep what they hold."""
    values |= {"updated_at": tx.now, "last_used_at": tx.now, "leaving": False}
    key = _key(store, repository, commit, selection)
    if tx.change(copies.update().where(key).values(**values)):
        return
    blank: dict[str, Any] = {
        "complete": False,
        "bytes_done": 0,
        "bytes_total": 0,
        "files": [],
    }
    names = {"store": store, "repository": repository, "commit": commit, "selection": selection}
    tx.execute(copies.insert().values(**{**blank, **names, **values}))


def touch(tx: Transaction, copy: Copy) -> None:
    """Note that a copy was used just now."""
    key = _key(copy.store, copy.repository, copy.commit, copy.selection)
    tx.execute(copies.update().where(key).values(last_used_at=tx.now, uses=copies.c.uses + 1))


def forget_completeness(tx: Transaction, *, store: str, repository: str, commit: str) -> None:
    """A file of this snapshot is not what it was: the next fetch verifies it again."""
    tx.execute(
        copies.update()
        .where(
            copies.c.store == store,
            copies.c.repository == repository,
            copies.c.commit == commit,
            ~copies.c.leaving,
        )
        .values(complete=False, files=[], updated_at=tx.now)
    )


def _of_snapshot(store: str, repository: str, commit: str) -> sa.ColumnElement[bool]:
    return sa.and_(
        copies.c.store == store, copies.c.repository == repository, copies.c.commit == commit
    )


def begin_leaving(tx: Transaction, *, store: str, repository: str, commit: str) -> None:
    """Nobody finds this snapshot any more; what it holds stays on record until it is gone."""
    tx.execute(
        copies.update()
        .where(_of_snapshot(store, repository, commit))
        .values(complete=False, leaving=True, updated_at=tx.now)
    )


def delete_leaving(tx: Transaction, *, store: str, repository: str, commit: str) -> None:
    """Its files are gone: so are its rows, unless a fetch has begun on them anew."""
    mine = sa.and_(_of_snapshot(store, repository, commit), copies.c.leaving)
    tx.execute(copies.delete().where(mine))


def list_copies(tx: Transaction) -> Sequence[Copy]:
    """All copies by repository, commit, store."""
    query = sa.select(copies).order_by(
        copies.c.repository, copies.c.commit, copies.c.store, copies.c.selection
    )
    return [Copy(**row) for row in tx.list(query)]


def list_copies_of(tx: Transaction, repository: str, commit: str) -> Sequence[Copy]:
    """The copies of one revision, in all stores."""
    mine = sa.and_(copies.c.repository == repository, copies.c.commit == commit)
    return [Copy(**row) for row in tx.list(sa.select(copies).where(mine))]


def list_complete(tx: Transaction, store: str) -> Sequence[Copy]:
    """The whole snapshots of one store."""
    mine = sa.and_(copies.c.store == store, copies.c.complete)
    return [Copy(**row) for row in tx.list(sa.select(copies).where(mine))]


def list_of_store(tx: Transaction, store: str) -> Sequence[Copy]:
    """Everything that was fetched or adopted into one store, whole or not."""
    return [Copy(**row) for row in tx.list(sa.select(copies).where(copies.c.store == store))]


def delete_of_repository(tx: Transaction, store: str, repository: str) -> int:
    """Its folder is not there any more: neither is any copy; how many were on record."""
    mine = sa.and_(copies.c.store == store, copies.c.repository == repository)
    return tx.change(copies.delete().where(mine))
