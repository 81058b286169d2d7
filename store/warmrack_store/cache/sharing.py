"""One blob for several repositories of a cache, by hard links between their folders."""

import os
import stat
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from warmrack_store.cache.folders import make_folders
from warmrack_store.cache.layout import RepositoryLayout
from warmrack_store.cache.verified import VerifiedFile
from warmrack_store.facts import FileFact


def link_known_blobs(
    layout: RepositoryLayout,
    files: Iterable[FileFact],
    known: Iterable[tuple[Path, VerifiedFile]],
) -> tuple[VerifiedFile, ...]:
    """Give a public repository the blobs that others of the cache hold, verified and unchanged.

    `known` are places of verified files. Only what everybody on the machine may read is shared,
    so that public bytes never lie in a folder of private ones or the other way round. What cannot
    be linked (another file system, too many links) is left to be fetched.
    """
    wanted = {file.digest: file for file in files if not layout.blob(file.digest).exists()}
    linked: dict[str, VerifiedFile] = {}
    for place, held in known:
        file = wanted.get(held.digest)
        if file is None or file.digest in linked or file.size != held.size_bytes:
            continue
        if not held.is_unchanged(place) or not _is_public(place):
            continue
        make_folders(layout, public=True)
        try:
            os.link(place.resolve(), layout.blob(file.digest))
        except OSError:
            continue  # it is fetched, as if nobody had it
        linked[file.digest] = replace(held, path=file.path)
    return tuple(linked.values())


def _is_public(place: Path) -> bool:
    return bool(place.stat().st_mode & stat.S_IROTH)
