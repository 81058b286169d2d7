"""How the mirror describes what it holds in JSON, as a Hub does; pure."""

import hashlib
from collections.abc import Sequence
from typing import Any

from warmrack_workers.mirror.holdings import Held, HeldFile


def describe_model(
    held: Held, fields: Sequence[str] = (), *, with_blobs: bool = False
) -> dict[str, Any]:
    """The body of `GET /api/models/{id}`; `fields` are the only ones given where there are any."""
    described: dict[str, Any] = {
        "_id": hashlib.sha1(held.repository.encode()).hexdigest()[:24],
        "id": held.repository,
        "modelId": held.repository,
        "author": held.repository.partition("/")[0],
        "sha": held.commit,
        "private": held.private,
        "gated": "manual" if held.gated else False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "siblings": [
            _describe_sibling(path, held.files[path], with_blobs) for path in sorted(held.files)
        ],
    }
    if not fields:
        return described
    return {name: described[name] for name in ("_id", "id", *fields) if name in described}


def list_tree(held: Held, folder: str, *, recursive: bool) -> list[dict[str, Any]]:
    """The entries below a folder (empty: the root); none where there is no such folder."""
    prefix = f"{folder}/" if folder else ""
    entries: dict[str, dict[str, Any]] = {}
    for path, file in held.files.items():
        if not path.startswith(prefix):
            continue
        parts = path.removeprefix(prefix).split("/")
        for depth in range(1, len(parts) if recursive else min(len(parts), 2)):
            inner = prefix + "/".join(parts[:depth])
            oid = hashlib.sha1(f"{held.commit}/{inner}".encode()).hexdigest()
            entries[inner] = {"type": "directory", "oid": oid, "size": 0, "path": inner}
        if recursive or len(parts) == 1:
            entries[path] = _describe_file(path, file)
    return [entries[path] for path in sorted(entries)]


def _describe_file(path: str, file: HeldFile) -> dict[str, Any]:
    fact = file.fact
    entry: dict[str, Any] = {
        "type": "file",
        "oid": fact.git_sha1,
        "size": fact.size,
        "path": path,
    }
    if fact.sha256 is not None:
        entry["lfs"] = {
            "oid": fact.sha256,
            "size": fact.size,
            "pointerSize": _pointer_bytes(fact.size),
        }
    return entry


def _describe_sibling(path: str, file: HeldFile, with_blobs: bool) -> dict[str, Any]:
    sibling: dict[str, Any] = {"rfilename": path}
    if with_blobs:
        fact = file.fact
        sibling |= {"size": fact.size, "blobId": fact.git_sha1}
        if fact.sha256 is not None:
            sibling["lfs"] = {
                "sha256": fact.sha256,
                "size": fact.size,
                "pointerSize": _pointer_bytes(fact.size),
            }
    return sibling


def _pointer_bytes(size_bytes: int) -> int:
    """The length of the text that git keeps in place of the file: 125 bytes around the size."""
    return 125 + len(str(size_bytes))
