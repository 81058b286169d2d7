"""Facts by commit and the resolutions made from them; neither ever changes."""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from warmrack_store.database import Transaction
from warmrack_store.facts import RepositoryFacts
from warmrack_store.records import digest_json, parse_record
from warmrack_store.resolution import Resolution
from warmrack_store.resolver.kinds import list_weights
from warmrack_store.schema import resolutions, revisions


def find_facts(tx: Transaction, repository: str, commit: str) -> RepositoryFacts | None:
    row = tx.find(
        sa.select(revisions.c.facts).where(
            revisions.c.repository == repository, revisions.c.commit == commit
        )
    )
    return parse_record(RepositoryFacts, row["facts"]) if row else None


def put_facts(tx: Transaction, facts: RepositoryFacts) -> None:
    key = sa.and_(revisions.c.repository == facts.repository, revisions.c.commit == facts.commit)
    tx.serialize(f"facts:{facts.repository}@{facts.commit}")
    if tx.find(sa.select(revisions.c.commit).where(key)) is None:
        tx.execute(
            revisions.insert().values(
                repository=facts.repository,
                commit=facts.commit,
                facts=facts.model_dump(mode="json", exclude={"skeleton"}),
                weights=_digest_weights(facts),
                created_at=tx.now,
            )
        )


def put_root(tx: Transaction, repository: str, commit: str, tensor_root: str) -> None:
    """Note the root over all tensors of a revision, once each file's leaves are kept."""
    key = sa.and_(revisions.c.repository == repository, revisions.c.commit == commit)
    tx.execute(revisions.update().where(key).values(tensor_root=tensor_root))


def find_root(tx: Transaction, repository: str, commit: str) -> str | None:
    key = sa.and_(revisions.c.repository == repository, revisions.c.commit == commit)
    row = tx.find(sa.select(revisions.c.tensor_root).where(key))
    return row["tensor_root"] if row else None


def list_equals(tx: Transaction, facts: RepositoryFacts) -> Sequence[str]:
    """Other public repositories, by name, of which a revision holds the same weights: the same
    files, or the same tensors in other files. A private one is never proposed: its name alone would
    tell a stranger that it exists and what it holds."""
    same = revisions.c.weights == _digest_weights(facts)
    root = find_root(tx, facts.repository, facts.commit)
    if root is not None:
        same = sa.or_(same, revisions.c.tensor_root == root)
    query = (
        sa.select(revisions.c.repository, revisions.c.facts)
        .where(same, revisions.c.repository != facts.repository)
        .order_by(revisions.c.repository)
    )
    rows = tx.list(query)
    closed = {row["repository"] for row in rows if not _is_public(row["facts"])}
    return sorted({row["repository"] for row in rows} - closed)


def _is_public(facts: Mapping[str, Any]) -> bool:
    return not (facts["private"] or facts["gated"])


def _digest_weights(facts: RepositoryFacts) -> str:
    """Names the set of weight files; a repository without any equals only itself."""
    digests = sorted(file.digest for file in list_weights(facts))
    return digest_json(digests or [facts.repository, facts.commit])


def put_resolution(tx: Transaction, resolution: Resolution) -> str:
    """The id of this very resolution; the same record always has the same id."""
    record = resolution.model_dump(mode="json")
    resolution_id = f"res_{digest_json(record)}"
    tx.serialize(resolution_id)
    if tx.find(sa.select(resolutions.c.id).where(resolutions.c.id == resolution_id)) is None:
        tx.execute(
            resolutions.insert().values(
                id=resolution_id,
                repository=resolution.repository,
                commit=resolution.commit,
                cache_key=resolution.cache_key,
                record=record,
                created_at=tx.now,
            )
        )
    return resolution_id


def find_resolution(tx: Transaction, resolution_id: str | None) -> Resolution | None:
    if resolution_id is None:
        return None
    row = tx.find(sa.select(resolutions.c.record).where(resolutions.c.id == resolution_id))
    return parse_record(Resolution, row["record"]) if row else None


def find_selection(
    tx: Transaction, repository: str, commit: str, selection: str
) -> Resolution | None:
    """A resolution, or the part of one, that names this very set of files."""
    mine = sa.and_(resolutions.c.repository == repository, resolutions.c.commit == commit)
    for row in tx.list(sa.select(resolutions.c.record).where(mine)):
        for part in parse_record(Resolution, row["record"]).parts:
            if part.repository == repository and part.selection == selection:
                return part
    return None
