"""Which repositories this store holds whole, at which commits, file by file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from warmrack_store.cache.layout import RepositoryLayout
from warmrack_store.cache.verified import VerifiedFile
from warmrack_store.database import Database, Transaction
from warmrack_store.facts import FileFact, RepositoryFacts
from warmrack_store.ledgers import copies, names, resolutions
from warmrack_store.refs import ModelRef, is_commit
from warmrack_workers.mirror.targets import DEFAULT_BRANCH


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldFile:
    fact: FileFact
    verified: VerifiedFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A revision of which whole copies lie here; `files` are all that they hold, by path."""

    repository: str
    commit: str
    private: bool
    gated: bool
    files: Mapping[str, HeldFile]

    @property
    def public(self) -> bool:
        return not (self.private or self.gated)


@dataclass(frozen=True, slots=True, kw_only=True)
class Meant:
    """A name and revision as the Hub was last heard to mean them; nothing says that it is held."""

    repository: str
    commit: str | None


class Holdings:
    """Reads SQL alone: what no row says is whole does not exist here."""

    def __init__(self, database: Database, *, store: str, cache_dir: Path) -> None:
        self._database = database
        self._store = store
        self._cache_dir = cache_dir

    def find_held(self, repository: str, revision: str) -> Held | None:
        with self._database.read() as tx:
            meant = _find_meant(tx, repository, revision)
            if meant.commit is None:
                return None
            facts = resolutions.find_facts(tx, meant.repository, meant.commit)
            held = copies.list_copies_of(tx, meant.repository, meant.commit)
            now = names.find_ref(tx, ModelRef(repository=meant.repository))
        if facts is None:
            return None
        files = _list_files(facts, [c for c in held if c.complete and c.store == self._store])
        if not files:
            return None
        # Visibility is the repository's, not the commit's: as the Hub was last heard to say.
        seen = now.ref if now is not None else facts
        return Held(
            repository=meant.repository,
            commit=meant.commit,
            private=seen.private or facts.private,
            gated=seen.gated or facts.gated,
            files=files,
        )

    def knows(self, repository: str) -> bool:
        """Whether some revision of it is held whole."""
        with self._database.read() as tx:
            name = _find_meant(tx, repository, DEFAULT_BRANCH).repository
            return any(copy.repository == name for copy in copies.list_complete(tx, self._store))

    def place(self, held: Held, path: str) -> Path:
        """Where the file lies, by its snapshot: caches made without links have no blob of it."""
        layout = RepositoryLayout(cache_dir=self._cache_dir, repository=held.repository)
        return layout.snapshot(held.commit) / path

    def find_blob(self, repository: str, digest: str) -> Path | None:
        """Where a file of some whole copy of the repository lies, if it is what was verified."""
        with self._database.read() as tx:
            held = copies.list_complete(tx, self._store)
        layout = RepositoryLayout(cache_dir=self._cache_dir, repository=repository)
        for copy in held:
            if copy.repository != repository:
                continue
            for verified in copy.verified:
                place = layout.snapshot(copy.commit) / verified.path
                if verified.digest == digest and verified.is_unchanged(place):
                    return place
        return None

    def forget(self, held: Held) -> None:
        """A file is not what it was when it was verified, so the copy is verified anew."""
        with self._database.write() as tx:
            copies.forget_completeness(
                tx, store=self._store, repository=held.repository, commit=held.commit
            )


def _find_meant(tx: Transaction, repository: str, revision: str) -> Meant:
    asked = [ModelRef(repository=repository, revision=revision)]
    if revision == DEFAULT_BRANCH:
        asked.append(ModelRef(repository=repository))
    known = [found for found in (names.find_ref(tx, one) for one in asked) if found is not None]
    newest = min(known, key=lambda found: found.age_seconds, default=None)
    if is_commit(revision):
        name = names.find_ref(tx, ModelRef(repository=repository))
        spelled = newest or name
        return Meant(
            repository=spelled.ref.repository if spelled is not None else repository,
            commit=revision,
        )
    if newest is None:
        return Meant(repository=repository, commit=None)
    return Meant(repository=newest.ref.repository, commit=newest.ref.commit)


def _list_files(facts: RepositoryFacts, held: list[copies.Copy]) -> dict[str, HeldFile]:
    verified = {file.path: file for copy in held for file in copy.verified}
    return {
        fact.path: HeldFile(fact=fact, verified=verified[fact.path])
        for fact in facts.files
        if fact.path in verified and verified[fact.path].digest == fact.digest
    }
