"""What the Hub last said about whose token reads which repository."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.engine import RowMapping

from warmrack_store.database import Transaction
from warmrack_store.errors import WarmrackError
from warmrack_store.schema import decisions


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One answer. `mark` stands for the token (an HMAC), `refusal` is None where it may read.

    `ciphertext` is the token of a yes to a non-public repository, encrypted: with it the Hub is
    asked again while the model is in memory.
    """

    repository: str
    mark: str
    refusal: dict[str, Any] | None
    ciphertext: bytes | None
    asked_at: float
    age_seconds: float

    @property
    def allows(self) -> bool:
        return self.refusal is None

    def to_error(self) -> WarmrackError:
        return WarmrackError.from_record(self.refusal or {})

    @classmethod
    def from_row(cls, row: RowMapping, now: float) -> Self:
        return cls(**row, age_seconds=max(0.0, now - row["asked_at"]))


def put_decision(
    tx: Transaction,
    *,
    repository: str,
    mark: str,
    refusal: WarmrackError | None,
    ciphertext: bytes | None,
    age_seconds: float = 0.0,
) -> None:
    """Remember the answer, which is so old already, instead of the last one to the same token."""
    name = repository.lower()
    values = {
        "refusal": refusal.to_record() if refusal is not None else None,
        "ciphertext": ciphertext,
        "asked_at": tx.now - age_seconds,
    }
    tx.serialize(f"decision:{name}:{mark}")
    if not tx.change(decisions.update().where(_key(name, mark)).values(**values)):
        tx.execute(decisions.insert().values(repository=name, mark=mark, **values))


def list_decisions(
    tx: Transaction, repositories: Iterable[str], marks: Iterable[str] | None = None
) -> Sequence[Decision]:
    """Those about the repositories, and about the marks where some are given."""
    names = [name.lower() for name in repositories]
    query = sa.select(decisions).where(decisions.c.repository.in_(names))
    if marks is not None:
        query = query.where(decisions.c.mark.in_(list(marks)))
    query = query.order_by(decisions.c.repository, decisions.c.mark)
    return [Decision.from_row(row, tx.now) for row in tx.list(query)]


def forget(tx: Transaction, repository: str, mark: str) -> None:
    tx.execute(decisions.delete().where(_key(repository.lower(), mark)))


def forget_tokens(tx: Transaction, *, seconds: float, kept: Iterable[str]) -> int:
    """Forget the tokens in what is older; not about the `kept` repositories."""
    old = sa.and_(
        decisions.c.ciphertext.is_not(None),
        decisions.c.asked_at < tx.now - seconds,
        decisions.c.repository.not_in([name.lower() for name in kept]),
    )
    return tx.change(decisions.update().where(old).values(ciphertext=None))


def forget_old(tx: Transaction, *, seconds: float, kept: Iterable[str]) -> int:
    """Forget what is older; not about the `kept` repositories."""
    old = sa.and_(
        decisions.c.asked_at < tx.now - seconds,
        decisions.c.repository.not_in([name.lower() for name in kept]),
    )
    return tx.change(decisions.delete().where(old))


def _key(name: str, mark: str) -> sa.ColumnElement[bool]:
    return sa.and_(decisions.c.repository == name, decisions.c.mark == mark)
