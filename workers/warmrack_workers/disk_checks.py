"""A snapshot of this node's cache read again, and what is wrong there moved out of the way."""

import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path

import structlog

from warmrack_store.cache.folders import make_folder
from warmrack_store.cache.layout import RepositoryLayout
from warmrack_store.cache.quarantine import quarantine
from warmrack_store.cache.snapshots import CheckedFile, FileState, verify_snapshot
from warmrack_store.database import Database
from warmrack_store.errors import NotFound
from warmrack_store.facts import FileFact
from warmrack_store.ledgers import copies, leases, resolutions
from warmrack_store.rechecks import DiskCheck, FileVerdict
from warmrack_store.resolution import Resolution

log = structlog.get_logger()
_Identity = tuple[int, ...]
_READ = (FileState.GOOD, FileState.CORRUPT)
_WRONG = (FileState.CORRUPT, FileState.FOREIGN)
_LEASE_SECONDS = 10.0
"""For a few renames and one transaction."""


class DiskChecks:
    """The checks of one store's snapshots."""

    def __init__(self, *, database: Database, cache_dir: Path, node: str, store: str) -> None:
        self._database = database
        self._cache_dir = cache_dir
        self._node = node
        self._store = store

    def check(self, resolution_id: str) -> DiskCheck:
        """Hash every file of a resolution, whatever its times say.

        Files that are not what they should be are quarantined, and the copy counts as incomplete,
        so that the next fetch brings good ones; where a fetch is at work on the snapshot, nothing
        is moved. Raises NotFound for an unknown resolution.
        """
        with self._database.read() as tx:
            resolution = resolutions.find_resolution(tx, resolution_id)
        if resolution is None:
            raise NotFound(f"there is no resolution {resolution_id[:80]!r}")
        checks = [self._check_part(part) for part in resolution.parts]
        return DiskCheck(
            node=self._node,
            files=tuple(file for check in checks for file in check.files),
            read_bytes=sum(check.read_bytes for check in checks),
            seconds=sum(check.seconds for check in checks),
            quarantined=tuple(path for check in checks for path in check.quarantined),
        )

    def _check_part(self, resolution: Resolution) -> DiskCheck:
        files = resolution.files
        layout = RepositoryLayout(cache_dir=self._cache_dir, repository=resolution.repository)
        places = {file.path: layout.snapshot(resolution.commit) / file.path for file in files}
        seen = {path: _identity(place) for path, place in places.items()}
        started = time.perf_counter()
        checked = [_check(layout, resolution.commit, file) for file in files]
        seconds = time.perf_counter() - started
        wrong = [file for file in checked if file.state is not FileState.GOOD]
        moved = self._quarantine(layout, resolution, wrong, seen) if wrong else ()
        sizes = {file.path: file.size for file in files}
        return DiskCheck(
            node=self._node,
            files=tuple(_verdict(file) for file in checked),
            read_bytes=sum(sizes[file.path] for file in checked if file.state in _READ),
            seconds=seconds,
            quarantined=moved,
        )

    def _quarantine(
        self,
        layout: RepositoryLayout,
        resolution: Resolution,
        wrong: list[CheckedFile],
        seen: Mapping[str, _Identity],
    ) -> tuple[str, ...]:
        """The paths moved, under the snapshot's lease; none where a fetch has it, which may be just
        putting good files there.

        A file that became another one since it was looked at is left alone.
        """
        subject = copies.subject(self._store, resolution.repository, resolution.commit)
        holder = f"{self._node}:recheck:{secrets.token_hex(6)}"
        with self._database.write() as tx:
            lease = leases.acquire(
                tx, subject=subject, kind="snapshot", holder=holder, ttl_seconds=_LEASE_SECONDS
            )
        if lease is None:
            return ()
        make_folder(layout.work, public=resolution.public)
        moved = []
        digests = {file.path: file.digest for file in resolution.files}
        for file in wrong:
            place = layout.snapshot(resolution.commit) / file.path
            if file.state in _WRONG and _identity(place) == seen[file.path]:
                _move_aside(layout, place, layout.blob(digests[file.path]))
                moved.append(file.path)
        with self._database.write() as tx:
            copies.forget_completeness(
                tx, store=self._store, repository=resolution.repository, commit=resolution.commit
            )
            leases.release(tx, lease)
        log.warning(
            "A snapshot is not what was verified.",
            action="snapshot-damaged",
            repository=resolution.repository,
            files=[file.path for file in wrong],
        )
        return tuple(moved)


def _identity(place: Path) -> _Identity:
    """What tells a file from the one that replaces it, links not followed and followed."""
    try:
        link, file = place.lstat(), place.stat()
    except FileNotFoundError:
        return ()
    return link.st_ino, file.st_ino, file.st_mtime_ns, file.st_ctime_ns


def _check(layout: RepositoryLayout, commit: str, file: FileFact) -> CheckedFile:
    """A file that the disk cannot give back is as good as a changed one."""
    try:
        (checked,) = verify_snapshot(layout, commit, (file,))
    except OSError as error:
        log.warning("A file cannot be read.", action="read-failed", error=repr(error))
        return CheckedFile(path=file.path, state=FileState.CORRUPT)
    return checked


def _move_aside(layout: RepositoryLayout, place: Path, blob: Path) -> None:
    """The blob that a good link leads to, else what stands in the snapshot itself."""
    leads_there = place.is_symlink() and os.path.abspath(place.parent / place.readlink()) == (
        os.path.abspath(blob)
    )
    quarantine(layout, blob if leads_there else place)


def _verdict(file: CheckedFile) -> FileVerdict:
    if file.verified is None:
        return FileVerdict(path=file.path, state=file.state)
    return FileVerdict(
        path=file.path,
        state=file.state,
        size=file.verified.size_bytes,
        sha256=file.verified.sha256,
    )
