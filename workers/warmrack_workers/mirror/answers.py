"""What the mirror answers: a Hub's paths in front of SQL, rights and files."""

import json
import os
from collections.abc import Callable
from typing import Any, BinaryIO, Protocol

import structlog

from warmrack_store.errors import WarmrackError
from warmrack_workers.mirror.calls import Answer, Call, OneSpan, Span
from warmrack_workers.mirror.holdings import Held, HeldFile, Holdings
from warmrack_workers.mirror.listings import describe_model, list_tree
from warmrack_workers.mirror.ranges import find_range
from warmrack_workers.mirror.refusals import (
    Refused,
    no_entry,
    no_repository,
    no_revision,
    refusal_of,
)
from warmrack_workers.mirror.targets import Kind, Target, parse_target

log = structlog.get_logger()

CheckRight = Callable[[str, str | None], object]
"""Raises unless the token (None: anybody) may read the repository's files at the Hub."""
Pull = Callable[[str, str, str | None], bool]
"""Bring a repository at a revision here, for the token's owner; whether it may be here now."""


class BlobAnswers(Protocol):
    """What another node is given."""

    def answer(self, call: Call, target: Target) -> Answer:
        """Raises Refused."""


class MirrorAnswers:
    """Safe to ask from many threads at once."""

    def __init__(
        self,
        holdings: Holdings,
        check_right: CheckRight,
        *,
        blobs: BlobAnswers,
        pull: Pull | None = None,
    ) -> None:
        self._holdings = holdings
        self._check_right = check_right
        self._blobs = blobs
        self._pull = pull

    def answer(self, call: Call) -> Answer:
        """Never raises: what goes wrong is an answer too."""
        anonymous = "authorization" not in call.headers
        try:
            return self._answer(call)
        except Refused as refused:
            refusal = refused
        except WarmrackError as error:
            refusal = refusal_of(error, anonymous=anonymous)
        except Exception:
            log.exception("The mirror failed.", action="mirror-defect", target=call.target[:200])
            refusal = Refused(500, None, "the mirror failed; its log says how")
        body = json.dumps({"error": refusal.message}).encode()
        headers = {"Content-Type": "application/json", **refusal.list_headers()}
        return Answer(status=refusal.status, headers=headers, body=body, size_bytes=len(body))

    def _answer(self, call: Call) -> Answer:
        target = parse_target(call.target)
        if target.kind is Kind.BLOB:
            return self._blobs.answer(call, target)
        token = call.find_token()
        held = self._find_held(target, token)
        # As at a Hub, whose descriptions and trees of gated repositories are public.
        described = target.kind in (Kind.MODEL, Kind.TREE)
        if held.private or not described:
            self._check_right(held.repository, token)
        match target.kind:
            case Kind.MODEL:
                blobs = target.has_flag("blobs")
                return _json(describe_model(held, target.fields, with_blobs=blobs), held)
            case Kind.TREE:
                return _tree(held, target)
            case Kind.RIGHT:
                return _json({}, held)
        return self._file(call, target, held)

    def _find_held(self, target: Target, token: str | None) -> Held:
        repository, revision = target.repository, target.revision
        held = self._holdings.find_held(repository, revision)
        if held is None and self._pull is not None and self._pull(repository, revision, token):
            held = self._holdings.find_held(repository, revision)
        if held is not None:
            return held
        if not self._holdings.knows(repository):
            raise no_repository(repository, anonymous=token is None)
        self._check_right(repository, token)
        raise no_revision(repository, revision)

    def _file(self, call: Call, target: Target, held: Held) -> Answer:
        file = held.files.get(target.path)
        if file is None:
            raise no_entry(target.path, held.commit)
        span = find_range(call.headers.get("range"), file.fact.size)
        headers = _file_headers(held, file)
        start, end = span or (0, file.fact.size)
        if span is not None:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{file.fact.size}"
        stream = self._open(held, target.path, file)
        return Answer(
            status=200 if span is None else 206,
            headers=headers,
            spans=OneSpan(span=Span(file=stream, start=start, size_bytes=end - start)),
            size_bytes=end - start,
        )

    def _open(self, held: Held, path: str, file: HeldFile) -> BinaryIO:
        """The file, if it is still the one that was verified; what is open stays what it is."""
        place = self._holdings.place(held, path)
        try:
            stream = place.open("rb", buffering=0)
        except OSError:
            stream = None
        if stream is not None:
            if file.verified.is_same(os.fstat(stream.fileno())):
                return stream
            stream.close()
        log.warning("A copy has changed on disk.", action="copy-changed", place=str(place))
        self._holdings.forget(held)
        raise no_entry(path, held.commit)


def _file_headers(held: Held, file: HeldFile) -> dict[str, str]:
    headers = {
        "Content-Type": "application/octet-stream",
        "X-Repo-Commit": held.commit,
        "ETag": f'"{file.fact.digest}"',
        "Accept-Ranges": "bytes",
    }
    if file.fact.sha256 is not None:
        headers["X-Linked-ETag"] = f'"{file.fact.sha256}"'
        headers["X-Linked-Size"] = str(file.fact.size)
    return headers


def _tree(held: Held, target: Target) -> Answer:
    entries = list_tree(held, target.path, recursive=target.has_flag("recursive"))
    if not entries:
        raise no_entry(target.path, held.commit)
    return _json(entries, held)


def _json(value: Any, held: Held) -> Answer:
    body = json.dumps(value).encode()
    headers = {"Content-Type": "application/json", "X-Repo-Commit": held.commit}
    return Answer(status=200, headers=headers, body=body, size_bytes=len(body))
