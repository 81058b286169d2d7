"""Files whose bytes were hashed on disk, with what would show that they changed since."""

import hashlib
import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from warmrack_store.facts import FileFact

_READ_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedFile:
    """A file of a snapshot that had the right bytes when it had this inode, size and time."""

    path: str
    """In the repository, not on disk."""
    size_bytes: int
    digest: str
    """The blob's name: sha256, or git's sha1 where the Hub gives no sha256."""
    sha256: str
    inode: int
    mtime_ns: int

    def is_unchanged(self, location: Path) -> bool:
        """Whether `location` (links followed) is still the file that was hashed."""
        try:
            return self.is_same(location.stat())
        except FileNotFoundError:
            return False

    def is_same(self, seen: os.stat_result) -> bool:
        """Whether this is the `stat` of the file that was hashed."""
        return (seen.st_ino, seen.st_size, seen.st_mtime_ns) == (
            self.inode,
            self.size_bytes,
            self.mtime_ns,
        )


class BlobHasher:
    """Hashes a file's bytes to the name the Hub gives them, and to sha256 in any case."""

    __slots__ = ("_git_sha1", "_sha256", "file", "size_bytes")

    def __init__(self, file: FileFact) -> None:
        self.file = file
        self.size_bytes = 0
        self._sha256 = hashlib.sha256()
        self._git_sha1 = hashlib.sha1(b"blob %d\x00" % file.size) if file.sha256 is None else None

    def copy(self) -> "BlobHasher":
        """The same bytes so far; the two go on apart."""
        twin = BlobHasher(self.file)
        twin.size_bytes = self.size_bytes
        twin._sha256 = self._sha256.copy()
        twin._git_sha1 = self._git_sha1.copy() if self._git_sha1 is not None else None
        return twin

    def update(self, data: bytes | memoryview) -> None:
        self._sha256.update(data)
        if self._git_sha1 is not None:
            self._git_sha1.update(data)
        self.size_bytes += len(data)

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    @property
    def digest(self) -> str:
        return self._git_sha1.hexdigest() if self._git_sha1 is not None else self.sha256

    @property
    def matches(self) -> bool:
        return self.size_bytes == self.file.size and self.digest == self.file.digest

    def verified(self, seen: os.stat_result) -> VerifiedFile:
        """The record of a file whose bytes matched, with the file's own `stat`."""
        return VerifiedFile(
            path=self.file.path,
            size_bytes=self.size_bytes,
            digest=self.digest,
            sha256=self.sha256,
            inode=seen.st_ino,
            mtime_ns=seen.st_mtime_ns,
        )


def no_report(_size_bytes: int) -> None:
    """For who does not watch."""


def hash_stream(
    stream: io.RawIOBase | io.BufferedIOBase,
    hasher: BlobHasher,
    on_read: Callable[[int], None] = no_report,
) -> None:
    """Feed the rest of `stream` to `hasher`; `on_read(bytes)` after each block may raise to stop."""
    buffer = memoryview(bytearray(min(_READ_BYTES, max(hasher.file.size, 1))))
    while count := stream.readinto(buffer):
        hasher.update(buffer[:count])
        on_read(count)


def find_verified(
    location: Path, file: FileFact, on_read: Callable[[int], None] = no_report
) -> VerifiedFile | None:
    """Hash the file at `location`; None where it is not `file`, or changed while it was read."""
    with location.open("rb", buffering=0) as stream:
        before = os.fstat(stream.fileno())
        if before.st_size != file.size:
            return None
        hasher = BlobHasher(file)
        hash_stream(stream, hasher, on_read)
        verified = hasher.verified(os.fstat(stream.fileno()))
    return verified if hasher.matches and verified.is_unchanged(location) else None
