"""What is wrong in a repository's folder, found by hashing or by a look at sizes and times."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from warmrack_store.cache.contents import HeldFile, HeldRepository, HeldSnapshot, Standing
from warmrack_store.cache.quarantine import fact_of_digest
from warmrack_store.cache.snapshots import is_inside
from warmrack_store.cache.verified import BlobHasher, VerifiedFile, hash_stream
from warmrack_store.facts import FileFact
from warmrack_store.records import Record


class Wrong(StrEnum):
    """What may be found."""

    CORRUPT = "corrupt"
    """Its bytes have not the digest that the Hub, or its name, says."""
    CHANGED = "changed"
    """Another size, file or time than when it was verified; only a quick look says this."""
    MISSING = "missing"
    FOREIGN = "foreign"
    """A link out of the cache; it is never followed."""
    ORPHAN_BLOB = "orphan-blob"
    """No snapshot links to it: waste, or a fetch at work."""
    ORPHAN_PART = "orphan-part"
    """The rest of a download that did not end; ours is gone on with."""


HARMLESS = frozenset({Wrong.ORPHAN_BLOB, Wrong.ORPHAN_PART})


class Finding(Record):
    kind: Wrong
    repository: str
    commits: tuple[str, ...] = ()
    """The snapshots that it is part of."""
    path: str
    """In the snapshot; of a blob or a part: below the repository's folder."""
    size_bytes: int = 0
    expected: str | None = None
    actual: str | None = None
    quarantined: str | None = None
    """Its id there, where it was moved."""


@dataclass(slots=True, kw_only=True)
class Check:
    """One repository against what is known of it; `read_bytes` counts what was hashed."""

    held: HeldRepository
    known: Mapping[str, tuple[FileFact, ...]]
    """The Hub's tree by commit, as far as SQL has it."""
    verified: Mapping[str, tuple[VerifiedFile, ...]]
    """Files of complete copies, by commit."""
    quick: bool = False
    read_bytes: int = 0
    files: int = 0
    _wrong_blobs: set[str] = field(default_factory=set)

    def run(self) -> tuple[Finding, ...]:
        """Everything that is wrong; nothing is moved."""
        blobs = list(self._check_blobs())
        self._wrong_blobs = {Path(finding.path).name for finding in blobs}
        snapshots = [one for held in self.held.snapshots for one in self._check_snapshot(held)]
        return (*blobs, *snapshots, *self._list_gone(), *self._list_orphans())

    def _check_blobs(self) -> Iterator[Finding]:
        sizes = {file.digest: file.size for files in self.known.values() for file in files}
        records = {one.digest: one for files in self.verified.values() for one in files}
        for digest in self.held.blobs:
            blob = self.held.layout.blob(digest)
            if not blob.is_file() or not is_inside(self.held.layout, blob):
                continue  # what links to it says so
            self.files += 1
            size_bytes = blob.stat().st_size
            if self.quick:
                record = records.get(digest)
                same = sizes.get(digest, size_bytes) == size_bytes
                if not same or (record is not None and not record.is_unchanged(blob)):
                    yield self._about_blob(Wrong.CHANGED, digest, size_bytes)
            elif (actual := self._hash(blob, fact_of_digest(digest, size_bytes))) != digest:
                yield self._about_blob(Wrong.CORRUPT, digest, size_bytes, actual)

    def _about_blob(
        self, kind: Wrong, digest: str, size_bytes: int, actual: str | None = None
    ) -> Finding:
        return Finding(
            kind=kind,
            repository=self.held.layout.repository,
            commits=tuple(
                one.commit
                for one in self.held.snapshots
                if any(file.digest == digest for file in one.files)
            ),
            path=f"blobs/{digest}",
            size_bytes=size_bytes,
            expected=digest,
            actual=actual,
        )

    def _check_snapshot(self, snapshot: HeldSnapshot) -> Iterator[Finding]:
        tree = {file.path: file for file in self.known.get(snapshot.commit, ())}
        for file in snapshot.files:
            kind, actual = self._judge(file, tree.get(file.path))
            if kind is not None:
                fact = tree.get(file.path)
                expected = fact.digest if fact is not None else file.digest
                yield self._about(kind, snapshot.commit, file.path, expected, actual)

    def _judge(self, file: HeldFile, fact: FileFact | None) -> tuple[Wrong | None, str | None]:
        if file.standing is Standing.OUTSIDE:
            return Wrong.FOREIGN, None
        if file.standing is Standing.DANGLING:
            return Wrong.MISSING, None
        if file.digest is not None:
            other = fact is not None and file.digest != fact.digest
            return (Wrong.CORRUPT, file.digest) if other else (None, None)
        if fact is None:
            return None, None
        self.files += 1
        if file.place.stat().st_size != fact.size:
            return Wrong.CORRUPT, None
        actual = fact.digest if self.quick else self._hash(file.place, fact)
        return (None, None) if actual == fact.digest else (Wrong.CORRUPT, actual)

    def _list_gone(self) -> Iterator[Finding]:
        """Files of complete copies of which not even the name is there."""
        there = {one.commit: {file.path for file in one.files} for one in self.held.snapshots}
        for commit, files in sorted(self.verified.items()):
            for file in files:
                if file.path not in there.get(commit, set()):
                    yield self._about(Wrong.MISSING, commit, file.path, file.digest)

    def _list_orphans(self) -> Iterator[Finding]:
        linked = self.held.linked
        for digest in self.held.blobs:
            if digest not in linked and digest not in self._wrong_blobs:
                blob = self.held.layout.blob(digest)
                size_bytes = blob.stat().st_size if blob.exists() else 0
                yield self._about_blob(Wrong.ORPHAN_BLOB, digest, size_bytes)
        for part in self.held.parts:
            yield Finding(
                kind=Wrong.ORPHAN_PART,
                repository=self.held.layout.repository,
                path=os.path.relpath(part, self.held.layout.folder),
                size_bytes=part.lstat().st_size,
            )

    def _about(
        self,
        kind: Wrong,
        commit: str,
        path: str,
        expected: str | None,
        actual: str | None = None,
    ) -> Finding:
        return Finding(
            kind=kind,
            repository=self.held.layout.repository,
            commits=(commit,),
            path=path,
            expected=expected,
            actual=actual,
        )

    def _hash(self, place: Path, fact: FileFact) -> str | None:
        """None where the disk does not give it back."""
        try:
            with place.open("rb", buffering=0) as stream:
                hasher = BlobHasher(fact)
                hash_stream(stream, hasher)
        except OSError:
            return None
        self.read_bytes += hasher.size_bytes
        return hasher.digest
