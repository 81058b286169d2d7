"""What a cache folder holds, whoever filled it: repositories, snapshots, blobs and parts."""

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from pydantic import ValidationError

from warmrack_store.cache.layout import RepositoryLayout, check_digest
from warmrack_store.errors import BadRequest
from warmrack_store.facts import FileFact
from warmrack_store.refs import check_file_path, check_repository, check_revision, is_commit

INCOMING = ".incoming"
"""Ends the names of files that an adoption or an import has not verified yet."""
_PREFIX = "models--"
_TREE_FORMAT = 1
_MAX_LISTING_BYTES = 64 * 2**20
_MAX_FILES = 100_000


class Standing(StrEnum):
    """What a name in a snapshot leads to."""

    FILE = "file"
    DANGLING = "dangling"
    OUTSIDE = "outside"
    """Out of the cache, or no regular file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldFile:
    """One name of a snapshot."""

    path: str
    place: Path
    standing: Standing
    digest: str | None
    """The name of the repository's blob that it links to; None for a file of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldSnapshot:
    commit: str
    files: tuple[HeldFile, ...]

    def find_file(self, path: str) -> HeldFile | None:
        return next((file for file in self.files if file.path == path), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldRepository:
    """One repository's folder as it is just now."""

    layout: RepositoryLayout
    snapshots: tuple[HeldSnapshot, ...]
    blobs: tuple[str, ...]
    parts: tuple[Path, ...]
    """Bytes of downloads that did not end, ours and those of stock clients."""

    @property
    def linked(self) -> frozenset[str]:
        """Digests that some snapshot links to."""
        files = (file for snapshot in self.snapshots for file in snapshot.files)
        return frozenset(file.digest for file in files if file.digest is not None)

    def narrow(self, commit: str | None) -> "HeldRepository":
        """Only one snapshot and its blobs, where one is named."""
        if commit is None:
            return self
        kept = tuple(one for one in self.snapshots if one.commit == commit)
        mine = replace(self, snapshots=kept, parts=())
        return replace(mine, blobs=tuple(name for name in self.blobs if name in mine.linked))


def list_repositories(cache_dir: Path) -> tuple[str, ...]:
    """Names of the models that the folder holds; folders whose names are none are left out."""
    found = []
    for folder in _folders(cache_dir):
        parts = folder.name.removeprefix(_PREFIX).split("--")
        if folder.name.startswith(_PREFIX) and len(parts) == 2:
            try:
                found.append(check_repository("/".join(parts)))
            except BadRequest:
                continue  # nobody can ask for a model of this name
    return tuple(found)


def read_repository(layout: RepositoryLayout) -> HeldRepository:
    """Everything in the repository's folder, nothing hashed; an absent one holds nothing."""
    if layout.folder.is_symlink():
        return HeldRepository(layout=layout, snapshots=(), blobs=(), parts=())
    root = layout.cache_dir.resolve()
    snapshots = tuple(
        HeldSnapshot(commit=folder.name, files=tuple(_list_files(layout, root, folder)))
        for folder in _folders(layout.snapshots)
        if is_commit(folder.name)
    )
    names = sorted(place.name for place in _entries(layout.blobs))
    ours = [place for place in _entries(layout.work) if place.suffix in (".part", INCOMING)]
    stock = [layout.blobs / name for name in names if name.endswith(".incomplete")]
    return HeldRepository(
        layout=layout,
        snapshots=snapshots,
        blobs=tuple(name for name in names if _is_digest(name)),
        parts=tuple(sorted([*ours, *stock])),
    )


def list_refs(layout: RepositoryLayout) -> dict[str, str]:
    """Branches and tags by name, with the commit that each meant when it was last asked."""
    found = {}
    for place in layout.refs.rglob("*") if layout.refs.is_dir() else ():
        if place.is_symlink() or not place.is_file() or place.stat().st_size != 40:
            continue
        commit = place.read_text(encoding="ascii", errors="replace")
        try:
            name = check_revision(place.relative_to(layout.refs).as_posix())
        except BadRequest:
            continue  # a name that no Hub can have given
        if is_commit(commit):
            found[name] = commit
    return found


def find_listing(layout: RepositoryLayout, commit: str) -> tuple[FileFact, ...] | None:
    """The whole tree as huggingface_hub has kept it in `trees/`; None where it has not, or where
    the file is not one that it writes."""
    place = layout.tree(commit)
    try:
        if place.is_symlink() or place.stat().st_size > _MAX_LISTING_BYTES:
            return None
        listing = json.loads(place.read_bytes())
        if listing["format_version"] != _TREE_FORMAT or len(listing["files"]) > _MAX_FILES:
            return None
        return tuple(
            FileFact(
                path=check_file_path(path),
                size=info.get("lfs_size") or info["size"],
                git_sha1=info["blob_id"],
                sha256=info.get("lfs_sha256"),
            )
            for path, info in sorted(listing["files"].items())
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, BadRequest, ValidationError):
        return None


def _list_files(layout: RepositoryLayout, root: Path, folder: Path) -> Iterator[HeldFile]:
    for parent, folders, names in os.walk(folder):
        links = [name for name in folders if (Path(parent) / name).is_symlink()]
        for name in sorted([*names, *links]):
            place = Path(parent) / name
            yield HeldFile(
                path=place.relative_to(folder).as_posix(),
                place=place,
                standing=_standing(place, root),
                digest=_digest_of(layout, place),
            )


def _standing(place: Path, root: Path) -> Standing:
    try:
        target = place.resolve(strict=True)
    except (FileNotFoundError, NotADirectoryError):
        inside = Path(os.path.abspath(place.parent.resolve() / place.readlink()))
        return Standing.DANGLING if inside.is_relative_to(root) else Standing.OUTSIDE
    except (OSError, RuntimeError):  # a loop of links
        return Standing.OUTSIDE
    if target.is_relative_to(root) and stat.S_ISREG(target.stat().st_mode):
        return Standing.FILE
    return Standing.OUTSIDE


def _digest_of(layout: RepositoryLayout, place: Path) -> str | None:
    if not place.is_symlink():
        return None
    target = Path(os.path.abspath(place.parent / place.readlink()))
    own = target.parent == Path(os.path.abspath(layout.blobs))
    return target.name if own and _is_digest(target.name) else None


def _is_digest(name: str) -> bool:
    try:
        check_digest(name)
    except BadRequest:
        return False
    return True


def _entries(folder: Path) -> list[Path]:
    if folder.is_symlink() or not folder.is_dir():
        return []
    return sorted(folder.iterdir())


def _folders(folder: Path) -> list[Path]:
    return [one for one in _entries(folder) if one.is_dir() and not one.is_symlink()]
