"""Who needs the snapshots of a store, so that they stay on its disk."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import sqlalchemy as sa

from warmrack_store.database import Transaction
from warmrack_store.ledgers import residents, resolutions
from warmrack_store.schema import jobs, leases, nodes
from warmrack_store.states import TERMINAL

SnapshotName = tuple[str, str]
"""Repository and commit."""


def list_holds(tx: Transaction, store: str) -> Mapping[SnapshotName, Sequence[str]]:
    """In words, by snapshot: models in memory, jobs on their way to it, and whoever has its claim.

    A host maps its files until its process is gone; a job that was placed here found or will find
    them, and counts on it until it has ended.
    """
    names = {row["name"] for row in tx.list(sa.select(nodes.c.name).where(nodes.c.store == store))}
    holds: dict[SnapshotName, list[str]] = defaultdict(list)
    for resolution_id, hold in (*_residents(tx, names), *_jobs(tx, names)):
        resolution = resolutions.find_resolution(tx, resolution_id)
        for part in resolution.parts if resolution is not None else ():
            holds[part.repository, part.commit].append(hold)
    for name, holder in _claims(tx, store):
        holds[name].append(f"claimed by {holder}")
    return holds


def _residents(tx: Transaction, names: set[str]) -> Iterator[tuple[str, str]]:
    for resident in residents.list_live(tx):
        if resident.node in names:
            pinned = ", pinned" if resident.pinned else ""
            yield resident.resolution_id, f"in memory as {resident.id}{pinned}"


def _jobs(tx: Transaction, names: set[str]) -> Iterator[tuple[str, str]]:
    query = sa.select(jobs.c.id, jobs.c.resolution_id).where(
        jobs.c.resolution_id.is_not(None),
        jobs.c.target_node.in_(names),
        jobs.c.state.not_in(TERMINAL),
    )
    for row in tx.list(query):
        yield row["resolution_id"], f"needed by job {row['id']}"


def _claims(tx: Transaction, store: str) -> Iterator[tuple[SnapshotName, str]]:
    start = f"snapshot:{store}:"
    query = sa.select(leases.c.subject, leases.c.holder).where(
        leases.c.subject.startswith(start, autoescape=True),
        leases.c.holder.is_not(None),
        leases.c.until >= tx.now,
    )
    for row in tx.list(query):
        repository, _, commit = row["subject"].removeprefix(start).rpartition("@")
        yield (repository, commit), row["holder"]
