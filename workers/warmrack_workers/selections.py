"""Which files of a snapshot an exact load needs, and the record that they are here."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from warmrack_store.cache.layout import RepositoryLayout
from warmrack_store.cache.verified import VerifiedFile
from warmrack_store.database import Database, Transaction
from warmrack_store.errors import Refusal
from warmrack_store.facts import FileFact, RefFact, RepositoryFacts
from warmrack_store.ledgers import copies, resolutions, tensors
from warmrack_store.records import digest_json
from warmrack_store.requests import LoadRequest
from warmrack_store.resolver import resolve
from warmrack_store.resolver.asked import Asked
from warmrack_store.tensors import TensorLeaf, root_digest
from warmrack_workers.fetch.leaves import hash_leaves

_TENSORS = ".safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Needed:
    """The files of one revision that are one copy."""

    repository: str
    commit: str
    files: tuple[FileFact, ...]
    weights: frozenset[str] = frozenset()
    """Paths among them that hold tensors."""

    @property
    def selection(self) -> str:
        """As a resolution names the same files."""
        return digest_json([[file.path, file.digest] for file in self.files])

    @property
    def size_bytes(self) -> int:
        return sum(file.size for file in self.files)


def list_needed(facts: RepositoryFacts) -> Needed:
    """What an exact load takes; the whole tree where this version serves none."""
    ref = RefFact(**facts.model_dump(include=set(RefFact.model_fields)))
    request = LoadRequest(model=facts.repository, revision=facts.commit)
    try:
        found = resolve(request, Asked(ref=ref, facts=facts), versions={})
    except Refusal:
        return Needed(repository=facts.repository, commit=facts.commit, files=facts.files)
    return Needed(
        repository=facts.repository,
        commit=facts.commit,
        files=found.files,
        weights=frozenset(found.weights),
    )


def record_copy(
    database: Database,
    layout: RepositoryLayout,
    needed: Needed,
    have: Sequence[VerifiedFile],
    *,
    store: str,
    complete: bool,
) -> None:
    """Note in SQL which of the files lie in the store, verified, with their tensors' leaves.

    A copy that is complete by an earlier word stays so.
    """
    leaves = _hash_new_leaves(database, layout, needed) if complete else {}
    key = {"store": store, "repository": needed.repository, "commit": needed.commit}
    with database.write() as tx:
        for digest, found in leaves.items():
            tensors.put_leaves(tx, digest, found)
        before = copies.find_copy(tx, **key, selection=needed.selection)
        if before is not None and before.complete and not complete:
            return
        copies.put_copy(
            tx,
            **key,
            selection=needed.selection,
            complete=complete,
            bytes_done=sum({one.digest: one.size_bytes for one in have}.values()),
            bytes_total=needed.size_bytes,
            files=[asdict(file) for file in have],
        )
        if complete:
            weights = [file.digest for file in needed.files if file.path in needed.weights]
            note_root(tx, needed.repository, needed.commit, weights)


def note_root(tx: Transaction, repository: str, commit: str, weights: Iterable[str]) -> None:
    """Keep the root over the tensors of these files, whose leaves are on record by now."""
    leaves = {leaf.name: leaf.leaf for one in weights for leaf in tensors.list_leaves(tx, one)}
    if leaves:
        resolutions.put_root(tx, repository, commit, root_digest(leaves))


def _hash_new_leaves(
    database: Database, layout: RepositoryLayout, needed: Needed
) -> dict[str, tuple[TensorLeaf, ...]]:
    """Leaves by file of the weights that SQL has none of."""
    held = [file for file in needed.files if file.path.endswith(_TENSORS)]
    with database.read() as tx:
        new = [file.digest for file in held if not tensors.list_leaves(tx, file.digest)]
    return {digest: hash_leaves(layout.blob(digest)) for digest in dict.fromkeys(new)}
