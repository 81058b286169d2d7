"""What a snapshot on disk holds, and whether it is still what the Hub's tree says."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from warmrack_store.cache.layout import RepositoryLayout
from warmrack_store.cache.verified import VerifiedFile, find_verified
from warmrack_store.facts import FileFact


class FileState(StrEnum):
    """What hashing a file of a snapshot showed."""

    GOOD = "good"
    MISSING = "missing"
    """No such name, or a link that leads nowhere."""
    CORRUPT = "corrupt"
    FOREIGN = "foreign"
    """A link that leaves the cache, or no regular file; it was not read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedFile:
    path: str
    state: FileState
    verified: VerifiedFile | None = None
    """Set where the state is good."""


def verify_snapshot(
    layout: RepositoryLayout,
    commit: str,
    files: Sequence[FileFact],
    known: Iterable[VerifiedFile] = (),
) -> tuple[CheckedFile, ...]:
    """Hash every one of `files` in the snapshot, links followed; one answer each, in their order.

    A file that is unchanged since a `known` record is not read again. Nothing is moved or deleted.
    """
    root = layout.snapshot(commit)
    records = {(record.path, record.digest): record for record in known}
    return tuple(
        _check(layout, root / file.path, file, records.get((file.path, file.digest)))
        for file in files
    )


def is_inside(layout: RepositoryLayout, location: Path) -> bool:
    """Whether `location`, every link followed, lies in this cache.

    A stock cache links a snapshot's file to the repository's blob, and that one perhaps to a blob
    store shared by all repositories: two hops, both inside.
    """
    return location.resolve().is_relative_to(layout.cache_dir.resolve())


def _check(
    layout: RepositoryLayout, place: Path, file: FileFact, known: VerifiedFile | None
) -> CheckedFile:
    if os.path.lexists(place) and not is_inside(layout, place):
        return CheckedFile(path=file.path, state=FileState.FOREIGN)
    if not place.exists():
        return CheckedFile(path=file.path, state=FileState.MISSING)
    if not place.is_file():
        return CheckedFile(path=file.path, state=FileState.FOREIGN)
    if known is not None and known.is_unchanged(place):
        return CheckedFile(path=file.path, state=FileState.GOOD, verified=known)
    verified = find_verified(place, file)
    state = FileState.CORRUPT if verified is None else FileState.GOOD
    return CheckedFile(path=file.path, state=state, verified=verified)
