"""Everything in this node's cache checked at once, and its quarantine."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

import structlog

from warmrack_store.cache.checking import Check, Finding, Wrong
from warmrack_store.cache.contents import list_repositories, read_repository
from warmrack_store.cache.folders import make_folder
from warmrack_store.cache.layout import RepositoryLayout
from warmrack_store.cache.quarantine import (
    Quarantined,
    list_quarantined,
    quarantine,
    remove,
    restore,
)
from warmrack_store.cache.verified import VerifiedFile
from warmrack_store.cache_questions import (
    ContentsCheck,
    ContentsQuestion,
    QuarantineAct,
    QuarantineAnswer,
    QuarantineQuestion,
)
from warmrack_store.database import Database
from warmrack_store.errors import BadRequest, NotFound, Timeout
from warmrack_store.facts import FileFact
from warmrack_store.ledgers import copies, resolutions
from warmrack_workers.snapshot_holds import SnapshotHold, hold_snapshot

log = structlog.get_logger()
_LEASE_SECONDS = 10.0
"""For a few renames and one transaction."""
_MOVED = (Wrong.CORRUPT, Wrong.FOREIGN)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentChecks:
    """The checks of one store."""

    database: Database
    cache_dir: Path
    node: str
    store: str

    def check(self, question: ContentsQuestion) -> ContentsCheck:
        """What is corrupt, missing, foreign or an orphan. Corrupt blobs and links out of the cache
        go to quarantine, except where a fetch is at work, and their copies count as incomplete."""
        started = time.perf_counter()
        names = self._list_names(question.repository)
        checks = [self._prepare(name, question) for name in names]
        findings = [
            self._settle(check, finding) for check in checks for finding in list(check.run())
        ]
        return ContentsCheck(
            node=self.node,
            store=self.store,
            quick=question.quick,
            repositories=len(checks),
            files=sum(check.files for check in checks),
            read_bytes=sum(check.read_bytes for check in checks),
            seconds=time.perf_counter() - started,
            findings=tuple(findings),
        )

    def quarantine(self, question: QuarantineQuestion) -> QuarantineAnswer:
        """List, restore or remove what lies aside. Raises NotFound, Integrity, BadRequest."""
        match question.act, question.id:
            case QuarantineAct.LIST, _:
                return QuarantineAnswer(node=self.node, items=tuple(self._list_kept()))
            case QuarantineAct.RESTORE, None:
                raise BadRequest("which file is to be restored?", hint="Name its id.")
            case QuarantineAct.RESTORE, kept_id:
                kept = self._find_kept(str(kept_id))
                restore(self._layout(kept.repository), kept.id)
                return QuarantineAnswer(node=self.node, items=(kept,))
            case _, kept_id:
                chosen = self._list_kept() if kept_id is None else (self._find_kept(kept_id),)
                items = tuple(chosen)
                freed = sum(remove(self._layout(kept.repository), kept.id) for kept in items)
                return QuarantineAnswer(node=self.node, items=items, freed_bytes=freed)

    def _list_kept(self) -> Iterator[Quarantined]:
        for name in list_repositories(self.cache_dir):
            yield from list_quarantined(self._layout(name))

    def _find_kept(self, kept_id: str) -> Quarantined:
        for kept in self._list_kept():
            if kept.id == kept_id:
                return kept
        raise NotFound(
            f"{self.node} has no {kept_id[:80]!r} in quarantine",
            hint="`warmrack cache quarantine ls` lists what is there.",
        )

    def _list_names(self, repository: str | None) -> tuple[str, ...]:
        """Repositories on the disk, and those of which SQL says that they should be."""
        with self.database.read() as tx:
            recorded = {copy.repository for copy in copies.list_complete(tx, self.store)}
        names = sorted({*list_repositories(self.cache_dir), *recorded})
        if repository is None:
            return tuple(names)
        found = tuple(name for name in names if name.lower() == repository.lower())
        if not found:
            raise NotFound(f"{self.node} holds nothing of {repository}")
        return found

    def _prepare(self, name: str, question: ContentsQuestion) -> Check:
        held = read_repository(self._layout(name)).narrow(question.commit)
        commits = {snapshot.commit for snapshot in held.snapshots}
        known: dict[str, tuple[FileFact, ...]] = {}
        verified: dict[str, tuple[VerifiedFile, ...]] = {}
        with self.database.read() as tx:
            for copy in copies.list_complete(tx, self.store):
                if copy.repository == name and question.commit in (None, copy.commit):
                    verified[copy.commit] = (*verified.get(copy.commit, ()), *copy.verified)
            for commit in commits:
                facts = resolutions.find_facts(tx, name, commit)
                if facts is not None:
                    known[commit] = facts.files
        return Check(held=held, known=known, verified=verified, quick=question.quick)

    def _settle(self, check: Check, finding: Finding) -> Finding:
        """The finding with what was done about it."""
        if finding.kind is Wrong.MISSING:
            self._forget(finding)
        if check.quick or finding.kind not in _MOVED:
            return finding
        try:
            with ExitStack() as held:
                for commit in finding.commits:
                    held.enter_context(self._hold(finding.repository, commit))
                moved = self._move(check.held.layout, finding)
                self._forget(finding)
        except (Timeout, FileNotFoundError):
            return finding  # a fetch has it, which puts good files there
        log.warning(
            "A file of the cache is not what it should be.",
            action="contents-damaged",
            repository=finding.repository,
            path=finding.path,
        )
        return finding.model_copy(update={"quarantined": moved.name})

    def _move(self, layout: RepositoryLayout, finding: Finding) -> Path:
        """Move the blob, or the name in the snapshot, aside.

        Of a blob in the cache-wide store it is the bytes that move, so that no stock client links
        to them again; the repository's link to them goes.
        """
        blob = finding.path.startswith("blobs/")
        place = layout.folder / finding.path if blob else self._place(layout, finding)
        make_folder(layout.work, public=False)
        shared = blob and place.is_symlink()
        moved = quarantine(
            layout,
            place.resolve(strict=True) if shared else place,
            expected=finding.expected,
            actual=finding.actual,
            reason=finding.kind.value,
        )
        if shared:
            place.unlink()
        return moved

    def _place(self, layout: RepositoryLayout, finding: Finding) -> Path:
        (commit,) = finding.commits
        return layout.snapshot(commit) / finding.path

    def _forget(self, finding: Finding) -> None:
        with self.database.write() as tx:
            for commit in finding.commits:
                copies.forget_completeness(
                    tx, store=self.store, repository=finding.repository, commit=commit
                )

    def _hold(self, repository: str, commit: str) -> AbstractContextManager[SnapshotHold]:
        return hold_snapshot(
            self.database,
            store=self.store,
            repository=repository,
            commit=commit,
            node=self.node,
            ttl_seconds=_LEASE_SECONDS,
        )

    def _layout(self, repository: str) -> RepositoryLayout:
        return RepositoryLayout(cache_dir=self.cache_dir, repository=repository)
