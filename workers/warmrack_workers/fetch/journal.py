"""Which bytes of a part have arrived: lines in an append-only file beside it.

A line counts when it is whole. It carries the digest of the bytes that it speaks of, so nothing
depends on the order in which a crashed machine's disk got them: what differs is fetched again.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from warmrack_store.pieces import Piece

_LINE = re.compile(rb"(\d{1,9}) (\d{1,12}) ([0-9a-f]{64})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """The first `size_bytes` of a piece are here and have this BLAKE3."""

    index: int
    size_bytes: int
    blake3: str


class Journal:
    """The journal of one part; made with its first mark. Its owner serialises the calls."""

    def __init__(self, location: Path, pieces: tuple[Piece, ...]) -> None:
        self._location = location
        self._pieces = pieces
        self._descriptor: int | None = None

    def read(self) -> dict[int, Mark]:
        """The last mark of each piece; nothing where the journal is of a file cut otherwise."""
        if not self._location.exists():
            return {}
        head, *lines = self._location.read_bytes().split(b"\n")[:-1] or [b""]
        if head != self._head:
            self.remove()
            return {}
        found = {}
        for line in lines:
            told = _LINE.fullmatch(line)
            if told is None or int(told[1]) >= len(self._pieces):
                continue  # a line that a crash cut short
            index, size_bytes = int(told[1]), int(told[2])
            if 0 < size_bytes <= self._pieces[index].size_bytes:
                found[index] = Mark(index=index, size_bytes=size_bytes, blake3=told[3].decode())
        return found

    def add(self, mark: Mark) -> None:
        if self._descriptor is None:
            self._descriptor = self._open()
        line = f"{mark.index} {mark.size_bytes} {mark.blake3}\n"
        os.write(self._descriptor, line.encode())

    def remove(self) -> None:
        self.close()
        self._location.unlink(missing_ok=True)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    @property
    def _head(self) -> bytes:
        size_bytes = self._pieces[-1].end if self._pieces else 0
        length = self._pieces[0].size_bytes if self._pieces else 0
        return b"warmrack-pieces 1 %d %d" % (size_bytes, length)

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self._location, flags, 0o600)
        try:
            size_bytes = os.fstat(descriptor).st_size
            if size_bytes == 0:
                os.write(descriptor, self._head + b"\n")
            elif os.pread(descriptor, 1, size_bytes - 1) != b"\n":
                os.write(descriptor, b"\n")  # ends the line that a crash cut short
        except OSError:
            os.close(descriptor)
            raise
        return descriptor
