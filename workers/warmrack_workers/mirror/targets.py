"""What a request to the mirror is about, read from its target; pure."""

import re
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import parse_qs, unquote, urlsplit

from warmrack_store.cache.layout import check_digest
from warmrack_store.errors import BadRequest
from warmrack_store.refs import check_file_path, check_repository, check_revision
from warmrack_workers.mirror.refusals import Refused

_REPOSITORY = r"(?P<repository>[^/]+/[^/]+)"
_MODEL = re.compile(rf"/api/models/{_REPOSITORY}(?:/revision/(?P<revision>[^/]+))?")
_TREE = re.compile(rf"/api/models/{_REPOSITORY}/tree/(?P<revision>[^/]+)(?:/(?P<path>.+))?")
_RIGHT = re.compile(rf"/api/models/{_REPOSITORY}/auth-check")
_FILE = re.compile(rf"/{_REPOSITORY}/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
_BLOB = re.compile(rf"/\.warmrack/blobs/{_REPOSITORY}/(?P<path>[0-9a-f]+)")
DEFAULT_BRANCH = "main"


class Kind(StrEnum):
    MODEL = "model"
    TREE = "tree"
    RIGHT = "right"
    FILE = "file"
    BLOB = "blob"
    """For another node alone: its token says which repository it may read."""


_PATTERNS = {
    Kind.RIGHT: _RIGHT,
    Kind.TREE: _TREE,
    Kind.MODEL: _MODEL,
    Kind.BLOB: _BLOB,
    Kind.FILE: _FILE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """`path` is a file's, a folder's (empty for the root), or a blob's digest."""

    kind: Kind
    repository: str
    revision: str = DEFAULT_BRANCH
    path: str = ""
    query: dict[str, list[str]]

    def has_flag(self, name: str) -> bool:
        return self.query.get(name, [""])[0].lower() in {"1", "true"}

    @property
    def fields(self) -> tuple[str, ...]:
        """Of a model's description, those that are asked for; all where there are none."""
        return tuple(self.query.get("expand", []) + self.query.get("expand[]", []))


def parse_target(text: str) -> Target:
    """The target of a request line. Raises Refused for what is none of the mirror's, and for every
    name that would not stay what it is: dot segments, escapes of slashes in a repository, NUL."""
    split = urlsplit(text)
    for kind, pattern in _PATTERNS.items():
        found = pattern.fullmatch(split.path)
        if found is None:
            continue
        try:
            return _check(kind, found.groupdict(), split.query)
        except (BadRequest, ValueError) as error:
            raise Refused(400, None, f"no name of a repository, revision or file: {error}") from (
                error
            )
    raise Refused(404, None, "a mirror serves model repositories, and nothing else of a Hub")


def _check(kind: Kind, found: dict[str, str | None], query: str) -> Target:
    path = unquote(found.get("path") or "", errors="strict")
    if kind is Kind.BLOB:
        check_digest(path)
    elif path:
        path = check_file_path(path.rstrip("/") if kind is Kind.TREE else path)
    return Target(
        kind=kind,
        repository=check_repository(unquote(found["repository"] or "")),
        revision=check_revision(unquote(found.get("revision") or DEFAULT_BRANCH)),
        path=path,
        query=parse_qs(query, max_num_fields=50),
    )
