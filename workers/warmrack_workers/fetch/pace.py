"""How many connections a fetch keeps, by what they bring; pure."""

from dataclasses import dataclass, replace

_WORTH = 0.25
"""Of what more connections would bring if each brought its share: so much must come for them to be
kept. Where the server limits each, all of it does; where the line is full already, nothing."""
_TRIAL_LOOKS = 3
"""Looks that a step up gets to prove itself: a connection over TLS takes some round trips before its
first byte."""
_QUIET_LOOKS = 30
"""Looks without a change before one more connection is tried again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """The number now, and what the last step up has to bring."""

    connections: int = 2
    most: int = 8
    before: int | None = None
    """Where the last step up came from, while it is on trial."""
    needed: float = 0.0
    """Bytes a second that justify it."""
    settled: bool = False
    """Whether a step up has failed; from then on they are small and rare."""
    quiet_looks: int = 0

    def look(self, rate: float) -> "Pace":
        """The pace after a while in which `rate` bytes a second came."""
        if self.before is not None and rate < self.needed:
            if self.quiet_looks + 1 < _TRIAL_LOOKS:
                return replace(self, quiet_looks=self.quiet_looks + 1)
            return self._rest(self.before)
        if self.settled and self.quiet_looks < _QUIET_LOOKS:
            return replace(self, before=None, quiet_looks=self.quiet_looks + 1)
        more = self.connections + 1 if self.settled else self.connections * 2
        more = min(more, self.most)
        if more <= self.connections or rate <= 0:
            return replace(self, before=None, quiet_looks=0)
        needed = rate * (1 + _WORTH * (more / self.connections - 1))
        return replace(
            self, connections=more, before=self.connections, needed=needed, quiet_looks=0
        )

    def back_off(self) -> "Pace":
        """After a 429, a 503 or a broken connection."""
        return self._rest(max(1, self.connections // 2))

    def _rest(self, connections: int) -> "Pace":
        return replace(self, connections=connections, before=None, settled=True, quiet_looks=0)
