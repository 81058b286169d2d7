"""Every file below a cache folder: its bytes once, and every name that leads to them."""

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from warmrack_store.cache_budget import OUTSIDE, BytesView

FileId = tuple[int, int]
"""Device and inode."""
Owned = Mapping[str, Mapping[str, str]]
"""Snapshots that are ours by folder and commit (`models--org--name@<commit>`): path -> digest."""


@dataclass(slots=True)
class Inventory:
    """One walk over a cache. Folders of repositories are named as on disk (`models--org--name`)."""

    sizes: dict[FileId, int] = field(default_factory=dict)
    links: dict[FileId, int] = field(default_factory=dict)
    """Names that a file has anywhere, minus those that were seen here."""
    snapshots: dict[str, dict[str, FileId]] = field(default_factory=dict)
    """`folder@commit` -> path in the repository -> file; a link that leads nowhere is not there."""
    blobs: dict[tuple[str, str], FileId] = field(default_factory=dict)
    """(folder, digest) -> file."""
    parts: dict[tuple[str, str], FileId] = field(default_factory=dict)
    """(folder, digest) -> what has arrived of a blob."""

    @property
    def used_bytes(self) -> int:
        return sum(self.sizes.values())

    def count_parts(self, promised: Mapping[tuple[str, str], int]) -> int:
        """Bytes of the parts of promised blobs: they are counted with the promise."""
        return sum(self.sizes[file] for key, file in self.parts.items() if key in promised)

    def list_unlinked(self) -> Iterator[tuple[str, str, FileId]]:
        """(folder, digest, file) of the blobs that no snapshot of their repository uses."""
        used: dict[str, set[FileId]] = {}
        for key, files in self.snapshots.items():
            used.setdefault(key.partition("@")[0], set()).update(files.values())
        for (folder, digest), file in self.blobs.items():
            if file not in used.get(folder, ()):
                yield folder, digest, file

    def list_bytes(self, owned: Owned, names: Mapping[str, str]) -> tuple[BytesView, ...]:
        """Each file with its users; `names` are the keys that owned snapshots go by.

        What somebody else put into a snapshot of ours is used by him, and a blob that lies there
        without a link is used by whichever of ours name it.
        """
        users: dict[FileId, set[str]] = {file: set() for file in self.sizes}
        for key, files in self.snapshots.items():
            for path, file in files.items():
                mine = path in owned.get(key, {})
                users.setdefault(file, set()).add(names[key] if mine else f"{key}/{path}")
        wanted = _users_by_digest(owned, names)
        loose = [*self.list_unlinked(), *((*key, file) for key, file in self.parts.items())]
        for folder, digest, file in loose:
            users.setdefault(file, set()).update(
                wanted.get((folder, digest), {f"{folder}/{digest}"})
            )
        for file, missing in self.links.items():
            if missing > 0:
                users[file].add(OUTSIDE)
        return tuple(
            BytesView(size_bytes=self.sizes.get(file, 0), users=frozenset(of))
            for file, of in users.items()
        )


def _users_by_digest(owned: Owned, names: Mapping[str, str]) -> dict[tuple[str, str], set[str]]:
    wanted: dict[tuple[str, str], set[str]] = {}
    for key, files in owned.items():
        for digest in files.values():
            wanted.setdefault((key.partition("@")[0], digest), set()).add(names[key])
    return wanted


def read_inventory(cache_dir: Path) -> Inventory:
    """Walk the cache; what vanishes during the walk is not counted."""
    found = Inventory()
    if not cache_dir.is_dir():
        return found
    for entry in os.scandir(cache_dir):
        if entry.is_dir(follow_symlinks=False) and entry.name != ".locks":
            _read_folder(found, Path(entry.path))
    return found


def _read_folder(found: Inventory, folder: Path) -> None:
    for parent, _, names in os.walk(folder):
        inside = Path(parent).relative_to(folder).parts
        for name in names:
            place = Path(parent, name)
            try:
                own = place.lstat()
                seen = place.stat() if stat.S_ISLNK(own.st_mode) else own
            except OSError:
                continue
            _note(found, folder.name, (*inside, name), own, seen)


def _note(
    found: Inventory,
    folder: str,
    inside: tuple[str, ...],
    own: os.stat_result,
    seen: os.stat_result,
) -> None:
    file = (seen.st_dev, seen.st_ino)
    if stat.S_ISREG(own.st_mode):
        found.sizes[file] = own.st_size
        found.links[file] = found.links.get(file, own.st_nlink) - 1
    match inside:
        case ("snapshots", commit, *rest) if rest:
            found.snapshots.setdefault(f"{folder}@{commit}", {})["/".join(rest)] = file
        case ("blobs", digest) if not digest.endswith((".incomplete", ".lock")):
            found.blobs[folder, digest] = file
        case (".warmrack", name) if name.endswith(".part"):
            found.parts[folder, name.removesuffix(".part")] = file
