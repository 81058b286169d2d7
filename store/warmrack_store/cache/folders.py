"""The folders of a repository on disk, with the modes its visibility asks for.

Public repositories are readable for everybody on the machine; gated and private ones only for the
daemon's user, so that the folder is no way around the rights.
"""

import os
import stat
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from warmrack_store.cache.layout import RepositoryLayout
from warmrack_store.errors import Integrity


def file_mode(*, public: bool) -> int:
    return 0o644 if public else 0o600


def folder_mode(*, public: bool) -> int:
    return 0o755 if public else 0o700


def make_folders(layout: RepositoryLayout, *, public: bool) -> None:
    """Make what is missing and close to others what is not public.

    `snapshots` comes first and `.warmrack` last: without `snapshots` a stock scan of the cache
    warns about the repository. Raises Integrity where one of them is a link.
    """
    layout.cache_dir.mkdir(parents=True, exist_ok=True)
    for folder in (layout.folder, layout.snapshots, layout.blobs, layout.work):
        make_folder(folder, public=public)
    layout.locks.mkdir(parents=True, exist_ok=True)


def make_folder(folder: Path, *, public: bool) -> None:
    """Make one folder; an existing one is only ever closed further, never opened."""
    try:
        folder.mkdir()
    except FileExistsError:
        if not stat.S_ISDIR(folder.lstat().st_mode):
            raise Integrity(
                f"{folder} is not a folder of its own",
                hint="Links other than the cache's own to its blobs are refused; remove it.",
            ) from None
        if public:
            return
    folder.chmod(folder_mode(public=public))


def make_parents(root: Path, path: str, *, public: bool) -> Path:
    """Make the folders between `root` and `path` one by one; the place of `path` itself."""
    place = root
    *parents, name = path.split("/")
    for parent in parents:
        place /= parent
        make_folder(place, public=public)
    return place / name


def list_parents(root: Path, paths: Iterable[str]) -> frozenset[Path]:
    """`root`, and the folders between it and each of `paths`."""
    found = {root}
    for path in paths:
        found.update(root / parent for parent in PurePosixPath(path).parents)
    return frozenset(found)


def write_whole(target: Path, text: str, work: Path, *, public: bool) -> None:
    """Write a file such that a reader sees the old or the new text, also after a power cut."""
    staged = work / f"{target.name}.{os.getpid()}.{os.urandom(4).hex()}.new"
    with staged.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fchmod(stream.fileno(), file_mode(public=public))
        os.fsync(stream.fileno())
    staged.replace(target)


def sync_folder(folder: Path) -> None:
    """Make the renames inside `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
