"""How a snapshot leaves the disk: refs, then links, then blobs, so that nothing ever leads nowhere."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock
from filelock import Timeout as LockTimeout
from huggingface_hub import DeleteCacheStrategy

from warmrack_store.cache.layout import RepositoryLayout
from warmrack_store.refs import check_file_path


def remove_snapshot(layout: RepositoryLayout, commit: str, files: Mapping[str, str]) -> None:
    """Remove these files (path -> digest) of a snapshot, and the blobs that no other one uses.

    Runs under the snapshot's claim. What else lies in its folder stays, with the refs to it then.
    A blob that a stock client is at work on stays as well. Safe to repeat after a kill at any
    point. A process that has a file open or mapped keeps its bytes.
    """
    snapshot = layout.snapshot(commit)
    if not _list_others(snapshot, files):
        _remove_refs(layout, commit)
    layout.tree(commit).unlink(missing_ok=True)  # with it, a stock load insists on every file
    for path in files:
        _unlink_inside(snapshot, path)
    _remove_empty(snapshot)
    used = set(_list_linked(layout))
    for digest in sorted(set(files.values())):
        for leftover in (layout.part(digest), layout.journal(digest)):
            leftover.unlink(missing_ok=True)
        if digest not in used:
            _remove_blob(layout, digest)


def remove_empty_repository(layout: RepositoryLayout) -> None:
    """Remove a repository's folders where nothing is left in them."""
    for folder in (layout.refs, layout.trees, layout.blobs, layout.work):
        _remove_empty(folder)
    if not any(folder.exists() for folder in (layout.refs, layout.blobs, layout.work)):
        _remove_empty(layout.snapshots)
    with suppress(OSError):
        layout.folder.rmdir()


def is_locked(layout: RepositoryLayout) -> bool:
    """Whether a process holds one of huggingface_hub's locks on this repository's blobs."""
    if not layout.locks.is_dir():
        return False
    for place in layout.locks.glob("*.lock"):
        with _try_lock(place) as free:
            if not free:
                return True
    return False


@contextmanager
def _try_lock(place: Path) -> Iterator[bool]:
    """Hold the lock if it is free now; whether it was."""
    lock = FileLock(place)
    try:
        lock.acquire(timeout=0)
    except LockTimeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _list_others(snapshot: Path, files: Mapping[str, str]) -> list[str]:
    """Paths in the snapshot's folder that are not among `files`."""
    return [
        path
        for parent, _, names in os.walk(snapshot)
        for name in names
        if (path := Path(parent, name).relative_to(snapshot).as_posix()) not in files
    ]


def _remove_refs(layout: RepositoryLayout, commit: str) -> None:
    for parent, _, names in os.walk(layout.refs):
        for name in names:
            place = Path(parent, name)
            with suppress(UnicodeDecodeError):
                if not place.is_symlink() and place.read_text(encoding="utf-8").strip() == commit:
                    place.unlink(missing_ok=True)


def _unlink_inside(snapshot: Path, path: str) -> None:
    """Unlink one name; one behind a folder that is a link is not ours to touch."""
    parents = Path(check_file_path(path)).parts[:-1]
    places = [snapshot.joinpath(*parents[:depth]) for depth in range(len(parents) + 1)]
    if not any(place.is_symlink() for place in places):
        (snapshot / path).unlink(missing_ok=True)


def _remove_empty(folder: Path) -> None:
    """Remove a folder and the folders in it, as far as they are empty."""
    for parent, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):
            Path(parent).rmdir()


def _list_linked(layout: RepositoryLayout) -> Iterator[str]:
    """Names of the blobs that the repository's snapshots link to."""
    for parent, _, names in os.walk(layout.snapshots):
        for name in names:
            place = Path(parent, name)
            if place.is_symlink():
                yield place.readlink().name


def _remove_blob(layout: RepositoryLayout, digest: str) -> None:
    blob = layout.blob(digest)
    if not os.path.lexists(blob):
        return
    layout.locks.mkdir(parents=True, exist_ok=True)
    with _try_lock(layout.lock(digest)) as free:
        if not free:
            return
        if blob.is_symlink():
            _remove_shared(layout, blob)
        else:
            blob.unlink(missing_ok=True)


def _remove_shared(layout: RepositoryLayout, blob: Path) -> None:
    """A link into the blob store that huggingface_hub 2.4 shares between repositories: its own
    strategy unlinks it, and collects what it led to with the last reference."""
    DeleteCacheStrategy(
        expected_freed_size=0,
        blobs=frozenset({blob}),
        refs=frozenset(),
        repos=frozenset(),
        snapshots=frozenset(),
        cache_dir=layout.cache_dir,
    ).execute()
