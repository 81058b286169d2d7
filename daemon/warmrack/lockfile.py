"""The file models.lock: requests with the loads that they were locked to."""

import hashlib
import os
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, ValidationError

from warmrack.bounded_files import read_text
from warmrack.file_changes import replace_file
from warmrack_store.errors import BadRequest, Integrity
from warmrack_store.locks import LockedLoad
from warmrack_store.records import Record, canonical_json, parse_json
from warmrack_store.requests import LoadRequest, LockUse

DEFAULT_PATH = Path("models.lock")
_VERSION: Literal[1] = 1
_UNSAID = frozenset({"model", "network", "lock", "locked", "hub_secret"})
"""What does not tell the entries of one model apart."""
_HINT = "Make one: warmrack lock MODEL. Or name another: --lock-file FILE."


class LockEntry(Record):
    """One request, as it was asked, and its answer."""

    request: LoadRequest
    locked: LockedLoad

    @property
    def title(self) -> str:
        """The model and the options that it is asked for with, as a command line has them; no two
        entries of a file have the same."""
        given = self.request.model_dump(mode="json", exclude=set(_UNSAID), exclude_defaults=True)
        options = [f"--{name.replace('_', '-')} {_show(value)}" for name, value in given.items()]
        return " ".join([self.request.model, *options])

    def ask(self) -> LoadRequest:
        """The request that is served as locked, or not at all."""
        return self.request.model_copy(update={"lock": LockUse.REQUIRE, "locked": self.locked})


class _Stamp(BaseModel):
    """All that may be asked of a file of another version."""

    version: int


class LockFile(Record):
    """All entries, in the order of their models; the digest shows that nobody edited them."""

    version: Literal[1] = _VERSION
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


def _show(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def read_lock(path: Path) -> LockFile:
    """Raises BadRequest where there is no such file or it is none of ours, and Integrity where
    its entries are not those that were written."""
    hint = (
        f"Name a file in it: --lock-file {path}/{DEFAULT_PATH}." if os.path.isdir(path) else _HINT
    )
    text = read_text(path, hint=hint)
    try:
        found = parse_json(LockFile, text)
    except BadRequest as error:
        raise _refuse_content(path, text, error.message.removeprefix("body: ")) from error
    found.check(str(path))
    return found


def find_lock(path: Path) -> LockFile | None:
    """The same; None where there is no such file yet."""
    return read_lock(path) if os.path.exists(path) else None


def write_lock(path: Path, lock: LockFile) -> None:
    """Replace the file as a whole, never in part. Raises BadRequest where that cannot be done."""
    replace_file(path, lock.model_dump_json(indent=2, exclude_defaults=True) + "\n")


def _refuse_content(path: Path, text: str, reason: str) -> BadRequest:
    version = _find_version(text)
    if version is not None and version > _VERSION:
        return BadRequest(
            f"{path} was made by a newer warmrack: its version is {version}, this one reads "
            f"{_VERSION}",
            hint="Update warmrack here, or lock into another file: --lock-file FILE.",
        )
    return BadRequest(
        f"{path} is no lock file: {reason if text.strip() else 'it is empty'}",
        hint="Take it from version control again, or remove it and lock anew: warmrack lock MODEL.",
    )


def _find_version(text: str) -> int | None:
    try:
        return _Stamp.model_validate_json(text).version
    except ValidationError:
        return None
