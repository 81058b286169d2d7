"""Snapshots that other tools have fetched, taken into this node's cache without a download."""

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from warmrack_store.cache.contents import (
    INCOMING,
    HeldFile,
    HeldSnapshot,
    Standing,
    find_listing,
    list_refs,
    list_repositories,
    read_repository,
)
from warmrack_store.cache.folders import file_mode, make_folders
from warmrack_store.cache.layout import RepositoryLayout
from warmrack_store.cache.publish import publish
from warmrack_store.cache.quarantine import fact_of_digest
from warmrack_store.cache.space import check_space, disk_full_as_refusal
from warmrack_store.cache.verified import VerifiedFile, find_verified
from warmrack_store.cache_questions import (
    Adoptable,
    AdoptableAnswer,
    AdoptableQuestion,
    AdoptedFile,
    Adoption,
    AdoptQuestion,
    Proof,
)
from warmrack_store.database import Database
from warmrack_store.errors import BadRequest, NotFound
from warmrack_store.facts import FileFact, RepositoryFacts
from warmrack_store.ledgers import copies, resolutions
from warmrack_workers.fetch.fetcher import check_files
from warmrack_workers.selections import Needed, list_needed, record_copy
from warmrack_workers.snapshot_holds import SnapshotHold, hold_snapshot

log = structlog.get_logger()
_PATIENCE_SECONDS = 600.0
_PREFIX = "models--"
_COPY_BYTES = 1 << 20


@dataclass(slots=True, kw_only=True)
class _Taken:
    """What one adoption has found so far."""

    good: dict[str, VerifiedFile] = field(default_factory=dict)
    wrong: list[AdoptedFile] = field(default_factory=list)
    read_bytes: int = 0
    linked_bytes: int = 0
    copied_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopter:
    """Takes snapshots into one store."""

    database: Database
    cache_dir: Path
    node: str
    store: str
    lease_seconds: float

    def list_adoptable(self, question: AdoptableQuestion) -> AdoptableAnswer:
        """The snapshots of a folder, nothing read. Raises BadRequest for what is no cache."""
        folder = self._folder(question.folder)
        names = list_repositories(folder)
        if question.repository is not None:
            names = tuple(name for name in names if name.lower() == question.repository.lower())
        items = [one for name in names for one in _list_snapshots(folder, name)]
        return AdoptableAnswer(
            node=self.node, items=tuple(items), skipped=tuple(_list_skipped(folder, names))
        )

    def adopt(self, question: AdoptQuestion) -> Adoption:
        """Verify the files of one snapshot and record what is here.

        Nothing is ever moved or changed in another folder. Raises NotFound where it has no such
        snapshot, DiskFull before the first byte of a copy.
        """
        folder = self._folder(question.folder)
        source = RepositoryLayout(cache_dir=folder, repository=question.repository)
        held = next(
            (s for s in read_repository(source).snapshots if s.commit == question.commit), None
        )
        if held is None:
            raise NotFound(f"{folder} holds no snapshot {question.commit} of {source.repository}")
        with self.database.read() as tx:
            facts = resolutions.find_facts(tx, question.repository, question.commit)
        tree, proof = _find_tree(source, held, facts)
        check_files(tree)
        with self._hold(question) as hold, disk_full_as_refusal(self.cache_dir):
            taken = self._take(source, held, tree, question, hold)
            return self._record(question, facts, tree, proof, taken)

    def _folder(self, folder: str | None) -> Path:
        if folder is None:
            return self.cache_dir
        place = Path(folder)
        if not place.is_absolute() or not place.is_dir():
            raise BadRequest(
                f"{folder[:200]} is no folder on the machine of {self.node}",
                hint="Name a cache folder, as HF_HUB_CACHE does, by its absolute path.",
            )
        return place

    def _hold(self, question: AdoptQuestion) -> AbstractContextManager[SnapshotHold]:
        return hold_snapshot(
            self.database,
            store=self.store,
            repository=question.repository,
            commit=question.commit,
            node=self.node,
            ttl_seconds=self.lease_seconds,
            patience_seconds=_PATIENCE_SECONDS,
        )

    def _layout(self, repository: str) -> RepositoryLayout:
        return RepositoryLayout(cache_dir=self.cache_dir, repository=repository)

    def _take(
        self,
        source: RepositoryLayout,
        held: HeldSnapshot,
        tree: tuple[FileFact, ...],
        question: AdoptQuestion,
        hold: SnapshotHold,
    ) -> _Taken:
        layout, taken = self._layout(question.repository), _Taken()
        own = source.cache_dir.resolve() == self.cache_dir.resolve()
        public = question.public is True
        if question.public is not None or not own:
            make_folders(layout, public=public)
        if not own:
            check_space(self.cache_dir, self._need_bytes(source, layout, tree, held))
            _sweep(layout, question.commit)
        known = self._list_known(question)
        names = {file.path: file for file in held.files}
        for file in tree:
            if not (found := _find_place(names, file, taken)):
                continue
            hold.check()
            verified = (
                self._verify(found, file, known, hold, taken)
                if own
                else self._bring(
                    found, file, layout, hold, taken, commit=held.commit, public=public
                )
            )
            if verified is None:
                taken.wrong.append(AdoptedFile(path=file.path, state="corrupt"))
                continue
            taken.good[file.path] = verified
            if own and question.public is not None:
                _own_blob(layout, found, file)
        return taken

    def _need_bytes(
        self,
        source: RepositoryLayout,
        layout: RepositoryLayout,
        tree: tuple[FileFact, ...],
        held: HeldSnapshot,
    ) -> int:
        """What must be copied: nothing where both folders lie on one file system."""
        if source.folder.stat().st_dev == layout.folder.stat().st_dev:
            return 0
        there = {file.path for file in held.files}
        missing = {
            file.digest: file.size
            for file in tree
            if file.path in there and not layout.blob(file.digest).exists()
        }
        return sum(missing.values())

    def _list_known(self, question: AdoptQuestion) -> dict[tuple[str, str], VerifiedFile]:
        """Files of this revision that were hashed before, by path and digest."""
        with self.database.read() as tx:
            held = copies.list_copies_of(tx, question.repository, question.commit)
        records = [one for copy in held if copy.store == self.store for one in copy.verified]
        return {(record.path, record.digest): record for record in records}

    def _verify(
        self,
        place: Path,
        file: FileFact,
        known: Mapping[tuple[str, str], VerifiedFile],
        hold: SnapshotHold,
        taken: _Taken,
    ) -> VerifiedFile | None:
        record = known.get((file.path, file.digest))
        if record is not None and record.is_unchanged(place):
            return record
        taken.read_bytes += place.stat().st_size
        return find_verified(place, file, hold.check)

    def _bring(
        self,
        place: Path,
        file: FileFact,
        layout: RepositoryLayout,
        hold: SnapshotHold,
        taken: _Taken,
        *,
        commit: str,
        public: bool,
    ) -> VerifiedFile | None:
        """The file as a blob of ours: there already, linked or copied; verified before it has the
        blob's name."""
        blob = layout.blob(file.digest)
        if blob.is_file():
            taken.read_bytes += file.size
            return find_verified(blob, file, hold.check)
        staged = layout.work / f"{commit}.{file.digest}.{secrets.token_hex(4)}{INCOMING}"
        source = place.resolve(strict=True)
        if source.stat().st_size != file.size:
            return None
        try:
            linked = _link_or_copy(source, staged, hold, public=public)
            taken.read_bytes += file.size
            verified = find_verified(staged, file, hold.check)
            if verified is not None:
                staged.rename(blob)
                taken.linked_bytes += file.size if linked else 0
                taken.copied_bytes += 0 if linked else file.size
            return verified
        finally:
            staged.unlink(missing_ok=True)

    def _record(
        self,
        question: AdoptQuestion,
        facts: RepositoryFacts | None,
        tree: tuple[FileFact, ...],
        proof: Proof,
        taken: _Taken,
    ) -> Adoption:
        layout = self._layout(question.repository)
        proved = facts is not None and question.public is not None
        whole = Needed(repository=question.repository, commit=question.commit, files=tree)
        needed = list_needed(facts) if facts is not None else whole
        have = tuple(taken.good[file.path] for file in needed.files if file.path in taken.good)
        complete = len(have) == len(needed.files)
        good = tuple(file for file in tree if file.path in taken.good)
        if complete and proved:
            public = question.public is True
            publish(layout, commit=question.commit, files=good, public=public, tree=tree)
        recorded = complete and proved
        record_copy(self.database, layout, needed, have, store=self.store, complete=recorded)
        log.info("A snapshot is adopted.", action="adopted", repository=question.repository)
        return Adoption(
            repository=question.repository,
            commit=question.commit,
            node=self.node,
            proof=proof,
            complete=complete,
            recorded=recorded,
            files=len(taken.good),
            size_bytes=sum(file.size for file in good),
            read_bytes=taken.read_bytes,
            linked_bytes=taken.linked_bytes,
            copied_bytes=taken.copied_bytes,
            wrong=tuple(taken.wrong),
        )


def _list_snapshots(folder: Path, repository: str) -> Iterator[Adoptable]:
    layout = RepositoryLayout(cache_dir=folder, repository=repository)
    refs = list_refs(layout)
    for snapshot in read_repository(layout).snapshots:
        if snapshot.files:
            names = tuple(sorted(name for name, to in refs.items() if to == snapshot.commit))
            yield Adoptable(repository=repository, commit=snapshot.commit, refs=names)


def _list_skipped(folder: Path, names: tuple[str, ...]) -> Iterator[str]:
    taken = {f"{_PREFIX}{name.replace('/', '--')}" for name in names}
    for place in sorted(folder.glob(f"{_PREFIX}*")):
        if place.is_symlink() or (place.is_dir() and place.name not in taken):
            yield place.name


def _find_tree(
    source: RepositoryLayout, held: HeldSnapshot, facts: RepositoryFacts | None
) -> tuple[tuple[FileFact, ...], Proof]:
    """What the files are held against, by the best word there is."""
    if facts is not None:
        return facts.files, Proof.HUB
    listing = find_listing(source, held.commit)
    if listing is not None:
        return listing, Proof.LISTING
    named = tuple(
        fact_of_digest(file.digest, file.place.stat().st_size, file.path)
        for file in held.files
        if file.digest is not None and file.standing is Standing.FILE
    )
    return named, Proof.NAMES


def _find_place(held: Mapping[str, HeldFile], file: FileFact, taken: _Taken) -> Path | None:
    """Where the file is; a link that leads nowhere, or out of the cache, is named as wrong."""
    found = held.get(file.path)
    if found is None:
        return None
    if found.standing is Standing.FILE:
        return found.place
    state = "missing" if found.standing is Standing.DANGLING else "foreign"
    taken.wrong.append(AdoptedFile(path=file.path, state=state))
    return None


def _own_blob(layout: RepositoryLayout, place: Path, file: FileFact) -> None:
    """Give a file of a cache without links its blob, as a second name of the same bytes."""
    blob = layout.blob(file.digest)
    if not os.path.lexists(blob):
        os.link(place.resolve(strict=True), blob)


def _link_or_copy(source: Path, staged: Path, hold: SnapshotHold, *, public: bool) -> bool:
    """Whether a link was enough; a copy is on disk, and of our own mode, when this returns."""
    try:
        os.link(source, staged, follow_symlinks=False)
    except OSError:
        with source.open("rb") as origin, staged.open("xb") as target:
            os.fchmod(target.fileno(), file_mode(public=public))
            while chunk := origin.read(_COPY_BYTES):
                hold.check()
                target.write(chunk)
            target.flush()
            os.fsync(target.fileno())
        return False
    return True


def _sweep(layout: RepositoryLayout, commit: str) -> None:
    """Remove what an adoption that was killed has left; nobody else has this snapshot's claim."""
    for left in layout.work.glob(f"{commit}.*{INCOMING}"):
        left.unlink()
