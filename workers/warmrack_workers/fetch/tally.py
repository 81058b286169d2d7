"""How many bytes of a fetch are here, by where they came from."""

import threading
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchProgress:
    """Each distinct blob counts once; `bytes_done` goes back where bytes turn out to be wrong."""

    bytes_done: int
    bytes_total: int


class Tally:
    """Counts that several threads write and one reads."""

    __slots__ = ("_local_bytes", "_lock", "_received_bytes", "_resumed_bytes", "_total_bytes")

    def __init__(self, total_bytes: int) -> None:
        self._lock = threading.Lock()
        self._total_bytes = total_bytes
        self._local_bytes = self._received_bytes = self._resumed_bytes = 0

    def add_local(self, size_bytes: int) -> None:
        """Bytes of a whole blob that was here; negative where it turned out to be wrong."""
        with self._lock:
            self._local_bytes += size_bytes

    def add_resumed(self, size_bytes: int) -> None:
        """Bytes that an earlier, interrupted fetch left."""
        with self._lock:
            self._resumed_bytes += size_bytes

    def add_received(self, size_bytes: int) -> None:
        with self._lock:
            self._received_bytes += size_bytes

    @property
    def received_bytes(self) -> int:
        with self._lock:
            return self._received_bytes

    @property
    def local_bytes(self) -> int:
        with self._lock:
            return self._local_bytes

    @property
    def resumed_bytes(self) -> int:
        with self._lock:
            return self._resumed_bytes

    @property
    def progress(self) -> FetchProgress:
        with self._lock:
            done = self._local_bytes + self._resumed_bytes + self._received_bytes
        return FetchProgress(bytes_done=done, bytes_total=self._total_bytes)
