"""Every request the origins got, with the body bytes that went out for it."""

import re
import threading
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from tests.hub.faults import Origin


class Traffic(StrEnum):
    METADATA = "metadata"
    FILE = "file"


@dataclass(slots=True, kw_only=True)
class Entry:
    """One request; only the thread that answers it writes here.

    `sent_bytes` is raised just before bytes are handed to the kernel, so a client that has read
    its last byte always finds it counted.
    """

    origin: Origin
    method: str
    path: str
    has_token: bool
    range: str | None
    repository: str | None = None
    file: str | None = None
    traffic: Traffic = Traffic.METADATA
    status: int | None = None
    sent_bytes: int = 0

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in Entry.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which entries are meant; None is any, `path` is searched for as a regular expression."""

    origin: Origin | None = None
    method: str | None = None
    path: str | None = None
    repository: str | None = None
    traffic: Traffic | None = None

    def holds(self, entry: Entry) -> bool:
        return (
            self.origin in (None, entry.origin)
            and self.method in (None, entry.method)
            and self.repository in (None, entry.repository)
            and self.traffic in (None, entry.traffic)
            and (self.path is None or re.search(self.path, entry.path) is not None)
        )


@dataclass(slots=True)
class Journal:
    """The entries since the last reset; an answer under way then is no longer counted."""

    _entries: list[Entry] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _ended: bool = False

    def arrive(self, entry: Entry) -> None:
        with self._changed:
            self._entries.append(entry)
            self._changed.notify_all()

    def account(self, entry: Entry, sent_bytes: int) -> None:
        with self._changed:
            entry.sent_bytes += sent_bytes
            self._changed.notify_all()

    def reset(self) -> None:
        with self._changed:
            self._entries = []

    def list_entries(self, selection: Selection) -> list[Entry]:
        with self._changed:
            return [entry for entry in self._entries if selection.holds(entry)]

    def count(self) -> list[dict[str, Any]]:
        """Requests and bytes by origin, method, path, repository, file and kind of traffic."""
        requests: Counter[tuple[Any, ...]] = Counter()
        sent: Counter[tuple[Any, ...]] = Counter()
        for entry in self.list_entries(Selection()):
            named = (entry.repository, entry.file, entry.traffic)
            key = (entry.origin, entry.method, entry.path, *named)
            requests[key] += 1
            sent[key] += entry.sent_bytes
        names = ("origin", "method", "path", "repository", "file", "traffic")
        return [
            {**dict(zip(names, key, strict=True)), "requests": many, "sent_bytes": sent[key]}
            for key, many in requests.items()
        ]

    def wait(
        self, selection: Selection, *, requests: int, sent_bytes: int, timeout_seconds: float
    ) -> bool:
        """Whether so many requests arrived and bytes went out within the time."""

        def has_come() -> bool:
            held = [entry for entry in self._entries if selection.holds(entry)]
            return len(held) >= requests and sum(entry.sent_bytes for entry in held) >= sent_bytes

        with self._changed:
            self._changed.wait_for(lambda: self._ended or has_come(), timeout_seconds)
            return has_come()

    def end_waits(self) -> None:
        """Let go everybody who waits: the Hub stops."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
