"""How the Hub describes repositories, commits and trees in JSON."""

import hashlib
import json
import struct
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from math import prod
from typing import Any

from tests.hub.cards import read_card
from tests.hub.files import StoredFile
from tests.hub.repositories import Commit, Repository


def date_text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def describe_model(
    repository: Repository, commit: Commit, *, with_blobs: bool = False
) -> dict[str, Any]:
    """The body of `GET /api/models/{id}`."""
    card = _read_text_card(commit)
    config = _read_config(commit)
    return {
        "_id": hashlib.sha1(repository.name.encode()).hexdigest()[:24],
        "id": repository.name,
        "modelId": repository.name,
        "author": repository.name.partition("/")[0],
        "sha": commit.sha,
        "lastModified": date_text(commit.created_at),
        "createdAt": date_text(repository.created_at),
        "private": repository.private,
        "gated": "manual" if repository.gated else False,
        "disabled": repository.disabled,
        "downloads": 0,
        "likes": 0,
        "library_name": card.get("library_name", "transformers" if config else None),
        "pipeline_tag": card.get("pipeline_tag"),
        "tags": list_labels(repository, commit),
        "cardData": card,
        "config": config,
        "siblings": [_describe_sibling(held, with_blobs) for held in commit.files.values()],
        "usedStorage": sum(held.size_bytes for held in commit.files.values()),
        **_describe_safetensors(commit),
    }


def list_labels(repository: Repository, commit: Commit) -> list[str]:
    """The tags by which `GET /api/models?filter=` finds a repository."""
    card = _read_text_card(commit)
    bases = card.get("base_model", [])
    relation = card.get("base_model_relation", "finetune")
    labels = list(repository.labels)
    for base in [bases] if isinstance(bases, str) else bases:
        labels += [f"base_model:{base}", f"base_model:{relation}:{base}"]
    labels += [tag for tag in card.get("tags", []) if isinstance(tag, str)]
    if "license" in card:
        labels.append(f"license:{card['license']}")
    if any(path.endswith(".safetensors") for path in commit.files):
        labels.append("safetensors")
    return list(dict.fromkeys(labels))


def list_tree(commit: Commit, folder: str, *, recursive: bool) -> list[dict[str, Any]]:
    """Entries under a folder ("" is the root) in path order; empty where there is no such one."""
    prefix = f"{folder}/" if folder else ""
    entries: dict[str, dict[str, Any]] = {}
    for path, held in commit.files.items():
        if not path.startswith(prefix):
            continue
        parts = path[len(prefix) :].split("/")
        for depth in range(1, len(parts) if recursive else min(len(parts), 2)):
            inner = prefix + "/".join(parts[:depth])
            entries.setdefault(inner, _describe_folder(commit, inner))
        if recursive or len(parts) == 1:
            entries[path] = describe_file(held)
    return [entries[path] for path in sorted(entries)]


def describe_path(commit: Commit, path: str) -> dict[str, Any] | None:
    """The tree entry of a file or folder."""
    held = commit.files.get(path)
    if held is not None:
        return describe_file(held)
    if any(other.startswith(f"{path}/") for other in commit.files):
        return _describe_folder(commit, path)
    return None


def describe_file(held: StoredFile) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "type": "file",
        "oid": held.blob_id,
        "size": held.size_bytes,
        "path": held.path,
    }
    if held.is_lfs:
        entry["lfs"] = {
            "oid": held.sha256,
            "size": held.size_bytes,
            "pointerSize": held.pointer_size_bytes,
        }
    return entry


def describe_commit(commit: Commit) -> dict[str, Any]:
    return {
        "id": commit.sha,
        "title": commit.title,
        "message": "",
        "authors": [{"user": "system"}],
        "date": date_text(commit.created_at),
    }


def describe_last_commit(commit: Commit) -> dict[str, Any]:
    """What `expand` adds to an entry; the listed commit stands in for the file's own last one."""
    last = {"id": commit.sha, "title": commit.title, "date": date_text(commit.created_at)}
    return {"lastCommit": last}


def describe_refs(repository: Repository) -> dict[str, Any]:
    def listed(refs: Mapping[str, str], folder: str) -> list[dict[str, str]]:
        return [
            {"name": name, "ref": f"refs/{folder}/{name}", "targetCommit": sha}
            for name, sha in sorted(refs.items())
        ]

    return {
        "branches": listed(repository.branches, "heads"),
        "tags": listed(repository.tags, "tags"),
        "converts": [],
        "pullRequests": [],
    }


def read_safetensors_header(held: StoredFile) -> dict[str, Any] | None:
    """The JSON header of a safetensors file, or None where the file is not one."""
    with held.location.open("rb") as stream:
        prefix = stream.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else held.size_bytes
        if length > held.size_bytes - 8:
            return None
        try:
            header = json.loads(stream.read(length))
        except ValueError:
            return None
    return header if isinstance(header, dict) else None


def _describe_safetensors(commit: Commit) -> dict[str, Any]:
    parameters: Counter[str] = Counter()
    for path, held in commit.files.items():
        if "/" not in path and path.endswith(".safetensors"):
            for name, tensor in (read_safetensors_header(held) or {}).items():
                if name != "__metadata__":
                    parameters[tensor["dtype"]] += prod(tensor["shape"])
    if not parameters:
        return {}
    counted = {"parameters": dict(parameters), "total": sum(parameters.values())}
    return {"safetensors": counted}


def _describe_sibling(held: StoredFile, with_blobs: bool) -> dict[str, Any]:
    sibling: dict[str, Any] = {"rfilename": held.path}
    if with_blobs:
        sibling |= {"size": held.size_bytes, "blobId": held.blob_id}
        if held.is_lfs:
            sibling["lfs"] = {
                "sha256": held.sha256,
                "size": held.size_bytes,
                "pointerSize": held.pointer_size_bytes,
            }
    return sibling


def _describe_folder(commit: Commit, folder: str) -> dict[str, Any]:
    inside = [held.etag for path, held in commit.files.items() if path.startswith(f"{folder}/")]
    oid = hashlib.sha1(json.dumps([folder, inside]).encode()).hexdigest()
    return {"type": "directory", "oid": oid, "size": 0, "path": folder}


def _read_config(commit: Commit) -> dict[str, Any]:
    """The few keys of config.json that the Hub repeats."""
    held = commit.files.get("config.json")
    if held is None:
        return {}
    try:
        whole = json.loads(held.location.read_bytes())
    except ValueError:
        return {}
    if not isinstance(whole, dict):
        return {}
    kept = ("architectures", "model_type", "quantization_config", "auto_map")
    return {key: whole[key] for key in kept if key in whole}


def _read_text_card(commit: Commit) -> dict[str, Any]:
    held = commit.files.get("README.md")
    return {} if held is None else read_card(held.location.read_text(encoding="utf-8"))
