"""Snapshots that leave this node as one file, and those that come as one."""

import os
import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from warmrack_store.cache.archive import (
    ArchiveReader,
    Manifest,
    Source,
    archive_size,
    write_archive,
)
from warmrack_store.cache.contents import INCOMING, list_refs
from warmrack_store.cache.folders import file_mode, make_folders, sync_folder
from warmrack_store.cache.layout import RepositoryLayout
from warmrack_store.cache.publish import publish
from warmrack_store.cache.quarantine import quarantine
from warmrack_store.cache.space import check_space, disk_full_as_refusal
from warmrack_store.cache.verified import BlobHasher, VerifiedFile, find_verified
from warmrack_store.cache_questions import ExportQuestion, Imported, ImportQuestion, Proof
from warmrack_store.database import Database
from warmrack_store.errors import BadRequest, Integrity, NotFound
from warmrack_store.facts import FileFact, RefFact, RepositoryFacts
from warmrack_store.ledgers import copies, names, resolutions, tensors
from warmrack_store.refs import ModelRef
from warmrack_workers.fetch.fetcher import check_files
from warmrack_workers.fetch.leaves import hash_leaves
from warmrack_workers.node_server import Download
from warmrack_workers.selections import Needed, list_needed, record_copy
from warmrack_workers.snapshot_holds import SnapshotHold, hold_snapshot

log = structlog.get_logger()
_PATIENCE_SECONDS = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Archives:
    """Exports from one store and imports into it."""

    database: Database
    cache_dir: Path
    node: str
    store: str
    lease_seconds: float

    def export(self, question: ExportQuestion) -> Download:
        """The snapshot as it is here; the caller's right to it has been checked.

        Raises NotFound where this store has no whole copy of the commit.
        """
        with self.database.read() as tx:
            facts = resolutions.find_facts(tx, question.repository, question.commit)
            held = [
                copy
                for copy in copies.list_copies_of(tx, question.repository, question.commit)
                if copy.store == self.store and copy.complete
            ]
            files = {file["path"]: str(file["digest"]) for copy in held for file in copy.files}
            leaves = {
                digest: tuple(tensors.list_leaves(tx, digest))
                for digest in sorted(set(files.values()))
            }
        if facts is None or not files:
            raise NotFound(
                f"{self.node} has no whole copy of {question.repository}@{question.commit}",
                hint="Prefetch or adopt it first.",
            )
        layout = self._layout(facts.repository)
        manifest = Manifest(
            facts=facts.model_copy(update={"private": not question.public, "gated": False}),
            refs=self._list_refs(layout, question),
            paths=tuple(sorted(files)),
            leaves={digest: found for digest, found in leaves.items() if found},
        )
        return Download(size_bytes=archive_size(manifest), chunks=write_archive(layout, manifest))

    def _list_refs(self, layout: RepositoryLayout, question: ExportQuestion) -> tuple[str, ...]:
        """Names of the commit: those on the disk, those it was exported by, and the default
        branch where that was asked and meant it."""
        found = {name for name, commit in list_refs(layout).items() if commit == question.commit}
        with self.database.read() as tx:
            known = names.find_ref(tx, ModelRef(repository=question.repository))
        if known is not None and known.ref.commit == question.commit:
            found.add("")
        return tuple(sorted(found))

    def take_in(self, question: ImportQuestion, source: Source) -> Imported:
        """Every file verified, then visible as a whole, then known to SQL.

        Raises BadRequest or Integrity for what is no archive of ours, or is another tree than is
        known of the commit; DiskFull before the first byte is written.
        """
        reader = ArchiveReader(source)
        manifest = reader.manifest
        if question.public is not None:
            shown = {"private": not question.public, "gated": False}
            facts = manifest.facts.model_copy(update=shown)
            manifest = manifest.model_copy(update={"facts": facts})
        facts = manifest.facts
        if (facts.repository, facts.commit) != (question.repository, question.commit):
            raise BadRequest(f"the archive is of {facts.repository}@{facts.commit}")
        check_files(manifest.files)
        proof = self._prove(facts)
        layout = self._layout(facts.repository)
        with (
            self._hold(facts) as hold,
            disk_full_as_refusal(self.cache_dir),
        ):
            missing = [file for file in manifest.blobs if not layout.blob(file.digest).exists()]
            check_space(self.cache_dir, sum(file.size for file in missing))
            make_folders(layout, public=facts.public)
            for left in layout.work.glob(f"{facts.commit}.*{INCOMING}"):
                left.unlink()
            found = {
                file.digest: self._take_blob(reader, layout, file, hold, public=facts.public)
                for file in manifest.blobs
            }
            reader.check_end()
            self._publish(layout, manifest, found)
        log.info("A snapshot is imported.", action="imported", repository=facts.repository)
        return Imported(
            node=self.node,
            repository=facts.repository,
            commit=facts.commit,
            files=len(manifest.paths),
            size_bytes=sum(file.size for file in manifest.blobs),
            written_bytes=sum(file.size for file in missing),
            proof=proof,
            public=facts.public,
        )

    def _prove(self, facts: RepositoryFacts) -> Proof:
        """Whether the Hub's own word of this commit is here; raises Integrity where it differs."""
        with self.database.read() as tx:
            known = resolutions.find_facts(tx, facts.repository, facts.commit)
        if known is None:
            return Proof.LISTING
        if known.files != facts.files:
            raise Integrity(
                f"the archive names other files of {facts.repository}@{facts.commit} than the Hub",
                hint="Do not trust where it came from.",
            )
        return Proof.HUB

    def _hold(self, facts: RepositoryFacts) -> AbstractContextManager[SnapshotHold]:
        return hold_snapshot(
            self.database,
            store=self.store,
            repository=facts.repository,
            commit=facts.commit,
            node=self.node,
            ttl_seconds=self.lease_seconds,
            patience_seconds=_PATIENCE_SECONDS,
        )

    def _take_blob(
        self,
        reader: ArchiveReader,
        layout: RepositoryLayout,
        file: FileFact,
        hold: SnapshotHold,
        *,
        public: bool,
    ) -> VerifiedFile:
        """The blob that is here already, if it is good, else the archive's."""
        blob = layout.blob(file.digest)
        chunks = reader.read_blob(file)
        verified = find_verified(blob, file, hold.check) if blob.is_file() else None
        if verified is not None:
            for _ in chunks:
                hold.check()
            return verified
        if os.path.lexists(blob):
            quarantine(layout, blob, expected=file.digest, reason="corrupt")
        commit = reader.manifest.facts.commit
        staged = layout.work / f"{commit}.{file.digest}.{secrets.token_hex(4)}{INCOMING}"
        try:
            return self._write(staged, blob, chunks, file, hold, public=public)
        finally:
            staged.unlink(missing_ok=True)

    def _write(
        self,
        staged: Path,
        blob: Path,
        chunks: Iterator[bytes],
        file: FileFact,
        hold: SnapshotHold,
        *,
        public: bool,
    ) -> VerifiedFile:
        hasher = BlobHasher(file)
        with staged.open("xb") as stream:
            for chunk in chunks:
                hold.check()
                hasher.update(chunk)
                stream.write(chunk)
            if not hasher.matches:
                raise Integrity(f"{file.path}: the archive's bytes are not those it announces")
            stream.flush()
            os.fchmod(stream.fileno(), file_mode(public=public))
            os.fsync(stream.fileno())
            staged.rename(blob)
            sync_folder(blob.parent)
            return hasher.verified(os.fstat(stream.fileno()))

    def _publish(
        self, layout: RepositoryLayout, manifest: Manifest, found: dict[str, VerifiedFile]
    ) -> None:
        facts = manifest.facts
        _check_leaves(layout, manifest)
        publish(
            layout,
            commit=facts.commit,
            files=manifest.files,
            public=facts.public,
            tree=facts.files,
            ref=next(filter(None, manifest.refs), None),
        )
        ref = RefFact(**facts.model_dump(include=set(RefFact.model_fields)))
        with self.database.write() as tx:
            resolutions.put_facts(tx, facts)
            for name in {*manifest.refs, facts.commit}:
                asked = ModelRef(repository=facts.repository, revision=name or None)
                if names.find_ref(tx, asked) is None:
                    names.put_ref(tx, asked, ref)
        self._record(layout, manifest, found)

    def _record(
        self, layout: RepositoryLayout, manifest: Manifest, found: dict[str, VerifiedFile]
    ) -> None:
        facts = manifest.facts
        needed = list_needed(facts)
        here = set(manifest.paths)
        if not {file.path for file in needed.files} <= here:
            needed = Needed(repository=facts.repository, commit=facts.commit, files=manifest.files)
        have = [replace(found[file.digest], path=file.path) for file in needed.files]
        record_copy(self.database, layout, needed, have, store=self.store, complete=True)

    def _layout(self, repository: str) -> RepositoryLayout:
        return RepositoryLayout(cache_dir=self.cache_dir, repository=repository)


def _check_leaves(layout: RepositoryLayout, manifest: Manifest) -> None:
    """Integrity where the announced tensor digests are not those of the bytes; what is kept is
    taken from the bytes in any case."""
    for digest, announced in manifest.leaves.items():
        if digest not in {file.digest for file in manifest.blobs}:
            raise Integrity(f"the archive announces tensors of {digest}, which it does not hold")
        found = {(leaf.name, leaf.leaf) for leaf in hash_leaves(layout.blob(digest))}
        if found != {(leaf.name, leaf.leaf) for leaf in announced}:
            raise Integrity(f"the archive announces other tensors than {digest} holds")
