"""What a Hub's answers say, checked before anybody uses it."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from warmrack_store.cache.verified import BlobHasher
from warmrack_store.errors import BadRequest
from warmrack_store.facts import FileFact, RefFact
from warmrack_store.hub_errors import HubQuestion, nonsense
from warmrack_store.refs import ModelRef, check_file_path, check_repository, is_commit

MAX_FILE_BYTES = 2**50
"""No Hub serves files of a pebibyte."""


def parse_ref(body: bytes, ref: ModelRef, asked: HubQuestion) -> RefFact:
    """Canonical name, commit and access class; the commit asked for must be the one answered."""
    try:
        told = json.loads(body)
        name, sha = check_repository(told["id"]), told["sha"]
        private, gated = told.get("private"), told.get("gated")
        if not is_commit(sha) or (is_commit(ref.revision) and sha != ref.revision):
            raise ValueError(f"commit {sha!r:.80}")
        if not isinstance(private, bool) or gated not in (False, True, "auto", "manual"):
            raise ValueError(f"private {private!r:.20}, gated {gated!r:.20}")
    except (BadRequest, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise nonsense(str(error), asked) from error
    return RefFact(repository=name, commit=sha, private=private, gated=bool(gated))


def parse_names(body: bytes, asked: HubQuestion) -> Iterator[str]:
    """The well-formed repository ids of one page of models; others are nothing to name to a Hub."""
    try:
        names = [entry["id"] for entry in json.loads(body)]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise nonsense(str(error), asked) from error
    for name in names:
        try:
            yield check_repository(name)
        except (BadRequest, AttributeError):
            continue


def parse_card_bases(body: bytes, asked: HubQuestion) -> tuple[str, ...]:
    """The repository ids that a model's card names as `base_model`; others are left out."""
    try:
        card = json.loads(body).get("cardData") or {}
        named = card.get("base_model") or []
    except (ValueError, AttributeError, RecursionError) as error:
        raise nonsense(str(error), asked) from error
    found = []
    for name in named if isinstance(named, list) else [named]:
        try:
            found.append(check_repository(name))
        except (BadRequest, AttributeError):
            continue
    return tuple(found)


def parse_tree_page(body: bytes, asked: HubQuestion) -> Iterator[FileFact]:
    """The files among the entries of one page."""
    try:
        for entry in json.loads(body):
            if entry["type"] == "file":
                yield _parse_file(entry)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise nonsense(f"a file with a bad {where}", asked) from error
    except (BadRequest, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise nonsense(str(error), asked) from error


def _parse_file(entry: Mapping[str, Any]) -> FileFact:
    lfs = entry.get("lfs") or {}
    size_bytes = lfs.get("size", entry["size"])
    if type(size_bytes) is not int or not 0 <= size_bytes <= MAX_FILE_BYTES:
        raise ValueError(f"a file of {size_bytes!r:.40} bytes")
    return FileFact(
        path=check_file_path(entry["path"]),
        size=size_bytes,
        git_sha1=entry["oid"],
        sha256=lfs["oid"] if lfs else None,
    )


def has_digest(body: bytes, file: FileFact) -> bool:
    """Whether the bytes are those that the tree names."""
    hasher = BlobHasher(file)
    hasher.update(body)
    return hasher.matches


def parse_config(body: bytes) -> tuple[dict[str, object] | None, str | None]:
    """The object in config.json, or what is wrong with it.

    Infinity and NaN, which some published files hold, become strings: SQL's JSON has neither.
    """
    try:
        parsed = json.loads(body, parse_constant=str, parse_float=_finite)
        json.dumps(parsed, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        return None, f"is not JSON: {error}"
    if not isinstance(parsed, dict):
        return None, f"is a JSON {type(parsed).__name__}, not an object"
    if any("\x00" in text for text in _texts(parsed)):
        return None, "holds a NUL character"
    return parsed, None


def _finite(text: str) -> float | str:
    value = float(text)
    return value if math.isfinite(value) else text


def _texts(value: object) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
