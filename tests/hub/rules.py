"""The fault rules in force, with how often each has met a request."""

import re
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.hub.faults import Fault, FaultRule, Origin, Rate


class Pacer:
    """A line that lets bytes pass at a rate, whoever sends them."""

    def __init__(self, bytes_per_second: float) -> None:
        self.bytes_per_second = bytes_per_second
        self._lock = threading.Lock()
        self._free_at = 0.0

    def reserve(self, count_bytes: int) -> float:
        """Seconds to wait before so many bytes have had their time on the line."""
        with self._lock:
            now = time.monotonic()
            self._free_at = max(now, self._free_at) + count_bytes / self.bytes_per_second
            return self._free_at - now


@dataclass(slots=True, kw_only=True)
class LiveRule:
    """A rule in force; `over` is set when it is cleared, which lets go whom it holds."""

    number: int
    rule: FaultRule
    matched: int = 0
    fired: int = 0
    over: threading.Event = field(default_factory=threading.Event)
    pacer: Pacer | None = None

    @property
    def fault(self) -> Fault:
        return self.rule.fault

    def matches(self, origin: Origin, method: str, path: str) -> bool:
        rule = self.rule
        return (
            rule.origin in (None, origin)
            and rule.method in (None, method)
            and re.search(rule.path, path) is not None
        )

    def take(self) -> bool:
        """Count a match; whether the fault is for this one."""
        self.matched += 1
        place = self.matched - self.rule.skip
        due = place > 0 and (self.rule.times is None or place <= self.rule.times)
        self.fired += due
        return due


class Rules:
    """Every rule in force; each request takes those that are meant for it, once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._live: dict[int, LiveRule] = {}
        self._last_number = 0

    def add(self, rule: FaultRule) -> int:
        """Put a rule in force; its number clears it again."""
        re.compile(rule.path)
        with self._lock:
            self._last_number += 1
            number = self._last_number
            pacer = Pacer(rule.fault.bytes_per_second) if isinstance(rule.fault, Rate) else None
            self._live[number] = LiveRule(number=number, rule=rule, pacer=pacer)
        return number

    def clear(self, numbers: Iterable[int] | None = None) -> None:
        with self._lock:
            for number in list(self._live) if numbers is None else numbers:
                live = self._live.pop(number, None)
                if live is not None:
                    live.over.set()

    def take(self, origin: Origin, method: str, path: str) -> list[LiveRule]:
        """The rules that meet this request, in the order they were added."""
        with self._lock:
            met = [live for live in self._live.values() if live.matches(origin, method, path)]
            return [live for live in met if live.take()]

    def list_fired(self) -> dict[int, int]:
        with self._lock:
            return {number: live.fired for number, live in self._live.items()}
