"""One file as it arrives: preallocated on disk, its pieces handed out, filled and given back."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from threading import Condition

from blake3 import blake3

from warmrack_store.facts import FileFact
from warmrack_store.pieces import Piece
from warmrack_workers.fetch.journal import Journal, Mark

_OPEN_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_BYTES = 2**20


class PieceState(IntEnum):
    WANTED = 0
    CLAIMED = 1
    """A connection is at it."""
    KEPT = 2
    """An earlier fetch left it; it is checked when it is read."""
    HERE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Pieces `first` up to, not including, `last`, asked for in one request."""

    first: int
    last: int
    start: int
    """In bytes; behind the beginning of `first` where some of that one is here."""
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """What is known of a piece that is here."""

    index: int
    blake3: str
    source: str


class Part:
    """Several connections fill it, one thread follows behind; every call is safe from any thread.

    `changed` tells the follower, and whoever waits for a stretch, that something has moved.
    """

    def __init__(
        self,
        file: FileFact,
        location: Path,
        journal: Journal,
        pieces: tuple[Piece, ...],
        changed: Condition,
    ) -> None:
        self.file = file
        self.location = location
        self.pieces = pieces
        self.failures = 0
        """In a row that brought no byte."""
        self.rest_until = 0.0
        self.trusts_peers = True
        """Until the whole file turns out to be wrong."""
        self.error: BaseException | None = None
        self.arrived: dict[int, Arrived] = {}
        self._journal = journal
        self._changed = changed
        self._states = [PieceState.WANTED] * len(pieces)
        self._marks: dict[int, Mark] = {}
        self._next = 0
        self._users = 1
        self._descriptor = os.open(location, _OPEN_FLAGS, 0o600)
        self._load()

    def _load(self) -> None:
        """What the journal says, where the part can hold it."""
        if os.fstat(self._descriptor).st_size != self.file.size:
            self._journal.remove()
            os.ftruncate(self._descriptor, 0)
            return
        self._marks = self._journal.read()
        for index, mark in self._marks.items():
            if mark.size_bytes == self.pieces[index].size_bytes:
                self._states[index] = PieceState.KEPT

    def allocate(self) -> None:
        """Take the room on disk; OSError (ENOSPC, EDQUOT) leaves the disk as it was."""
        if self.file.size == 0 or self.allocated_bytes >= self.file.size:
            return
        before_bytes = os.fstat(self._descriptor).st_size
        try:
            os.posix_fallocate(self._descriptor, 0, self.file.size)
        except OSError:
            os.ftruncate(self._descriptor, before_bytes)
            raise

    @property
    def allocated_bytes(self) -> int:
        return os.fstat(self._descriptor).st_blocks * 512

    @property
    def kept_bytes(self) -> int:
        """Bytes that an earlier fetch left."""
        return sum(mark.size_bytes for mark in self._marks.values())

    @property
    def ahead_bytes(self) -> int:
        """From the first piece that nobody was at to the end."""
        with self._changed:
            is_any = self._next < len(self.pieces)
            return self.file.size - self.pieces[self._next].start if is_any else 0

    def claim(self, most_bytes: int, *, to_the_end: bool = False) -> Stretch | None:
        """The first pieces that nobody is at, so many bytes at most but one piece at least.

        `to_the_end` is for a source that cannot give ranges: all that is left is one stretch, once
        nobody else is at any.
        """
        with self._changed:
            first = self._find_wanted()
            if first is None or (to_the_end and PieceState.CLAIMED in self._states):
                return None
            start = self.pieces[first].start
            last = first + 1
            if to_the_end:
                last = len(self.pieces)
            while self._is_joined(last) and self.pieces[last].end - start <= most_bytes:
                last += 1
            for index in range(first, last):
                if self._states[index] is PieceState.WANTED:
                    self._states[index] = PieceState.CLAIMED
            self._next = last
            self._users += 1
            return Stretch(
                first=first,
                last=last,
                start=start + self.kept_of(first),
                end=self.pieces[last - 1].end,
            )

    def _find_wanted(self) -> int | None:
        for index in range(self._next, len(self.pieces)):
            if self._states[index] is PieceState.WANTED:
                return index
        return None

    def _is_joined(self, index: int) -> bool:
        """Whether a stretch may go on through this piece: wanted, and from its first byte."""
        return (
            index < len(self.pieces)
            and self._states[index] is PieceState.WANTED
            and not self.kept_of(index)
        )

    def kept_of(self, index: int) -> int:
        mark = self._marks.get(index)
        return mark.size_bytes if mark is not None else 0

    def state(self, index: int) -> PieceState:
        return self._states[index]

    def wait_here(self, index: int, seconds: float) -> bool:
        """Whether the piece is here, after so many seconds at most."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._states[index] is PieceState.HERE, timeout=seconds
            )

    def open_piece(self, index: int) -> "tuple[int, blake3]":
        """Where a piece is to be gone on with, and the hash so far. A kept beginning that is not
        what its mark says is dropped: then the place is not the stretch's own start."""
        piece, mark = self.pieces[index], self._marks.get(index)
        hasher = blake3()
        if mark is None:
            return piece.start, hasher
        self.read(piece.start, piece.start + mark.size_bytes, hasher.update)
        if hasher.hexdigest() == mark.blake3:
            return piece.start + mark.size_bytes, hasher
        self.drop_mark(index)
        return piece.start, blake3()

    def read(self, start: int, end: int, on_block: Callable[[memoryview], object]) -> None:
        buffer = memoryview(bytearray(min(_READ_BYTES, max(end - start, 1))))
        position = start
        while position < end:
            view = buffer[: min(len(buffer), end - position)]
            count = os.preadv(self._descriptor, [view], position)
            if not count:
                raise OSError(f"{self.location} ends at {position}, before {end}")
            on_block(view[:count])
            position += count

    def write(self, view: memoryview, position: int) -> None:
        while view:
            count = os.pwrite(self._descriptor, view, position)
            position += count
            view = view[count:]

    def mark(self, mark: Mark) -> None:
        """Note a piece's beginning, so that a kill costs only what comes after it."""
        with self._changed:
            self._journal.add(mark)
            self._marks[mark.index] = mark

    def drop_mark(self, index: int) -> None:
        with self._changed:
            self._marks.pop(index, None)

    def finish(self, arrived: Arrived) -> None:
        index = arrived.index
        size_bytes = self.pieces[index].size_bytes
        with self._changed:
            if len(self.pieces) > 1:
                self._journal.add(Mark(index=index, size_bytes=size_bytes, blake3=arrived.blake3))
            self._marks.pop(index, None)
            self._states[index] = PieceState.HERE
            self.arrived[index] = arrived
            self._changed.notify_all()

    def reopen(self, index: int) -> None:
        """Want a piece again, from its first byte."""
        with self._changed:
            self._marks.pop(index, None)
            self.arrived.pop(index, None)
            self._states[index] = PieceState.WANTED
            self._next = min(self._next, index)
            self._changed.notify_all()

    def release(self, stretch: Stretch) -> None:
        """Give back what of a stretch is not here, and what was opened for it."""
        with self._changed:
            for index in range(stretch.first, stretch.last):
                if self._states[index] is PieceState.CLAIMED:
                    self._states[index] = PieceState.WANTED
                    self._next = min(self._next, index)
            self._changed.notify_all()
        self.close()

    def kept_mark(self, index: int) -> Mark:
        return self._marks[index]

    def accept(self, index: int) -> None:
        """A kept piece was read and is what its mark says."""
        with self._changed:
            mark = self._marks.pop(index)
            self._states[index] = PieceState.HERE
            self.arrived[index] = Arrived(index=index, blake3=mark.blake3, source="")

    def publish(self, target: Path, mode: int) -> os.stat_result:
        """Move the whole file to its place, safe against a power cut; its `stat`."""
        os.fchmod(self._descriptor, mode)
        os.fsync(self._descriptor)
        self.location.rename(target)
        self._journal.remove()
        return os.fstat(self._descriptor)

    def sync(self) -> None:
        """Let the disk begin with what is here, so that the end does not wait for all of it."""
        os.fdatasync(self._descriptor)

    def remove(self) -> None:
        self.location.unlink(missing_ok=True)
        self._journal.remove()

    def fail(self, error: BaseException) -> None:
        with self._changed:
            self.error = self.error or error
            self._changed.notify_all()

    def close(self) -> None:
        """Once for the owner and once for each stretch; the last one closes the file."""
        with self._changed:
            self._users -= 1
            if self._users == 0:
                os.close(self._descriptor)
                self._journal.close()
