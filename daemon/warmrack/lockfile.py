"""The file models.lock: requests with the loads that they were locked to."""

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field

from warmrack_store.errors import BadRequest, Integrity
from warmrack_store.locks import LockedLoad
from warmrack_store.records import Record, canonical_json, parse_json
from warmrack_store.requests import LoadRequest, LockUse

DEFAULT_PATH = Path("models.lock")
_MAX_BYTES = 64 * 2**20


class LockEntry(Record):
    """One request, as it was asked, and its answer."""

    request: LoadRequest
    locked: LockedLoad

    def ask(self) -> LoadRequest:
        """The request that is served as locked, or not at all."""
        return self.request.model_copy(update={"lock": LockUse.REQUIRE, "locked": self.locked})


class LockFile(Record):
    """All entries, in the order of their models; the digest shows that nobody edited them."""

    version: Literal[1] = 1
    entries: tuple[LockEntry, ...] = Field((), max_length=10_000)
    digest: str = ""

    @classmethod
    def of(cls, entries: "tuple[LockEntry, ...]") -> Self:
        """A file with these entries, later ones in place of earlier ones for the same request."""
        by_key = {entry.request.lock_key(): entry for entry in entries}
        ordered = sorted(by_key.items(), key=lambda item: (item[1].request.model.lower(), item[0]))
        kept = tuple(entry for _, entry in ordered)
        return cls(entries=kept, digest=_digest(kept))

    def check(self, what: str) -> None:
        """Raise Integrity where the entries are not those that were written."""
        if self.digest != _digest(self.entries):
            raise Integrity(
                f"{what} was changed by hand: its entries do not have its digest",
                hint="Lock the models anew.",
            )

    def list_entries(self) -> list[dict[str, Any]]:
        """The entries as JSON."""
        return [entry.model_dump(mode="json") for entry in self.entries]

    def find(self, request: LoadRequest) -> LockedLoad | None:
        """What the request is locked to; spellings of the same request are one."""
        key = request.lock_key()
        found = (one.locked for one in self.entries if one.request.lock_key() == key)
        return next(found, None)


def _digest(entries: tuple[LockEntry, ...]) -> str:
    """sha256 over the canonical JSON of the entries as the file has them: without what is left at
    its default, so that a field which a later release adds changes no digest."""
    plain = [entry.model_dump(mode="json", exclude_defaults=True) for entry in entries]
    return hashlib.sha256(canonical_json(plain).encode()).hexdigest()


def read_lock(path: Path) -> LockFile:
    """Raises BadRequest where there is no such file or it is none of ours, and Integrity where
    its entries are not those that were written."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise BadRequest(f"{path} is no lock file: it is longer than {_MAX_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise BadRequest(
            f"{path} cannot be read: {reason}", hint="Make one: warmrack lock MODEL."
        ) from error
    found = parse_json(LockFile, text)
    found.check(str(path))
    return found


def write_lock(path: Path, lock: LockFile) -> None:
    """Replace the file as a whole, never in part. Raises BadRequest where that cannot be done."""
    text = lock.model_dump_json(indent=2, exclude_defaults=True) + "\n"
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".models.lock-") as folder:
            written = Path(folder) / path.name
            with written.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            written.replace(path)
    except OSError as error:
        raise BadRequest(f"{path} cannot be written: {error.strerror}") from error
