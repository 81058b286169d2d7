"""How a model is named: repository ids, revisions and the spellings that stand for them."""

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from warmrack_store.errors import BadRequest, Contradiction, NotSupported, Unauthorized

COMMIT = re.compile(r"[0-9a-f]{40}")
_PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/+=-]{0,199}")
_MAX_NAME = 96
"""The Hub's own limit on each half of a repository id."""
_MAX_TOKEN = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRef:
    """A model's name as asked for, normalised: `repository` is `org/name`, `revision` may be None."""

    repository: str
    revision: str | None = None


def parse_model(text: str) -> ModelRef:
    """The repository (and revision) that a spelling names.

    Accepts `org/name`, `hf://org/name[@rev]`, `org/name@rev` and a Hub page's https URL
    (`https://host/org/name[/tree/rev]`; the host is not followed, `check_hub` refuses another).
    Raises BadRequest for anything that is not a plain repository id, path tricks included.
    """
    if not isinstance(text, str) or not text.strip():
        raise BadRequest("model is empty", hint="Give a repository id such as org/name.")
    name, revision = _split(text.strip())
    check_repository(name)
    pinned = None if revision is None else check_revision(revision)
    return ModelRef(repository=name, revision=pinned)


def _split(text: str) -> tuple[str, str | None]:
    if text.startswith("file:"):
        raise NotSupported(
            "file:/// models are not served by this version",
            hint="Push the folder to a Hub, private if need be, and name it org/name.",
        )
    if text.startswith(("http://", "https://")):
        try:
            path = unquote(urlsplit(text).path).strip("/").split("/")
        except ValueError as error:
            raise BadRequest(f"model {text[:200]!r} is no URL: {error}") from error
        if len(path) >= 4 and path[2] in {"tree", "commit"}:
            return "/".join(path[:2]), "/".join(path[3:])
        return "/".join(path), None
    name, at, revision = text.removeprefix("hf://").partition("@")
    return name, revision if at else None


def check_repository(name: str) -> str:
    """`name` itself where it is a well-formed `org/name`; BadRequest else."""
    parts = name.split("/")
    well_formed = len(parts) == 2 and all(
        len(part) <= _MAX_NAME and _PART.fullmatch(part) and "--" not in part and ".." not in part
        for part in parts
    )
    if not well_formed or name.endswith(".git"):
        raise BadRequest(
            f"model {name[:200]!r} is not a repository id",
            hint="Give org/name: letters, digits, '-', '_' and '.', no '--' or '..'.",
        )
    return name


def check_revision(revision: str) -> str:
    """`revision` itself where it may be sent to a Hub; BadRequest else."""
    segments = revision.split("/")
    well_formed = _REVISION.fullmatch(revision) and not any(
        segment in {"", ".", ".."} or segment.endswith(".lock") for segment in segments
    )
    if not well_formed or ".." in revision:
        raise BadRequest(
            f"revision {revision[:200]!r} is not a branch, tag or commit name",
            hint="Give a branch, a tag, refs/pr/N or a 40-hex commit.",
        )
    return revision


def merge_revision(ref: ModelRef, revision: str | None) -> ModelRef:
    """`ref` with the separately given revision; a Contradiction where both name different ones."""
    if revision is None:
        return ref
    check_revision(revision)
    if ref.revision not in (None, revision):
        raise Contradiction(
            f"the model names revision {ref.revision!r}, the field revision {revision!r}",
            hint="Name the revision once.",
        )
    return ModelRef(repository=ref.repository, revision=revision)


def check_token(token: str | None) -> str | None:
    """A Hub token as it may be sent, None for none or an empty one.

    Raises Unauthorized, which does not show it, where a header cannot carry it: a client
    library's own error would print the token.
    """
    if not token:
        return None
    if len(token) > _MAX_TOKEN or not (token.isascii() and token.isprintable()) or " " in token:
        raise Unauthorized(
            "the Hub token is too long or holds characters that no token has",
            hint="Give the token alone, as hf_...",
        )
    return token


def is_commit(revision: str | None) -> bool:
    return revision is not None and COMMIT.fullmatch(revision) is not None


def check_file_path(path: str) -> str:
    """`path` itself where it stays below the snapshot's folder; BadRequest else."""
    segments = path.split("/")
    bad = (
        not path
        or len(path.encode()) > 1024
        or path.startswith("/")
        or "\\" in path
        or any(segment in {"", ".", ".."} or len(segment.encode()) > 255 for segment in segments)
        or any(ord(char) < 32 for char in path)
    )
    if bad:
        raise BadRequest(
            f"the Hub lists a file with the path {path[:200]!r}, which leaves its folder"
        )
    return path
