"""The files that arrive on this node right now, for other nodes that read them meanwhile."""

import threading
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from warmrack_workers.fetch.part import Part

_Key = tuple[str, str]


@dataclass(slots=True)
class Arriving:
    """Written by fetches, read by the mirror's threads. By repository and the file's digest."""

    _changed: threading.Condition = field(default_factory=threading.Condition)
    _expected: Counter[_Key] = field(default_factory=Counter)
    _parts: dict[_Key, Part] = field(default_factory=dict)

    @contextmanager
    def entered(self, repository: str, digests: Collection[str]) -> Iterator[None]:
        """While a fetch runs that will bring these files, in whatever order."""
        keys = [(repository, digest) for digest in digests]
        with self._changed:
            self._expected.update(keys)
        try:
            yield
        finally:
            with self._changed:
                self._expected.subtract(keys)
                self._expected += Counter()  # forgets what nobody expects any more
                self._changed.notify_all()

    def start(self, repository: str, part: Part) -> None:
        with self._changed:
            self._parts[repository, part.file.digest] = part
            self._changed.notify_all()

    def end(self, repository: str, part: Part) -> None:
        """It is whole, or given up."""
        with self._changed:
            key = repository, part.file.digest
            if self._parts.get(key) is part:
                del self._parts[key]
            self._changed.notify_all()

    def is_expected(self, repository: str, digest: str) -> bool:
        with self._changed:
            return self._expected[repository, digest] > 0

    def find_part(self, repository: str, digest: str, wait_seconds: float = 0.0) -> Part | None:
        """The part, after so many seconds at most; None where there is none by then."""
        with self._changed:
            key = repository, digest
            self._changed.wait_for(
                lambda: key in self._parts or not self._expected[key], wait_seconds
            )
            return self._parts.get(key)
