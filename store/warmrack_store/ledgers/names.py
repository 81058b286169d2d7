"""What names and revisions meant at the Hub when it was last asked, for when it is not."""

from dataclasses import dataclass

import sqlalchemy as sa

from warmrack_store.database import Transaction
from warmrack_store.facts import RefFact
from warmrack_store.records import parse_record
from warmrack_store.refs import ModelRef
from warmrack_store.schema import refs


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownRef:
    """An answer of the Hub with its age; a branch may have moved since."""

    ref: RefFact
    age_seconds: float


def put_ref(tx: Transaction, asked: ModelRef, ref: RefFact) -> None:
    """Remember the answer, under the spelling that was asked and under the Hub's own."""
    for name in {asked.repository.lower(), ref.repository.lower()}:
        key = _key(name, asked.revision)
        values = {"fact": ref.model_dump(mode="json"), "seen_at": tx.now}
        tx.serialize(f"ref:{name}@{asked.revision}")
        if not tx.change(refs.update().where(key).values(**values)):
            tx.execute(refs.insert().values(asked=name, revision=asked.revision or "", **values))


def find_ref(tx: Transaction, asked: ModelRef) -> KnownRef | None:
    row = tx.find(sa.select(refs).where(_key(asked.repository.lower(), asked.revision)))
    if row is None:
        return None
    ref = parse_record(RefFact, row["fact"])
    return KnownRef(ref=ref, age_seconds=max(0.0, tx.now - row["seen_at"]))


def _key(name: str, revision: str | None) -> sa.ColumnElement[bool]:
    # The empty text stands for the default branch: a key column holds no NULL.
    return sa.and_(refs.c.asked == name, refs.c.revision == (revision or ""))
