"""Wrong files moved out of the way, kept for inspection with a record of what was wrong."""

import os
import re
import stat
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from warmrack_store.cache.layout import RepositoryLayout
from warmrack_store.cache.verified import BlobHasher, hash_stream
from warmrack_store.errors import BadRequest, Integrity, NotFound
from warmrack_store.facts import FileFact
from warmrack_store.records import Record

_KEPT = re.compile(r"[A-Za-z0-9._=+-]{1,220}\.[0-9a-f]{8}\.bad")
_SHA1_DIGITS = 40


class Quarantined(Record):
    """One file that was moved aside; a record without a note is of a crash in between."""

    id: str
    repository: str
    size_bytes: int
    came_from: str | None = None
    """Below the repository's folder."""
    moved_at: str | None = None
    expected: str | None = None
    """The digest that its bytes should have had."""
    actual: str | None = None
    reason: str = ""


def quarantine(
    layout: RepositoryLayout,
    location: Path,
    *,
    expected: str | None = None,
    actual: str | None = None,
    reason: str = "",
) -> Path:
    """Rename `location` (a link itself, not what it points to) into the work folder; where it is.

    A process that has the file open or mapped keeps its bytes. The note beside it is written
    after the move, which is what matters.
    """
    aside = layout.work / f"{location.name}.{os.urandom(4).hex()}.bad"
    location.rename(aside)
    note = Quarantined(
        id=aside.name,
        repository=layout.repository,
        size_bytes=aside.lstat().st_size,
        came_from=os.path.relpath(location, layout.folder),
        moved_at=datetime.now(UTC).isoformat(timespec="seconds"),
        expected=expected,
        actual=actual,
        reason=reason,
    )
    _note_place(aside).write_text(note.model_dump_json(indent=1), encoding="utf-8")
    return aside


def list_quarantined(layout: RepositoryLayout) -> tuple[Quarantined, ...]:
    """What is kept of one repository, by id."""
    return tuple(_read(layout, place) for place in sorted(layout.work.glob("*.bad")))


def restore(layout: RepositoryLayout, kept_id: str) -> Path:
    """Put a file back where it was, if its bytes are right after all; its place.

    Raises NotFound, Integrity where the bytes are wrong (or nothing says what they should be),
    and BadRequest where another file has taken the place.
    """
    aside = _find(layout, kept_id)
    note = _read(layout, aside)
    if note.expected is None or note.came_from is None:
        raise Integrity(f"nothing says what the bytes of {kept_id} should be")
    actual = hash_as(aside, note.expected)
    if actual != note.expected:
        raise Integrity(f"{kept_id} has digest {actual}, not {note.expected}: it stays away")
    place = layout.blob(note.expected)
    if os.path.lexists(place):
        raise BadRequest(f"{place.name} is there again", hint="Remove the one in quarantine.")
    aside.rename(place)
    _note_place(aside).unlink(missing_ok=True)
    return place


def remove(layout: RepositoryLayout, kept_id: str) -> int:
    """Delete a file of the quarantine for good; the bytes freed. Raises NotFound."""
    aside = _find(layout, kept_id)
    size_bytes = aside.lstat().st_size
    aside.unlink()
    _note_place(aside).unlink(missing_ok=True)
    return size_bytes


def hash_as(location: Path, digest: str) -> str | None:
    """The digest of a regular file's bytes, of the kind that `digest` is; None for no such file."""
    try:
        descriptor = os.open(location, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with open(descriptor, "rb", buffering=0) as stream:
        seen = os.fstat(descriptor)
        if not stat.S_ISREG(seen.st_mode):
            return None
        hasher = BlobHasher(fact_of_digest(digest, seen.st_size))
        hash_stream(stream, hasher)
        return hasher.digest


def fact_of_digest(digest: str, size_bytes: int, path: str = "blob") -> FileFact:
    """A file of which nothing is known but its blob's name and size."""
    if len(digest) == _SHA1_DIGITS:
        return FileFact(path=path, size=size_bytes, git_sha1=digest)
    return FileFact(path=path, size=size_bytes, git_sha1="0" * _SHA1_DIGITS, sha256=digest)


def _note_place(aside: Path) -> Path:
    return aside.with_name(f"{aside.name}.json")


def _read(layout: RepositoryLayout, aside: Path) -> Quarantined:
    try:
        return Quarantined.model_validate_json(_note_place(aside).read_bytes())
    except (FileNotFoundError, ValidationError):
        size_bytes = aside.lstat().st_size
        return Quarantined(id=aside.name, repository=layout.repository, size_bytes=size_bytes)


def _find(layout: RepositoryLayout, kept_id: str) -> Path:
    aside = layout.work / kept_id
    if not _KEPT.fullmatch(kept_id) or not os.path.lexists(aside):
        raise NotFound(
            f"{layout.repository} has no {kept_id[:80]!r} in quarantine",
            hint="`warmrack cache quarantine ls` lists what is there.",
        )
    return aside
