"""How verified blobs become visible: as a whole snapshot, then its listing, then its ref."""

import json
import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path

from warmrack_store.cache.folders import (
    list_parents,
    make_folder,
    make_parents,
    sync_folder,
    write_whole,
)
from warmrack_store.cache.layout import RepositoryLayout, check_commit
from warmrack_store.cache.quarantine import quarantine
from warmrack_store.cache.verified import find_verified
from warmrack_store.errors import Integrity
from warmrack_store.facts import FileFact

_TREE_FORMAT = 1
"""huggingface_hub 2.4, `_tree_cache.TREE_CACHE_FORMAT_VERSION`; it ignores any other."""


def publish(
    layout: RepositoryLayout,
    *,
    commit: str,
    files: Sequence[FileFact],
    public: bool,
    tree: Sequence[FileFact] = (),
    ref: str | None = None,
) -> Path:
    """Make `files`, whose verified blobs are in place, the snapshot of `commit`; its folder.

    A new snapshot is built aside and renamed, so it is there whole or not at all; an existing one
    (adopted, or of fewer files) gets the links it lacks. All of it survives a power cut once this
    returns, and SQL may say so. The listing of the `tree` is written only where `files` covers it:
    with one present, a stock offline load fails on any file that is missing. `ref` is a branch or
    tag that meant `commit`.
    """
    missing = [file.path for file in files if not layout.blob(file.digest).exists()]
    if missing:
        raise Integrity(f"no blob for {missing[0]} of {layout.repository}: nothing is published")
    snapshot = layout.snapshot(commit)
    if not snapshot.exists():
        _build(layout, commit, files, public=public)
    _add_links(layout, snapshot, files, public=public)
    for folder in (layout.blobs, layout.snapshots, layout.folder, layout.cache_dir):
        sync_folder(folder)
    if tree and {file.path for file in tree} <= {file.path for file in files}:
        _write_tree(layout, commit, tree, public=public)
    if ref is not None and ref != commit:
        _write_ref(layout, ref, commit, public=public)
    return snapshot


def tree_listing(tree: Sequence[FileFact]) -> str:
    """The text of huggingface_hub's own `trees/<commit>.json`."""
    files: dict[str, dict[str, str | int]] = {}
    for file in sorted(tree, key=lambda file: file.path):
        files[file.path] = {"size": file.size, "blob_id": file.git_sha1}
        if file.sha256 is not None:
            files[file.path] |= {"lfs_sha256": file.sha256, "lfs_size": file.size}
    return json.dumps({"format_version": _TREE_FORMAT, "files": files}, indent=1)


def _build(
    layout: RepositoryLayout, commit: str, files: Sequence[FileFact], *, public: bool
) -> None:
    building = layout.building(commit)
    if building.exists():
        shutil.rmtree(building)
    make_folder(building, public=public)
    for file in files:
        place = make_parents(building, file.path, public=public)
        place.symlink_to(layout.link_target(file.path, file.digest))
    for folder in list_parents(building, (file.path for file in files)):
        sync_folder(folder)
    try:
        building.rename(layout.snapshot(commit))
    except OSError:
        # A stock client made the folder in the meantime; its links stay and ours are added.
        if not layout.snapshot(commit).is_dir():
            raise
        shutil.rmtree(building)


def _add_links(
    layout: RepositoryLayout, snapshot: Path, files: Sequence[FileFact], *, public: bool
) -> None:
    make_folder(snapshot, public=public)
    added = []
    for file in files:
        place = make_parents(snapshot, file.path, public=public)
        if os.path.lexists(place):
            if _serves(layout, place, file):
                continue
            quarantine(layout, place)
        place.symlink_to(layout.link_target(file.path, file.digest))
        added.append(file.path)
    for folder in list_parents(snapshot, added) if added else ():
        sync_folder(folder)


def _serves(layout: RepositoryLayout, place: Path, file: FileFact) -> bool:
    """Whether what is there is the link to the blob, or (a cache made without links) the file."""
    if place.is_symlink():
        return Path(os.path.abspath(place.parent / place.readlink())) == Path(
            os.path.abspath(layout.blob(file.digest))
        )
    return stat.S_ISREG(place.lstat().st_mode) and find_verified(place, file) is not None


def _write_tree(
    layout: RepositoryLayout, commit: str, tree: Sequence[FileFact], *, public: bool
) -> None:
    target = layout.tree(commit)
    if target.exists():
        return  # whoever wrote it may know more (Xet hashes), and a commit's listing never changes
    make_folder(layout.trees, public=public)
    write_whole(target, tree_listing(tree), layout.work, public=public)


def _write_ref(layout: RepositoryLayout, ref: str, commit: str, *, public: bool) -> None:
    layout.ref(ref)
    make_folder(layout.refs, public=public)
    place = make_parents(layout.refs, ref, public=public)
    if not place.exists() or place.read_text(encoding="utf-8") != commit:
        write_whole(place, check_commit(commit), layout.work, public=public)
