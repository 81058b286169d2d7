"""What an eviction policy sees of what could go: a resident of a device, a snapshot on a disk."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


class Candidate(Protocol):
    """Anything that holds bytes; times are seconds of the clock that `now` is read from."""

    @property
    def size_bytes(self) -> int: ...
    @property
    def last_used_at(self) -> float: ...
    @property
    def load_seconds(self) -> float: ...
    @property
    def uses(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidentView:
    """One resident; times are seconds of the clock that `now` is read from."""

    id: str
    key: str
    """The cache key of its resolution."""
    device: str
    size_bytes: int
    last_used_at: float
    load_seconds: float
    """What its reload is expected to take."""
    uses: int = 1
    in_flight: int = 0
    leased_until: float | None = None
    pinned: bool = False

    def is_evictable(self, now: float) -> bool:
        """Whether nobody has a right to it: no pin, no lease, no request under way."""
        leased = self.leased_until is not None and self.leased_until > now
        return not (self.pinned or leased or self.in_flight > 0)


Policy = Callable[[Candidate, float], float]
"""(candidate, now) -> what is lost with it; the least is evicted first."""
